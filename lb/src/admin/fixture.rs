//! A small daemon that never ran, for tests of what shows it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use super::{
    packets::{Flow, FlowList, Packets, SlotMove, SteerReport, TableDigest},
    view::{View, WorkerView},
};
use crate::{
    config::*,
    health::HealthTable,
    metrics::{BACKENDS_MAX, ProbeMetrics, WorkerMetrics},
    model::{BackendId, Generation, ListenerId, PoolId, RouteId, WorkerId},
};

/// A directory of one test; gone with it.
pub(crate) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Not made yet; `name` tells tests of one process apart.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl std::ops::Deref for TemporaryDirectory {
    type Target = std::path::Path;

    fn deref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn config() -> Config {
    let backend =
        |port| Backend { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: Some(port), weight: 1, server_id: None };
    let health = Health {
        tcp_port: None,
        every: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
    };
    let pool = |backends, health| Pool { balance: None, backends, health, keepalive: Keepalive::default() };
    let dns = Backend { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 1, 53)), port: None, weight: 1, server_id: None };
    Config {
        runtime: Runtime { workers: Workers::Count(2) },
        xdp: None,
        admin: Admin { socket: PathBuf::from("/run/lb/admin.sock"), http: None },
        limits: Limits::default(),
        state: State { dir: PathBuf::from("/var/lib/lb") },
        access_log: None,
        vips: BTreeMap::from([(
            "dns".into(),
            Vip {
                addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53))],
                prefixes: vec![],
                ports: vec![VipPort::one(53, Transport::Udp)],
                forward: Forward::Ipip,
                pool: "dns".into(),
                flows_none: true,
                nat_source: vec![],
                hash: HashBy::Flow,
                quic: None,
                sources: Default::default(),
            },
        )]),
        listeners: BTreeMap::from([(
            "web".into(),
            Listener {
                bind: vec![address(8080)],
                ranges: Vec::new(),
                protocol: Protocol::Http,
                pool: Some("app".into()),
                steer: Steer::Auto,
                syn_cookies: SynCookies::Auto,
                trusted_proxies: Vec::new(),
                forwarded: false,
            },
        )]),
        routes: BTreeMap::new(),
        pools: BTreeMap::from([
            ("app".into(), pool(vec![backend(9001), backend(9002)], Some(health))),
            ("dns".into(), pool(vec![dns], None)),
        ]),
    }
}

fn snapshot() -> Snapshot {
    let backend = |id, name: &str, address| BackendSnapshot {
        id: BackendId(id),
        name: name.into(),
        address,
        weight: 1,
    };
    let keepalive = Keepalive::default();
    Snapshot {
        generation: Generation(1),
        access_log: None,
        limits: Limits::default(),
        listeners: vec![ListenerSnapshot {
            id: ListenerId(0),
            name: "web".into(),
            protocol: Protocol::Http,
            bind: vec![address(8080)],
            steer: Steer::Auto,
            pool: Some(PoolId(0)),
            port: Some(8080),
            trusted_proxies: Vec::new(),
            forwarded: false,
            routes: vec![RouteId(0)],
        }],
        pools: vec![
            PoolSnapshot {
                id: PoolId(0),
                name: "app".into(),
                backends: vec![
                    backend(1, "127.0.0.1:9001", address(9001)),
                    backend(2, "127.0.0.1:9002", address(9002)),
                ],
                keepalive,
            },
            PoolSnapshot {
                id: PoolId(1),
                name: "dns".into(),
                backends: vec![backend(3, "10.0.1.53", (Ipv4Addr::new(10, 0, 1, 53), 0).into())],
                keepalive,
            },
        ],
        routes: vec![RouteSnapshot {
            id: RouteId(0),
            name: "api".into(),
            host: HostMatch::Suffix(".example.com".into()),
            path: PathMatch::Prefix("/v1/".into()),
            conditions: Arc::default(),
            priority: 0,
            action: RouteAction::Forward { pool: PoolId(0), rewrite: Rewrite::default() },
            request_headers: Arc::default(),
            response_headers: Arc::default(),
            timeout: Duration::from_secs(60),
            deadline: None,
        }],
    }
}

/// Two workers, one listener, two pools, one VIP; everything up, every counter zero.
pub(crate) fn view() -> View {
    let worker =
        |id| WorkerView { id: WorkerId(id), core: usize::from(id), metrics: Arc::new(WorkerMetrics::new()) };
    View {
        started: Instant::now(),
        config_path: Some(PathBuf::from("lb.toml")),
        config_digest: Some("00ff".to_owned()),
        config: Arc::new(config()),
        snapshot: Arc::new(snapshot()),
        workers: vec![worker(0), worker(1)],
        log: Arc::default(),
        health: Arc::new(HealthTable::new(BACKENDS_MAX)),
        probes: vec![(BackendId(1), Arc::new(ProbeMetrics::default()))],
        warnings: vec!["no CAP_BPF: lb_steer is not attached".to_owned()],
        open_files: 20_512,
        packets: None,
        draining: AtomicBool::new(false),
    }
}

/// Two flows, to the VIP of [`view`].
pub(crate) fn flows() -> FlowList {
    let flow = Flow {
        group_of: None,
        source: ([198, 51, 100, 7], 40_000).into(),
        destination: ([192, 0, 2, 53], 53).into(),
        protocol: 17,
        backend: BackendId(3),
        age: Duration::from_millis(12_900),
        state: "closing",
        translated: None,
    };
    let translated =
        Flow { state: "half-open", translated: Some(([10, 0, 9, 1], 1024).into()), ..flow.clone() };
    FlowList { flows: vec![flow, translated], omitted: 0 }
}

/// A packet path that steers one listener by hash.
pub(crate) fn packets() -> Packets {
    let steer = SteerReport {
        listener: "web".into(),
        mode: Steer::Hash,
        why: "the listener says so".into(),
        by_core: 0,
        relieved: 0,
        by_hash: 9,
        missing: 0,
    };
    let change =
        |why: &str, since_seconds, open, closed| SlotMove { why: why.into(), since_seconds, open, closed };
    let table = TableDigest {
        pool: "dns".into(),
        digest: "00000000deadbeef".into(),
        open: 40,
        closed: 2,
        moves: vec![
            change("changed before this process started", None, 0, 2),
            change("backend 10.0.0.3 removed by generation 7", Some(61), 40, 0),
        ],
    };
    Packets { steer: vec![steer], tables: vec![table], slots_open: 40, slots_closed: 2, ..Packets::default() }
}
