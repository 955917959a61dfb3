//! Connections that change to another protocol: row 31 of bad input, and what comes after the 101.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use super::{
    PATIENCE, backend, pattern,
    peers::{Client, http, ok, read_head, read_message, responder},
    routes::start,
    wait_until,
};
use crate::{model::reason::CloseReason, worker::Command};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s\r\n\r\n";

/// Reads a head that asks for it, and switches.
fn switched(stream: &TcpStream) -> (BufReader<TcpStream>, TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (_, fields) = read_head(&mut reader).unwrap();
    for line in ["Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k"] {
        assert!(fields.iter().any(|field| field == line), "{line} is missing in {fields:?}");
    }
    let mut writer = stream.try_clone().unwrap();
    writer.write_all(SWITCH.as_bytes()).unwrap();
    (reader, writer)
}

/// Switches, then sends back what comes, and a last word behind its end.
fn echo(stream: TcpStream) {
    let (mut reader, mut writer) = switched(&stream);
    std::io::copy(&mut reader, &mut writer).unwrap();
    writer.write_all(b"bye").unwrap();
}

fn switch(client: &mut Client) -> Vec<String> {
    let (start, fields) = read_head(&mut client.reader).unwrap();
    assert_eq!(start, "HTTP/1.1 101 Switching Protocols");
    fields
}

#[test]
fn row_31_nothing_passes_before_the_101_and_everything_after() {
    let (told, says) = mpsc::channel();
    let told = Mutex::new(told);
    let address = backend(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let early = reader.buffer().len() + stream.peek(&mut [0; 16]).unwrap_or(0);
        told.lock().unwrap().send(early).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[SWITCH.as_bytes(), b"behind the head"].concat()).unwrap();
        std::io::copy(&mut reader, &mut stream).unwrap();
        stream.write_all(b"bye").unwrap();
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    client.send([ASK.as_bytes(), b"early"].concat());
    assert_eq!(says.recv_timeout(PATIENCE), Ok(0), "bytes reached the backend before its 101");
    let fields = switch(&mut client);
    for line in ["Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: s", "Via: 1.1 lb"] {
        assert!(fields.iter().any(|field| field == line), "{line} is missing in {fields:?}");
    }
    let metrics = fixture.handle.metrics.clone();
    wait_until("the tunnel is open", || metrics.listeners[0].tunnels.value() == 1);
    client.send("late");
    client.writer.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "behind the headearlylatebye");
    let listener = &metrics.listeners[0];
    wait_until("the tunnel has ended", || listener.tunnels.value() == 0);
    assert_eq!((listener.upgrades.value(), listener.responses[0].value()), (1, 1));
    assert_eq!(listener.received_bytes.value(), (ASK.len() + "earlylate".len()) as u64);
    assert!(listener.sent_bytes.value() > all.len() as u64, "the head counts, too");
    assert_eq!(metrics.backends[1].idle.value(), 0, "no tunnel is kept");
    fixture.stop();
}

#[test]
fn a_backend_that_does_not_switch_answers_as_ever() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let fixture = http(&[responder(move |request| {
        log.lock().unwrap().push((request.start.clone(), request.value("upgrade").map(str::to_owned)));
        ok(request.start.as_bytes())
    })]);
    let mut client = Client::new(&fixture);
    // What stands behind the head is the next request.
    client.send(format!("{ASK}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.receive().body, b"GET /chat HTTP/1.1");
    assert_eq!(client.receive().body, b"GET /next HTTP/1.1");
    let expected = [
        ("GET /chat HTTP/1.1".to_owned(), Some("websocket".to_owned())),
        ("GET /next HTTP/1.1".to_owned(), None),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    let metrics = &fixture.handle.metrics;
    assert_eq!((metrics.listeners[0].upgrades.value(), metrics.backends[1].connects.value()), (0, 1));
    fixture.stop();
}

#[test]
fn row_31_a_101_that_nobody_asked_for_is_a_bad_response() {
    let fixture = http(&[backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_message(&mut reader).unwrap();
        let _ = stream.write_all(&[SWITCH.as_bytes(), b"poison"].concat());
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    })]);
    let body = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello";
    let refused = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        body,
    ];
    for request in refused {
        let mut client = Client::new(&fixture);
        client.send(request);
        let response = client.receive();
        assert!(response.start.contains(" 502 "), "{request:?} -> {}", response.start);
        assert!(!response.body.ends_with(b"poison"));
    }
    assert_eq!(fixture.reason(CloseReason::BadResponse), refused.len() as u64);
    assert_eq!(fixture.handle.metrics.listeners[0].upgrades.value(), 0);
    fixture.stop();
}

#[test]
fn a_route_says_what_may_be_changed_to() {
    let routes = r#"
        [route.none]
        listener = "web"
        path = "/none"
        pool = "p"
        upgrade = []
        [route.own]
        listener = "web"
        path = "/own"
        pool = "p"
        upgrade = ["Chat/2"]
    "#;
    let fixture =
        start("", routes, responder(|request| ok(request.value("upgrade").unwrap_or("-").as_bytes())));
    let mut client = Client::new(&fixture);
    for (path, offer, passed) in [
        ("none", "websocket", "-"),
        ("own", "websocket", "-"),
        ("own", "websocket, chat/2", "chat/2"),
        ("own", "chat", "-"),
    ] {
        client.send(format!(
            "GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {offer}\r\n\r\n"
        ));
        assert_eq!(client.receive().body, passed.as_bytes(), "{path} {offer}");
    }
    fixture.stop();
}

#[test]
fn bulk_in_a_tunnel_leaves_user_space() {
    const LEN: usize = 16 << 20;
    let fixture = http(&[backend(echo)]);
    let mut client = Client::new(&fixture);
    client.send(ASK);
    switch(&mut client);
    let mut writer = client.writer.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&pattern(LEN)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.reader.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got.strip_suffix(b"bye") == Some(&pattern(LEN)));
    let metrics = fixture.handle.metrics.clone();
    assert!(metrics.spliced_bytes.value() > LEN as u64 / 2, "{}", metrics.spliced_bytes.value());
    wait_until("its bytes are counted", || metrics.listeners[0].received_bytes.value() > LEN as u64);
    fixture.stop();
}

#[test]
fn silence_ends_a_tunnel_and_a_deadline_does_not() {
    let routes = r#"
        [route.chat]
        listener = "web"
        pool = "p"
        idle = "300ms"
        deadline = "400ms"
    "#;
    let fixture = start("", routes, backend(echo));
    let mut client = Client::new(&fixture);
    client.send(ASK);
    switch(&mut client);
    let begun = Instant::now();
    for _ in 0..8 {
        client.send("x");
        client.reader.read_exact(&mut [0; 1]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > Duration::from_millis(400), "longer than the deadline of the exchange");
    assert!(client.reader.read(&mut [0; 1]).is_err(), "a reset: nobody may take it for an end");
    wait_until("it is counted", || fixture.reason(CloseReason::IdleTimeout) == 1);
    assert_eq!(fixture.reason(CloseReason::Deadline), 0);
    fixture.stop();
}

#[test]
fn a_tunnel_outlives_a_drain_until_its_deadline() {
    let fixture = http(&[backend(echo)]);
    let mut client = Client::new(&fixture);
    client.send(ASK);
    switch(&mut client);
    let metrics = fixture.handle.metrics.clone();
    wait_until("the tunnel is open", || metrics.listeners[0].tunnels.value() == 1);
    fixture.handle.send(Command::Drain { deadline: Instant::now() + Duration::from_millis(500) });
    client.send("x");
    client.reader.read_exact(&mut [0; 1]).unwrap();
    assert!(client.reader.read(&mut [0; 1]).is_err());
    wait_until("it is counted", || metrics.reason(CloseReason::Draining).value() == 1);
    fixture.finish();
}
