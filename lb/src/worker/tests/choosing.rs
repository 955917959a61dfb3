//! Which backend is chosen: by policy, over several workers, with backups and slow starts.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use super::{
    PATIENCE, closed_port,
    peers::{Client, ok, responder},
    snapshot, wait_until,
};
use crate::{
    config::{Balance, Key, Limits, PoolSecret, PoolSnapshot, Protocol},
    health::HealthTable,
    limits::Admission,
    metrics::BackendMetrics,
    model::{BackendId, GroupId, ListenerId, WorkerId},
    sys::affinity,
    tls::KernelSuites,
    worker::{BoundListener, Command, Compiled, Handle, Setup, Siblings, TlsParts},
};

/// Workers with the same pool, each with a listener of its own.
pub(super) struct Crew {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) handles: Vec<Handle>,
    pub(super) health: Arc<HealthTable>,
    pub(super) siblings: Arc<Siblings>,
}

impl Crew {
    pub(super) fn start(
        count: usize,
        protocol: Protocol,
        backends: &[SocketAddr],
        change: impl Fn(&mut PoolSnapshot),
    ) -> Self {
        let (siblings, health, admission) =
            (Siblings::new(count, 1).unwrap(), Arc::new(HealthTable::new(16)), Admission::new());
        let cores = affinity::allowed_cores().unwrap();
        let (mut addresses, mut handles) = (Vec::new(), Vec::new());
        for id in 0..count {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let mut snapshot = snapshot(1, protocol, address, backends, Limits::default());
            change(&mut snapshot.pools[0]);
            let setup = Setup {
                id: WorkerId(id as u16),
                core: cores[id % cores.len()],
                compiled: Compiled::new(Arc::new(snapshot), &TlsParts::default()),
                health: health.clone(),
                admission: admission.clone(),
                siblings: siblings.clone(),
                access_log: None,
                kernel_suites: KernelSuites::default(),
                listeners: vec![BoundListener {
                    group: GroupId(0),
                    place: 0,
                    listener: ListenerId(0),
                    socket: socket.into(),
                }],
            };
            addresses.push(address);
            handles.push(Handle::start(setup).unwrap());
        }
        Self { addresses, handles, health, siblings }
    }

    pub(super) fn connect(&self, worker: usize) -> TcpStream {
        let stream = TcpStream::connect(self.addresses[worker]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(super) fn client(&self, worker: usize) -> Client {
        Client::over(self.connect(worker))
    }

    /// One of a backend's numbers, over all workers.
    pub(super) fn sum(&self, backend: usize, value: impl Fn(&BackendMetrics) -> u64) -> u64 {
        self.handles.iter().map(|handle| value(&handle.metrics.backends[backend])).sum()
    }

    pub(super) fn stop(self) {
        self.handles.iter().for_each(|handle| handle.send(Command::Stop));
        for handle in self.handles {
            let metrics = handle.metrics.clone();
            handle.join().unwrap();
            assert_eq!(metrics.completions_stray.value(), 0);
            assert!(metrics.backends.iter().all(|backend| backend.in_flight.value() == 0));
        }
        assert_eq!(self.siblings.permits().taken(BackendId(1)), 0, "every permit came back");
    }
}

/// A backend that answers with its name.
pub(super) fn named(name: &'static str) -> SocketAddr {
    responder(move |_| ok(name.as_bytes()))
}

/// A backend whose answers wait for the sender, one word for each.
pub(super) fn held(name: &'static str) -> (SocketAddr, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let address = responder(move |_| {
        let _ = wait.lock().unwrap().recv();
        ok(name.as_bytes())
    });
    (address, go)
}

fn ask(client: &mut Client, fields: &str) -> String {
    client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    String::from_utf8(client.receive().body).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_least_loaded_over_all_workers_is_taken() {
    for balance in [Balance::LeastConnections, Balance::P2c] {
        let (busy, go) = held("busy");
        let crew = Crew::start(2, Protocol::Http, &[busy, named("free")], |pool| pool.balance = balance);
        crew.health.set(BackendId(2), false);
        // Two: of an answer that has just arrived, its worker may not know yet that it is over.
        let mut waiting = [crew.client(0), crew.client(0)];
        waiting.iter_mut().for_each(|client| client.send(GET));
        wait_until("they wait", || crew.sum(1, |backend| backend.in_flight.value()) == 2);
        crew.health.set(BackendId(2), true);
        // A look at the siblings is as old as a millisecond.
        std::thread::sleep(Duration::from_millis(5));
        for worker in [0, 1, 1, 0] {
            let mut client = crew.client(worker);
            for _ in 0..10 {
                assert_eq!(ask(&mut client, ""), "free", "{balance:?} on worker {worker}");
            }
        }
        waiting.iter().for_each(|_| go.send(()).unwrap());
        for mut client in waiting {
            assert_eq!(client.receive().body, b"busy");
        }
        drop(go);
        crew.stop();
    }
}

#[test]
fn relays_count_as_load_too() {
    let silent = || super::backend(|mut stream| drop(std::io::Read::read(&mut stream, &mut [0; 1])));
    let crew = Crew::start(2, Protocol::Tcp, &[silent(), silent()], |pool| {
        pool.balance = Balance::LeastConnections;
    });
    let mut clients = Vec::new();
    for at in 0..6 {
        clients.push(crew.connect(at % 2));
        let in_flight = |backend| crew.sum(backend, |backend| backend.in_flight.value());
        wait_until("the relay runs", || in_flight(1) + in_flight(2) == at as u64 + 1);
        // A look at the others is as old as a millisecond.
        std::thread::sleep(Duration::from_millis(5));
        assert!(in_flight(1).abs_diff(in_flight(2)) <= 1, "{} and {}", in_flight(1), in_flight(2));
    }
    drop(clients);
    crew.stop();
}

#[test]
fn the_quick_one_is_taken() {
    let slow = responder(|_| {
        std::thread::sleep(Duration::from_millis(200));
        ok(b"slow")
    });
    let crew = Crew::start(1, Protocol::Http, &[slow, named("quick")], |pool| {
        pool.balance = Balance::PeakEwma;
    });
    let mut client = crew.client(0);
    let slow = (0..30).filter(|_| ask(&mut client, "") == "slow").count();
    assert!((1..=2).contains(&slow), "asked {slow} times");
    crew.stop();
}

#[test]
fn a_key_leads_to_the_same_backend_on_every_worker() {
    let backends = [named("a"), named("b"), named("c"), named("d")];
    let crew = Crew::start(2, Protocol::Http, &backends, |pool| {
        pool.balance = Balance::Maglev;
        pool.choosing.key = Key::Header("x-user".into());
        pool.secret = PoolSecret([1, 2]);
    });
    let mut clients = [crew.client(0), crew.client(1)];
    let mut seen = BTreeSet::new();
    let mut homes = Vec::new();
    for user in 0..40 {
        let fields = format!("X-User: {user}\r\n");
        let [one, other] = clients.each_mut().map(|client| ask(client, &fields));
        assert_eq!(one, other);
        seen.insert(one.clone());
        homes.push(one);
    }
    assert_eq!(seen.len(), 4, "all of them have some");
    let by_address: BTreeSet<_> = (0..10).map(|_| ask(&mut clients[0], "")).collect();
    assert_eq!(by_address.len(), 1, "without the key it is the client's address");
    crew.health.set(BackendId(2), false);
    for (user, home) in homes.iter().enumerate() {
        let now = ask(&mut clients[user % 2], &format!("X-User: {user}\r\n"));
        assert!(now == *home || home == "b" && now != "b", "{user}: {home}, then {now}");
    }
    crew.stop();
}

#[test]
fn backups_serve_while_nobody_else_can() {
    let crew = Crew::start(1, Protocol::Http, &[named("first"), named("spare")], |pool| {
        pool.backends[1].backup = true;
    });
    let mut client = crew.client(0);
    assert!((0..5).all(|_| ask(&mut client, "") == "first"));
    crew.health.set(BackendId(1), false);
    assert!((0..5).all(|_| ask(&mut client, "") == "spare"));
    crew.health.set(BackendId(1), true);
    assert!((0..5).all(|_| ask(&mut client, "") == "first"));
    crew.stop();
    // One that is up by health and cannot be reached.
    let crew = Crew::start(1, Protocol::Http, &[closed_port(), named("spare")], |pool| {
        pool.backends[1].backup = true;
    });
    assert_eq!(ask(&mut crew.client(0), ""), "spare");
    crew.stop();
}

#[test]
fn one_that_came_up_starts_slowly() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::Maglev] {
        let crew = Crew::start(1, Protocol::Http, &[named("old"), named("new")], |pool| {
            pool.balance = balance;
            pool.choosing.key = Key::Header("x-user".into());
            pool.choosing.slow_start = Some(Duration::from_secs(3600));
        });
        crew.health.set(BackendId(2), false);
        crew.health.rise(BackendId(2), Instant::now());
        let mut client = crew.client(0);
        let new = (0..200).filter(|user| ask(&mut client, &format!("X-User: {user}\r\n")) == "new").count();
        assert!((3..45).contains(&new), "{new} of 200 by {balance:?}, a tenth of its share is due");
        crew.stop();
    }
}
