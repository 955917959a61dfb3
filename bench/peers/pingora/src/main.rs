//! The smallest proxy on Pingora that forwards what the other peers forward.
//!
//! HTTP by default: one upstream, kept-alive connections on both sides, the same forwarding fields. With `--tcp`
//! a relay of bytes. Everything not named here is Pingora's default; no TLS, no cache, no retries of our own.

mod access_log;
mod http;
mod tcp;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use access_log::AccessLog;
use clap::Parser;
use pingora::{
    proxy::http_proxy_service,
    server::{Server, configuration::ServerConf},
    services::listening::Service,
};

/// A Pingora proxy to one backend.
#[derive(Parser)]
#[command(version = pingora_version())]
struct Arguments {
    /// Address to accept on.
    #[arg(long)]
    listen: SocketAddr,
    /// Address to forward to.
    #[arg(long)]
    backend: SocketAddr,
    /// Threads of the service.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Idle upstream connections kept, over all threads.
    #[arg(long, default_value_t = ServerConf::default().upstream_keepalive_pool_size)]
    keepalive: usize,
    /// Relay bytes instead of requests.
    #[arg(long, conflicts_with_all = ["access_log", "keepalive"])]
    tcp: bool,
    /// Size of each direction's buffer with `--tcp`, in bytes; tokio's own default is 8192.
    #[arg(long, requires = "tcp", default_value_t = 256 * 1024)]
    tcp_buffer: usize,
    /// Appends a line per request to this file.
    #[arg(long)]
    access_log: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let mut server = Server::new_with_opt_and_conf(None, configuration(&arguments));
    server.bootstrap();
    let listen = arguments.listen.to_string();
    if arguments.tcp {
        let relay = tcp::Relay::new(arguments.backend, arguments.tcp_buffer);
        let mut service = Service::new("tcp".to_owned(), relay);
        service.add_tcp(&listen);
        server.add_service(service);
    } else {
        let access_log = arguments.access_log.as_deref().map(AccessLog::open).transpose()?;
        let proxy = http::Proxy::new(arguments.backend, access_log.map(Arc::new));
        let mut service = http_proxy_service(&server.configuration, proxy);
        service.add_tcp(&listen);
        server.add_service(service);
    }
    server.run_forever()
}

/// What a report has to name: Pingora's version, as locked.
fn pingora_version() -> String {
    let mut lines = include_str!("../Cargo.lock").lines();
    let found = lines.find(|line| *line == r#"name = "pingora""#).and_then(|_| lines.next());
    let version = found.and_then(|line| line.strip_prefix("version = ")).unwrap_or("unknown");
    format!("on pingora {}", version.trim_matches('"'))
}

fn configuration(arguments: &Arguments) -> ServerConf {
    ServerConf {
        threads: arguments.threads,
        upstream_keepalive_pool_size: arguments.keepalive,
        // By default SIGTERM is followed by five minutes of grace.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}
