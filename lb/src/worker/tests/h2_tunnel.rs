//! Other protocols in a stream of HTTP/2 (RFC 8441).

use std::{
    future::poll_fn,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
    task::Poll,
};

use bytes::Bytes;

use super::{
    Fixture, backend,
    h2_peers::{Client, read, serve},
    pattern,
    peers::{ok, responder},
    snapshot, wait_until,
};
use crate::{
    config::{BackendProtocol, Limits, Protocol},
    model::reason::CloseReason,
};

fn start(backend: SocketAddr) -> Fixture {
    start_with(backend, BackendProtocol::Http1)
}

fn start_with(backend: SocketAddr, protocol: BackendProtocol) -> Fixture {
    let make = |address| {
        let mut snapshot = snapshot(1, Protocol::Http, address, &[backend], Limits::default());
        snapshot.listeners[0].h2c = true;
        snapshot.pools[0].protocol = protocol;
        snapshot
    };
    Fixture::start_with(make, None)
}

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello";

fn head_of(stream: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            return lines;
        }
        lines.push(line.trim_end().to_ascii_lowercase());
    }
}

#[test]
fn bytes_go_both_ways_until_either_side_ends() {
    let (tell, told) = mpsc::channel();
    let backend = backend(move |stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        tell.send(head_of(&mut from)).unwrap();
        (&stream).write_all(SWITCH).unwrap();
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        (&stream).write_all(&all).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    let fixture = start(backend);
    let mut client = Client::new(fixture.connect());
    let (mut to, response) = client.connect("websocket");
    let (head, mut from) = client.run(response).unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["sec-websocket-protocol"], "chat");
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    let asked = told.recv().unwrap();
    assert_eq!(asked[0], "get /chat http/1.1");
    for line in ["host: a.test", "connection: upgrade", "upgrade: websocket", "x: y"] {
        assert!(asked.iter().any(|asked| asked == line), "{line}: {asked:?}");
    }
    assert!(asked.iter().any(|line| line.starts_with("sec-websocket-key: ")), "{asked:?}");

    let listener = &fixture.handle.metrics.listeners[0];
    assert_eq!((listener.upgrades.value(), listener.tunnels.value()), (1, 1));
    // Others go on beside it.
    let sent = pattern(300_000);
    to.send_data(Bytes::from(sent.clone()), true).unwrap();
    let answered = client.run(read(&mut from)).unwrap();
    assert!(answered[..5] == *b"hello" && answered[5..] == sent, "{} bytes", answered.len());
    wait_until("it has ended", || listener.tunnels.value() == 0);
    assert_eq!(fixture.reason(CloseReason::ClientGone), 0);
    drop((to, from, client));
    fixture.stop();
}

/// A backend that speaks HTTP/2, asked by a client of either version.
#[test]
fn a_tunnel_may_go_through_two_connections_of_http2_or_begin_in_http1() {
    let fixture = start_with(backend(serve), BackendProtocol::Http2);
    let mut client = Client::new(fixture.connect());
    let (mut to, response) = client.connect("websocket");
    let (head, mut from) = client.run(response).unwrap().into_parts();
    assert_eq!((head.status.as_u16(), head.headers.get("sec-websocket-accept")), (200, None));
    let sent = pattern(300_000);
    to.send_data(Bytes::from(sent.clone()), true).unwrap();
    let answered = client.run(read(&mut from)).unwrap();
    assert!(answered[..5] == *b"hello" && answered[5..] == sent, "{} bytes", answered.len());

    let stream = fixture.connect();
    let ask = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    (&stream).write_all(ask.as_bytes()).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let head = head_of(&mut answers);
    assert_eq!(head[0], "http/1.1 101 switching protocols");
    // Source of what proves it: RFC 6455, 1.3.
    for line in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="]
    {
        assert!(head.iter().any(|said| said == line), "{line}: {head:?}");
    }
    (&stream).write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answered = Vec::new();
    answers.read_to_end(&mut answered).unwrap();
    assert!(answered[..5] == *b"hello" && answered[5..] == sent, "{} bytes", answered.len());
    wait_until("both have ended", || fixture.handle.metrics.listeners[0].tunnels.value() == 0);
    drop((to, from, client));
    fixture.stop();
}

#[test]
fn one_that_is_given_up_ends_at_the_backend() {
    let (tell, told) = mpsc::channel();
    let backend = backend(move |stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        head_of(&mut from);
        (&stream).write_all(SWITCH).unwrap();
        _ = from.read_to_end(&mut Vec::new());
        tell.send(()).unwrap();
    });
    let fixture = start(backend);
    let mut client = Client::new(fixture.connect());
    let (to, response) = client.connect("websocket");
    let (_, mut from) = client.run(response).unwrap().into_parts();
    assert_eq!(&*client.run(from.data()).unwrap().unwrap(), b"hello");
    drop((to, from));
    // The reset goes with whatever is done next; the backend sees an end, or a reset.
    client.run(poll_fn(|_| if told.try_recv().is_ok() { Poll::Ready(()) } else { Poll::Pending }));
    wait_until("it is counted", || fixture.reason(CloseReason::ClientGone) == 1);
    drop(client);
    fixture.stop();
}

#[test]
fn what_begins_no_tunnel_does_not_look_like_one() {
    let fixture = start(responder(|_| ok(b"no tunnel")));
    let mut client = Client::new(fixture.connect());
    for (protocol, status, reason) in
        [("websocket", 502, CloseReason::BadResponse), ("h2c", 501, CloseReason::Method)]
    {
        let (to, response) = client.connect(protocol);
        let (head, _) = client.finish(response);
        assert_eq!(head.status(), status, "{protocol}");
        assert_eq!(fixture.reason(reason), 1);
        drop(to);
    }
    // A refusal of the backend's is passed on.
    let fixture_of_refusal = start(responder(|_| b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_vec()));
    let mut refused = Client::new(fixture_of_refusal.connect());
    let (_to, response) = refused.connect("websocket");
    let (head, body) = refused.finish(response);
    assert_eq!((head.status().as_u16(), &*body), (403, &b"no"[..]));
    // The connection goes on.
    assert_eq!(client.get("/").1, b"no tunnel");
    drop((client, refused));
    fixture.stop();
    fixture_of_refusal.stop();
}
