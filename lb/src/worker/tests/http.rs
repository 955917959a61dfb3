//! http listeners.

use std::{
    io::{BufReader, Read, Write},
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Fixture, PATIENCE, backend, closed_port, pattern,
    peers::{Client, http, ok, read_head, read_message, responder},
    wait_until,
};
use crate::{
    config::{Limits, Protocol},
    model::{BackendId, reason::CloseReason},
    worker::Command,
};

#[test]
fn connections_are_kept_on_both_sides() {
    let fixture = http(&[responder(|request| ok(request.start.as_bytes()))]);
    let mut client = Client::new(&fixture);
    for at in 0..20 {
        let response = client.get(&format!("/{at}?q={at}"));
        assert_eq!(response.start, "HTTP/1.1 200 OK");
        assert_eq!(response.body, format!("GET /{at}?q={at} HTTP/1.1").into_bytes());
    }
    let backend = &fixture.handle.metrics.backends[1];
    assert_eq!((backend.connects.value(), backend.reuses.value()), (1, 19));
    assert_eq!(fixture.handle.metrics.listeners[0].requests.value(), 20);
    fixture.stop();
}

#[test]
fn the_backend_learns_of_the_client() {
    let fixture = http(&[responder(|request| ok(request.fields.join("\n").as_bytes()))]);
    let mut client = Client::new(&fixture);
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\r\n",
    );
    let response = client.receive();
    let seen = String::from_utf8(response.body.clone()).unwrap();
    for line in ["Host: a.test", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "Via: 1.1 lb"] {
        assert!(seen.lines().any(|seen| seen.eq_ignore_ascii_case(line)), "{line} is missing in {seen}");
    }
    assert!(!seen.to_ascii_lowercase().contains("x-secret") && !seen.contains("Keep-Alive"), "{seen}");
    assert!(response.has("Via: 1.1 lb"));
    fixture.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let fixture = http(&[responder(|request| ok(request.start.as_bytes()))]);
    let mut client = Client::new(&fixture);
    let requests: String = (0..50).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    for at in 0..50 {
        assert_eq!(client.receive().body, format!("GET /{at} HTTP/1.1").into_bytes());
    }
    fixture.stop();
}

#[test]
fn bodies_go_both_ways_whole_by_length_and_by_chunks() {
    let by_length = responder(|request| ok(&request.body));
    let by_chunks = responder(|request| {
        let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in request.body.chunks(7_000) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    });
    for backend in [by_length, by_chunks] {
        let fixture = http(&[backend]);
        let mut client = Client::new(&fixture);
        for len in [1, 200, 9_000, 200_000, 3_000_000] {
            let body = pattern(len);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
            client.send(&body);
            assert!(client.receive().body == body, "{len} bytes by length");

            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(5_000) {
                client.send(format!("{:x};x=y\r\n", piece.len()));
                client.send(piece);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
            assert!(client.receive().body == body, "{len} bytes by chunks");
        }
        fixture.stop();
    }
}

#[test]
fn a_body_that_ends_with_the_connection_ends_well_for_the_client() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_message(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    assert_eq!(client.get("/").body, b"until the end");
    assert_eq!(client.get("/again").body, b"until the end", "the client's connection stayed");
    fixture.stop();
}

#[test]
fn refused_requests_are_answered_by_name_and_never_reach_a_backend() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let address = backend(move |mut stream| {
        count.fetch_add(stream.read(&mut [0; 1]).unwrap_or(0), Ordering::SeqCst);
    });
    let fixture = http(&[address]);
    let cases = [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", "505"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    ];
    for (request, status) in cases {
        let mut client = Client::new(&fixture);
        client.send(request);
        let response = client.receive();
        assert_eq!(response.start.split(' ').nth(1), Some(status), "{request:?} -> {}", response.start);
        assert!(response.has("Connection: close"), "{request:?}");
        assert!(client.is_closed());
    }
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    fixture.stop();
}

#[test]
fn a_bad_chunk_ends_both_connections() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = got.clone();
    let address = backend(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        log.lock().unwrap().push(bytes);
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n");
    assert!(client.receive().start.contains(" 400 "));
    assert!(client.is_closed());
    wait_until("the backend's connection ended", || got.lock().unwrap().len() == 1);
    let seen = String::from_utf8(got.lock().unwrap()[0].clone()).unwrap();
    assert!(!seen.contains("0\r\n\r\n"), "the backend must not take the request for complete: {seen}");
    assert_eq!(fixture.reason(CloseReason::Chunk), 1);
    fixture.stop();
}

#[test]
fn a_dead_backend_costs_the_client_nothing() {
    let fixture = http(&[closed_port(), responder(|_| ok(b"alive"))]);
    let mut client = Client::new(&fixture);
    for _ in 0..6 {
        assert_eq!(client.get("/").body, b"alive");
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.receive().body, b"alive");
    assert!(fixture.handle.metrics.backends[1].connect_failures.value() >= 3);
    fixture.stop();
}

#[test]
fn faults_have_their_status_and_keep_the_connection() {
    let fixture = http(&[closed_port()]);
    let mut client = Client::new(&fixture);
    assert!(client.get("/").start.contains(" 502 "));
    fixture.health.set(BackendId(1), false);
    assert!(client.get("/").start.contains(" 503 "));
    assert_eq!(fixture.reason(CloseReason::ConnectFailed), 1);
    assert_eq!(fixture.reason(CloseReason::NoBackend), 1);
    fixture.stop();
}

#[test]
fn a_kept_connection_that_the_backend_closes_is_not_used() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let request = read_message(&mut reader).unwrap();
        stream.write_all(&ok(request.start.as_bytes())).unwrap();
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    for at in 0..30 {
        assert_eq!(client.get(&format!("/{at}")).body, format!("GET /{at} HTTP/1.1").into_bytes());
    }
    let answered = &fixture.handle.metrics.listeners[0].responses[1];
    wait_until("the last answer is counted", || answered.value() == 30);
    fixture.stop();
}

#[test]
fn a_response_that_breaks_off_does_not_look_complete() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_message(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").unwrap();
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bytes = Vec::new();
    let ended = client.reader.read_to_end(&mut bytes);
    assert!(ended.is_err(), "a reset, not an end: {}", String::from_utf8_lossy(&bytes));
    assert!(!bytes.ends_with(b"0\r\n\r\n"));
    assert_eq!(fixture.reason(CloseReason::Truncated) + fixture.reason(CloseReason::BadResponse), 1);
    fixture.stop();
}

#[test]
fn slow_heads_meet_their_deadline() {
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let fixture = Fixture::start(Protocol::Http, &[responder(|_| ok(b"x"))], limits);
    let mut client = Client::new(&fixture);
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost");
    assert!(client.receive().start.contains(" 408 "));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(fixture.reason(CloseReason::HeadTimeout), 1);
    fixture.stop();
}

#[test]
fn an_early_answer_ends_the_upload() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst bytes");
    let response = client.receive();
    assert!(response.start.contains(" 413 ") && response.has("Connection: close"));
    assert!(client.is_closed());
    assert_eq!(fixture.handle.metrics.backends[1].idle.value(), 0, "a half-sent request is not kept");
    fixture.stop();
}

#[test]
fn continue_comes_from_the_backend() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(&ok(&body)).unwrap();
    });
    let fixture = http(&[address]);
    let mut client = Client::new(&fixture);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(read_head(&mut client.reader).unwrap().0, "HTTP/1.1 100 Continue");
    client.send("hello");
    assert_eq!(client.receive().body, b"hello");
    fixture.stop();
}

#[test]
fn a_drain_ends_idle_connections_and_finishes_exchanges() {
    let address = responder(|_| {
        thread::sleep(Duration::from_millis(300));
        ok(b"finished")
    });
    let fixture = http(&[address]);
    let (mut idle, mut busy) = (Client::new(&fixture), Client::new(&fixture));
    idle.get("/");
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the exchange runs", || fixture.handle.metrics.backends[1].in_flight.value() == 1);
    fixture.handle.send(Command::Drain { deadline: Instant::now() + PATIENCE });
    assert!(idle.is_closed());
    let response = busy.receive();
    assert_eq!(response.body, b"finished");
    assert!(response.has("Connection: close"));
    assert!(busy.is_closed());
    fixture.finish();
}

#[test]
fn a_hand_over_lets_idle_connections_ask_once_more_and_takes_nothing_new() {
    let fixture = http(&[responder(|_| ok(b"finished"))]);
    let mut idle = Client::new(&fixture);
    assert!(!idle.get("/").has("Connection: close"));
    let (borrower, lent) = flume::bounded(1);
    fixture.handle.send(Command::Lend(borrower));
    let lent = lent.recv().unwrap();
    assert_eq!(lent.len(), 1);
    fixture.handle.send(Command::HandOver { deadline: Instant::now() + PATIENCE, flows: None });
    wait_until("the other one takes what is new", || {
        let _client = fixture.connect();
        thread::sleep(Duration::from_millis(20));
        std::net::TcpListener::from(lent[0].socket.try_clone().unwrap()).accept().is_ok()
    });
    let response = idle.get("/");
    assert_eq!(response.body, b"finished");
    assert!(response.has("Connection: close"));
    assert!(idle.is_closed());
    fixture.finish();
}

#[test]
fn a_client_that_leaves_frees_everything() {
    let fixture = http(&[responder(|request| ok(&request.body))]);
    for cut in ["", "GET", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"] {
        let mut client = Client::new(&fixture);
        client.send(cut);
        client.writer.shutdown(Shutdown::Both).unwrap();
    }
    wait_until("all places are free", || fixture.admission.open() == 0);
    fixture.stop();
}
