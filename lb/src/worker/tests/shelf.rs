//! Connections that one worker has to spare and another takes.

use std::{
    future::Future,
    io::{BufReader, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, backend,
    choosing::Crew,
    closed_port,
    peers::{Client, ok, read_message, try_read_message},
    published, snapshot, wait_until,
};
use crate::{
    config::{Limits, PoolSnapshot, Protocol, ProxyVersion},
    keepalive::{Kept, Shelf},
    model::{BackendAddress, BackendId, reason::CloseReason},
    ring::{Group, Op, Ring, Socket, op::Readiness},
    sys::news,
    worker::{Command, stream::Stream},
};

const ID: BackendId = BackendId(1);
const LEFTOVER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nleftover";

/// A backend that answers with what it was asked for, and sees its connections come and go.
#[derive(Clone, Default)]
struct Seen {
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// For who wants to do something to them.
    connections: Arc<Mutex<Vec<TcpStream>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    fn start(&self) -> SocketAddr {
        let seen = self.clone();
        backend(move |mut stream| {
            seen.accepted.fetch_add(1, Ordering::SeqCst);
            seen.connections.lock().unwrap().push(stream.try_clone().unwrap());
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(request)) = try_read_message(&mut reader) {
                seen.requests.lock().unwrap().push(request.start.clone());
                let mut answer = request.start.into_bytes();
                answer.extend_from_slice(&request.body);
                if stream.write_all(&ok(&answer)).is_err() {
                    break;
                }
            }
            seen.ended.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.accepted() - self.ended.load(Ordering::SeqCst)
    }
}

fn two(address: SocketAddr, change: impl Fn(&mut PoolSnapshot)) -> Crew {
    Crew::start(2, Protocol::Http, &[address], change)
}

impl Crew {
    fn shelved(&self) -> usize {
        self.siblings.shelf().count(ID)
    }

    fn idle(&self) -> u64 {
        self.sum(1, |backend| backend.idle.value())
    }

    /// Has worker 0 open so many connections, and leave them on the shelf.
    fn shelve(&self, count: usize) {
        self.open(&vec![0; count]);
        wait_until("they are on the shelf", || self.shelved() == count);
    }

    /// Has these workers open a connection each, all at once.
    fn open(&self, workers: &[usize]) {
        let connects = || self.sum(1, |backend| backend.connects.value());
        let before = connects();
        let mut clients: Vec<_> = workers.iter().map(|worker| self.client(*worker)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            // Half a request each, so that none can have the connection of another.
            client.send("PUT /open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
            wait_until("it is connected", || connects() == before + at as u64 + 1);
        }
        for client in &mut clients {
            client.send("ok");
            client.receive();
        }
    }
}

#[test]
fn a_worker_takes_what_another_has_to_spare() {
    let seen = Seen::default();
    let crew = two(seen.start(), |_| {});
    for at in 0..4 {
        crew.client(at % 2).get(&format!("/{at}"));
        wait_until("it is on the shelf", || crew.shelved() == 1);
        assert_eq!(crew.idle(), 0, "it is in one place");
    }
    assert_eq!(seen.accepted(), 1);
    assert_eq!((crew.sum(1, |m| m.connects.value()), crew.sum(1, |m| m.reuses.value())), (1, 3));
    assert_eq!(crew.sum(1, |m| m.shelf_reuses.value()), 3);
    crew.stop();
    wait_until("it is closed", || seen.open() == 0);
}

/// Whatever a worker needs all the time stays its own.
#[test]
fn a_connection_that_is_needed_stays_where_it_is() {
    let seen = Seen::default();
    let crew = two(seen.start(), |_| {});
    let mut client = crew.client(0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        client.get("/");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((seen.accepted(), crew.sum(1, |m| m.shelf_reuses.value())), (1, 0));
    drop(client);
    crew.stop();
}

/// Crowds that move from one worker to the other and connections that follow, while others go on: each gets its own
/// answer.
#[test]
fn no_byte_of_an_exchange_reaches_another() {
    let (seen, asked) = (Seen::default(), AtomicUsize::new(0));
    let crew = two(seen.start(), |_| {});
    let ask = |client: &mut Client, name: &str| {
        let at = asked.fetch_add(1, Ordering::SeqCst);
        let body = format!("{name} {at} ").repeat(1 + at % 700);
        let len = body.len();
        client.send(format!("PUT /{name} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"));
        assert_eq!(client.receive().body, format!("PUT /{name} HTTP/1.1{body}").into_bytes());
    };
    let moved = || crew.sum(1, |m| m.shelf_reuses.value());
    let begun = Instant::now();
    thread::scope(|scope| {
        let (ask, crew, moved) = (&ask, &crew, &moved);
        for at in 0..8 {
            scope.spawn(move || {
                for round in 0..3 {
                    let mut client = crew.client(round % 2);
                    (0..10).for_each(|_| ask(&mut client, &format!("crowd{at}")));
                    drop(client);
                    let before = moved();
                    if round < 2 {
                        wait_until("they are on the shelf", || crew.shelved() > 3 || moved() > before);
                    }
                }
            });
        }
        for at in 0..8 {
            scope.spawn(move || {
                while begun.elapsed() < Duration::from_secs(4) {
                    let mut client = crew.client(at % 2);
                    (0..10).for_each(|_| ask(&mut client, &format!("other{at}")));
                    thread::sleep(Duration::from_millis(at as u64 * 20));
                }
            });
        }
    });
    assert!(moved() > 0, "nothing has changed hands");
    let asked = asked.into_inner();
    assert_eq!(seen.requests.lock().unwrap().len(), asked);
    assert_eq!(crew.sum(1, |m| m.exchanges.value()), asked as u64);
    assert_eq!(crew.sum(1, |m| m.reuses.value() + m.connects.value()), asked as u64);
    crew.stop();
    wait_until("all are closed", || seen.open() == 0);
}

#[test]
fn one_that_ended_or_spoke_on_the_shelf_is_nobodys() {
    for speaks in [false, true] {
        let seen = Seen::default();
        let crew = two(seen.start(), |_| {});
        crew.shelve(3);
        let connections = std::mem::take(&mut *seen.connections.lock().unwrap());
        for mut connection in &connections {
            match speaks {
                true => connection.write_all(LEFTOVER).unwrap(),
                false => connection.shutdown(std::net::Shutdown::Both).unwrap(),
            }
        }
        // At once, or when the shelf was looked over.
        assert_eq!(crew.client(1).get("/mine").body, b"GET /mine HTTP/1.1");
        assert_eq!((seen.accepted(), crew.sum(1, |m| m.shelf_reuses.value())), (4, 0));
        wait_until("they are closed", || seen.open() == 1 && crew.shelved() + crew.idle() as usize == 1);
        crew.stop();
    }
}

/// One that closes as the request reaches it is a kept connection like any other.
#[test]
fn one_that_ends_under_its_request_gives_way_to_a_fresh_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = backend(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read_message(&mut reader) {
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                return;
            }
            stream.write_all(&ok(request.start.as_bytes())).unwrap();
        }
    });
    let crew = two(address, |_| {});
    crew.shelve(1);
    assert_eq!(crew.client(1).get("/mine").body, b"GET /mine HTTP/1.1");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!((crew.sum(1, |m| m.shelf_reuses.value()), crew.sum(1, |m| m.connects.value())), (1, 2));
    crew.stop();
}

#[test]
fn the_shelf_keeps_no_more_than_a_worker_may() {
    let seen = Seen::default();
    let crew = two(seen.start(), |pool| pool.keepalive.per_worker = 2);
    crew.open(&[0, 1, 0, 1, 0, 1]);
    // What has no room there stays with its worker, and no more than that.
    let is_so = || (crew.shelved(), crew.idle(), seen.open()) == (2, 2, 4);
    wait_until("the rest is closed", is_so);
    thread::sleep(Duration::from_millis(2200));
    assert!(is_so(), "{} shelved, {} idle, {} open", crew.shelved(), crew.idle(), seen.open());
    crew.stop();
}

#[test]
fn age_goes_on_on_the_shelf() {
    let seen = Seen::default();
    let crew = two(seen.start(), |pool| pool.keepalive.idle = Duration::from_secs(4));
    let began = Instant::now();
    crew.shelve(2);
    wait_until("they are closed", || seen.open() == 0);
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!((crew.shelved(), crew.idle()), (0, 0));
    crew.stop();
}

#[test]
fn a_backend_that_leaves_takes_its_connections_along() {
    let seen = Seen::default();
    let crew = two(seen.start(), |_| {});
    crew.shelve(3);
    for (handle, address) in crew.handles.iter().zip(&crew.addresses) {
        let mut next = snapshot(1, Protocol::Http, *address, &[closed_port()], Limits::default());
        next.pools[0].backends[0].id = BackendId(2);
        handle.send(published(next));
    }
    wait_until("they are closed", || seen.open() == 0);
    assert_eq!((crew.shelved(), crew.idle()), (0, 0));
    crew.stop();
}

#[test]
fn a_drain_leaves_none_open() {
    let seen = Seen::default();
    let crew = two(seen.start(), |_| {});
    crew.shelve(3);
    let deadline = Instant::now() + PATIENCE;
    crew.handles.iter().for_each(|handle| handle.send(Command::Drain { deadline }));
    wait_until("they are closed", || seen.open() == 0);
    wait_until("the workers end", || crew.handles.iter().all(crate::worker::Handle::is_finished));
    assert_eq!((crew.shelved(), crew.idle()), (0, 0));
    assert_eq!(crew.reason(CloseReason::Draining), 0);
    crew.stop();
}

/// A connection that was opened for a client is no other client's.
#[test]
fn what_begins_with_a_proxy_header_is_never_shelved() {
    let seen = Seen::default();
    let address = backend({
        let seen = seen.clone();
        move |mut stream| {
            seen.accepted.fetch_add(1, Ordering::SeqCst);
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut header = String::new();
            std::io::BufRead::read_line(&mut reader, &mut header).unwrap();
            assert!(header.starts_with("PROXY TCP4 "), "{header}");
            while let Some(request) = read_message(&mut reader) {
                stream.write_all(&ok(request.start.as_bytes())).unwrap();
            }
            seen.ended.fetch_add(1, Ordering::SeqCst);
        }
    });
    // As a config with such a pool is resolved.
    let crew = two(address, |pool| {
        pool.proxy_protocol = Some(ProxyVersion::V1);
        pool.keepalive.per_worker = 0;
    });
    for at in 0..4 {
        let mut client = crew.client(at % 2);
        assert_eq!(client.get("/x").body, b"GET /x HTTP/1.1");
    }
    wait_until("they are closed", || seen.accepted() == 4 && seen.open() == 0);
    assert_eq!((crew.shelved(), crew.idle()), (0, 0));
    crew.stop();
}

/// Drives what waits for this ring.
fn wait_for<T>(ring: &Ring, waiting: impl Future<Output = T>) -> T {
    let mut waiting = pin!(waiting);
    loop {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => return done,
            Poll::Pending => ring.turn(Some(Duration::from_millis(10))).unwrap(),
        }
    }
}

/// Whatever a backend says around the time when its connection leaves the ring is either still to be read, or makes an end of
/// the connection: it is never gone from one that goes on.
#[test]
fn nothing_is_lost_where_a_connection_leaves_its_ring() {
    let ring = Ring::new().unwrap();
    for speaks in [Speaks::Never, Speaks::First, Speaks::Meanwhile, Speaks::Later] {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut stream = Stream::new(Socket::new(&ring, near.into()));
        stream.arm();
        ring.turn(None).unwrap();
        let mut say = |when| {
            if speaks == when {
                far.write_all(b"!").unwrap();
            }
        };
        say(Speaks::First);
        stream.call_off();
        say(Speaks::Meanwhile);
        let left = wait_for(&ring, stream.into_descriptor());
        say(Speaks::Later);
        match speaks {
            Speaks::Never => assert!(!news::is_there(left.unwrap())),
            Speaks::Later => assert!(news::is_there(left.unwrap())),
            Speaks::First | Speaks::Meanwhile => assert!(left.is_none_or(news::is_there), "{speaks:?}"),
        }
        assert_eq!((ring.in_flight(), ring.lent(Group::Small)), (0, 0));
    }
    let (near, _far) = UnixStream::pair().unwrap();
    let socket = Socket::new(&ring, near.into());
    let operation = Op::ready(&ring, &socket, Readiness::Readable);
    assert!(socket.into_descriptor().is_none(), "an operation names it");
    drop(operation);
    ring.shutdown().unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Never,
    First,
    Meanwhile,
    Later,
}

/// What it saves to take one instead of dialling. Loopback has no way to go: a network adds its round trip to a dial.
#[test]
#[ignore = "measures"]
fn a_dial_against_a_take() {
    const TIMES: u32 = 20_000;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to: BackendAddress = address.local_addr().unwrap().into();
    let sink = thread::spawn(move || (0..=TIMES).for_each(|_| drop(address.accept())));
    let ring = Ring::new().unwrap();
    let dial = || {
        let socket = Socket::stream(&ring, &to).unwrap();
        wait_for(&ring, Op::connect(&ring, &socket, &to).unwrap()).unwrap();
        socket
    };
    let began = Instant::now();
    (0..TIMES).for_each(|_| drop(dial()));
    let dialled = began.elapsed() / TIMES;
    let shelf = Shelf::new(2);
    let kept = |socket: Socket| Kept { connection: socket.into_descriptor().unwrap(), until: began };
    assert!(shelf.put(ID, kept(dial()), 1, 1).is_none());
    let began = Instant::now();
    for _ in 0..TIMES {
        let connection = shelf.take(ID).unwrap().connection;
        let _ = news::is_there(&connection);
        assert!(shelf.put(ID, kept(Socket::new(&ring, connection)), 1, 1).is_none());
    }
    let taken = began.elapsed() / TIMES;
    println!("a dial and its close take {dialled:?}, a take and its return {taken:?}");
    drop(shelf);
    ring.shutdown().unwrap();
    sink.join().unwrap();
}
