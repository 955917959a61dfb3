//! `fuzz`: the targets of `tests/fuzz` under libFuzzer, guided by coverage, on the stable compiler.
//!
//! What cargo-fuzz would ask a nightly for is asked of LLVM directly; only the address sanitizer is not to be had so. The
//! instrumented build has a profile and a target directory of its own, so that it and ordinary builds leave each other alone.
//! Chosen over bolero, afl and honggfuzz: a library and a C++ compiler are all it takes, where the others bring a cargo
//! subcommand and build AFL++ or honggfuzz, for which distributions have no headers at hand.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    needs::Group,
    setup,
    workspace::{self, Workspace},
};

/// Coverage counters, their places in the program, and operands of comparisons.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cforce-frame-pointers=yes",
];
/// What it runs for where nobody says.
const SECONDS: u64 = 60;
/// Longest input: no frame, head or config needs more to reach what there is.
const INPUT_BYTES_MAX: usize = 4096;

/// `fuzz list | TARGET [--seconds N] [FILE...]`; files are run once each, and nothing else is.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let targets = targets(&workspace.root.join("tests/fuzz/src/target"))?;
    let wanted = Wanted::read(arguments)?;
    if wanted.target == "list" {
        for (name, about) in &targets {
            println!("{name:<10} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !targets.iter().any(|(name, _)| *name == wanted.target) {
        let names: Vec<&str> = targets.iter().map(|(name, _)| &**name).collect();
        bail!("no target `{}`; there are {}", wanted.target, names.join(", "));
    }
    setup::ensure(workspace, &[Group::Build, Group::Fuzz])?;
    let program = build(workspace)?;
    run(workspace, &program, &wanted)
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: String,
    seconds: u64,
    files: Vec<String>,
}

impl Wanted {
    fn read(arguments: &[String]) -> Result<Self> {
        let Some((target, rest)) = arguments.split_first() else {
            bail!("fuzz takes `list` or a target");
        };
        let mut wanted = Self { target: target.clone(), seconds: SECONDS, files: Vec::new() };
        let mut rest = rest.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--seconds" => {
                    let number = rest.next().and_then(|number| number.parse().ok());
                    wanted.seconds =
                        number.filter(|number| *number > 0).context("--seconds takes a number")?;
                }
                option if option.starts_with('-') => bail!("fuzz takes --seconds, not `{option}`"),
                file => wanted.files.push(file.to_owned()),
            }
        }
        Ok(wanted)
    }
}

/// Names and first lines of the targets: a file each.
fn targets(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name != "mod" {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let about = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
            targets.push((name, about.to_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}

/// Builds the program that holds all targets.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = host(workspace)?;
    let target = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo();
    workspace::forget_build_settings(&mut cargo);
    // `--target`, even of the host, keeps the flags from build scripts and macros.
    cargo
        .args(["build", "--locked", "-p", "lb-fuzz", "--features", "libfuzzer", "--profile", "fuzz"])
        .args(["--target", &host])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    workspace::run(&mut cargo)?;
    Ok(target.join(host).join("fuzz/lb-fuzz"))
}

fn host(workspace: &Workspace) -> Result<String> {
    let rustc = workspace::output(workspace.command("rustc").arg("-vV")).context("rustc -vV says nothing")?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

fn run(workspace: &Workspace, program: &Path, wanted: &Wanted) -> Result<ExitCode> {
    let Wanted { target, seconds, files } = wanted;
    let directory = workspace.target.join("fuzz/corpus").join(target);
    let [grown, seeds, found] = ["grown", "seeds", "found"].map(|name| directory.join(name));
    for path in [&grown, &seeds, &found] {
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    }
    let mut fuzzer = workspace.command(program);
    fuzzer.env("LB_FUZZ_TARGET", target).env("LB_FUZZ_SEEDS", &directory).env("RUST_BACKTRACE", "1");
    if files.is_empty() {
        fuzzer
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-dict={}", directory.join("words").display()))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-timeout=10", "-use_value_profile=1", "-print_final_stats=1", "-verbosity=1"])
            .args([&grown, &seeds]);
        let kept = workspace.root.join("tests/fuzz/corpus").join(target);
        if kept.is_dir() {
            fuzzer.arg(kept);
        }
    } else {
        fuzzer.args(files);
    }
    if watch(&mut fuzzer)? {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "fuzz: `cargo xtask fuzz {target} FILE` runs what was found again; it lies in {}",
        found.display()
    );
    eprintln!("fuzz: make a plain test of it beside the code at fault");
    Ok(ExitCode::FAILURE)
}

/// Runs the fuzzer and shows what it says, save its line for each new input; says whether it ended well.
fn watch(fuzzer: &mut Command) -> Result<bool> {
    let failed = format!("cannot start {}", fuzzer.get_program().display());
    let mut child = fuzzer.stderr(Stdio::piped()).spawn().context(failed)?;
    let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut line = Vec::new();
    while stderr.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if !(text.starts_with('#') && ["NEW", "REDUCE", "RELOAD"].iter().any(|word| text.contains(word))) {
            std::io::stderr().write_all(&line)?;
        }
        line.clear();
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Wanted> {
        Wanted::read(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_a_target_seconds_and_files() {
        let wanted = |target: &str, seconds, files: &[&str]| Wanted {
            target: target.to_owned(),
            seconds,
            files: files.iter().map(|&file| file.to_owned()).collect(),
        };
        assert_eq!(read("list").unwrap(), wanted("list", SECONDS, &[]));
        assert_eq!(read("packet --seconds 5").unwrap(), wanted("packet", 5, &[]));
        assert_eq!(read("packet a b").unwrap(), wanted("packet", SECONDS, &["a", "b"]));
        for wrong in ["", "packet --seconds", "packet --seconds 0", "packet --seconds x", "packet --jobs 2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_target_says_what_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let targets = targets(&root.join("tests/fuzz/src/target")).unwrap();
        assert!(targets.len() > 5 && targets.iter().all(|(_, about)| about.len() > 20), "{targets:?}");
    }
}
