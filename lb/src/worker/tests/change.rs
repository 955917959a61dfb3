//! Addresses, listeners and backends that come and go while connections are open.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Fixture, PATIENCE, backend,
    peers::{Client, http, ok, responder},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol, Snapshot},
    model::{BackendId, GroupId, ListenerId, reason::CloseReason},
    worker::{BoundListener, Change, Command, Compiled, TlsParts},
};

fn change(fixture: &Fixture, next: Snapshot, edit: impl FnOnce(&mut Change)) {
    let taken = fixture.handle.metrics.snapshots.value();
    let mut change =
        Change::of(Compiled::new(Arc::new(next), &TlsParts::default()), Instant::now() + PATIENCE);
    edit(&mut change);
    fixture.handle.send(Command::Change(Box::new(change)));
    wait_until("it is taken over", || fixture.handle.metrics.snapshots.value() > taken);
}

fn bound() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener)
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn an_address_comes_and_another_goes() {
    let place = responder(|_| ok(b"there"));
    let fixture = http(&[place]);
    let mut old = Client::new(&fixture);
    assert_eq!(old.get("/").body, b"there");
    let (address, listener) = bound();
    let next = || snapshot(2, Protocol::Http, address, &[place], Limits::default());
    change(&fixture, next(), |change| {
        let (group, listener_id) = (GroupId(7), ListenerId(0));
        change.opened.push(BoundListener { group, place: 0, listener: listener_id, socket: listener.into() });
    });
    let mut new = Client::over(TcpStream::connect(address).unwrap());
    assert_eq!(new.get("/").body, b"there");
    change(&fixture, next(), |change| change.closed.push(GroupId(0)));
    wait_until("nobody listens there", || is_refused(fixture.address));
    assert_eq!(old.get("/").body, b"there", "its connections stay, as the listener does");
    assert_eq!(Client::over(TcpStream::connect(address).unwrap()).get("/").body, b"there");
    assert!(old.get("/").body == b"there" && new.get("/").body == b"there");
    fixture.stop();
}

#[test]
fn a_socket_that_is_given_away_is_another_ones_and_nobody_is_refused() {
    let place = responder(|_| ok(b"there"));
    let (one, other) = (http(&[place]), http(&[place]));
    let mut kept = Client::new(&one);
    assert_eq!(kept.get("/").body, b"there");
    let (borrower, lent) = flume::bounded(1);
    one.handle.send(Command::Lend(borrower));
    let socket = lent.recv().unwrap().remove(0).socket;
    let next = || snapshot(2, Protocol::Http, one.address, &[place], Limits::default());
    change(&other, next(), |change| {
        let (group, listener) = (GroupId(7), ListenerId(0));
        change.opened.push(BoundListener { group, place: 3, listener, socket });
    });
    let (flows, given) = flume::bounded(1);
    one.handle.send(Command::GiveAway { places: vec![(GroupId(0), 0)], flows });
    assert_eq!(given.recv().unwrap().len(), 0);
    let accepted = |fixture: &Fixture| fixture.handle.metrics.listeners[0].accepted.value();
    let before = (accepted(&one), accepted(&other));
    // Those that it had taken by then are its own; soon there are no more of them.
    wait_until("the other one has all", || {
        let taken = accepted(&one);
        assert_eq!(Client::new(&one).get("/").body, b"there");
        accepted(&one) == taken
    });
    let taken = accepted(&one);
    for _ in 0..20 {
        assert_eq!(Client::new(&one).get("/").body, b"there");
    }
    assert!(accepted(&one) == taken && accepted(&other) >= before.1 + 20);
    assert_eq!(kept.get("/").body, b"there", "a connection stays where it is");
    let (borrower, lent) = flume::bounded(1);
    one.handle.send(Command::Lend(borrower));
    assert!(lent.recv().unwrap().is_empty(), "what is given away cannot be lent");
    one.stop();
    other.stop();
}

#[test]
fn a_listener_that_leaves_ends_with_its_exchange() {
    let place = responder(|message| {
        if message.start.contains("/slow") {
            thread::sleep(Duration::from_millis(300));
        }
        ok(b"there")
    });
    let fixture = http(&[place]);
    let (mut idle, mut busy) = (Client::new(&fixture), Client::new(&fixture));
    assert_eq!(idle.get("/").body, b"there");
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let metrics = fixture.handle.metrics.clone();
    wait_until("the exchange runs", || metrics.backends[1].in_flight.value() == 1);
    let mut next = snapshot(2, Protocol::Http, fixture.address, &[place], Limits::default());
    (next.listeners[0].id, next.listeners[0].name) = (ListenerId(5), "other".into());
    change(&fixture, next, |change| change.closed.push(GroupId(0)));
    assert!(idle.is_closed(), "it has nothing to wait for");
    assert_eq!(busy.receive().body, b"there");
    assert!(busy.is_closed());
    wait_until("all are closed", || metrics.listeners[0].open.value() == 0);
    fixture.stop();
}

#[test]
fn an_address_may_become_another_listeners() {
    let (one, two) = (responder(|_| ok(b"one")), responder(|_| ok(b"two")));
    let fixture = http(&[one]);
    let mut next = snapshot(2, Protocol::Http, fixture.address, &[two], Limits::default());
    (next.listeners[0].id, next.listeners[0].name) = (ListenerId(5), "other".into());
    next.pools[0].backends[0].id = BackendId(9);
    change(&fixture, next, |change| change.moved.push((GroupId(0), ListenerId(5))));
    assert_eq!(Client::new(&fixture).get("/").body, b"two");
    let metrics = &fixture.handle.metrics;
    assert_eq!((metrics.listeners[0].accepted.value(), metrics.listeners[5].accepted.value()), (0, 1));
    fixture.stop();
}

/// One relay is silent, the other never is.
#[test]
fn what_goes_on_with_a_backend_that_leaves_is_ended_in_time() {
    let echo = |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    };
    let (gone, stays) = (backend(echo), backend(echo));
    let fixture = Fixture::start(Protocol::Tcp, &[gone], Limits::default());
    let mut silent = fixture.connect();
    silent.write_all(b"x").unwrap();
    silent.read_exact(&mut [0]).unwrap();
    let mut busy = fixture.connect();
    // Both have their backend before that leaves.
    busy.write_all(b"x").unwrap();
    busy.read_exact(&mut [0]).unwrap();
    busy.write_all(b"x").unwrap();
    let next = |address: SocketAddr| {
        let mut next = snapshot(2, Protocol::Tcp, fixture.address, &[address], Limits::default());
        next.pools[0].backends[0].id = BackendId(9);
        next
    };
    let leave_by = Instant::now() + Duration::from_millis(1500);
    change(&fixture, next(stays), |change| change.leave_by = leave_by);
    let mut newer = fixture.connect();
    newer.write_all(b"x").unwrap();
    newer.read_exact(&mut [0]).unwrap();
    let mut buffer = [0; 64];
    let ended = loop {
        assert!(leave_by.elapsed() < PATIENCE, "it goes on for ever");
        match busy.read(&mut buffer) {
            Ok(0) => break Instant::now(),
            Ok(length) => {
                if busy.write_all(&buffer[..length]).is_err() {
                    break Instant::now();
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break Instant::now();
            }
        }
    };
    assert!(ended >= leave_by, "it had until then");
    assert_eq!(silent.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait_until("both are counted", || fixture.reason(CloseReason::BackendRemoved) == 2);
    newer.write_all(b"y").unwrap();
    newer.read_exact(&mut [0]).unwrap();
    fixture.stop();
}
