//! HTTP/2 with clients.

use std::{
    future::poll_fn,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::{
    Fixture, PATIENCE, backend,
    h2_peers::{Client, read, serve},
    pattern,
    peers::{ok, responder},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol},
    model::reason::CloseReason,
};

fn start(backends: &[std::net::SocketAddr], limits: Limits) -> Fixture {
    let make = |address| {
        let mut snapshot = snapshot(1, Protocol::Http, address, backends, limits);
        snapshot.listeners[0].h2c = true;
        snapshot
    };
    Fixture::start_with(make, None)
}

#[test]
fn requests_share_a_connection() {
    let fixture = start(&[responder(|request| ok(request.start.as_bytes()))], Limits::default());
    let mut client = Client::new(fixture.connect());
    let begun: Vec<_> = (0..50)
        .map(|at| client.begin(Request::get(format!("http://a.test/{at}?q")).body(()).unwrap(), None))
        .collect();
    for (at, response) in begun.into_iter().enumerate() {
        let (head, body) = client.finish(response);
        assert_eq!((head.status().as_u16(), body), (200, format!("GET /{at}?q HTTP/1.1").into_bytes()));
        assert!(head.headers().contains_key("via") && !head.headers().contains_key("connection"));
    }
    let listener = &fixture.handle.metrics.listeners[0];
    assert_eq!((listener.accepted.value(), listener.requests.value()), (1, 50));
    // HTTP/1.1 is still spoken there.
    assert_eq!(super::peers::Client::new(&fixture).get("/").body, b"GET / HTTP/1.1");
    drop(client);
    fixture.stop();
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    let by_chunks = |request: &super::peers::Message| {
        let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in request.body.chunks(9_000) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    };
    for backend in [responder(|request| ok(&request.body)), responder(by_chunks)] {
        let fixture = start(&[backend], Limits::default());
        let mut client = Client::new(fixture.connect());
        for len in [0, 1, 16_384, 70_000, 3 << 20] {
            for has_length in [false, true] {
                let mut request = Request::post("http://a.test/");
                if has_length {
                    request = request.header("content-length", len);
                }
                let sent = pattern(len);
                let response = client.begin(request.body(()).unwrap(), Some(sent.clone().into()));
                let (head, body) = client.finish(response);
                assert_eq!(head.status(), 200);
                assert!(body == sent, "{len} bytes, {}", body.len());
            }
        }
        drop(client);
        fixture.stop();
    }
}

#[test]
fn a_request_that_is_given_up_ends_at_the_backend_too() {
    let gone = Arc::new(AtomicUsize::new(0));
    let count = gone.clone();
    let hangs = backend(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
        count.fetch_add(1, Ordering::Relaxed);
    });
    let fixture = start(&[hangs], Limits::default());
    let mut client = Client::new(fixture.connect());
    let response = client.begin(Request::get("http://a.test/").body(()).unwrap(), None);
    let (_, mut body) = client.run(response).unwrap().into_parts();
    assert_eq!(&*client.run(body.data()).unwrap().unwrap(), b"abc");
    drop(body);
    // The reset goes with whatever is done next.
    client.run(poll_fn(|_| if gone.load(Ordering::Relaxed) == 1 { Poll::Ready(()) } else { Poll::Pending }));
    assert_eq!(fixture.handle.metrics.reason(CloseReason::ClientGone).value(), 1);
    drop(client);
    fixture.stop();
}

#[test]
fn who_waits_for_nothing_is_told_to_go() {
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() };
    let fixture = start(&[responder(|_| ok(b"x"))], limits);
    let mut client = Client::new(fixture.connect());
    assert_eq!(client.get("/").1, b"x");
    client.end().unwrap();
    wait_until("it is gone", || fixture.admission.open() == 0);
    fixture.stop();
}

#[test]
fn a_drain_finishes_what_was_begun() {
    let slow = responder(|_| {
        thread::sleep(Duration::from_millis(400));
        ok(b"late")
    });
    let fixture = start(&[slow], Limits::default());
    let mut client = Client::new(fixture.connect());
    let response = client.begin(Request::get("http://a.test/").body(()).unwrap(), None);
    let going = || fixture.handle.metrics.listeners[0].requests.value() == 1;
    client.run(poll_fn(|_| if going() { Poll::Ready(()) } else { Poll::Pending }));
    fixture.handle.send(crate::worker::Command::Drain { deadline: Instant::now() + PATIENCE });
    assert_eq!(client.finish(response).1, b"late");
    client.end().unwrap();
    fixture.finish();
}

/// A backend that speaks HTTP/2 and says back what it was asked.
fn multiplexing_backend(connections: Arc<AtomicUsize>) -> std::net::SocketAddr {
    backend(move |socket| {
        connections.fetch_add(1, Ordering::Relaxed);
        serve(socket);
    })
}

fn start_multiplexed(backend: std::net::SocketAddr) -> Fixture {
    let make = |address| {
        let mut snapshot = snapshot(1, Protocol::Http, address, &[backend], Limits::default());
        snapshot.listeners[0].h2c = true;
        snapshot.pools[0].protocol = crate::config::BackendProtocol::Http2;
        snapshot
    };
    Fixture::start_with(make, None)
}

#[test]
fn many_exchanges_share_one_connection_to_a_backend() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fixture = start_multiplexed(multiplexing_backend(connections.clone()));
    let mut client = Client::new(fixture.connect());
    for _ in 0..3 {
        let begun: Vec<_> = (0..60)
            .map(|at| client.begin(Request::get(format!("http://a.test/{at}")).body(()).unwrap(), None))
            .collect();
        for (at, response) in begun.into_iter().enumerate() {
            let (head, body) = client.finish(response);
            let body = String::from_utf8(body).unwrap();
            assert_eq!((head.status().as_u16(), body), (200, format!("GET http://a.test/{at} None")));
        }
    }
    // And those of clients that speak HTTP/1.1.
    let mut old = super::peers::Client::new(&fixture);
    for at in 0..5 {
        assert_eq!(old.get(&format!("/{at}")).body, format!("GET http://a.test/{at} None").into_bytes());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    drop(client);
    fixture.stop();
}

#[test]
fn bodies_and_trailers_go_through_two_connections_of_http2() {
    let fixture = start_multiplexed(multiplexing_backend(Arc::default()));
    let mut client = Client::new(fixture.connect());
    for len in [1, 16_384, 70_000, 2 << 20] {
        for has_length in [false, true] {
            let mut request = Request::post("http://a.test/").header("te", "trailers");
            if has_length {
                request = request.header("content-length", len);
            }
            let sent = pattern(len);
            let response = client.begin(request.body(()).unwrap(), Some(sent.clone().into()));
            let mut body = client.run(response).unwrap().into_body();
            assert!(client.run(read(&mut body)).unwrap() == sent, "{len} bytes");
            let trailers = client.run(body.trailers()).unwrap().expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
        }
    }
    drop(client);
    fixture.stop();
}

#[test]
fn trailers_of_requests_reach_backends_that_have_a_place_for_them() {
    let fixture = start_multiplexed(multiplexing_backend(Arc::default()));
    let mut client = Client::new(fixture.connect());
    // What is sent again is gathered first, what is not goes as it comes.
    for method in ["PUT", "POST"] {
        for len in [1, 100_000] {
            let request =
                Request::builder().method(method).uri("http://a.test/").header("te", "trailers").body(());
            let fields = HeaderMap::from_iter([
                (HeaderName::from_static("x-sum"), HeaderValue::from_static("7")),
                (header::HOST, HeaderValue::from_static("elsewhere")),
            ]);
            let response = client.begin_with_trailers(request.unwrap(), pattern(len).into(), fields);
            let mut body = client.run(response).unwrap().into_body();
            assert!(client.run(read(&mut body)).unwrap() == pattern(len), "{method}, {len} bytes");
            let trailers = client.run(body.trailers()).unwrap().expect("trailers");
            assert_eq!(trailers["x-sum"], "7", "{method}, {len} bytes");
            assert!(!trailers.contains_key("host"), "what routes a message is none");
        }
    }
    drop(client);
    fixture.stop();
}

#[test]
fn an_answer_before_the_end_of_its_question_is_an_answer() {
    let fixture = start_multiplexed(multiplexing_backend(Arc::default()));
    let mut client = Client::new(fixture.connect());
    for len in [1, 1_000, 60_000, 300_000] {
        for _ in 0..10 {
            let request = Request::post("http://a.test/early").body(()).unwrap();
            let response = client.begin(request, Some(pattern(len).into()));
            let (head, body) = client.finish(response);
            assert_eq!((head.status().as_u16(), &*body), (200, &b"early"[..]), "{len}");
        }
    }
    drop(client);
    fixture.stop();
}

#[test]
fn a_backend_that_speaks_no_http2_is_a_bad_gateway() {
    let fixture = start_multiplexed(responder(|_| ok(b"")));
    let mut client = Client::new(fixture.connect());
    let (head, _) = client.get("/");
    assert_eq!(head.status(), 502);
    drop(client);
    fixture.stop();
}
