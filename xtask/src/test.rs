//! `test` and `e2e`: everything in the dev profile, built once, so that `lb` and its tests share what they compile.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf,
    needs::Group,
    setup,
    workspace::{Workspace, run},
};

/// `test [ARGS]`: units, properties, packet rows and namespace tests.
pub(crate) fn all(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    tests(workspace, &[], arguments)
}

/// `e2e [ARGS]`: the namespace tests alone.
pub(crate) fn e2e(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    // Of the whole workspace, although only one package has it: another selection would resolve other features
    // and compile the dependencies a second time.
    tests(workspace, &["--test", "e2e"], arguments)
}

fn tests(workspace: &Workspace, selection: &[&str], arguments: &[String]) -> Result<ExitCode> {
    let started = Instant::now();
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test])?;
    build_ebpf::build(workspace)?;
    run(workspace.cargo().args(["build", "--workspace", "--bins", "--tests"]))?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(selection)
        .args(arguments)
        .env("LB_BIN", workspace.built("debug", "lb"));
    let (total, passed) = count(&mut cargo)?;
    println!("total: {total}, {:.1} s", started.elapsed().as_secs_f64());
    if passed && total.suites == 0 {
        bail!("no test ran");
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `cargo test`, shows what it says as it says it, and adds up its result lines.
fn count(cargo: &mut Command) -> Result<(Total, bool)> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut total = Total::default();
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut line = Vec::new();
    // Bytes, not lines of UTF-8: a failing test may print anything.
    while stdout.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        total.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok((total, child.wait()?.success()))
}

/// Sums over the test programs of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// Tests that did.
    pub(crate) passed: u64,
    /// Tests that did not.
    pub(crate) failed: u64,
    ignored: u64,
    suites: u64,
}

impl Total {
    /// Takes `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; other lines say nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.suites += 1;
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, ignored, suites } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored in {suites} test programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up_and_other_lines_do_not() {
        let mut total = Total::default();
        total.add("running 3 tests\n");
        total.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n",
        );
        total.add(
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
        );
        total.add("note: test result: ok. 9 passed; 9 failed\n");
        assert_eq!(total, Total { passed: 7, failed: 2, ignored: 1, suites: 2 });
        assert_eq!(total.to_string(), "7 passed, 2 failed, 1 ignored in 2 test programs");
    }
}
