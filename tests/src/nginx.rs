//! The real nginx as a backend.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    authority::Identity,
    curl::{Curl, url},
    pattern,
    process::Process,
    scene::Scene,
    topology::Host,
    wait::PATIENCE,
};

/// Port every nginx listens on, on all addresses of its host.
pub const PORT: u16 = 80;
/// Where a PROXY header stands in front of each connection.
pub const INTRODUCED_PORT: u16 = 81;
/// Where HTTP/2 is spoken, by prior knowledge.
pub const HTTP2_PORT: u16 = 82;
/// Where TLS is spoken, with HTTP/2 for those that ask for it by ALPN; only with an identity.
pub const TLS_PORT: u16 = 443;

/// One nginx, named after its host; ends with SIGKILL when dropped.
///
/// Locations: `/` answers the name; `/echo` what arrived, as `key=value` lines; `/files/NAME` a file of the
/// pattern; `/slow/NAME` the same at 1 MiB/s; `PUT /put/NAME` keeps the body.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    directory: PathBuf,
}

impl Nginx {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It does not start, or does not answer in time.
    pub fn start(scene: &Scene, host: &Host) -> Result<Self> {
        Self::launch(scene, host, None)
    }

    /// As [`Self::start`], and it listens on [`TLS_PORT`] too.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_secure(scene: &Scene, host: &Host, identity: &Identity) -> Result<Self> {
        Self::launch(scene, host, Some(identity))
    }

    fn launch(scene: &Scene, host: &Host, identity: Option<&Identity>) -> Result<Self> {
        let directory = scene.directory().join(format!("nginx-{}", host.name));
        for part in ["", "www/files", "www/put", "temp"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("nginx.conf"), config(host.name, &directory, identity))?;
        let mut command = host.netns.command("nginx");
        command.args(["-e", "stderr", "-p"]).arg(&directory).args(["-c", "nginx.conf"]);
        let log = scene.log(&format!("nginx-{}", host.name));
        let mut this = Self { process: Process::spawn("nginx", command, &log)?, directory };
        this.process.wait_until("answering nginx", PATIENCE, || {
            let reply = Curl::within(&host.netns).get(&url(IpAddr::V4(host.v4), PORT, "/"))?;
            ensure!(reply.body.trim() == host.name, "another server answers: {}", reply.body);
            Ok(())
        })?;
        Ok(this)
    }

    /// Gives the process a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Puts a file of the pattern below `/files/` and `/slow/`.
    ///
    /// # Errors
    /// The file system's.
    pub fn offer(&self, name: &str, length: u64) -> Result<()> {
        Ok(pattern::write_file(&self.directory.join("www/files").join(name), length)?)
    }

    /// Where an uploaded file lies.
    pub fn uploaded(&self, name: &str) -> PathBuf {
        self.directory.join("www/put").join(name)
    }

    /// Lines of the access log: status, connection serial, requests on it so far, request line.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn requests(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.directory.join("access")).context("reading nginx's access log")?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Address of a host's nginx in the family of `like`.
pub fn address(host: &Host, like: IpAddr) -> SocketAddr {
    SocketAddr::new(host.address(like), PORT)
}

/// One process (no master: nothing to orphan by SIGKILL), every path inside `directory`.
fn config(name: &str, directory: &Path, identity: Option<&Identity>) -> String {
    let temp = |what: &str| format!("{what}_temp_path {}/temp/{what};", directory.display());
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).join("\n  ");
    let root = directory.join("www");
    let secure = identity.map_or_else(String::new, |Identity { certificate, key }| {
        let (certificate, key) = (certificate.display(), key.display());
        format!(
            "listen 0.0.0.0:{TLS_PORT} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};"
        )
    });
    format!(
        r#"daemon off; master_process off; user root; pid {dir}/pid;
events {{ worker_connections 1024; }}
http {{
  {temps}
  default_type text/plain;
  client_max_body_size 0;
  keepalive_requests 1000000;
  log_format line '$status $connection $connection_requests $request';
  access_log {dir}/access line;
  server {{
    listen 0.0.0.0:{PORT}; listen [::]:{PORT} ipv6only=on;
    listen 0.0.0.0:{INTRODUCED_PORT} proxy_protocol; listen [::]:{INTRODUCED_PORT} ipv6only=on proxy_protocol;
    listen 0.0.0.0:{HTTP2_PORT} http2;
    {secure}
    root {root};
    add_header X-Backend {name} always;
    location / {{ return 200 "{name}\n"; }}
    location /echo {{
      return 200 "name={name}\nmethod=$request_method\nuri=$request_uri\nhost=$http_host\nprotocol=$server_protocol\nx-forwarded-for=$http_x_forwarded_for\nx-forwarded-proto=$http_x_forwarded_proto\nx-forwarded-host=$http_x_forwarded_host\nx-forwarded-port=$http_x_forwarded_port\nforwarded=$http_forwarded\nx-request-id=$http_x_request_id\nx-env=$http_x_env\ncookie=$http_cookie\nvia=$http_via\nconnection=$http_connection\nkeep-alive=$http_keep_alive\nx-private=$http_x_private\nserial=$connection\nrequests=$connection_requests\nremote=$remote_addr\nintroduced=$proxy_protocol_addr $proxy_protocol_server_port\n";
    }}
    location /files/ {{ }}
    location /slow/ {{ alias {root}/files/; limit_rate 1m; }}
    location /put/ {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"#,
        dir = directory.display(),
        root = root.display(),
    )
}
