//! The servers that are compared: where each is found, how it is configured, started and stopped.

mod running;
mod template;

use std::{env, path::PathBuf, process::Command};

use crate::{named::Named, system::first_line};

pub(crate) use running::Running;
pub(crate) use template::{Logging, Protocol, Settings, fill, read};

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Ours.
    Lb,
    Nginx,
    Haproxy,
    Envoy,
    Pingora,
    Caddy,
}

/// Whose choice the settings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// What the peer's own experts would write for this work.
    Tuned,
    /// Only what is needed to do the work at all.
    Defaults,
}

/// A peer with one set of settings: what a row of a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) peer: Peer,
    pub(crate) tuning: Tuning,
}

/// Every subject, in the order of the tables. `lb` runs with its defaults, which are meant to be good.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject::tuned(Peer::Lb),
    Subject::tuned(Peer::Nginx),
    Subject::defaults(Peer::Nginx),
    Subject::tuned(Peer::Haproxy),
    Subject::defaults(Peer::Haproxy),
    Subject::tuned(Peer::Envoy),
    Subject::defaults(Peer::Envoy),
    Subject::tuned(Peer::Pingora),
    Subject::tuned(Peer::Caddy),
];

impl Peer {
    /// As typed after `--peers`, and as its configs are named.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
            Self::Caddy => "caddy",
        }
    }

    /// Its program, if it is installed.
    ///
    /// `cargo xtask bench` says by `LB_BIN` and `LB_BENCH_DIR` where ours is and where it keeps what it installed
    /// for the harness alone; otherwise both are below `target`.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let harness =
            env::var_os("LB_BENCH_DIR").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
        let lb = env::var_os("LB_BIN").map_or_else(|| PathBuf::from("target/release/lb"), PathBuf::from);
        let path = match self {
            Self::Lb => lb,
            Self::Nginx => PathBuf::from("/usr/sbin/nginx"),
            Self::Haproxy => PathBuf::from("/usr/sbin/haproxy"),
            Self::Envoy => harness.join("venv/bin/envoy"),
            Self::Caddy => harness.join("venv/bin/caddy"),
            Self::Pingora => harness.join("pingora/release/lb-bench-pingora"),
        };
        path.is_file().then(|| std::path::absolute(&path).unwrap_or(path))
    }

    /// How it names its version, on one line; `None` where it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let argument = match self {
            Self::Nginx | Self::Haproxy => "-v",
            Self::Caddy => "version",
            Self::Lb | Self::Envoy | Self::Pingora => "--version",
        };
        let program = self.program()?;
        let line = first_line(Command::new(&program).arg(argument))?;
        // Envoy begins with how it was called.
        Some(line.replace(&program.display().to_string(), self.name()))
    }
}

impl Subject {
    /// With its experts' settings.
    pub(crate) const fn tuned(peer: Peer) -> Self {
        Self { peer, tuning: Tuning::Tuned }
    }

    /// With its defaults.
    pub(crate) const fn defaults(peer: Peer) -> Self {
        Self { peer, tuning: Tuning::Defaults }
    }

    /// Every subject that has a config for this.
    pub(crate) fn all(protocol: Protocol, logging: Logging) -> Vec<Self> {
        let suits = |subject: &Self| template::file(*subject, protocol, logging).is_some();
        SUBJECTS.iter().copied().filter(suits).collect()
    }
}

impl Named for Subject {
    fn name(&self) -> String {
        match self.tuning {
            Tuning::Tuned => self.peer.name().to_owned(),
            Tuning::Defaults => format!("{}-defaults", self.peer.name()),
        }
    }
}
