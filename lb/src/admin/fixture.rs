//! A small daemon that never ran, for tests of what shows it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use super::{
    changes::{Acknowledged, Applied, Author, Changes, Etag, OverrideView, Refusal, Wish},
    generations::GenerationView,
    packets::{Flow, FlowList, Packets, SlotMove, SteerReport, TableDigest},
    view::{CheckView, NameView, View, WorkerView},
};
use crate::{
    config::*,
    health::HealthTable,
    keepalive::Shelf,
    limits::Permits,
    metrics::{BACKENDS_MAX, WorkerMetrics},
    model::{BackendId, FoundBackend, Generation, ListenerId, PoolId, RouteId, WorkerId},
    names::{Condition, Failure},
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
    let backend = |port| Backend::at(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(port));
    let health = Health {
        kind: CheckKind::Tcp,
        port: None,
        every: Duration::from_secs(2),
        recheck: None,
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
    };
    let pool = |backends, health| Pool {
        balance: None,
        backends,
        names: Vec::new(),
        health,
        keepalive: Keepalive::default(),
        choosing: Choosing::default(),
        proxy_protocol: None,
        tls: None,
        protocol: BackendProtocol::default(),
    };
    let dns = Backend::at(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 53)), None);
    Config {
        runtime: Runtime { workers: Workers::Count(2) },
        xdp: None,
        admin: Admin { socket: PathBuf::from("/run/lb/admin.sock"), http: None },
        limits: Limits::default(),
        programs_dir: None,
        upgrade: Upgrade::default(),
        state: State { dir: PathBuf::from("/var/lib/lb") },
        dns: Dns::default(),
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
                proxy_protocol: ProxyHeaders::Off,
                forwarded: false,
                h2: true,
                h2c: false,
                connections: None,
                idle: None,
                replies: None,
                tls: Vec::new(),
            },
        )]),
        routes: RouteMap::new(),
        tls: BTreeMap::new(),
        pools: BTreeMap::from([
            ("app".into(), pool(vec![backend(9001), backend(9002)], Some(health))),
            ("dns".into(), pool(vec![dns], None)),
        ]),
    }
}

fn snapshot() -> Snapshot {
    let backend = |id, name: &str, address: SocketAddr| BackendSnapshot {
        id: BackendId(id),
        name: name.into(),
        address: address.into(),
        weight: 1,
        backup: false,
        max_connections: None,
        origin: None,
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
            proxy_protocol: ProxyHeaders::Off,
            forwarded: false,
            h2c: false,
            connections: None,
            udp: Udp::default(),
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
                is_named: false,
                keepalive,
                balance: Balance::RoundRobin,
                choosing: Choosing::default(),
                secret: PoolSecret::default(),
                sticky_secret: PoolSecret::default(),
                proxy_protocol: None,
                protocol: BackendProtocol::Http1,
            },
            PoolSnapshot {
                id: PoolId(1),
                name: "dns".into(),
                backends: vec![backend(3, "10.0.1.53", (Ipv4Addr::new(10, 0, 1, 53), 0).into())],
                is_named: false,
                keepalive,
                balance: Balance::RoundRobin,
                choosing: Choosing::default(),
                secret: PoolSecret::default(),
                sticky_secret: PoolSecret::default(),
                proxy_protocol: None,
                protocol: BackendProtocol::Http1,
            },
        ],
        routes: Slots::from(vec![RouteSnapshot {
            id: RouteId(0),
            name: "api".into(),
            listener: "web".into(),
            host: HostMatch::Suffix(".example.com".into()),
            path: PathMatch::Prefix("/v1/".into()),
            conditions: Arc::default(),
            priority: 0,
            action: RouteAction::Forward { pool: PoolId(0), rewrite: Rewrite::default() },
            request_headers: Arc::default(),
            response_headers: Arc::default(),
            timeout: Duration::from_secs(60),
            deadline: None,
            policy: Arc::default(),
        }]),
    }
}

/// Two workers, one listener, two pools, one VIP; everything up, every counter zero.
pub(crate) fn view() -> View {
    let worker = |id| WorkerView {
        id: WorkerId(id),
        core: usize::from(id),
        metrics: Arc::new(WorkerMetrics::new()),
        has_left: false,
    };
    let config = Arc::new(config());
    View {
        started: Instant::now(),
        config_path: Some(PathBuf::from("lb.toml")),
        config_digest: Some("00ff".to_owned()),
        etag: Etag::of(&config.to_json()),
        config,
        snapshot: Arc::new(snapshot()),
        workers: vec![worker(0), worker(1)],
        log: Arc::default(),
        permits: Permits::new(BACKENDS_MAX, 2),
        shelf: Arc::new(Shelf::new(BACKENDS_MAX)),
        health: Arc::new(HealthTable::new(BACKENDS_MAX)),
        checks: Arc::new([(BackendId(1), CheckView { kind: Some("tcp"), ..CheckView::default() })].into()),
        pools: Arc::new([("app".into(), Arc::default())].into()),
        certificates: Arc::default(),
        warnings: vec!["no CAP_BPF: lb_steer is not attached".to_owned()],
        open_files: 20_512,
        no_kernel_tls: Some("no module".to_owned()),
        packets: None,
        draining: Arc::new(AtomicBool::new(false)),
        names: Arc::default(),
        changes: None,
        generations: Arc::default(),
        documents: None,
        overrides: Arc::default(),
        degraded: None,
        drift: None,
        predecessors: Default::default(),
    }
}

/// [`view`] with a control that answers by `script`; the wishes that it was asked, as they come.
pub(crate) fn controlled(
    script: impl Fn(&Wish) -> Result<Applied, Refusal> + Send + 'static,
) -> (View, flume::Receiver<Wish>) {
    let (changes, letters) = Changes::channel();
    let (asked, wishes) = flume::unbounded();
    std::thread::spawn(move || {
        while let Ok((wish, reply)) = letters.recv() {
            let answer = script(&wish);
            drop(asked.send(wish));
            drop(reply.send(answer));
        }
    });
    (View { changes: Some(changes), ..view() }, wishes)
}

/// A change that went well.
pub(crate) fn applied(wish: &Wish) -> Applied {
    Applied {
        generation: Generation(7),
        took_ms: 4.25,
        acknowledged: Acknowledged { workers: 2, maps: 1 },
        changed: vec!["pool.app.backends".to_owned(), "route.api".to_owned()],
        warnings: vec!["pool.dns has no health".to_owned()],
        dry_run: wish.is_dry,
        upgraded: None,
        etag: Etag("e7".into()),
    }
}

/// The second backend of [`view`], which an operator drained.
pub(crate) fn drained() -> OverrideView {
    OverrideView { pool: "app".into(), backend: "127.0.0.1:9002".into(), drained: true, weight: Some(3) }
}

/// Two generations, the newer one made by the API.
pub(crate) fn generations() -> Arc<[GenerationView]> {
    let generation = |number, seconds, by: &'static str, source: &str| GenerationView {
        generation: Generation(number),
        when: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        author: Author { by: by.into(), uid: (by == "api").then_some(0), pid: None },
        source: source.to_owned(),
        is_current: by == "api",
        etag: Etag(format!("e{number}").into()),
        changed: vec!["pool.app.backends".to_owned()],
        references: [("hash.key".to_owned(), Digest::of(b"x"))].into(),
    };
    [generation(1, 1_700_000_000, "api", "api"), generation(0, 1_600_000_000, "start", "lb.toml")].into()
}

/// A name that nobody has an answer for now.
pub(crate) fn name() -> NameView {
    NameView {
        name: "app.internal:80".to_owned(),
        pools: vec!["app".into()],
        condition: Condition::Failing(Failure::TimedOut),
        backends: vec![FoundBackend { address: address(80), weight: None, backup: false }],
        answered: Some(Instant::now()),
        due: Instant::now() + Duration::from_secs(9),
        lookups: vec![("good", 5), ("timed-out", 3)],
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
