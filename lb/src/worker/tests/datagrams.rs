//! udp listeners.

use std::{
    collections::HashSet,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{Fixture, PATIENCE, has_kernel_workers, snapshot, wait_until};
use crate::{
    config::{Limits, Protocol, Udp},
    model::{BackendId, GroupId, ListenerId, reason::CloseReason},
    worker::{BoundListener, Command, LentFlow},
};

/// Answers `NAME:datagram` to each, `replies` times.
fn named(name: &'static str, replies: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            for _ in 0..replies {
                let _ = socket.send_to(&[name.as_bytes(), b":", &buffer[..len]].concat(), from);
            }
        }
    });
    address
}

/// An address where nobody takes datagrams.
fn deserted() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(bind: &str, backends: &[SocketAddr], udp: Udp, limits: Limits) -> Fixture {
    let socket = UdpSocket::bind(bind).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let mut snapshot = snapshot(1, Protocol::Udp, address, backends, limits);
    snapshot.listeners[0].udp = udp;
    Fixture::start_at(socket.into(), address, snapshot, None)
}

fn client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(client: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let len = client.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

fn ask(client: &UdpSocket, text: &str) -> String {
    client.send(text.as_bytes()).unwrap();
    receive(client)
}

#[test]
fn each_client_stays_with_its_backend() {
    let fixture = start("127.0.0.1:0", &[named("a", 1), named("b", 1)], Udp::default(), Limits::default());
    let clients: Vec<_> = (0..10).map(|_| client(fixture.address)).collect();
    let mut names = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        let answers: HashSet<_> = (0..5).map(|turn| ask(client, &format!("{at}-{turn}"))).collect();
        assert_eq!(answers.len(), 5);
        let name = answers.iter().next().unwrap().split(':').next().unwrap().to_owned();
        assert!(answers.iter().all(|answer| answer.starts_with(&format!("{name}:{at}-"))), "{answers:?}");
        names.push(name);
    }
    assert_eq!(names.iter().filter(|name| *name == "a").count(), 5, "in turn");
    let metrics = &fixture.handle.metrics;
    let listener = &metrics.listeners[0];
    assert_eq!((listener.accepted.value(), listener.open.value()), (10, 10));
    wait_until("all are counted", || listener.sent_datagrams.value() == 50);
    assert_eq!(listener.received_datagrams.value(), 50);
    assert_eq!(listener.sent_bytes.value(), listener.received_bytes.value() + 2 * 50);
    assert_eq!(metrics.backend(BackendId(1)).in_flight.value(), 5);
    assert!(!has_kernel_workers(), "nothing was punted to an io_uring worker thread");
    fixture.stop();
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    for (bind, asked) in [("0.0.0.0:0", ["127.0.0.7", "127.0.0.8"]), ("[::]:0", ["::1", "::1"])] {
        let fixture = start(bind, &[named("a", 1)], Udp::default(), Limits::default());
        for ip in asked {
            // A connected socket takes answers of this address alone.
            let client = client(SocketAddr::new(ip.parse().unwrap(), fixture.address.port()));
            assert_eq!(ask(&client, "x"), "a:x");
        }
        fixture.stop();
    }
}

#[test]
fn large_bursts_and_long_datagrams_go_through() {
    let fixture = start("127.0.0.1:0", &[named("a", 3)], Udp::default(), Limits::default());
    let client = client(fixture.address);
    for len in [0, 1, 1400, 9000, 60_000] {
        let text = "x".repeat(len);
        client.send(text.as_bytes()).unwrap();
        for _ in 0..3 {
            assert!(receive(&client) == format!("a:{text}"), "{len}");
        }
    }
    // Many at once: each of them is answered, or dropped and counted by the kernel; none is doubled or cut.
    for at in 0..50 {
        client.send(format!("{at}").as_bytes()).unwrap();
    }
    let answers: Vec<_> = (0..150).map(|_| receive(&client)).collect();
    assert_eq!(answers.iter().collect::<HashSet<_>>().len(), 50);
    fixture.stop();
}

#[test]
fn a_flow_ends_with_its_answers_where_their_number_is_known() {
    let udp = Udp { replies: 2, ..Udp::default() };
    let fixture = start("127.0.0.1:0", &[named("a", 2), named("b", 2)], udp, Limits::default());
    let metrics = fixture.handle.metrics.clone();
    let client = client(fixture.address);
    for (turn, name) in ["a", "b", "a"].into_iter().enumerate() {
        assert_eq!(ask(&client, "x"), format!("{name}:x"));
        assert_eq!(receive(&client), format!("{name}:x"));
        wait_until("the flow is gone", || metrics.listeners[0].open.value() == 0);
        assert_eq!(metrics.listeners[0].accepted.value(), turn as u64 + 1);
    }
    fixture.stop();
}

#[test]
fn silence_ends_a_flow_and_the_next_word_begins_another() {
    let udp = Udp { idle: Duration::from_secs(1), ..Udp::default() };
    let fixture = start("127.0.0.1:0", &[named("a", 1)], udp, Limits::default());
    let client = client(fixture.address);
    for flows in 1..3 {
        assert_eq!(ask(&client, "x"), "a:x");
        assert_eq!(fixture.handle.metrics.listeners[0].accepted.value(), flows);
        wait_until("the flow is gone", || fixture.handle.metrics.listeners[0].open.value() == 0);
        wait_until("and its place free", || fixture.admission.open() == 0);
    }
    fixture.stop();
}

#[test]
fn flows_count_as_connections_do() {
    let limits = Limits { connections_per_ip: 2, ..Limits::default() };
    let fixture = start("127.0.0.1:0", &[named("a", 1)], Udp::default(), limits);
    let clients: Vec<_> = (0..2).map(|_| client(fixture.address)).collect();
    clients.iter().for_each(|client| assert_eq!(ask(client, "x"), "a:x"));
    let third = client(fixture.address);
    third.send(b"x").unwrap();
    let dropped = &fixture.handle.metrics.datagrams_dropped;
    wait_until("it is dropped", || dropped.of(CloseReason::ConnectionsPerIp).value() == 1);
    // Those that are in go on.
    assert_eq!(ask(&clients[0], "y"), "a:y");
    fixture.stop();
}

#[test]
fn a_backend_where_nobody_listens_is_left_for_another() {
    let fixture = start("127.0.0.1:0", &[deserted(), named("b", 1)], Udp::default(), Limits::default());
    let client = client(fixture.address);
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 9];
    wait_until("the other one answers", || {
        client.send(b"x").unwrap();
        client.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"b:x")
    });
    let metrics = &fixture.handle.metrics;
    assert!(metrics.backend(BackendId(1)).connect_failures.value() >= 1);
    assert!(fixture.reason(CloseReason::ConnectFailed) >= 1);
    // New flows, too, pass it over for a while.
    let before = metrics.backend(BackendId(1)).connects.value();
    for _ in 0..4 {
        assert_eq!(ask(&super::datagrams::client(fixture.address), "y"), "b:y");
    }
    assert_eq!(metrics.backend(BackendId(1)).connects.value(), before);
    fixture.stop();
}

#[test]
fn a_flow_leaves_a_backend_that_is_down() {
    let fixture = start("127.0.0.1:0", &[named("a", 1), named("b", 1)], Udp::default(), Limits::default());
    let client = client(fixture.address);
    assert_eq!(ask(&client, "x"), "a:x");
    fixture.health.set(BackendId(1), false);
    assert_eq!(ask(&client, "y"), "b:y");
    assert_eq!(fixture.reason(CloseReason::BackendDown), 1);
    fixture.health.set(BackendId(2), false);
    client.send(b"z").unwrap();
    let dropped = &fixture.handle.metrics.datagrams_dropped;
    wait_until("it is dropped", || dropped.of(CloseReason::NoBackend).value() == 1);
    fixture.stop();
}

#[test]
fn flows_go_on_in_another_process_with_their_backends() {
    let backends = [named("a", 1), named("b", 1)];
    let old = start("127.0.0.1:0", &backends, Udp::default(), Limits::default());
    let clients: Vec<_> = (0..4).map(|_| client(old.address)).collect();
    let before: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    let (borrower, sockets) = flume::bounded(1);
    old.handle.send(Command::Lend(borrower));
    let socket = sockets.recv().unwrap().remove(0).socket;
    let (heir, flows) = flume::bounded(1);
    old.handle.send(Command::HandOver { deadline: Instant::now() + PATIENCE, flows: Some(heir) });
    let flows = flows.recv().unwrap();
    assert_eq!(flows.len(), 4);
    // Nobody reads now; it waits.
    clients.iter().for_each(|client| assert_eq!(client.send(b"y").unwrap(), 1));
    let new = start("127.0.0.1:0", &backends, Udp::default(), Limits::default());
    let group = GroupId(7);
    let opened = vec![BoundListener { group, place: 0, listener: ListenerId(0), socket }];
    let flows = flows.into_iter().map(|flow| LentFlow { group, ..flow }).collect();
    new.handle.send(Command::TakeOver { opened, flows });
    for (client, before) in clients.iter().zip(before) {
        assert_eq!(receive(client), before.replace('x', "y"));
        assert_eq!(ask(client, "x"), before);
    }
    assert_eq!(new.handle.metrics.listeners[0].open.value(), 4);
    wait_until("the old worker has ended", || old.handle.is_finished());
    old.finish();
    new.stop();
}

/// The socket that a worker listens at, under a further descriptor.
fn lent(fixture: &Fixture) -> std::os::fd::OwnedFd {
    let (borrower, sockets) = flume::bounded(1);
    fixture.handle.send(Command::Lend(borrower));
    sockets.recv().unwrap().remove(0).socket
}

#[test]
fn a_socket_goes_to_another_worker_and_comes_back_with_its_flows() {
    let backends = [named("a", 1), named("b", 1)];
    let [one, other] = [0, 1].map(|_| start("127.0.0.1:0", &backends, Udp::default(), Limits::default()));
    let clients: Vec<_> = (0..4).map(|_| client(one.address)).collect();
    let before: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    let socket = lent(&one);
    // What is one address to the one is another to the other, who has one of its own, too.
    let (mut from, mut to) = ((&one, GroupId(0)), (&other, GroupId(7)));
    for round in 0..4 {
        let (heir, flows) = flume::bounded(1);
        from.0.handle.send(Command::GiveAway { places: vec![(from.1, 0)], flows: heir });
        let flows = flows.recv().unwrap();
        assert_eq!(flows.len(), 4, "{round}");
        // Nobody reads now; it waits.
        clients.iter().for_each(|client| assert_eq!(client.send(b"y").unwrap(), 1));
        let (group, socket) = (to.1, socket.try_clone().unwrap());
        let opened = vec![BoundListener { group, place: 0, listener: ListenerId(0), socket }];
        let flows = flows.into_iter().map(|flow| LentFlow { group, ..flow }).collect();
        to.0.handle.send(Command::TakeOver { opened, flows });
        for (client, before) in clients.iter().zip(&before) {
            assert_eq!(receive(client), before.replace('x', "y"));
            assert_eq!(ask(client, "x"), *before);
        }
        let open = |fixture: &Fixture| fixture.handle.metrics.listeners[0].open.value();
        // The tasks that had them end in their own time.
        wait_until("each is counted once", || (open(from.0), open(to.0)) == (0, 4));
        (from, to) = (to, from);
    }
    assert!(ask(&client(other.address), "own").ends_with(":own"), "it has lost what is its own");
    one.stop();
    other.stop();
}

#[test]
fn a_drain_ends_with_the_last_flow() {
    let fixture = start("127.0.0.1:0", &[named("a", 1)], Udp::default(), Limits::default());
    let known = client(fixture.address);
    assert_eq!(ask(&known, "x"), "a:x");
    fixture.handle.send(Command::Drain { deadline: Instant::now() + PATIENCE });
    let dropped = fixture.handle.metrics.clone();
    let new = client(fixture.address);
    wait_until("new flows are refused", || {
        let _ = new.send(b"x");
        dropped.datagrams_dropped.of(CloseReason::Draining).value() > 0
    });
    // An open one goes on until it falls silent.
    assert_eq!(ask(&known, "y"), "a:y");
    wait_until("the worker has ended", || fixture.handle.is_finished());
    assert_eq!(fixture.reason(CloseReason::Draining), 0, "no flow was cut off");
    fixture.finish();
}
