//! What a route's `retry` does: to whom a request goes again, and to whom it does not.

use std::{
    io::{BufReader, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Fixture, backend, closed_port, pattern,
    peers::{Client, ok, read_message, responder},
    wait_until,
};
use crate::{
    config::{BackendIds, Snapshot, parse},
    model::{Generation, reason::CloseReason},
};

/// A worker whose only route has these lines, before these backends.
pub(super) fn start(route: &str, backends: &[SocketAddr]) -> Fixture {
    start_in(route, "", backends)
}

/// The same, with these lines of the pool's.
fn start_in(route: &str, pool: &str, backends: &[SocketAddr]) -> Fixture {
    Fixture::start_with(
        |address| {
            let text = format!(
                "version = 1\n[listener.web]\nbind = [\"{address}\"]\nprotocol = \"http\"\n\
                 [route.r]\nlistener = \"web\"\npool = \"p\"\n{route}\n[pool.p]\nbackends = {:?}\n{pool}\n",
                backends.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
            let config = parse("test", &text).unwrap_or_else(|problems| panic!("{problems}")).config;
            Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()
        },
        None,
    )
}

/// Answers so and counts how often it was asked.
pub(super) fn counted(
    answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = responder(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        answer(&request.body)
    });
    (address, asked)
}

fn unavailable() -> Vec<u8> {
    b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec()
}

/// Retries and those refused.
pub(super) fn retries(fixture: &Fixture) -> (u64, u64) {
    let listener = &fixture.handle.metrics.listeners[0];
    (listener.retries.value(), listener.retries_refused.value())
}

const ON_503: &str = "retry = { on = [\"503\"], budget = \"100%\" }";

#[test]
fn a_status_that_is_named_goes_to_another_backend_and_no_client_sees_it() {
    let (busy, asked) = counted(|_| unavailable());
    let fixture = start(ON_503, &[busy, responder(|_| ok(b"served"))]);
    let mut client = Client::new(&fixture);
    for _ in 0..20 {
        assert_eq!(client.get("/").body, b"served");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    assert_eq!(retries(&fixture), (10, 0));
    let metrics = &fixture.handle.metrics;
    assert_eq!(
        metrics.backends[1].connects.value(),
        1,
        "an answer that came whole leaves its connection sound"
    );
    assert_eq!(metrics.listeners[0].responses[4].value(), 0);
    // What may have been done is not done again.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        statuses.push(client.receive().start);
    }
    statuses.sort();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 503 Busy"]);
    assert_eq!(retries(&fixture), (10, 0));
    fixture.stop();
}

#[test]
fn attempts_are_bounded_and_the_last_answer_is_the_clients() {
    let three: Vec<_> = (0..3).map(|_| counted(|_| unavailable())).collect();
    let addresses: Vec<_> = three.iter().map(|(address, _)| *address).collect();
    let fixture = start(ON_503, &addresses);
    let mut client = Client::new(&fixture);
    let response = client.get("/");
    assert_eq!((response.start.as_str(), response.body), ("HTTP/1.1 503 Busy", b"busy".to_vec()));
    assert_eq!(three.iter().map(|(_, asked)| asked.load(Ordering::SeqCst)).sum::<usize>(), 2);
    assert_eq!(retries(&fixture), (1, 0));
    fixture.stop();

    // Nobody else is there: the answer passes, and no budget is spent.
    let fixture = start(ON_503, &addresses[..1]);
    let mut client = Client::new(&fixture);
    assert_eq!(client.get("/").body, b"busy");
    assert_eq!(retries(&fixture), (0, 0));
    fixture.stop();

    // The other one cannot be reached: the same.
    let fixture = start(ON_503, &[addresses[0], closed_port()]);
    let mut client = Client::new(&fixture);
    let bodies: Vec<_> = (0..2).map(|_| client.get("/").start).collect();
    assert!(bodies.iter().any(|start| start == "HTTP/1.1 503 Busy"), "{bodies:?}");
    fixture.stop();
}

#[test]
fn the_budget_is_a_share_of_the_requests() {
    let (busy, asked) = counted(|_| unavailable());
    let (too, asked_too) = counted(|_| unavailable());
    let fixture = start("retry = { on = [\"503\"], budget = \"10%\" }", &[busy, too]);
    let mut client = Client::new(&fixture);
    for _ in 0..100 {
        assert_eq!(client.get("/").body, b"busy");
    }
    let (retried, refused) = retries(&fixture);
    assert_eq!(retried + refused, 100);
    assert!((1..=13).contains(&retried), "{retried} of 100");
    let asked = asked.load(Ordering::SeqCst) + asked_too.load(Ordering::SeqCst);
    assert_eq!(asked as u64, 100 + retried);
    fixture.stop();
}

/// One is busy, the other takes its time over what was sent again: while it does, nobody else's is.
#[test]
fn no_more_are_sent_again_at_once_than_the_pool_allows() {
    let (busy, _) = counted(|_| unavailable());
    let (begun, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (its_begun, its_go_on) = (begun.clone(), go_on.clone());
    let slow = responder(move |_| {
        its_begun.fetch_add(1, Ordering::SeqCst);
        while its_go_on.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        ok(b"served")
    });
    // The first one is asked for whatever comes; the other is a backup, so that only what is sent again comes there.
    let fixture = start_in(ON_503, &format!("backup = [\"{slow}\"]\nbreaker = {{ retries = 1 }}"), &[busy]);
    let refused = || fixture.handle.metrics.backends[2].retries_refused.value();
    let mut first = Client::new(&fixture);
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is sent again", || begun.load(Ordering::SeqCst) == 1);
    let mut second = Client::new(&fixture);
    for count in 1..=3 {
        assert_eq!(second.get("/").body, b"busy", "what there is already is the answer");
        assert_eq!(refused(), count);
    }
    go_on.store(1, Ordering::SeqCst);
    assert_eq!(first.receive().body, b"served");
    wait_until("its place is another one's", || second.get("/").body == b"served");
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    fixture.stop();
}

/// Reads a request and closes.
fn closing(stream: std::net::TcpStream) {
    read_message(&mut BufReader::new(stream)).unwrap();
}

#[test]
fn a_reset_and_silence_go_to_another_backend_where_they_are_named() {
    let sound = || responder(|request| ok(request.start.as_bytes()));
    let fixture = start("retry = { on = [\"reset\"], budget = \"100%\" }", &[backend(closing), sound()]);
    let mut client = Client::new(&fixture);
    for _ in 0..6 {
        assert_eq!(client.get("/x").body, b"GET /x HTTP/1.1");
    }
    assert_eq!(retries(&fixture), (3, 0));
    fixture.stop();

    let fixture = start("retry = { on = [\"503\"], budget = \"100%\" }", &[backend(closing), sound()]);
    let mut client = Client::new(&fixture);
    let starts: Vec<_> = (0..2).map(|_| client.get("/x").start).collect();
    assert!(starts.iter().any(|start| start.contains(" 502 ")), "{starts:?}");
    fixture.stop();

    let silent = backend(|mut stream| _ = stream.read_to_end(&mut Vec::new()));
    let route = "timeout = \"200ms\"\nretry = { on = [\"timeout\"], budget = \"100%\" }";
    let fixture = start(route, &[silent, sound()]);
    let mut client = Client::new(&fixture);
    for _ in 0..2 {
        assert_eq!(client.get("/x").body, b"GET /x HTTP/1.1");
    }
    assert_eq!((retries(&fixture), fixture.reason(CloseReason::UpstreamTimeout)), ((1, 0), 0));
    fixture.stop();
}

#[test]
fn a_small_body_goes_along_again_and_a_large_one_does_not() {
    for (len, is_small) in [(1, true), (3_000, true), (64 << 10, true), ((64 << 10) + 1, false)] {
        let (busy, asked) = counted(|_| unavailable());
        let fixture = start(ON_503, &[busy, responder(|request| ok(&request.body))]);
        let mut client = Client::new(&fixture);
        let mut served = 0;
        for _ in 0..2 {
            client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
            // It comes in pieces.
            for piece in pattern(len).chunks(20_000) {
                thread::sleep(Duration::from_millis(20));
                client.send(piece);
            }
            let response = client.receive();
            if response.start.contains(" 200 ") {
                assert!(response.body == pattern(len), "{len}");
                served += 1;
            }
        }
        assert_eq!((served, asked.load(Ordering::SeqCst)), (if is_small { 2 } else { 1 }, 1), "{len}");
        fixture.stop();
    }
}

#[test]
fn a_body_that_does_not_come_is_the_clients_fault() {
    let (address, asked) = counted(|_| ok(b""));
    let fixture = start(&format!("{ON_503}\nidle = \"200ms\""), &[address]);
    let mut client = Client::new(&fixture);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert!(client.receive().start.contains(" 408 "));
    let mut gone = Client::new(&fixture);
    gone.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    drop(gone);
    wait_until("it is counted", || fixture.reason(CloseReason::ClientGone) == 1);
    assert_eq!((asked.load(Ordering::SeqCst), fixture.reason(CloseReason::BodyTimeout)), (0, 1));
    fixture.stop();
}

#[test]
fn connections_that_fail_are_tried_again_unless_the_route_says_otherwise() {
    let sound = responder(|_| ok(b"served"));
    let fixture = start("retry = { on = [\"connect\"] }", &[closed_port(), sound]);
    let mut client = Client::new(&fixture);
    for _ in 0..8 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.receive().body, b"served");
    }
    assert_eq!(retries(&fixture), (0, 0), "nobody had them before");
    fixture.stop();

    let fixture = start(ON_503, &[closed_port(), sound]);
    let mut client = Client::new(&fixture);
    let starts: Vec<_> = (0..2).map(|_| client.get("/").start).collect();
    assert!(starts.iter().any(|start| start.contains(" 502 ")), "{starts:?}");
    assert!(starts.iter().any(|start| start.contains(" 200 ")), "{starts:?}");
    fixture.stop();

    let fixture = start("retry = { on = [\"connect\"] }", &[closed_port(), closed_port(), sound]);
    let mut client = Client::new(&fixture);
    let starts: Vec<_> = (0..6).map(|_| client.get("/").start).collect();
    assert!(starts.iter().any(|start| start.contains(" 502 ")), "two attempts reach two: {starts:?}");
    fixture.stop();
}

#[test]
fn an_answer_that_has_begun_is_never_taken_back() {
    let begins = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_message(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    });
    let (sound, asked) = counted(|_| ok(b"served"));
    let fixture = start("retry = { on = [\"reset\", \"503\"], budget = \"100%\" }", &[begins, sound]);
    for _ in 0..2 {
        let mut client = Client::new(&fixture);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut all = Vec::new();
        let _ = client.reader.read_to_end(&mut all);
        let text = String::from_utf8_lossy(&all).into_owned();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    assert_eq!((asked.load(Ordering::SeqCst), retries(&fixture)), (1, (0, 0)));
    fixture.stop();
}
