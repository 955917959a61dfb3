//! `bench`: builds lb, the harness and what is compared, and becomes the harness.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
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

/// `bench list | report | agree | SCENARIO [...]`. A peer that cannot be installed is no obstacle: the harness names it.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let Some(what) = arguments.first() else {
        bail!("bench takes `list`, `report` or a scenario");
    };
    if what != "list" && what != "agree" && !arguments.iter().any(|argument| argument == "--help") {
        if !machine::is_root() {
            bail!("bench makes network namespaces: run it as root");
        }
        setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test, Group::Bench])?;
        if let Err(error) = setup::ensure(workspace, &[Group::Peers]).and_then(|()| pingora(workspace)) {
            eprintln!("bench: not every peer is there: {error:#}");
        }
    }
    build_ebpf::build(workspace)?;
    build_release(workspace)?;
    run(workspace.cargo().args(["build", "--release", "-p", "lb-bench"]))?;
    let mut harness = harness(workspace, "release");
    let error = harness.stdin(Stdio::inherit()).args(arguments).exec();
    Err(error).with_context(|| format!("exec {}", harness.get_program().display()))
}

/// One tiny round of what must not rot, for `ci`: no times are judged, only that every counter agrees. In the dev
/// profile, as `test` has just built it.
pub(crate) fn alive(workspace: &Workspace) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test, Group::Bench])?;
    build_ebpf::build(workspace)?;
    run(workspace.cargo().args(["build", "--workspace", "--bins", "--tests"]))?;
    if !machine::is_root() {
        bail!("not root: the harness is built, but it makes network namespaces and ran nothing");
    }
    for arguments in ALIVE {
        let mut harness = harness(workspace, "debug");
        run(harness.args(*arguments).arg("--tiny"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The harness of a profile, told where things are.
fn harness(workspace: &Workspace, profile: &str) -> Command {
    let mut command = workspace.command(workspace.built(profile, "lb-bench"));
    command
        .env("LB_BIN", workspace.built(profile, "lb"))
        .env("LB_BENCH_DIR", workspace.root.join("target/bench"))
        .env("LB_BENCH_PEERS", workspace.root.join("bench/peers"));
    command
}

/// Builds the Pingora proxy again where its sources have changed.
fn pingora(workspace: &Workspace) -> Result<()> {
    run(&mut setup::command(workspace, &Step::Peer(PeerStep::Pingora)))
}

/// What `ci` keeps alive; with peers that Debian has.
const ALIVE: &[&[&str]] = &[&["http1-small", "--peers", "lb,nginx"], &["l4-program"]];
