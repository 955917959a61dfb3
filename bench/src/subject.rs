//! The servers that are compared: how each is configured, started and ended.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Lb,
    Nginx,
    Haproxy,
    Backend,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Backend => "backend",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Lb => include_str!("../peers/lb.toml"),
            Self::Nginx => include_str!("../peers/nginx.conf"),
            Self::Haproxy => include_str!("../peers/haproxy.cfg"),
            Self::Backend => include_str!("../peers/backend.conf"),
        }
    }

    fn binary(self) -> PathBuf {
        match self {
            Self::Lb => {
                std::env::var_os("LB_BIN").map_or_else(|| PathBuf::from("target/release/lb"), PathBuf::from)
            }
            Self::Nginx | Self::Backend => PathBuf::from("/usr/sbin/nginx"),
            Self::Haproxy => PathBuf::from("/usr/sbin/haproxy"),
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        self.binary().exists()
    }

    fn arguments(self, config: &Path, directory: &Path) -> Vec<String> {
        let config = config.display().to_string();
        match self {
            Self::Lb => vec!["run".into(), "--config".into(), config, "--log".into(), "warn".into()],
            Self::Nginx | Self::Backend => {
                vec!["-p".into(), directory.display().to_string(), "-c".into(), config]
            }
            Self::Haproxy => vec!["-f".into(), config],
        }
    }
}

/// A server that runs until dropped.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    child: Child,
}

impl Running {
    /// Starts it on `port`, pinned to `core`, and waits until it takes connections.
    pub(crate) fn start(kind: Kind, directory: &Path, port: u16, backend: u16, core: usize) -> Result<Self> {
        let config = directory.join(kind.name());
        let text = kind
            .template()
            .replace("@DIR@", &directory.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@BACKEND@", &backend.to_string())
            .replace("@BODY@", &"x".repeat(200));
        std::fs::write(&config, text)?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(kind.binary())
            .args(kind.arguments(&config, directory))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", kind.name()))?;
        let running = Self { kind, port, child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("{} takes no connection on port {port}", kind.name());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's master ends its workers on SIGTERM; a killed one would leave them behind.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
