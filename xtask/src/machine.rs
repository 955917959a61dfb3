//! What this machine is: facts by cheap looks (stat, one small file), so that a second `setup` costs nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::workspace::{cargo_home, output, rustup_home};

/// The workspace's `rust-version`: an older compiler builds nothing here.
pub(crate) const RUST_MIN: (u32, u32) = (1, 95);
/// The release of bpf-linker that we build with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// Debian's compiler, of package rustc-web.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;

/// A compiler that can build for `bpfel-unknown-none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// `/usr/bin/rustc` of this version, with Debian's prebuilt `core` for BPF.
    Debian(String),
    /// A rustup toolchain with rust-src, by name; `core` is built along.
    Nightly(String),
}

/// A program of that name, in PATH or where distributions and cargo put such programs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(usual)
        .chain([cargo_home().join("bin")])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    status_field("Uid").is_some_and(|uids| effective_uid(&uids) == Some(0))
}

/// Whether a program we start may load BPF programs and attach them to interfaces.
pub(crate) fn may_load_bpf() -> bool {
    status_field("CapEff")
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(capabilities_load_bpf)
}

/// The compiler for the kernel half, if there is one; Debian's first, because it needs no nightly.
pub(crate) fn bpf_compiler() -> Option<Compiler> {
    debian_compiler().or_else(nightly_compiler)
}

/// Whether bpf-linker is there, in the release that we want or a later one of the same series.
pub(crate) fn has_bpf_linker() -> bool {
    let Some(path) = program("bpf-linker") else { return false };
    output(Command::new(path).arg("--version")).is_some_and(|text| linker_fits(&text))
}

/// An LLVM that bpf-linker can be built on: its prefix and its major version.
pub(crate) fn llvm() -> Option<(PathBuf, u32)> {
    let debian = Path::new("/usr/lib/llvm-22");
    if debian.join("bin/llvm-config").is_file() && debian.join("include/llvm-c").exists() {
        return Some((debian.to_path_buf(), 22));
    }
    let config = program("llvm-config")?;
    let version = output(Command::new(&config).arg("--version"))?;
    let major = version.split('.').next()?.parse().ok().filter(|major| (22..=23).contains(major))?;
    let prefix = output(Command::new(&config).arg("--prefix"))?;
    Some((PathBuf::from(prefix.trim()), major))
}

fn debian_compiler() -> Option<Compiler> {
    let core = fs::read_dir(DEBIAN_BPF_CORE).ok()?.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
    });
    if !core {
        return None;
    }
    let text = output(Command::new(DEBIAN_RUSTC).arg("--version"))?;
    let version = text.split_whitespace().nth(1)?;
    is_new_enough(version).then(|| Compiler::Debian(version.to_owned()))
}

fn nightly_compiler() -> Option<Compiler> {
    program("rustup")?;
    let mut names: Vec<String> = fs::read_dir(rustup_home().join("toolchains"))
        .ok()?
        .flatten()
        .filter(|entry| entry.path().join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly-"))
        .collect();
    // A dated nightly was installed for something else; `nightly-x86_64-...` sorts after `nightly-2026-...`.
    names.sort_unstable();
    names.pop().map(Compiler::Nightly)
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
}

/// Second of the four ids in `Uid:` of proc(5).
fn effective_uid(uids: &str) -> Option<u32> {
    uids.split_whitespace().nth(1)?.parse().ok()
}

fn capabilities_load_bpf(effective: u64) -> bool {
    let both = CAP_BPF | CAP_NET_ADMIN;
    effective & both == both || effective & CAP_SYS_ADMIN != 0
}

/// `version` starts with major.minor, as in `1.96.0` and Debian's `1.96.0+dfsg1-1`.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= RUST_MIN,
        _ => false,
    }
}

/// `bpf-linker 0.13.N`, N at least that of [`LINKER_VERSION`].
fn linker_fits(text: &str) -> bool {
    let wanted: Vec<&str> = LINKER_VERSION.split('.').collect();
    let found: Vec<&str> = text.split_whitespace().nth(1).unwrap_or_default().split('.').collect();
    let patch = |version: &[&str]| version.get(2).and_then(|number| number.parse::<u32>().ok());
    found.len() == 3 && found[..2] == wanted[..2] && patch(&found) >= patch(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_versions_are_compared_by_number() {
        for version in ["1.95.0", "1.96.0+dfsg1-1~deb12u2", "1.100.0", "2.0.0"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["1.94.1", "1.9.0", "1.85.0+dfsg3-1~deb12u3", "(none)", ""] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn linker_of_another_series_does_not_fit() {
        for text in ["bpf-linker 0.13.0\n", "bpf-linker 0.13.7"] {
            assert!(linker_fits(text), "{text}");
        }
        for text in ["bpf-linker 0.12.9", "bpf-linker 1.13.0", "bpf-linker", "", "bpf-linker 0.13"] {
            assert!(!linker_fits(text), "{text}");
        }
    }

    #[test]
    fn loading_needs_both_capabilities_or_sys_admin() {
        assert!(capabilities_load_bpf(CAP_BPF | CAP_NET_ADMIN));
        assert!(capabilities_load_bpf(CAP_SYS_ADMIN));
        assert!(!capabilities_load_bpf(CAP_BPF));
        assert!(!capabilities_load_bpf(CAP_NET_ADMIN));
        assert!(!capabilities_load_bpf(0));
    }

    #[test]
    fn effective_uid_is_the_second() {
        assert_eq!(effective_uid("\t1000\t0\t0\t0"), Some(0));
        assert_eq!(effective_uid("\t0\t1000\t0\t0"), Some(1000));
        assert_eq!(effective_uid(""), None);
    }
}
