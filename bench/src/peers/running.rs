//! A subject that runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use lb_tests::authority::Authority;
use rustix::process::Signal;

use super::{
    Peer, Subject,
    template::{self, Logging, Protocol, Settings},
};
use crate::{
    named::Named,
    process::{Pinned, Process},
    topology::{Role, Topology},
};

/// A subject in its namespace, on its cores; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) subject: Subject,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    process: Process,
}

impl Running {
    /// Starts it below `directory` and waits until it takes connections.
    ///
    /// # Errors
    /// It is not installed, has no config for that, or does not come up; its last words are quoted.
    pub(crate) fn start(
        subject: Subject,
        settings: &Settings,
        topology: &Topology,
        directory: &Path,
    ) -> Result<Self> {
        let program = subject.peer.program().context("not installed")?;
        let directory = directory.join(format!("{}-{}", subject.name(), settings.listen.port()));
        fs::create_dir_all(&directory)?;
        let arguments = if subject.peer == Peer::Pingora {
            pingora(settings, &directory)
        } else {
            let name = template::file(subject, settings.protocol, settings.logging).context("no config")?;
            let config = directory.join(Path::new(&name).file_name().context("no name")?);
            if settings.protocol == Protocol::Tls {
                certify(&directory)?;
            }
            fs::write(&config, template::config(subject, settings, &directory)?)?;
            arguments(subject.peer, settings, &config, &directory)
        };
        let place = Pinned { namespace: topology.namespace(Role::Subject), cores: &settings.cores };
        // Where HAProxy is to log, it does so to its standard output.
        let stdout = if settings.logging == Logging::On { "access.log" } else { "stdout" };
        let mut process = Process::start(place, &program, &arguments, &directory, stdout)?;
        process.wait_until_connects(topology.namespace(Role::Client), settings.listen)?;
        Ok(Self { subject, address: settings.listen, directory, process })
    }

    /// Process id of its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends its first process a signal.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Lines of its access log that are about requests; HAProxy also writes one about each connection without any.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn logged_requests(&self) -> Result<usize> {
        let path = self.directory.join("access.log");
        let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&log).lines().filter(|line| line.contains("GET")).count())
    }

    /// Ends it and waits for that, so that what it still had to write is written.
    ///
    /// # Errors
    /// It had to be killed.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }
}

/// A certificate of its own for each subject; nobody asks who vouches for it.
fn certify(directory: &Path) -> Result<()> {
    let identity = Authority::new(directory, "authority")?.vouch("bench.test", 2100)?;
    let (certificate, key) = (fs::read_to_string(identity.certificate)?, fs::read_to_string(identity.key)?);
    fs::write(directory.join("server.pem"), &certificate)?;
    fs::write(directory.join("server.key"), &key)?;
    fs::write(directory.join("server.both"), certificate + &key)?;
    Ok(())
}

fn arguments(peer: Peer, settings: &Settings, config: &Path, directory: &Path) -> Vec<String> {
    let config = config.display().to_string();
    let words: Vec<&str> = match peer {
        Peer::Lb => vec!["run", "--config", &config, "--log", "warn"],
        Peer::Nginx => return vec!["-p".into(), directory.display().to_string(), "-c".into(), config],
        // A master and a worker process, as Debian's unit runs it; reloads are the master's.
        Peer::Haproxy => vec!["-W", "-f", &config],
        Peer::Envoy => {
            return [
                "-c",
                &config,
                "--concurrency",
                &settings.cores.len().to_string(),
                "--disable-hot-restart",
                "--log-level",
                "error",
            ]
            .map(str::to_owned)
            .to_vec();
        }
        Peer::Caddy => vec!["run", "--adapter", "caddyfile", "--config", &config],
        Peer::Pingora => vec![],
    };
    words.into_iter().map(str::to_owned).collect()
}

fn pingora(settings: &Settings, directory: &Path) -> Vec<String> {
    let mut words = vec![
        "--listen".to_owned(),
        settings.listen.to_string(),
        "--backend".to_owned(),
        settings.backend.to_string(),
        "--threads".to_owned(),
        settings.cores.len().to_string(),
    ];
    if settings.protocol == Protocol::Tcp {
        words.push("--tcp".to_owned());
    }
    if settings.logging == Logging::On {
        words.extend(["--access-log".to_owned(), directory.join("access.log").display().to_string()]);
    }
    words
}
