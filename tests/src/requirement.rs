//! What a host must offer for the namespace tests.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use crate::{daemon, xdp::kernel};

/// Programs that all of the tests run, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("nginx", "nginx-light"),
    ("curl", "curl"),
];

/// What keeps the tests from running here, or nothing.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root: namespaces, XDP and bpffs need it".to_owned());
    }
    let absent = |(program, _): &&(&str, &str)| !is_installed(program);
    if let Some((program, package)) = PROGRAMS.iter().find(absent) {
        return Some(format!("{program} is not installed (Debian: apt-get install {package})"));
    }
    if let Err(error) = probe_namespaces() {
        return Some(format!("no network namespaces: {error}"));
    }
    if let Err(error) = io_uring::IoUring::new(2) {
        return Some(format!("no io_uring: {error} (see sysctl kernel.io_uring_disabled)"));
    }
    if !fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.lines().any(|line| line == "nodev\tbpf"))
    {
        return Some("the kernel has no bpf file system".to_owned());
    }
    if !kernel::object().exists() {
        return Some(format!("no object at {} (cargo xtask build-ebpf)", kernel::object().display()));
    }
    if let Err(error) = daemon::binary() {
        return Some(format!("{error:#}"));
    }
    None
}

/// Whether tests may run; says why not. Under `CI` a test that cannot run has failed.
///
/// # Panics
/// Something is missing and the variable `CI` is set.
pub fn is_met() -> bool {
    let Some(missing) = missing() else { return true };
    assert!(env::var_os("CI").is_none(), "cannot run here, which is a failure under CI: {missing}");
    eprintln!("SKIPPED: {missing}");
    false
}

/// Whether a program is there that only some tests run; says so if not. Under `CI` that is a failure.
///
/// # Panics
/// It is not there, and the variable `CI` is set.
pub fn is_there(program: &str, package: &str) -> bool {
    if is_installed(program) {
        return true;
    }
    let missing = format!("{program} is not installed (Debian: apt-get install {package})");
    assert!(env::var_os("CI").is_none(), "cannot run here, which is a failure under CI: {missing}");
    eprintln!("SKIPPED: {missing}");
    false
}

/// The same of a file.
///
/// # Panics
/// It is not there, and the variable `CI` is set.
pub fn is_file_there(file: &str, package: &str) -> bool {
    if Path::new(file).exists() {
        return true;
    }
    let missing = format!("{file} is not there (Debian: apt-get install {package})");
    assert!(env::var_os("CI").is_none(), "cannot run here, which is a failure under CI: {missing}");
    eprintln!("SKIPPED: {missing}");
    false
}

/// Whether the kernel makes VLAN devices; says so if not.
pub fn has_vlans() -> bool {
    let mut probe = Command::new("ip");
    // Always refused: for want of a number, where the kernel knows the type.
    probe.args(["link", "add", "link", "lo", "name", "lbtest-vlan", "type", "vlan"]);
    let unknown = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("Unknown device type");
    if !probe.output().is_ok_and(|output| unknown(&output)) {
        return true;
    }
    eprintln!("SKIPPED: the kernel makes no VLAN devices (CONFIG_VLAN_8021Q)");
    false
}

fn probe_namespaces() -> anyhow::Result<()> {
    let name = format!("{}-probe-{:?}", crate::scene::prefix(), std::thread::current().id());
    crate::netns::Namespace::create(&name.replace(['(', ')'], "")).map(drop)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
