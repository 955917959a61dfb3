//! Requests with a body whose first backend fails them: which go to another one, and that the body arrives there whole, once.

use std::{
    io::{BufReader, Read},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Fixture, backend, pattern,
    peers::{Client, Message, ok, read_head, responder},
    retry::{counted, retries, start},
    wait_until,
};
use crate::model::reason::CloseReason;

const ON_RESET: &str = "retry = { on = [\"reset\"], budget = \"100%\" }";

/// A backend that reads a head and so much of what follows, and resets.
fn resets_after(bytes: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = backend(move |stream: TcpStream| {
        let mut reader = BufReader::with_capacity(1, stream.try_clone().unwrap());
        if read_head(&mut reader).is_none() {
            return;
        }
        count.fetch_add(1, Ordering::SeqCst);
        let mut some = vec![0; bytes];
        let _ = reader.read_exact(&mut some);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    (address, asked)
}

/// Requests that were served whole: what was asked, and the body.
type Served = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A backend that keeps what it was sent.
fn keeps() -> (SocketAddr, Served) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let all = kept.clone();
    let address = responder(move |Message { start, body, .. }: &Message| {
        all.lock().unwrap().push((start.clone(), body.clone()));
        ok(b"served")
    });
    (address, kept)
}

/// In chunks of that many bytes, with an extension and a trailer, which are for one hop.
fn chunked(body: &[u8], each: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(each) {
        out.extend_from_slice(format!("{:x};x=y\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    out
}

/// Two requests, of which one comes to either backend first; how often they were answered with 200.
fn ask_twice(fixture: &Fixture, method: &str, framing: &str, body: &[u8]) -> usize {
    let mut served = 0;
    for _ in 0..2 {
        let mut client = Client::new(fixture);
        client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        for piece in body.chunks(20_000) {
            client.send(piece);
            thread::sleep(Duration::from_millis(10));
        }
        served += usize::from(client.receive().start.contains(" 200 "));
    }
    served
}

#[test]
fn a_reset_within_a_small_body_costs_the_client_nothing() {
    for len in [1, 100, 5_000, 60_000] {
        let body = pattern(len);
        let counted = (format!("Content-Length: {len}"), body.clone());
        let framed = |each| ("Transfer-Encoding: chunked".to_owned(), chunked(&body, each));
        for (framing, sent) in [counted, framed(1 + len / 7), framed(len)] {
            let ((failing, asked), (sound, kept)) = (resets_after(len / 2), keeps());
            let fixture = start(ON_RESET, &[failing, sound]);
            assert_eq!(ask_twice(&fixture, "PUT", &framing, &sent), 2, "{framing}, {len}");
            assert_eq!((asked.load(Ordering::SeqCst), retries(&fixture)), (1, (1, 0)), "{framing}, {len}");
            let kept = kept.lock().unwrap();
            assert_eq!(kept.len(), 2);
            for (start, arrived) in kept.iter() {
                assert_eq!(start, "PUT /x HTTP/1.1");
                assert!(*arrived == body, "{framing}: {len} bytes arrived as other {}", arrived.len());
            }
            fixture.stop();
        }
    }
}

#[test]
fn what_may_have_been_done_or_is_gone_is_not_sent_again() {
    let (small, large) = (pattern(100), pattern((64 << 10) + 1));
    let counted = |body: &[u8]| (format!("Content-Length: {}", body.len()), body.to_vec());
    let framed = |body: &[u8]| ("Transfer-Encoding: chunked".to_owned(), chunked(body, 9_000));
    for (method, (framing, sent)) in [
        ("POST", counted(&small)),
        ("POST", framed(&small)),
        ("PATCH", counted(&small)),
        ("PUT", counted(&large)),
        ("PUT", framed(&large)),
    ] {
        let ((failing, asked), (sound, kept)) = (resets_after(50), keeps());
        let fixture = start(ON_RESET, &[failing, sound]);
        assert_eq!(ask_twice(&fixture, method, &framing, &sent), 1, "{method}, {framing}");
        assert_eq!((asked.load(Ordering::SeqCst), retries(&fixture)), (1, (0, 0)), "{method}, {framing}");
        assert_eq!(kept.lock().unwrap().len(), 1);
        assert_eq!(fixture.reason(CloseReason::UpstreamClosed), 1);
        fixture.stop();
    }
}

/// Who asks next on the same connection is understood: nothing of the body is left before it, and nothing of it is lost.
#[test]
fn what_follows_a_chunked_body_is_the_next_request() {
    let (sound, kept) = keeps();
    let fixture = start(ON_RESET, &[sound]);
    let mut client = Client::new(&fixture);
    let body = pattern(3_000);
    let mut sent = b"PUT /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    sent.extend_from_slice(&chunked(&body, 700));
    sent.extend_from_slice(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(sent);
    assert_eq!((client.receive().body, client.receive().body), (b"served".to_vec(), b"served".to_vec()));
    let starts: Vec<_> =
        kept.lock().unwrap().iter().map(|(start, body)| (start.clone(), body.len())).collect();
    assert_eq!(starts, [("PUT /one HTTP/1.1".to_owned(), 3_000), ("GET /two HTTP/1.1".to_owned(), 0)]);
    fixture.stop();
}

#[test]
fn no_backend_hears_of_a_chunked_body_that_is_broken_or_too_long() {
    let (sound, asked) = counted(|_| ok(b""));
    let fixture = start(&format!("{ON_RESET}\nbody_bytes = \"1KiB\""), &[sound]);
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, status) in [
        (b"5\r\nhelloX\r\n0\r\n\r\n".to_vec(), " 400 "),
        (b"5\r\nhello\r\n0\r\nContent-Length: 5\n\r\n".to_vec(), " 400 "),
        (chunked(&pattern(2_000), 300), " 413 "),
    ] {
        let mut client = Client::new(&fixture);
        client.send(head);
        client.send(body);
        assert!(client.receive().start.contains(status), "{status}");
    }
    let mut gone = Client::new(&fixture);
    gone.send(head);
    gone.send("5\r\nhel");
    drop(gone);
    wait_until("it is counted", || fixture.reason(CloseReason::ClientGone) == 1);
    assert_eq!((asked.load(Ordering::SeqCst), fixture.reason(CloseReason::BodyTooLarge)), (0, 1));
    fixture.stop();
}

/// Where nothing is to be repeated, a body goes as it comes.
#[test]
fn a_route_without_retry_waits_for_no_body() {
    let (sound, kept) = keeps();
    let fixture = start("", &[sound]);
    let metrics = fixture.handle.metrics.clone();
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 5"] {
        let mut client = Client::new(&fixture);
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        wait_until("its backend is asked", || metrics.backends[1].in_flight.value() == 1);
        client.send(if framing.starts_with('T') { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" });
        assert_eq!(client.receive().body, b"served");
        wait_until("it has ended", || metrics.backends[1].in_flight.value() == 0);
    }
    assert!(kept.lock().unwrap().iter().all(|(_, body)| body == b"hello"));
    fixture.stop();
}
