//! A whole worker over real sockets on loopback.

mod accept;
mod change;
mod choosing;
mod datagrams;
mod early;
mod edges;
mod forms;
mod h2;
mod h2_peers;
mod h2_tunnel;
mod http;
mod ktls;
mod limits;
mod log;
mod named;
mod outlier;
mod passthrough;
mod peers;
mod proxied;
mod queue;
mod relay;
mod replay;
mod retry;
mod routes;
mod shelf;
mod sim;
mod sticky;
mod storm;
mod tls;
mod unix;
mod upgrade;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{AccessLogSetup, BoundListener, Change, Command, Compiled, Handle, Setup, Siblings, TlsParts};
use crate::{
    config::{
        BackendProtocol, BackendSnapshot, Balance, Choosing, Keepalive, Limits, ListenerSnapshot, PoolSecret,
        PoolSnapshot, Protocol, ProxyHeaders, Slots, Snapshot, Steer, Udp,
    },
    health::HealthTable,
    limits::Admission,
    model::{BackendId, Generation, GroupId, ListenerId, PoolId, WorkerId, reason::CloseReason},
    sys::affinity,
    tls::KernelSuites,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Has a worker take over another config.
fn published(next: Snapshot) -> Command {
    Command::Change(Box::new(Change::of(
        Compiled::new(Arc::new(next), &TlsParts::default()),
        Instant::now() + PATIENCE,
    )))
}

/// A worker with one listener and one pool.
struct Fixture {
    address: SocketAddr,
    handle: Handle,
    health: Arc<HealthTable>,
    admission: Arc<Admission>,
}

impl Fixture {
    /// Sends `len` bytes and an end to a backend that echoes after the end.
    #[track_caller]
    fn gets_back(&self, len: usize) {
        let sent = pattern(len);
        let mut client = self.connect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{len} bytes came back as {}", received.len());
    }

    fn start(protocol: Protocol, backends: &[SocketAddr], limits: Limits) -> Self {
        Self::start_with(|address| snapshot(1, protocol, address, backends, limits), None)
    }

    /// With the snapshot that is made for the listener's address.
    fn start_with(snapshot: impl FnOnce(SocketAddr) -> Snapshot, access_log: Option<AccessLogSetup>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        Self::start_at(socket.into(), address, snapshot(address), access_log)
    }

    /// At a socket that is bound to `address`.
    fn start_at(
        socket: std::os::fd::OwnedFd,
        address: SocketAddr,
        snapshot: Snapshot,
        access_log: Option<AccessLogSetup>,
    ) -> Self {
        Self::start_secured(socket, address, snapshot, access_log, &TlsParts::default())
    }

    /// With what there is of TLS.
    fn start_secured(
        socket: std::os::fd::OwnedFd,
        address: SocketAddr,
        snapshot: Snapshot,
        access_log: Option<AccessLogSetup>,
        tls: &TlsParts,
    ) -> Self {
        Self::start_sealed(socket, address, snapshot, access_log, (tls, KernelSuites::default()))
    }

    /// Where the kernel seals some of it.
    fn start_sealed(
        socket: std::os::fd::OwnedFd,
        address: SocketAddr,
        snapshot: Snapshot,
        access_log: Option<AccessLogSetup>,
        (tls, kernel_suites): (&TlsParts, KernelSuites),
    ) -> Self {
        let health = Arc::new(HealthTable::new(16));
        let admission = Admission::new();
        let handle = Handle::start(Setup {
            id: WorkerId(0),
            core: affinity::allowed_cores().unwrap()[0],
            compiled: Compiled::new(Arc::new(snapshot), tls),
            health: health.clone(),
            admission: admission.clone(),
            siblings: Siblings::new(1, 1).unwrap(),
            access_log,
            kernel_suites,
            listeners: vec![BoundListener { group: GroupId(0), place: 0, listener: ListenerId(0), socket }],
        })
        .unwrap();
        Self { address, handle, health, admission }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn reason(&self, reason: CloseReason) -> u64 {
        self.handle.metrics.reason(reason).value()
    }

    /// Stops the worker and checks what must hold at every end.
    fn stop(self) {
        self.handle.send(Command::Stop);
        self.finish();
    }

    fn finish(self) {
        let (metrics, admission) = (self.handle.metrics.clone(), self.admission.clone());
        self.handle.join().unwrap();
        assert_eq!(metrics.completions_stray.value(), 0);
        assert_eq!(admission.open(), 0, "every connection gave its place back");
        assert_eq!(metrics.listeners[0].open.value(), 0);
        assert!(metrics.backends.iter().all(|backend| backend.in_flight.value() == 0));
        assert!(metrics.backends.iter().all(|backend| backend.idle.value() == 0));
    }
}

/// One listener and one pool of `backends`, whose ids begin with 1.
fn snapshot(
    generation: u64,
    protocol: Protocol,
    address: SocketAddr,
    backends: &[SocketAddr],
    limits: Limits,
) -> Snapshot {
    let backends = backends
        .iter()
        .enumerate()
        .map(|(at, address)| BackendSnapshot {
            id: BackendId(at as u16 + 1),
            name: address.to_string().into(),
            address: (*address).into(),
            weight: 1,
            backup: false,
            max_connections: None,
            origin: None,
        })
        .collect();
    Snapshot {
        generation: Generation(generation),
        access_log: None,
        limits,
        listeners: vec![ListenerSnapshot {
            id: ListenerId(0),
            name: "test".into(),
            protocol,
            bind: vec![address],
            steer: Steer::Auto,
            pool: Some(PoolId(0)),
            port: Some(address.port()),
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyHeaders::Off,
            forwarded: false,
            h2c: false,
            connections: None,
            udp: Udp::default(),
            routes: Vec::new(),
        }],
        pools: vec![PoolSnapshot {
            id: PoolId(0),
            name: "test".into(),
            backends,
            is_named: false,
            keepalive: Keepalive::default(),
            balance: Balance::RoundRobin,
            choosing: Choosing::default(),
            secret: PoolSecret::default(),
            sticky_secret: PoolSecret([8, 9]),
            proxy_protocol: None,
            protocol: BackendProtocol::Http1,
        }],
        routes: Slots::default(),
    }
}

/// Whether io_uring has given this process a kernel thread for work that it could not do inline.
fn has_kernel_workers() -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("iou-wrk"))
    })
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at as u64 * 2_654_435_761) >> 7) as u8).collect()
}

/// A backend that runs `serve` once per connection, on a thread of its own.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An address where nobody listens, nor will: its port stays bound until the process ends.
fn closed_port() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
