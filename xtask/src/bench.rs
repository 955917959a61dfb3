//! `bench`: builds lb, the harness and what is compared, and becomes the harness.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf, machine,
    needs::{Group, Step},
    peers::PeerStep,
    run::build_release,
    setup,
    workspace::{Workspace, run},
};

/// `bench list | report | SCENARIO [...]`. A peer that cannot be installed is no obstacle: the harness names it.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let Some(what) = arguments.first() else {
        bail!("bench takes `list`, `report` or a scenario");
    };
    if what != "list" && !arguments.iter().any(|argument| argument == "--help") {
        if !machine::is_root() {
            bail!("bench makes network namespaces: run it as root");
        }
        setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test, Group::Bench])?;
        if let Err(error) = setup::ensure(workspace, &[Group::Peers]).and_then(|()| pingora(workspace)) {
            eprintln!("bench: not every peer is there: {error:#}");
        }
    }
    let harness = build(workspace)?;
    let error = workspace
        .command(&harness)
        .stdin(Stdio::inherit())
        .env("LB_BIN", workspace.built("release", "lb"))
        .env("LB_BENCH_DIR", directory(workspace))
        .env("LB_BENCH_PEERS", workspace.root.join("bench/peers"))
        .args(arguments)
        .exec();
    Err(error).with_context(|| format!("exec {}", harness.display()))
}

/// One tiny round of what must not rot, for `ci`: no times are judged, only that every counter agrees.
pub(crate) fn alive(workspace: &Workspace) -> Result<ExitCode> {
    if !machine::is_root() {
        eprintln!("ci: not root: the harness is built, but no round is run");
        build(workspace)?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test, Group::Bench])?;
    let harness = build(workspace)?;
    for scenario in ALIVE {
        let mut command = workspace.command(&harness);
        command.args([scenario, "--tiny"]).env("LB_BIN", workspace.built("release", "lb"));
        // No peers of other registries: CI compiles none of them.
        command
            .env("LB_BENCH_DIR", directory(workspace))
            .env("LB_BENCH_PEERS", workspace.root.join("bench/peers"));
        if *scenario != "l4-program" {
            command.args(["--peers", "lb,nginx"]);
        }
        run(&mut command)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the Pingora proxy again where its sources have changed.
fn pingora(workspace: &Workspace) -> Result<()> {
    run(&mut setup::command(workspace, &Step::Peer(PeerStep::Pingora)))
}

/// What `ci` keeps alive.
const ALIVE: &[&str] = &["http1-small"];

/// Where the harness finds what was installed for it alone, and writes reports.
pub(crate) fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/bench")
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    build_ebpf::build(workspace)?;
    build_release(workspace)?;
    run(workspace.cargo().args(["build", "--release", "-p", "lb-bench"]))?;
    Ok(workspace.built("release", "lb-bench"))
}
