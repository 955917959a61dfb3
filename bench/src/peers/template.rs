//! The committed configs, `bench/peers/PEER/PROTOCOL[-VARIANT].EXT`, and how they are filled in.
//!
//! | in a template    | becomes                                                     |
//! |------------------|-------------------------------------------------------------|
//! | `@DIR@`          | a directory of this server alone, for pids, sockets, logs   |
//! | `@HOST@`         | address to accept on, and `@PORT@` its port                 |
//! | `@BACKEND@`      | address and port of the one backend                         |
//! | `@BACKEND_HOST@` | its address alone, and `@BACKEND_PORT@` its port            |
//! | `@WORKERS@`      | number of workers or threads                                |
//! | `@CORES@`        | their cores, as `0` or `0, 1`                               |
//! | `@FILES@`        | where the backend's bodies lie                              |
//! | `@BODY@`         | its smallest body                                           |
//!
//! Where there is TLS, `@DIR@` has `server.pem` and `server.key` (ECDSA, P-256), and both in `server.both`.
//!
//! They are read when they are used: the harness runs from a checkout.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Peer, Subject, Tuning};

/// What is spoken on the sides of the subject; on both, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS, as the client likes, with clients; HTTP/1.1 with the backend.
    Tls,
    /// HTTP/2 without TLS with clients, HTTP/1.1 with the backend.
    H2c,
    /// HTTP/2 without TLS with both.
    Http2,
    /// Bytes.
    Tcp,
}

/// Whether every request leaves a line in a file, `access.log` in the subject's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    Off,
    On,
}

/// What a template is filled with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) protocol: Protocol,
    pub(crate) logging: Logging,
    pub(crate) listen: SocketAddr,
    pub(crate) backend: SocketAddr,
    /// A worker on each.
    pub(crate) cores: Vec<usize>,
    /// Client connections that must fit.
    pub(crate) connections: usize,
}

impl Settings {
    /// Whether the subject can be configured so.
    pub(crate) fn suit(&self, subject: Subject) -> bool {
        file(subject, self.protocol, self.logging).is_some()
    }
}

/// Where the templates lie in the checkout.
pub(crate) fn directory() -> PathBuf {
    env::var_os("LB_BENCH_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"), PathBuf::from)
}

/// Name of the template below [`directory`]; `None`: the subject cannot do that, or does it as another subject
/// does. Of Pingora, which takes arguments alone, the name only.
pub(crate) fn file(subject: Subject, protocol: Protocol, logging: Logging) -> Option<String> {
    use Peer::{Caddy, Envoy, Haproxy, Lb, Nginx, Pingora};
    let Subject { peer, tuning } = subject;
    let protocol = match (protocol, peer) {
        (Protocol::Http, _) => "http",
        // Caddy's own distribution has no relay of bytes.
        (Protocol::Tcp, Caddy) => return None,
        (Protocol::Tcp, _) => "tcp",
        // Of these two nobody here has a config.
        (_, Caddy | Pingora) => return None,
        (Protocol::Tls, _) => "tls",
        (Protocol::H2c, _) => "h2c",
        (Protocol::Http2, _) => "h2",
    };
    let variant = match (logging, tuning, peer) {
        (Logging::Off, Tuning::Tuned, _) => "",
        (Logging::Off, Tuning::Defaults, Nginx | Haproxy) if matches!(protocol, "http" | "tcp") => {
            "-defaults"
        }
        (Logging::Off, Tuning::Defaults, Envoy) if protocol == "http" => "-defaults",
        (Logging::On, Tuning::Tuned, _) if protocol == "http" => "-log",
        _ => return None,
    };
    let extension = match peer {
        Lb => "toml",
        Nginx => "conf",
        Haproxy => "cfg",
        Envoy => "yaml",
        Caddy => "caddyfile",
        Pingora => "arguments",
    };
    Some(format!("{}/{protocol}{variant}.{extension}", peer.name()))
}

/// The config of a subject.
///
/// # Errors
/// There is none, or it cannot be read.
pub(crate) fn config(subject: Subject, settings: &Settings, run: &Path) -> Result<String> {
    let name = file(subject, settings.protocol, settings.logging).context("no config for that")?;
    let mut text = fill(&read(&name)?, settings, run);
    if subject.peer == Peer::Lb && settings.connections > LB_CONNECTIONS_PER_IP {
        // All clients of the harness have one address.
        text.push_str(&format!("\n[limits]\nconnections_per_ip = {}\n", settings.connections + 1));
    }
    Ok(text)
}

/// `limits.connections_per_ip` of lb, unless configured.
const LB_CONNECTIONS_PER_IP: usize = 1024;

/// Reads a template.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(name: &str) -> Result<String> {
    let path = directory().join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Fills a template in.
pub(crate) fn fill(template: &str, settings: &Settings, run: &Path) -> String {
    let cores: Vec<String> = settings.cores.iter().map(usize::to_string).collect();
    let marks = [
        ("@DIR@", run.display().to_string()),
        ("@HOST@", settings.listen.ip().to_string()),
        ("@PORT@", settings.listen.port().to_string()),
        ("@BACKEND@", settings.backend.to_string()),
        ("@BACKEND_HOST@", settings.backend.ip().to_string()),
        ("@BACKEND_PORT@", settings.backend.port().to_string()),
        ("@WORKERS@", cores.len().to_string()),
        ("@CORES@", cores.join(", ")),
    ];
    marks.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{named::Named, peers::SUBJECTS};

    #[test]
    fn every_mark_of_every_template_is_filled_in() {
        for subject in SUBJECTS {
            for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Tls, Protocol::H2c, Protocol::Http2] {
                for logging in [Logging::Off, Logging::On] {
                    let settings = Settings {
                        protocol,
                        logging,
                        listen: "10.0.0.1:81".parse().unwrap(),
                        backend: "10.0.0.2:82".parse().unwrap(),
                        cores: vec![0, 1],
                        connections: 5000,
                    };
                    if settings.suit(*subject) && subject.peer != Peer::Pingora {
                        let text = config(*subject, &settings, Path::new("/d")).unwrap();
                        assert!(
                            !text.contains("@BACKEND") && !text.contains("@DIR"),
                            "{}: {text}",
                            subject.name()
                        );
                    }
                }
            }
        }
    }
}
