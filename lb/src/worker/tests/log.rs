//! Records of the access log as a worker leaves them in its queue.

use std::{
    io::{Read, Write},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use super::{
    Fixture, closed_port,
    peers::{Client, ok, responder},
    snapshot, wait_until,
};
use crate::{
    config::{AccessLogSnapshot, BackendIds, Limits, LogInclude, Protocol, SAMPLE_ALL, Snapshot, parse},
    log::{Facts, QUEUE_BYTES, Receiver, Record, Text, queue},
    model::{Generation, reason::CloseReason},
    sys::event,
    worker::AccessLogSetup,
};

fn start(backend: std::net::SocketAddr, queue_bytes: usize, sample_ppm: u32) -> (Fixture, Receiver) {
    let (sender, receiver) = queue(queue_bytes, Arc::new(AtomicBool::new(true)));
    let setup = AccessLogSetup { sender, bell: event::new().unwrap(), epoch: Instant::now() };
    let wanted = AccessLogSnapshot { include: LogInclude::default(), sample_ppm };
    let snapshot = |address| Snapshot {
        access_log: Some(wanted),
        ..snapshot(1, Protocol::Http, address, &[backend], Limits::default())
    };
    (Fixture::start_with(snapshot, Some(setup)), receiver)
}

/// Of a route with these lines before these backends.
fn start_routed(route: &str, backends: &[std::net::SocketAddr]) -> (Fixture, Receiver) {
    let (sender, receiver) = queue(QUEUE_BYTES, Arc::new(AtomicBool::new(true)));
    let setup = AccessLogSetup { sender, bell: event::new().unwrap(), epoch: Instant::now() };
    let snapshot = |address| {
        let text = format!(
            "version = 1\n[log]\naccess = \"json\"\n[listener.web]\nbind = [\"{address}\"]\nprotocol = \"http\"\n\
             [route.r]\nlistener = \"web\"\npool = \"p\"\n{route}\n[pool.p]\nbackends = {:?}\n",
            backends.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        let config = parse("test", &text).unwrap_or_else(|problems| panic!("{problems}")).config;
        Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()
    };
    (Fixture::start_with(snapshot, Some(setup)), receiver)
}

/// Facts and path of each record.
fn records(receiver: &mut Receiver) -> Vec<(Facts, String)> {
    let mut records = Vec::new();
    while receiver.pop(|bytes| {
        let record = Record::decode(bytes).unwrap();
        let path = record.text(Text::Path).unwrap_or_default();
        records.push((record.facts, String::from_utf8(path.to_vec()).unwrap()));
    }) {}
    records
}

#[test]
fn each_request_of_a_connection_has_its_own_record() {
    let (fixture, mut receiver) = start(responder(|_| ok(b"hello")), QUEUE_BYTES, SAMPLE_ALL);
    let mut client = Client::new(&fixture);
    for at in 0..20 {
        client.get(&format!("/{at}?secret"));
    }
    let metrics = fixture.handle.metrics.clone();
    let listener = &metrics.listeners[0];
    wait_until("the last answer is counted", || listener.responses[1].value() == 20);
    fixture.stop();
    let (received, sent) = (listener.received_bytes.value(), listener.sent_bytes.value());
    let records = records(&mut receiver);
    assert_eq!(records.len(), 20);
    for (at, (facts, path)) in records.iter().enumerate() {
        assert_eq!(*path, format!("/{at}"));
        assert_eq!((facts.status, facts.attempts, facts.reused, facts.reason), (200, 1, at > 0, None));
        assert!(facts.head_us.is_some() && facts.first_byte_us.is_some() && facts.sent_head > 20);
    }
    assert_eq!(records.iter().map(|(facts, _)| facts.received).sum::<u64>(), received);
    assert_eq!(records.iter().map(|(facts, _)| facts.sent).sum::<u64>(), sent);
}

#[test]
fn a_request_that_went_again_is_one_record_with_its_attempts() {
    let busy = responder(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec());
    let sound = responder(|_| ok(b"served"));
    let retry = "retry = { on = [\"503\"], budget = \"100%\" }";
    let (fixture, mut receiver) = start_routed(retry, &[busy, sound]);
    let mut client = Client::new(&fixture);
    for _ in 0..4 {
        assert_eq!(client.get("/").body, b"served");
    }
    fixture.stop();
    let mut seen = Vec::new();
    while receiver.pop(|bytes| {
        let record = Record::decode(bytes).unwrap();
        let backend = String::from_utf8_lossy(record.text(Text::Backend).unwrap()).into_owned();
        seen.push((record.facts.status, record.facts.attempts, backend, record.facts.reason));
    }) {}
    seen.sort_by_key(|(_, attempts, ..)| *attempts);
    let expected = [1, 1, 2, 2].map(|attempts| (200, attempts, sound.to_string(), None));
    assert_eq!(seen, expected);
}

#[test]
fn a_refusal_by_a_limit_has_its_record() {
    let route = "rate_limit = { rate = \"1/h\", key = \"route\" }";
    let (fixture, mut receiver) = start_routed(route, &[responder(|_| ok(b""))]);
    let mut client = Client::new(&fixture);
    client.get("/one");
    client.get("/two");
    fixture.stop();
    let records: Vec<_> = records(&mut receiver)
        .into_iter()
        .map(|(facts, path)| (path, facts.status, facts.attempts, facts.reason))
        .collect();
    let (one, two) = ("/one".to_owned(), "/two".to_owned());
    assert_eq!(records, [(one, 200, 1, None), (two, 429, 0, Some(CloseReason::RateLimit))]);
}

#[test]
fn a_full_queue_drops_counts_and_delays_nobody() {
    let (fixture, mut receiver) = start(responder(|_| ok(b"hello")), 1 << 10, SAMPLE_ALL);
    let mut client = Client::new(&fixture);
    for _ in 0..50 {
        assert!(client.get("/").start.contains(" 200 "));
    }
    let metrics = fixture.handle.metrics.clone();
    fixture.stop();
    let kept = records(&mut receiver).len() as u64;
    assert!((1..50).contains(&kept));
    assert_eq!(kept + metrics.log_dropped.value(), 50);
}

#[test]
fn sampling_leaves_out_what_is_no_error() {
    let (fixture, mut receiver) = start(responder(|_| ok(b"hello")), QUEUE_BYTES, 250_000);
    let mut client = Client::new(&fixture);
    for _ in 0..400 {
        client.get("/");
    }
    let metrics = fixture.handle.metrics.clone();
    fixture.stop();
    let kept = records(&mut receiver).len() as u64;
    assert!((60..140).contains(&kept), "{kept} of 400");
    assert_eq!(kept + metrics.log_skipped.value(), 400);

    let (fixture, mut receiver) = start(closed_port(), QUEUE_BYTES, 1);
    let mut client = Client::new(&fixture);
    for _ in 0..5 {
        assert!(client.get("/").start.contains(" 502 "));
    }
    fixture.stop();
    let records = records(&mut receiver);
    assert_eq!(records.len(), 5, "errors always");
    assert!(records.iter().all(|(facts, _)| facts.reason == Some(CloseReason::ConnectFailed)));
}

#[test]
fn a_response_that_breaks_off_says_how_much_was_sent() {
    let address = super::backend(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n").unwrap();
        stream.write_all(&[b'x'; 4321]).unwrap();
    });
    let (fixture, mut receiver) = start(address, QUEUE_BYTES, SAMPLE_ALL);
    let mut client = Client::new(&fixture);
    client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = client.reader.read_to_end(&mut bytes);
    wait_until("it is counted", || fixture.reason(CloseReason::Truncated) == 1);
    fixture.stop();
    let records = records(&mut receiver);
    let [(facts, path)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((path.as_str(), facts.status, facts.reason), ("/short", 200, Some(CloseReason::Truncated)));
    assert_eq!(facts.sent - facts.sent_head, 4321);
}
