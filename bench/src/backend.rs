//! The HTTP backend of every subject: nginx, and what it counted.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    peers::{self, Logging, Protocol, Settings},
    process::{Pinned, Process},
    topology::{Role, Topology},
};

/// A body that the backend serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Path of its URL.
    pub(crate) path: &'static str,
    /// Bytes.
    pub(crate) len: u64,
}

/// From memory.
pub(crate) const SMALL: Body = Body { path: "/", len: 200 };
/// From the page cache, by sendfile.
pub(crate) const FILES: &[Body] = &[
    Body { path: "/1k", len: 1 << 10 },
    Body { path: "/4k", len: 4 << 10 },
    Body { path: "/16k", len: 16 << 10 },
    Body { path: "/64k", len: 64 << 10 },
    Body { path: "/256k", len: 256 << 10 },
    Body { path: "/1m", len: 1 << 20 },
    Body { path: "/4m", len: 4 << 20 },
];

/// nginx as a backend; stopped when dropped.
#[derive(Debug)]
pub(crate) struct HttpBackend {
    address: SocketAddr,
    _process: Process,
}

impl HttpBackend {
    /// Starts it, on `cores`, with its bodies below `directory`.
    ///
    /// # Errors
    /// nginx is missing or does not come up.
    pub(crate) fn start(
        topology: &Topology,
        address: SocketAddr,
        cores: &[usize],
        directory: &Path,
    ) -> Result<Self> {
        let directory = directory.join("backend");
        let files = directory.join("files");
        fs::create_dir_all(&files)?;
        for body in FILES {
            let path = files.join(body.path.trim_start_matches('/'));
            fs::write(&path, vec![b'x'; usize::try_from(body.len)?])
                .with_context(|| format!("write {}", path.display()))?;
        }
        // One worker: with several, each would take its share of connections by chance.
        let settings = Settings {
            protocol: Protocol::Http,
            logging: Logging::Off,
            listen: address,
            backend: address,
            cores: vec![0],
            connections: 0,
        };
        let template = peers::read("backend/nginx.conf")?
            .replace("@FILES@", &files.display().to_string())
            .replace("@BODY@", &"x".repeat(usize::try_from(SMALL.len)?));
        let config = directory.join("nginx.conf");
        fs::write(&config, peers::fill(&template, &settings, &directory))?;
        let place = Pinned { namespace: topology.namespace(Role::Backend), cores };
        let arguments = ["-p", &directory.display().to_string(), "-c", &config.display().to_string()];
        let arguments = arguments.map(str::to_owned);
        let nginx = peers::Peer::Nginx.program().context("nginx is not installed")?;
        let mut process = Process::start(place, &nginx, &arguments, &directory, "stdout")?;
        process.wait_until_connects(topology.namespace(Role::Subject), address)?;
        Ok(Self { address, _process: process })
    }

    /// Requests that it has taken, this question included.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn requests(&self, topology: &Topology) -> Result<u64> {
        let address = self.address;
        let answer: Result<String> = topology.namespace(Role::Backend).run(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: status\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let answer = answer.context("ask the backend for its counters")?;
        requests(&answer).with_context(|| format!("the backend's counters: {answer}"))
    }
}

/// Third number below `server accepts handled requests` of ngx_http_stub_status_module.
fn requests(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    lines.find(|line| line.trim() == "server accepts handled requests")?;
    lines.next()?.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_third_number() {
        let status = "HTTP/1.1 200 OK\r\n\r\nActive connections: 1 \nserver accepts handled requests\n 5034 5033 10002 \nReading: 0 Writing: 1 Waiting: 0 \n";
        assert_eq!(requests(status), Some(10_002));
        assert_eq!(requests("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }
}
