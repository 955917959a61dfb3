//! What the benchmarks compare with and neither Debian nor PyPI have: oha from the Rust registry, and our Pingora proxy,
//! which is a crate outside the workspace and stays below `target/bench`.

use crate::{machine::program, workspace::Workspace};

const OHA_VERSION: &str = "1.16.0";
const PINGORA: &str = "bench/peers/pingora";
const PINGORA_TARGET: &str = "target/bench/pingora";

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    /// The load generator.
    oha: bool,
    /// The proxy; whether it is up to date is for cargo to say.
    pingora: bool,
    /// What Pingora's C parts are built with; asked only where that is missing.
    cmake: bool,
}

/// One thing to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerStep {
    /// Install oha where cargo installs programs.
    Oha,
    /// Build the proxy: minutes, once.
    Pingora,
}

impl PeerFacts {
    /// Cheap where nothing is missing: files are looked at, no program is started.
    pub(crate) fn look(workspace: &Workspace) -> Self {
        let built = workspace.root.join(PINGORA_TARGET).join("release/lb-bench-pingora");
        let pingora = built.is_file();
        Self { oha: program("oha").is_some(), pingora, cmake: pingora || program("cmake").is_some() }
    }

    /// What is missing, as a person reads it.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let all =
            [(self.oha, "oha (load in an open loop)"), (self.pingora, "the Pingora proxy (a baseline)")];
        all.into_iter().filter(|(there, _)| !there).map(|(_, what)| what).collect()
    }

    /// Debian packages that the steps need.
    pub(crate) fn packages(&self) -> Vec<&'static str> {
        if self.cmake { Vec::new() } else { vec!["cmake"] }
    }

    /// What has to be done, in order of cost.
    pub(crate) fn steps(&self) -> Vec<PeerStep> {
        let mut steps = Vec::new();
        if !self.oha {
            steps.push(PeerStep::Oha);
        }
        if !self.pingora {
            steps.push(PeerStep::Pingora);
        }
        steps
    }
}

impl PeerStep {
    /// The step as a person would type it in the root directory; words are apart by one space.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Oha => format!("cargo install oha --version {OHA_VERSION} --locked"),
            Self::Pingora => format!(
                "cargo build --release --locked --manifest-path {PINGORA}/Cargo.toml --target-dir {PINGORA_TARGET}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing_is_nothing_to_do() {
        let facts = PeerFacts { oha: true, pingora: true, cmake: true };
        assert_eq!(facts.steps(), []);
        assert!(facts.packages().is_empty() && facts.missing().is_empty());
    }

    #[test]
    fn a_bare_machine_takes_a_package_and_two_steps() {
        let facts = PeerFacts::default();
        assert_eq!(facts.packages(), ["cmake"]);
        assert_eq!(facts.steps(), [PeerStep::Oha, PeerStep::Pingora]);
        assert_eq!(facts.missing().len(), 2);
    }
}
