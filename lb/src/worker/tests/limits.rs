//! What clients may take: bodies, requests per time, connections of a listener; and methods that no route has.

use std::{
    io::{BufReader, Read},
    net::SocketAddr,
    sync::mpsc,
    time::Duration,
};

use super::{
    Fixture, PATIENCE, backend,
    peers::{Client, ok, read_head, responder},
    routes::start,
    wait_until,
};
use crate::{
    config::{BackendIds, Limits, MemoryLimit, Protocol, Snapshot, parse},
    limits::Pressure,
    model::{Generation, reason::CloseReason},
};

/// With these further lines at the top.
fn start_top(top: &str, listener: &str, backend: SocketAddr) -> Fixture {
    Fixture::start_with(
        |address| {
            let text = format!(
                "version = 1\n{top}\n[listener.web]\nbind = [\"{address}\"]\nprotocol = \"http\"\npool = \"p\"\n{listener}\n\
                 [pool.p]\nbackends = [\"{backend}\"]\n"
            );
            let config = parse("test", &text).unwrap_or_else(|problems| panic!("{problems}")).config;
            Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()
        },
        None,
    )
}

fn echo() -> SocketAddr {
    responder(|request| ok(&request.body))
}

fn post(path: &str, len: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}", "x".repeat(len))
}

#[test]
fn row_24_a_body_whose_length_is_too_much_reaches_nobody() {
    let routes = r#"
        [route.small]
        listener = "web"
        path = "/small"
        pool = "p"
        body_bytes = "10B"
        [route.any]
        listener = "web"
        pool = "p"
        body_bytes = "none"
    "#;
    let fixture = start("", routes, echo());
    let mut client = Client::new(&fixture);
    client.send(post("/small", 10));
    assert_eq!(client.receive().body.len(), 10);
    client.send(post("/any", 100_000));
    assert_eq!(client.receive().body.len(), 100_000);
    // Before the client has sent any of it, and in place of a 100.
    client.send("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    let response = client.receive();
    assert!(response.start.contains(" 413 ") && response.has("Connection: close"), "{}", response.start);
    assert!(client.is_closed());
    assert_eq!(fixture.reason(CloseReason::BodyTooLarge), 1);
    assert_eq!(fixture.handle.metrics.backends[1].exchanges.value(), 2);
    fixture.stop();
}

#[test]
fn row_24_a_body_that_grows_too_long_is_cut_off_and_does_not_look_complete() {
    let (told, says) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let address = backend(move |stream| {
        let mut reader = BufReader::new(stream);
        read_head(&mut reader).unwrap();
        let mut seen = Vec::new();
        let ended = reader.read_to_end(&mut seen);
        told.lock().unwrap().send((ended.is_err(), seen)).unwrap();
    });
    let fixture = start_top("limits.body_bytes = \"8B\"", "", address);
    let mut client = Client::new(&fixture);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    wait_until("it has begun", || fixture.handle.metrics.backends[1].in_flight.value() == 1);
    client.send("5\r\nworld\r\n0\r\n\r\n");
    assert!(client.receive().start.contains(" 413 "));
    assert!(client.is_closed());
    let (was_reset, seen) = says.recv_timeout(PATIENCE).unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert!(was_reset && !seen.contains("world") && !seen.ends_with("0\r\n\r\n"), "{was_reset} {seen:?}");
    fixture.stop();
}

#[test]
fn row_36_a_slow_body_is_the_clients_fault() {
    let address = backend(|mut stream| _ = stream.read_to_end(&mut Vec::new()));
    let fixture = start_top("limits.idle_timeout = \"200ms\"", "", address);
    for framing in
        ["Content-Length: 9", "Transfer-Encoding: chunked", "Content-Length: 9\r\nExpect: 100-continue"]
    {
        let mut client = Client::new(&fixture);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\n"));
        let response = client.receive();
        assert!(response.start.contains(" 408 "), "{framing}: {}", response.start);
    }
    assert_eq!(
        (fixture.reason(CloseReason::BodyTimeout), fixture.reason(CloseReason::UpstreamTimeout)),
        (3, 0)
    );
    fixture.stop();
}

#[test]
fn a_pause_in_an_upload_is_no_silence_of_the_backend() {
    let routes = "[route.r]\nlistener = \"web\"\npool = \"p\"\ntimeout = \"200ms\"\n";
    let fixture = start("", routes, echo());
    for framing in
        ["Content-Length: 5", "Content-Length: 5\r\nExpect: 100-continue", "Transfer-Encoding: chunked"]
    {
        let mut client = Client::new(&fixture);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        std::thread::sleep(Duration::from_millis(500));
        client.send(if framing.starts_with("T") { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" });
        assert_eq!(client.receive().body, b"hello", "{framing}");
    }
    fixture.stop();
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let routes = r#"
        [route.keys]
        listener = "web"
        path = "/key"
        pool = "p"
        rate_limit = { rate = "1/m", burst = 3, key = "header:X-Key" }
        [route.all]
        listener = "web"
        path = "/all"
        respond = { body = "hi" }
        rate_limit = { rate = "1/h", burst = 2, key = "route" }
        [route.peer]
        listener = "web"
        path = "/peer"
        pool = "p"
        rate_limit = { rate = "1/h", key = "address" }
    "#;
    let fixture = start("trusted_proxies = [\"127.0.0.0/8\"]", routes, echo());
    let mut client = Client::new(&fixture);
    let mut ask = |path: &str, field: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        client.receive()
    };
    // Each row is asked for until it is refused; on one connection, which stays.
    for (path, field, allowed) in [
        ("/key", "X-Key: one\r\n", 3),
        ("/key", "X-Key: two\r\n", 3),
        ("/key", "", 3),
        ("/all", "", 2),
        ("/all", "X-Key: three\r\n", 0),
        ("/peer", "", 1),
        ("/peer", "X-Forwarded-For: 203.0.113.9\r\n", 1),
        ("/peer", "X-Forwarded-For: forged, 203.0.113.9\r\n", 0),
        ("/peer", "X-Forwarded-For: 2001:db8::1\r\n", 1),
        ("/peer", "X-Forwarded-For: 2001:db8::2\r\n", 0),
    ] {
        for _ in 0..allowed {
            assert!(ask(path, field).start.contains(" 200 "), "{path} {field:?}");
        }
        let refused = ask(path, field);
        assert!(refused.start.contains(" 429 "), "{path} {field:?}: {}", refused.start);
        assert!(refused.body.ends_with(b"rate-limit\n") && !refused.has("Connection: close"));
        let seconds: u64 = refused.value("Retry-After").unwrap().parse().unwrap();
        let most = if path == "/key" { 60 } else { 3600 };
        assert!((most / 2..=most).contains(&seconds), "{seconds}");
    }
    assert_eq!(fixture.reason(CloseReason::RateLimit), 10);
    assert_eq!(fixture.handle.metrics.listeners[0].reasons.of(CloseReason::RateLimit).value(), 10);
    fixture.stop();
}

#[test]
fn a_bucket_fills_again() {
    let fixture = start_top("limits.rate = { rate = \"5/s\", burst = 1 }", "", echo());
    let mut client = Client::new(&fixture);
    assert!(client.get("/").start.contains(" 200 "));
    assert!(client.get("/").start.contains(" 429 "));
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.get("/").start.contains(" 200 "));
    fixture.stop();
}

#[test]
fn a_method_that_no_route_has_is_told_which_there_are() {
    let routes = r#"
        [route.read]
        listener = "web"
        path = "/items/{id}"
        method = ["GET", "HEAD"]
        pool = "p"
        [route.write]
        listener = "web"
        path = "/items/*"
        method = ["POST"]
        headers = { X-Key = "1" }
        pool = "p"
        [route.refused]
        listener = "web"
        method = ["PATCH", "POST"]
        respond = { status = 405, headers = { Allow = "none" } }
        [route.other]
        listener = "web"
        host = ["other"]
        path = "/items/7"
        method = ["DELETE"]
        pool = "p"
    "#;
    let fixture = start("", routes, echo());
    let mut client = Client::new(&fixture);
    for (start, field, status, allow) in [
        ("GET /items/7", "", " 200 ", None),
        ("PUT /items/7", "", " 405 ", Some("GET, HEAD")),
        ("PUT /items/7", "X-Key: 1\r\n", " 405 ", Some("GET, HEAD, POST")),
        ("PUT /items", "X-Key: 1\r\n", " 405 ", Some("POST")),
        ("PUT /items", "", " 404 ", None),
        ("PUT /", "", " 404 ", None),
        ("PATCH /items/7", "", " 405 ", Some("none")),
        ("GET /items/7", "", " 200 ", None),
    ] {
        client.send(format!("{start} HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        let response = client.receive();
        assert!(response.start.contains(status), "{start} {field:?}: {}", response.start);
        assert_eq!(response.value("Allow"), allow, "{start} {field:?}");
    }
    assert_eq!(fixture.reason(CloseReason::MethodNotAllowed), 3);
    fixture.stop();

    // A listener's own pool takes what no route does.
    let fixture = start("pool = \"p\"", routes, echo());
    let mut client = Client::new(&fixture);
    client.send("PUT /items/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.receive().start.contains(" 200 "));
    fixture.stop();
}

#[test]
fn a_listener_has_its_own_limit_of_connections() {
    let fixture = start_top("", "connections = 2", echo());
    let mut two: Vec<_> = (0..2).map(|_| Client::new(&fixture)).collect();
    for client in &mut two {
        assert!(client.get("/").start.contains(" 200 "));
    }
    assert!(Client::new(&fixture).is_closed());
    assert_eq!(fixture.reason(CloseReason::ConnectionsListener), 1);
    drop(two.pop());
    wait_until("its place is free", || fixture.admission.open() == 1);
    assert!(Client::new(&fixture).get("/").start.contains(" 200 "));
    fixture.stop();
}

#[test]
fn when_memory_is_short_keepalive_goes_first_then_requests_then_connections() {
    const BUDGET: u64 = 1 << 50;
    let limits = Limits { memory: MemoryLimit::Bytes(BUDGET), ..Limits::default() };
    let fixture = Fixture::start(Protocol::Http, &[echo()], limits);
    let (memory, metrics) = (fixture.admission.memory(), fixture.handle.metrics.clone());
    let mut used = 0;
    // Nobody measures the heap here.
    let mut fill = |percent: u64, pressure: Pressure| {
        let next = BUDGET * percent / 100;
        memory.move_pipes(std::mem::replace(&mut used, next), next);
        wait_until("the worker knows", || metrics.memory_pressure.value() == pressure as u64);
    };
    let mut idle = Client::new(&fixture);
    let mut late = Client::new(&fixture);
    assert!(!idle.get("/").has("Connection: close"));
    wait_until("it is kept", || metrics.backends[1].idle.value() == 1);
    fill(86, Pressure::Keepalive);
    assert!(idle.is_closed());
    assert_eq!(metrics.backends[1].idle.value(), 0);
    let mut next = Client::new(&fixture);
    assert!(next.get("/").has("Connection: close"));
    assert!(next.is_closed());
    assert_eq!((metrics.backends[1].idle.value(), fixture.reason(CloseReason::IdleTimeout)), (0, 0));

    fill(95, Pressure::Requests);
    let refused = late.get("/");
    assert!(refused.start.contains(" 503 ") && refused.body.ends_with(b"memory\n"), "{}", refused.start);
    assert!(refused.has("Connection: close") && late.is_closed());

    fill(100, Pressure::Connections);
    assert!(Client::new(&fixture).is_closed());
    assert_eq!(fixture.reason(CloseReason::Memory), 2);

    fill(10, Pressure::Calm);
    let mut again = Client::new(&fixture);
    for _ in 0..2 {
        assert!(!again.get("/").has("Connection: close"));
    }
    fixture.stop();
}
