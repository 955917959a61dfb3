//! `ci`: everything that has to pass before a change lands, each step timed.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    bench, build_ebpf,
    needs::Group,
    setup, test, tidy, vmtest,
    workspace::{self, Workspace},
};

type Step = fn(&Workspace) -> Result<ExitCode>;

/// In order of cost. The object comes before the lints, because `lb` embeds it: built later, it would have `lb`
/// compiled again.
const STEPS: [(&str, Step); 8] = [
    ("components", components),
    ("format", format),
    ("tidy", tidy::verb),
    ("setup and build-ebpf", build),
    ("lints", lints),
    ("test", |workspace| test::all(workspace, &[])),
    ("vmtest", |workspace| vmtest::verb(workspace, &[])),
    ("bench, one tiny round", bench::alive),
];

/// Runs all steps, also after one failed: whoever reads it wants all that is wrong.
pub(crate) fn verb(workspace: &Workspace) -> Result<ExitCode> {
    let mut report: Vec<(&str, bool, Duration)> = Vec::new();
    for (name, step) in STEPS {
        println!("ci: {name}");
        let started = Instant::now();
        let passed = match step(workspace) {
            Ok(code) => code == ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("ci: {name}: {error:#}");
                false
            }
        };
        report.push((name, passed, started.elapsed()));
    }
    for (name, passed, took) in &report {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("ci: {verdict} {:>7.1} s  {name}", took.as_secs_f64());
    }
    let passed = report.iter().all(|(_, passed, _)| *passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A minimal rustup profile brings neither.
fn components(workspace: &Workspace) -> Result<ExitCode> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(verb, _)| workspace::output(workspace.cargo().args([verb, "--version"])).is_none())
        .map(|(_, component)| component)
        .collect();
    if !missing.is_empty() {
        bail!("missing; install with: rustup component add {}", missing.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

fn format(workspace: &Workspace) -> Result<ExitCode> {
    workspace::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    Ok(ExitCode::SUCCESS)
}

fn build(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test])?;
    build_ebpf::build(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// `--locked`: a lock file that does not match the manifests is a finding too.
fn lints(workspace: &Workspace) -> Result<ExitCode> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    workspace::run(workspace.cargo().args(arguments))?;
    Ok(ExitCode::SUCCESS)
}
