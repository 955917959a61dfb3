//! `run`: builds everything and becomes `lb run`.

use std::{
    os::unix::process::CommandExt,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    build_ebpf,
    needs::Group,
    setup,
    workspace::{self, Workspace},
};

/// `run [-- ARGS]`. Where the host lets us build or load no BPF, says what is lost and goes on without.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let arguments = match arguments.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => arguments,
    };
    setup::ensure(workspace, &[Group::Build])?;
    kernel_half(workspace)?;
    build_release(workspace)?;
    let lb = workspace.built("release", "lb");
    let error = workspace.command(&lb).stdin(Stdio::inherit()).arg("run").args(arguments).exec();
    Err(error).with_context(|| format!("exec {}", lb.display()))
}

/// Builds `lb` in the release profile.
pub(crate) fn build_release(workspace: &Workspace) -> Result<()> {
    workspace::run(workspace.cargo().args(["build", "--release", "-p", "lb"]))
}

/// Builds the object if it can be built, and installs the toolchain for it only where `lb` may load it.
/// A toolchain that is there and fails is an error.
fn kernel_half(workspace: &Workspace) -> Result<()> {
    let may_load = build_ebpf::may_load();
    if !may_load {
        eprintln!("run: {}", build_ebpf::what_is_lost("loading takes root, or CAP_BPF and CAP_NET_ADMIN"));
    }
    if build_ebpf::toolchain().is_none() {
        let installed = if may_load { setup::ensure(workspace, &[Group::Bpf]) } else { Ok(()) };
        if let Err(error) = &installed {
            eprintln!("run: {error:#}");
            eprintln!("run: {}", build_ebpf::what_is_lost("no toolchain for it"));
        }
        if installed.is_err() || !may_load {
            return build_ebpf::forget(workspace);
        }
    }
    build_ebpf::build(workspace)
}
