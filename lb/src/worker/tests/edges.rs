//! http listeners where the two sides disagree about who is done: RFC 9112, 9, and rows 24 to 36 of bad input.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, backend, pattern,
    peers::{Client, http, ok, read_head, read_message, responder},
    published, snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol},
    model::reason::CloseReason,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn reset(client: Client) {
    socket2::SockRef::from(&client.writer).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads one request, says that it has, and what becomes of the connection then; never answers.
fn silent(told: mpsc::Sender<&'static str>) -> impl Fn(TcpStream) + Send + Sync {
    let told = Mutex::new(told);
    move |stream| {
        let told = told.lock().unwrap().clone();
        let mut reader = BufReader::new(stream);
        read_message(&mut reader).unwrap();
        told.send("asked").unwrap();
        let ended = matches!(reader.read(&mut [0; 1]), Ok(0) | Err(_));
        told.send(if ended { "let go" } else { "more" }).unwrap();
    }
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let fixture = http(&[responder(|request| {
        thread::sleep(Duration::from_millis(100));
        ok(&request.body)
    })]);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut client = Client::new(&fixture);
        client.send(request);
        client.writer.shutdown(Shutdown::Write).unwrap();
        assert!(client.receive().start.contains(" 200 "), "{request:?}");
        assert!(client.is_closed());
    }
    assert_eq!(fixture.reason(CloseReason::ClientGone), 0);
    fixture.stop();
}

#[test]
fn a_client_that_resets_lets_go_of_a_slow_backend() {
    let (told, says) = mpsc::channel();
    let fixture = http(&[backend(silent(told))]);
    let requests = [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"];
    for (at, request) in requests.iter().enumerate() {
        let mut client = Client::new(&fixture);
        client.send(request);
        assert_eq!(says.recv_timeout(PATIENCE), Ok("asked"));
        let begun = Instant::now();
        reset(client);
        assert_eq!(says.recv_timeout(PATIENCE), Ok("let go"));
        assert!(begun.elapsed() < PATIENCE / 2);
        wait_until("it is counted", || fixture.reason(CloseReason::ClientGone) == at as u64 + 1);
    }
    fixture.stop();
}

#[test]
fn what_a_backend_says_unasked_is_nobodys_answer() {
    for in_one_segment in [true, false] {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        let (spoken, speaks) = mpsc::channel();
        let (answered, proceed) = mpsc::channel();
        let proceed = Mutex::new(proceed);
        let address = backend(move |mut stream| {
            count.fetch_add(1, Ordering::SeqCst);
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some(request) = read_message(&mut reader) {
                let (answer, poison) = (ok(request.start.as_bytes()), ok(b"poison"));
                if in_one_segment {
                    let _ = stream.write_all(&[answer, poison].concat());
                } else {
                    let _ = stream.write_all(&answer);
                    proceed.lock().unwrap().recv().unwrap();
                    let _ = stream.write_all(&poison);
                }
                spoken.send(()).unwrap();
            }
        });
        let fixture = http(&[address]);
        let mut client = Client::new(&fixture);
        for at in 0..4 {
            assert_eq!(client.get(&format!("/{at}")).body, format!("GET /{at} HTTP/1.1").into_bytes());
            // What comes after the next request was sent cannot be told from its answer: first the poison.
            if !in_one_segment {
                wait_until("the connection is kept", || fixture.handle.metrics.backends[1].idle.value() == 1);
                answered.send(()).unwrap();
            }
            speaks.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(opened.load(Ordering::SeqCst), 4, "a connection that spoke out of turn is not used again");
        fixture.stop();
    }
}

#[test]
fn row_34_bodies_where_there_are_none() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
    ] {
        let fixture = http(&[responder(move |_| [head.as_bytes(), b"poison"].concat())]);
        let mut client = Client::new(&fixture);
        for _ in 0..3 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            let (start, fields) = read_head(&mut client.reader).unwrap();
            assert_eq!(start.split(' ').nth(1), head.split(' ').nth(1));
            assert!(!fields.iter().any(|field| field.eq_ignore_ascii_case("connection: close")));
        }
        let backend = &fixture.handle.metrics.backends[1];
        assert_eq!((backend.connects.value(), backend.reuses.value()), (3, 0), "{method} {head:?}");
        fixture.stop();
    }
}

#[test]
fn row_34_a_second_final_response_and_a_storm_of_interim_ones() {
    let interim = |count: usize| "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(count);
    let fixture = http(&[responder(move |_| [interim(17).as_bytes(), &ok(b"late")].concat())]);
    let mut client = Client::new(&fixture);
    client.send(GET);
    for _ in 0..16 {
        assert!(read_head(&mut client.reader).unwrap().0.contains(" 103 "));
    }
    assert!(client.receive().start.contains(" 502 "));
    fixture.stop();

    let fixture = http(&[responder(move |_| [ok(b"one"), interim(1).into_bytes()].concat())]);
    let mut client = Client::new(&fixture);
    for _ in 0..3 {
        assert_eq!(client.get("/").body, b"one");
    }
    assert_eq!(fixture.handle.metrics.backends[1].reuses.value(), 0);
    fixture.stop();
}

#[test]
fn old_clients_get_what_they_can_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let fixture = http(&[responder(move |request| match request.start.contains("/chunked") {
        true => chunked.into(),
        false => ok(b"hello"),
    })]);
    let mut client = Client::new(&fixture);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.receive();
        assert!(response.body == b"hello" && response.has("Connection: keep-alive"));
    }
    client.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut rest = String::new();
    client.reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n\r\nhello") && !rest.to_lowercase().contains("transfer-encoding"), "{rest}");
    fixture.stop();
}

#[test]
fn pipelined_bodies_stay_with_their_requests() {
    let fixture = http(&[responder(|request| ok(&[request.start.as_bytes(), &request.body].concat()))]);
    let mut client = Client::new(&fixture);
    let mut all = Vec::new();
    for at in 0..30 {
        let body = "x".repeat(at * 100);
        let request = match at % 3 {
            0 => format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{at} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            _ => format!(
                "PUT /{at} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
        all.extend_from_slice(request.as_bytes());
    }
    client.send(all);
    for at in 0..30 {
        let (method, len) = [("GET", 0), ("POST", at * 100), ("PUT", at * 100)][at % 3];
        let expected = format!("{method} /{at} HTTP/1.1{}", "x".repeat(len));
        assert_eq!(String::from_utf8(client.receive().body).unwrap(), expected);
    }
    fixture.stop();
}

#[test]
fn row_33_an_answer_that_is_done_before_the_upload_ends_the_connection() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        stream.write_all(&ok(b"enough")).unwrap();
        let _ = reader.read_to_end(&mut Vec::new());
    });
    let fixture = http(&[address]);
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = Client::new(&fixture);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        let response = client.receive();
        assert!(response.body == b"enough" && response.has("Connection: close"), "{framing}");
        // What looks like a request is the rest of a body: it is thrown away.
        client.send(GET);
        let mut rest = Vec::new();
        let _ = client.reader.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(fixture.handle.metrics.listeners[0].requests.value(), 2);
    assert_eq!(fixture.handle.metrics.backends[1].idle.value(), 0);
    fixture.stop();
}

#[test]
fn a_refused_head_after_a_head_request_has_its_body() {
    let fixture = http(&[responder(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())]);
    let mut client = Client::new(&fixture);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    read_head(&mut client.reader).unwrap();
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    let response = client.receive();
    assert!(response.start.contains(" 400 ") && !response.body.is_empty());
    assert!(client.is_closed());
    fixture.stop();
}

#[test]
fn a_new_config_serves_the_next_request_and_not_the_one_under_way() {
    let named = |name: &'static str| {
        responder(move |request| {
            if request.start.contains("/slow") {
                thread::sleep(Duration::from_millis(300));
            }
            ok(name.as_bytes())
        })
    };
    let (old, new) = (named("old"), named("new"));
    let fixture = http(&[old]);
    let (mut idle, mut busy) = (Client::new(&fixture), Client::new(&fixture));
    assert_eq!(idle.get("/").body, b"old");
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let metrics = fixture.handle.metrics.clone();
    wait_until("the exchange runs", || metrics.backends[1].in_flight.value() == 1);
    let mut next = snapshot(2, Protocol::Http, fixture.address, &[new], Limits::default());
    next.pools[0].backends[0].id = crate::model::BackendId(2);
    fixture.handle.send(published(next));
    wait_until("it is taken over", || metrics.snapshots.value() == 1);
    assert_eq!(idle.get("/").body, b"new", "a connection that was idle goes on with the new config");
    assert_eq!(busy.receive().body, b"old", "an exchange ends on the config it began with");
    assert_eq!(busy.get("/").body, b"new");
    fixture.stop();
}

#[test]
fn slow_readers_are_served_from_the_heap_when_the_ring_has_no_buffer_left() {
    const LEN: usize = 8 << 20;
    // Made once: in a debug build that takes longer than to send it.
    let body = pattern(LEN);
    let answer = ok(&body);
    let fixture = http(&[responder(move |_| answer.clone())]);
    // More than there are large buffers, each holding one until its client reads.
    let mut clients: Vec<_> = (0..48).map(|_| Client::new(&fixture)).collect();
    for client in &mut clients {
        client.send(GET);
    }
    thread::sleep(Duration::from_millis(300));
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(client.receive().body == body, "client {at}");
    }
    fixture.stop();
}

#[test]
fn a_thousand_half_heads_hold_up_nobody() {
    let fixture = http(&[responder(|request| ok(request.start.as_bytes()))]);
    let mut slow: Vec<_> = (0..1_000).map(|_| Client::new(&fixture)).collect();
    for client in &mut slow {
        client.send("GET /slow HTTP/1.1\r\nHo");
    }
    let mut quick = Client::new(&fixture);
    for at in 0..50 {
        assert_eq!(quick.get(&format!("/{at}")).body, format!("GET /{at} HTTP/1.1").into_bytes());
    }
    for client in slow.iter_mut().step_by(10) {
        client.send("st: a\r\n\r\n");
        assert_eq!(client.receive().body, b"GET /slow HTTP/1.1");
    }
    drop(slow);
    fixture.stop();
}
