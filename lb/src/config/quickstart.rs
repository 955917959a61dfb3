//! The config of `lb run` without a config.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    Admin, Backend, BackendProtocol, Choosing, Config, Dns, Keepalive, Limits, Listener, Pool, Protocol,
    ProxyHeaders, RouteMap, Runtime, State, Steer, SynCookies, Upgrade, Workers,
};

impl Config {
    /// An http listener at `127.0.0.1:8080` over one pool, metrics at `127.0.0.1:9900`, state beside the socket.
    ///
    /// # Panics
    /// Without backends: a pool is never empty.
    pub fn quickstart(backends: &[SocketAddr], admin_socket: PathBuf) -> Self {
        assert!(!backends.is_empty(), "the quickstart has backends");
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let backend = |address: &SocketAddr| Backend::at(address.ip(), Some(address.port()));
        let listener = Listener {
            bind: vec![local(8080)],
            ranges: Vec::new(),
            protocol: Protocol::Http,
            pool: Some("demo".into()),
            steer: Steer::Auto,
            syn_cookies: SynCookies::Auto,
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyHeaders::Off,
            forwarded: false,
            h2: true,
            h2c: false,
            connections: None,
            idle: None,
            replies: None,
            tls: Vec::new(),
        };
        let pool = Pool {
            balance: None,
            backends: backends.iter().map(backend).collect(),
            names: Vec::new(),
            health: None,
            keepalive: Keepalive::default(),
            choosing: Choosing::default(),
            proxy_protocol: None,
            tls: None,
            protocol: BackendProtocol::default(),
        };
        Self {
            // Each worker goes round by itself: one alone shows both backends to whoever asks twice.
            runtime: Runtime { workers: Workers::Count(1) },
            xdp: None,
            programs_dir: None,
            upgrade: Upgrade::default(),
            state: State { dir: admin_socket.parent().unwrap_or(Path::new(".")).join("state") },
            dns: Dns::default(),
            access_log: None,
            admin: Admin { socket: admin_socket, http: Some(local(9900)) },
            limits: Limits::default(),
            vips: BTreeMap::new(),
            listeners: BTreeMap::from([("demo".into(), listener)]),
            routes: RouteMap::new(),
            tls: BTreeMap::new(),
            pools: BTreeMap::from([("demo".into(), pool)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same config as a file would give it, so that the quickstart keeps to the file's rules.
    #[test]
    fn says_what_a_file_would_say() {
        let text = r#"
            version = 1
            [runtime]
            workers = 1
            [admin]
            socket = "/run/user/1000/lb/admin.sock"
            [state]
            dir = "/run/user/1000/lb/state"
            [listener.demo]
            bind = ["127.0.0.1:8080"]
            protocol = "http"
            pool = "demo"
            [pool.demo]
            backends = ["127.0.0.1:7001", "127.0.0.1:7002"]
        "#;
        let loaded = super::super::file::parse("quickstart", text).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        let backends = ["127.0.0.1:7001".parse().unwrap(), "127.0.0.1:7002".parse().unwrap()];
        assert_eq!(Config::quickstart(&backends, "/run/user/1000/lb/admin.sock".into()), loaded.config);
    }
}
