//! Limits of backends, and who waits for one.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    backend,
    choosing::{Crew, held, named},
    peers::{Client, ok, responder},
    published, snapshot, wait_until,
};
use crate::{
    config::{Balance, Limits, PoolSnapshot, Protocol, Queue},
    model::{BackendId, reason::CloseReason},
    worker::Command,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn limit(pool: &mut PoolSnapshot, limit: u32, queue: Queue) {
    pool.backends.iter_mut().for_each(|backend| backend.max_connections = Some(limit));
    pool.choosing.queue = queue;
}

impl Crew {
    fn waiting(&self) -> u32 {
        self.siblings.permits().gate(&"test".into()).waiting()
    }

    pub(super) fn reason(&self, reason: CloseReason) -> u64 {
        self.handles.iter().map(|handle| handle.metrics.reason(reason).value()).sum()
    }

    fn in_flight(&self, backend: usize) -> u64 {
        self.sum(backend, |backend| backend.in_flight.value())
    }
}

/// A crowd on two workers, whatever the policy: never more at the backend than allowed, and nobody is lost.
#[test]
fn the_limit_holds_over_all_workers_and_everybody_is_served() {
    for (balance, most) in [(Balance::RoundRobin, 1), (Balance::LeastConnections, 3), (Balance::Maglev, 40)] {
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (here, top) = (now.clone(), peak.clone());
        let address = responder(move |_| {
            top.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            here.fetch_sub(1, Ordering::SeqCst);
            ok(b"served")
        });
        let crew = Crew::start(2, Protocol::Http, &[address], |pool| {
            pool.balance = balance;
            limit(pool, most, Queue { timeout: super::PATIENCE, ..Queue::default() });
        });
        thread::scope(|scope| {
            for at in 0..24 {
                let mut client = crew.client(at % 2);
                scope.spawn(move || {
                    for _ in 0..40 {
                        client.send(GET);
                        assert_eq!(client.receive().body, b"served");
                    }
                });
            }
        });
        let peak = peak.load(Ordering::SeqCst);
        assert!(peak <= most as usize, "{peak} at once, {most} allowed");
        assert_eq!(crew.waiting(), 0);
        crew.stop();
    }
}

#[test]
fn who_waits_is_served_in_order_over_all_workers() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, seen) = (Mutex::new(wait), Arc::new(Mutex::new(Vec::new())));
    let log = seen.clone();
    let address = responder(move |request| {
        log.lock().unwrap().push(request.start.clone());
        let _ = wait.lock().unwrap().recv();
        ok(b"")
    });
    let crew = Crew::start(2, Protocol::Http, &[address], |pool| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    });
    let mut clients = Vec::new();
    for (at, worker) in [0, 1, 1, 0, 1, 0, 0].into_iter().enumerate() {
        let mut client = crew.client(worker);
        client.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"));
        wait_until("it is in line", || crew.in_flight(1) == 1 && crew.waiting() == at as u32);
        clients.push(client);
    }
    for client in &mut clients {
        go.send(()).unwrap();
        assert!(client.receive().start.contains(" 200 "));
    }
    let expected: Vec<_> = (0..7).map(|at| format!("GET /{at} HTTP/1.1")).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    crew.stop();
}

#[test]
fn a_full_queue_and_a_long_wait_have_their_names() {
    let (address, go) = held("x");
    let crew = Crew::start(2, Protocol::Http, &[address], |pool| {
        limit(pool, 1, Queue { length: 1, timeout: Duration::from_millis(300) });
    });
    let mut clients = [crew.client(0), crew.client(1), crew.client(0)];
    clients[0].send(GET);
    wait_until("the first is served", || crew.in_flight(1) == 1);
    clients[1].send(GET);
    wait_until("the second waits", || crew.waiting() == 1);
    clients[2].send(GET);
    let answers = [2, 1].map(|at: usize| clients[at].receive());
    for (answer, name) in answers.iter().zip(["queue-full", "queue-timeout"]) {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(answer.start.contains(" 503 ") && body.contains(name), "{}: {body}", answer.start);
    }
    assert_eq!((crew.reason(CloseReason::QueueFull), crew.reason(CloseReason::QueueTimeout)), (1, 1));
    assert_eq!(crew.waiting(), 0);
    go.send(()).unwrap();
    assert_eq!(clients[0].receive().body, b"x");
    drop(go);
    clients[2].send(GET);
    assert_eq!(clients[2].receive().body, b"x", "its connection stayed");
    crew.stop();
}

#[test]
fn a_client_that_goes_away_leaves_the_queue() {
    let (address, go) = held("x");
    let crew = Crew::start(1, Protocol::Http, &[address], |pool| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    });
    let mut first = crew.client(0);
    first.send(GET);
    wait_until("the first is served", || crew.in_flight(1) == 1);
    let mut clients: Vec<Client> = Vec::new();
    for (at, request) in
        [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", GET].iter().enumerate()
    {
        let mut client = crew.client(0);
        client.send(request);
        wait_until("it waits", || crew.waiting() == at as u32 + 1);
        clients.push(client);
    }
    let mut last = clients.pop().unwrap();
    drop(clients);
    wait_until("only the last waits", || crew.waiting() == 1);
    assert_eq!(crew.reason(CloseReason::ClientGone), 2);
    drop(go);
    assert_eq!(first.receive().body, b"x");
    assert_eq!(last.receive().body, b"x");
    crew.stop();
}

#[test]
fn a_new_config_leaves_nobody_behind() {
    let (address, go) = held("x");
    let forever = |pool: &mut PoolSnapshot| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    };
    let crew = Crew::start(1, Protocol::Http, &[address], forever);
    let mut clients = Vec::new();
    for at in 0..4 {
        if at == 2 {
            let mut next = snapshot(2, Protocol::Http, crew.addresses[0], &[address], Limits::default());
            forever(&mut next.pools[0]);
            crew.handles[0].send(published(next));
            wait_until("it is taken over", || crew.handles[0].metrics.snapshots.value() == 1);
        }
        let mut client = crew.client(0);
        client.send(GET);
        wait_until("it is in line", || crew.in_flight(1) == 1 && crew.waiting() == at);
        clients.push(client);
    }
    for client in &mut clients {
        go.send(()).unwrap();
        assert_eq!(client.receive().body, b"x");
    }
    crew.stop();
}

#[test]
fn a_drain_ends_the_wait_with_its_patience() {
    let (address, go) = held("x");
    let crew = Crew::start(1, Protocol::Http, &[address], |pool| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    });
    let mut clients = [crew.client(0), crew.client(0)];
    clients[0].send(GET);
    wait_until("the first is served", || crew.in_flight(1) == 1);
    clients[1].send(GET);
    wait_until("the second waits", || crew.waiting() == 1);
    crew.handles[0].send(Command::Drain { deadline: Instant::now() + Duration::from_millis(100) });
    assert!(clients[1].is_closed());
    assert_eq!(crew.waiting(), 0);
    wait_until("both were told why", || crew.reason(CloseReason::Draining) == 2);
    drop(go);
    crew.stop();
}

#[test]
fn a_backend_that_comes_up_takes_who_waits() {
    let (address, go) = held("held");
    let crew = Crew::start(1, Protocol::Http, &[address, named("fresh")], |pool| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    });
    crew.health.set(BackendId(2), false);
    let mut clients = [crew.client(0), crew.client(0)];
    clients[0].send(GET);
    wait_until("the first is served", || crew.in_flight(1) == 1);
    clients[1].send(GET);
    wait_until("the second waits", || crew.waiting() == 1);
    crew.health.set(BackendId(2), true);
    assert_eq!(clients[1].receive().body, b"fresh");
    drop(go);
    assert_eq!(clients[0].receive().body, b"held");
    crew.stop();
}

/// Kept connections are as many as were busy, and all of them serve again.
#[test]
fn as_many_are_kept_as_were_busy() {
    const CLIENTS: usize = 150;
    let (address, go) = held("x");
    let crew = Crew::start(1, Protocol::Http, &[address], |_| {});
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| crew.client(0)).collect();
    for _ in 0..2 {
        clients.iter_mut().for_each(|client| client.send(GET));
        wait_until("all are served at once", || crew.in_flight(1) == CLIENTS as u64);
        (0..CLIENTS).for_each(|_| go.send(()).unwrap());
        clients.iter_mut().for_each(|client| assert_eq!(client.receive().body, b"x"));
        wait_until("all are kept", || crew.sum(1, |backend| backend.idle.value()) == CLIENTS as u64);
    }
    assert_eq!(crew.sum(1, |backend| backend.connects.value()), CLIENTS as u64);
    crew.stop();
}

#[test]
fn connections_wait_for_relays_to_end() {
    let echo = backend(|mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = stream.write_all(&bytes);
    });
    let crew = Crew::start(2, Protocol::Tcp, &[echo], |pool| {
        limit(pool, 1, Queue { timeout: super::PATIENCE, ..Queue::default() });
    });
    let mut clients = Vec::new();
    for at in 0..3 {
        let mut client = crew.connect(at % 2);
        client.write_all(format!("{at}").as_bytes()).unwrap();
        wait_until("it is in line", || crew.in_flight(1) == 1 && crew.waiting() == at as u32);
        clients.push(client);
    }
    for (at, mut client) in clients.into_iter().enumerate() {
        wait_until("it has its turn", || crew.waiting() == 2 - at as u32);
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, at.to_string());
        drop(client);
    }
    crew.stop();
}
