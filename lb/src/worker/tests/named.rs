//! Backends that come and go while requests run.

use std::{
    io::Read,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    Fixture, backend,
    peers::{Client, ok, responder},
    published, snapshot, wait_until,
};
use crate::{
    config::{Balance, Limits, Protocol, Snapshot},
    model::{BackendId, reason::CloseReason},
};

const BALANCES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::P2c,
    Balance::PeakEwma,
    Balance::Random,
    Balance::Maglev,
];

/// A pool of these, by id.
fn named(address: SocketAddr, backends: &[(u16, SocketAddr)], balance: Balance) -> Snapshot {
    let places: Vec<_> = backends.iter().map(|(_, place)| *place).collect();
    let mut snapshot = snapshot(1, Protocol::Http, address, &places, Limits::default());
    let pool = &mut snapshot.pools[0];
    (pool.is_named, pool.balance) = (true, balance);
    for (backend, (id, _)) in pool.backends.iter_mut().zip(backends) {
        backend.id = BackendId(*id);
    }
    snapshot
}

fn publish(fixture: &Fixture, snapshot: Snapshot) {
    let before = fixture.handle.metrics.snapshots.value();
    fixture.handle.send(published(snapshot));
    wait_until("it is taken over", || fixture.handle.metrics.snapshots.value() > before);
}

#[test]
fn a_pool_is_empty_until_its_name_resolves() {
    for balance in BALANCES {
        let place = responder(|_| ok(b"there"));
        let fixture = Fixture::start_with(|address| named(address, &[], balance), None);
        let mut client = Client::new(&fixture);
        assert_eq!(client.get("/").start, "HTTP/1.1 503 Service Unavailable", "{balance:?}");
        assert_eq!(fixture.reason(CloseReason::Unresolved), 1);
        publish(&fixture, named(fixture.address, &[(1, place)], balance));
        assert_eq!(client.get("/").body, b"there", "{balance:?}");
        publish(&fixture, named(fixture.address, &[], balance));
        assert_eq!(client.get("/").start, "HTTP/1.1 503 Service Unavailable", "{balance:?}");
        fixture.stop();
    }
}

/// Who stays keeps connections and counters; who left keeps none, and ends what it has begun.
#[test]
fn a_change_touches_only_what_changes() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counting = |name: &'static str| {
        let closed = closed.clone();
        backend(move |stream: TcpStream| {
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut writer = stream;
            while let Some(request) = super::peers::read_message(&mut reader) {
                if request.start.contains("/slow") {
                    thread::sleep(std::time::Duration::from_millis(300));
                }
                std::io::Write::write_all(&mut writer, &ok(name.as_bytes())).unwrap();
            }
            closed.fetch_add(1, Ordering::Relaxed);
        })
    };
    let (a, b, c) = (counting("a"), counting("b"), counting("c"));
    let robin = Balance::RoundRobin;
    let fixture = Fixture::start_with(|address| named(address, &[(1, a), (2, b)], robin), None);
    let metrics = fixture.handle.metrics.clone();
    let mut client = Client::new(&fixture);
    for _ in 0..4 {
        client.get("/");
    }
    wait_until("both have a kept connection", || {
        [1, 2].iter().all(|at| metrics.backends[*at].idle.value() == 1)
    });
    let mut slow: Vec<_> = (0..2).map(|_| Client::new(&fixture)).collect();
    for client in &mut slow {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("both are asked", || [1, 2].iter().all(|at| metrics.backends[*at].in_flight.value() == 1));
    publish(&fixture, named(fixture.address, &[(1, a), (3, c)], robin));
    let connects = metrics.backends[1].connects.value();
    let bodies: Vec<_> = (0..6).map(|_| client.get("/").body).collect();
    assert_eq!(bodies.iter().filter(|body| *body == b"c").count(), 3, "{bodies:?}");
    assert!(!bodies.contains(&b"b".to_vec()), "who left takes nothing new");
    let mut answers: Vec<_> = slow.iter_mut().map(|client| client.receive().body).collect();
    answers.sort();
    assert_eq!(answers, [b"a", b"b"], "and ends what it has begun");
    wait_until("what it had is closed", || closed.load(Ordering::Relaxed) == 1);
    assert_eq!(metrics.backends[2].idle.value(), 0);
    assert!(metrics.backends[1].connects.value() <= connects + 1, "who stays is dialled while busy only");
    fixture.stop();
}

#[test]
fn a_relay_stays_with_a_backend_that_left() {
    let echo = |mut stream: TcpStream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        std::io::Write::write_all(&mut stream, &bytes).unwrap();
    };
    let place = backend(echo);
    let of = |address, backends: &[(u16, SocketAddr)]| {
        let mut snapshot = named(address, backends, Balance::RoundRobin);
        snapshot.listeners[0].protocol = Protocol::Tcp;
        snapshot
    };
    let fixture = Fixture::start_with(|address| of(address, &[(1, place)]), None);
    let mut client = fixture.connect();
    std::io::Write::write_all(&mut client, b"before ").unwrap();
    wait_until("the relay runs", || fixture.handle.metrics.backends[1].in_flight.value() == 1);
    publish(&fixture, of(fixture.address, &[]));
    fixture.health.set(BackendId(1), false);
    assert!(fixture.connect().read(&mut [0; 1]).is_err(), "nothing new");
    assert_eq!(fixture.reason(CloseReason::Unresolved), 1);
    std::io::Write::write_all(&mut client, b"and after").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "before and after");
    fixture.stop();
}
