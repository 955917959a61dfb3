//! Forms that requests and responses may have: what a client expects, what it asks of the server itself, old backends,
//! streams.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use super::{
    PATIENCE, backend,
    peers::{Client, http, ok, read_head, read_message, responder},
    routes::start,
};
use crate::model::reason::CloseReason;

const EXPECT: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

/// Reads a head and its five bytes of body, and answers; says 100 only behind the body, if at all.
fn late(with_continue: bool) -> std::net::SocketAddr {
    backend(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((_, fields)) = read_head(&mut reader) {
            assert!(fields.iter().any(|field| field == "Expect: 100-continue"), "{fields:?}");
            let mut body = [0; 5];
            reader.read_exact(&mut body).unwrap();
            if with_continue {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            stream.write_all(&ok(&body)).unwrap();
        }
    })
}

#[test]
fn row_32_who_waits_for_a_continue_gets_one_and_only_one() {
    for with_continue in [false, true] {
        let fixture = http(&[late(with_continue)]);
        let mut client = Client::new(&fixture);
        for _ in 0..2 {
            let begun = Instant::now();
            client.send(EXPECT);
            assert_eq!(read_head(&mut client.reader).unwrap().0, "HTTP/1.1 100 Continue");
            assert!(begun.elapsed() >= Duration::from_millis(900), "the backend has its time");
            client.send("hello");
            assert_eq!(client.receive().body, b"hello");
        }
        assert_eq!(fixture.handle.metrics.backends[1].connects.value(), 1, "all is as it should be");
        fixture.stop();
    }
}

#[test]
fn row_32_who_does_not_wait_needs_none() {
    let fixture = http(&[late(false)]);
    let mut client = Client::new(&fixture);
    client.send(format!("{EXPECT}hello"));
    assert_eq!(client.receive().body, b"hello");
    client.send(format!("{EXPECT}he"));
    std::thread::sleep(Duration::from_millis(1200));
    client.send("llo");
    assert_eq!(client.receive().body, b"hello");
    fixture.stop();
}

#[test]
fn row_32_a_final_answer_in_place_of_a_continue() {
    let fixture = http(&[backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        assert!(rest.is_empty());
    })]);
    let mut client = Client::new(&fixture);
    client.send(EXPECT);
    let response = client.receive();
    assert!(response.start.contains(" 401 ") && response.body == b"no" && response.has("Connection: close"));
    assert!(client.is_closed());
    assert_eq!(fixture.handle.metrics.backends[1].idle.value(), 0);
    fixture.stop();
}

#[test]
fn a_request_to_the_server_itself_and_one_with_the_whole_uri() {
    let routes = r#"
        [route.star]
        listener = "web"
        pool = "p"
        [route.path]
        listener = "web"
        path = "/*"
        respond = { body = "path" }
        [route.host]
        listener = "web"
        host = ["b.test"]
        pool = "p"
    "#;
    let fixture = start(
        "",
        routes,
        responder(|request| ok(format!("{} {}", request.start, request.fields[0]).as_bytes())),
    );
    let mut client = Client::new(&fixture);
    for (start, expected) in [
        ("OPTIONS *", "OPTIONS * HTTP/1.1 Host: a.test"),
        ("OPTIONS /x", "path"),
        ("OPTIONS http://b.test", "OPTIONS * HTTP/1.1 Host: b.test"),
        ("GET http://b.test/y?z", "GET /y?z HTTP/1.1 Host: b.test"),
        ("GET http://b.test?z", "GET /?z HTTP/1.1 Host: b.test"),
        ("GET HTTPS://B.test:443/", "GET / HTTP/1.1 Host: B.test:443"),
    ] {
        client.send(format!("{start} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(String::from_utf8(client.receive().body).unwrap(), expected, "{start}");
    }
    fixture.stop();
}

#[test]
fn old_backends_are_understood() {
    for (answer, reuses) in [
        ("HTTP/1.0 200 OK\r\n\r\nhello", 0),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 2),
    ] {
        let fixture = http(&[backend(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while read_message(&mut reader).is_some() {
                if stream.write_all(answer.as_bytes()).is_err() || reuses == 0 {
                    return;
                }
            }
        })]);
        let mut client = Client::new(&fixture);
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!(
                (response.start.as_str(), response.body),
                ("HTTP/1.1 200 OK", b"hello".to_vec()),
                "{answer:?}"
            );
        }
        assert_eq!(fixture.handle.metrics.backends[1].reuses.value(), reuses, "{answer:?}");
        fixture.stop();
    }
}

/// Each event is on its way before the next one is made.
#[test]
fn streams_are_passed_on_as_they_come() {
    let (seen, go_on) = mpsc::channel::<()>();
    let go_on = Mutex::new(go_on);
    let fixture = http(&[backend(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (start, _) = read_head(&mut reader).unwrap();
        let is_chunked = start.contains("/chunked");
        let framing = if is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
        stream
            .write_all(
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n").as_bytes(),
            )
            .unwrap();
        for at in 0..20 {
            let event = format!("data: {at}\n\n");
            let bytes = if is_chunked { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
            stream.write_all(bytes.as_bytes()).unwrap();
            go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        if is_chunked {
            stream.write_all(b"0\r\n\r\n").unwrap();
        }
    })]);
    for path in ["/chunked", "/until-close"] {
        let mut client = Client::new(&fixture);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        read_head(&mut client.reader).unwrap();
        for at in 0..20 {
            let mut line = String::new();
            while !line.starts_with("data") {
                line.clear();
                client.reader.read_line(&mut line).unwrap();
            }
            assert_eq!(line, format!("data: {at}\n"));
            seen.send(()).unwrap();
        }
    }
    assert_eq!(fixture.reason(CloseReason::Truncated), 0);
    fixture.stop();
}
