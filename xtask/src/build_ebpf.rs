//! `build-ebpf`: the kernel half, as one object with BTF at `target/bpf/lb.o`, which `lb` embeds; beside it
//! `bench.o`, what `lb-bench` wraps around the programs it measures.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::needs::Group;
use crate::{
    elf,
    machine::{self, Compiler, DEBIAN_RUSTC, LINKER_VERSION, bpf_compiler, has_bpf_linker},
    needs, setup,
    workspace::{Workspace, cargo_home, forget_build_settings, run},
};

const TARGET: &str = "bpfel-unknown-none";
/// bpf-linker is found in PATH; debuginfo is what BTF is made from. Instruction set v3 (Linux 5.1) has arithmetic and
/// jumps on 32 bits. Packets' headers lie on even addresses and no rounder ones, and are read four and eight bytes at
/// a time: processors and verifiers for x86-64 and arm64 allow it; a linker that does not know the feature takes such
/// reads apart byte by byte, which is slower and still right.
const FLAGS: [&str; 5] = [
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
];

/// Builds the object, after installing what that needs.
pub(crate) fn verb(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Bpf])?;
    build(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the object with the toolchain that is there. Leaves the file alone if nothing changed, so that `lb`
/// is not built again.
///
/// # Errors
/// No toolchain (with the commands for both routes), a build error, or an object that is none.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let Some(compiler) = toolchain() else {
        bail!("no toolchain for BPF; there are two routes.\n{}", needs::both_routes());
    };
    let route = match &compiler {
        Compiler::Debian(version) => format!("Debian's rustc {version} ({DEBIAN_RUSTC})"),
        Compiler::Nightly(name) => format!("rustup's {name} with rust-src"),
    };
    let directory = workspace.target.join("bpf-build");
    run(&mut command(workspace, &compiler, &directory)).with_context(|| format!("build-ebpf: by {route}"))?;
    let ours = workspace.bpf_object();
    for (binary, at) in [("lb-ebpf", ours.clone()), ("lb-bench-ebpf", ours.with_file_name("bench.o"))] {
        let built = directory.join(TARGET).join("release").join(binary);
        let object = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        elf::check_bpf_object(&object).with_context(|| format!("{}", built.display()))?;
        let state = place(&object, &at)?;
        let name = at.file_name().unwrap_or_default().display();
        println!(
            "build-ebpf: by {route}, bpf-linker {LINKER_VERSION}: target/bpf/{name}, {} KiB, {state}",
            object.len() >> 10
        );
    }
    Ok(())
}

/// A whole toolchain for BPF, compiler and linker, if there is one.
pub(crate) fn toolchain() -> Option<Compiler> {
    if has_bpf_linker() { bpf_compiler() } else { None }
}

/// Takes an object of an earlier build away, where this one is meant to have none.
pub(crate) fn forget(workspace: &Workspace) -> Result<()> {
    let object = workspace.bpf_object();
    if object.exists() {
        fs::remove_file(&object).with_context(|| format!("remove {}", object.display()))?;
    }
    Ok(())
}

fn command(workspace: &Workspace, compiler: &Compiler, directory: &Path) -> Command {
    let mut command = match compiler {
        Compiler::Debian(_) => {
            let mut command = workspace.cargo();
            forget_build_settings(&mut command);
            // aya-ebpf uses asm_experimental_arch, and Debian has no nightly.
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
            command
        }
        Compiler::Nightly(name) => {
            let mut command = workspace.command("rustup");
            forget_build_settings(&mut command);
            command.args(["run", name, "cargo", "build", "-Zbuild-std=core"]);
            command
        }
    };
    command
        .args(["--quiet", "--release", "--target", TARGET, "-p", "lb-ebpf", "--bins", "--features", "bpf"])
        .arg("--target-dir")
        .arg(directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        // Empty switches off what a cargo config may set; the release profile is tuned for the daemon.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([cargo_home().join("bin")]);
    if let Ok(path) = std::env::join_paths(directories) {
        command.env("PATH", path);
    }
    command
}

/// Writes the object unless it lies there already. A reader never sees half of it.
fn place(object: &[u8], at: &Path) -> Result<&'static str> {
    if fs::read(at).is_ok_and(|old| old == object) {
        return Ok("unchanged");
    }
    if let Some(directory) = at.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let new = at.with_extension("o.new");
    fs::write(&new, object).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, at).with_context(|| format!("rename to {}", at.display()))?;
    Ok("new")
}

/// One line for a person whose `lb` will run without its kernel half.
pub(crate) fn what_is_lost(reason: &str) -> String {
    format!(
        "no BPF here ({reason}): no L4 VIPs, and connections are spread over the cores by hash, not steered"
    )
}

/// Whether `lb`, started by us, may load the object.
pub(crate) fn may_load() -> bool {
    machine::may_load_bpf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_is_not_touched() {
        let directory = std::env::temp_dir().join(format!("xtask-{}-place", std::process::id()));
        let file = directory.join("bpf/lb.o");
        assert_eq!(place(b"one", &file).unwrap(), "new");
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(place(b"one", &file).unwrap(), "unchanged");
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first);
        assert_eq!(place(b"two", &file).unwrap(), "new");
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.join("bpf")).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
