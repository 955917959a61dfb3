//! `demo`: the tour, a program of the test harness.

use std::{
    os::unix::process::CommandExt,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf, machine,
    needs::Group,
    run::build_release,
    setup,
    workspace::{Workspace, run},
};

/// Builds `lb` and the tour, and becomes the tour: a Ctrl-C reaches nobody but it.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    if !machine::is_root() {
        bail!("demo makes network namespaces and loads BPF: run it as root");
    }
    setup::ensure(workspace, &[Group::Build, Group::Bpf, Group::Test])?;
    build_ebpf::build(workspace)?;
    build_release(workspace)?;
    run(workspace.cargo().args(["build", "--release", "-p", "lb-tests", "--bin", "demo"]))?;
    let demo = workspace.built("release", "demo");
    let lb = workspace.built("release", "lb");
    let error = workspace.command(&demo).stdin(Stdio::inherit()).env("LB_BIN", lb).args(arguments).exec();
    Err(error).with_context(|| format!("exec {}", demo.display()))
}
