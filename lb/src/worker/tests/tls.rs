//! TLS on either side.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Fixture, PATIENCE, backend, pattern,
    peers::{Message, ok, read_message, responder},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol},
    model::reason::CloseReason,
    tls::{
        Server, Upstream,
        fixture::{Authority, Client, TLS12, TLS13, accept, connect},
    },
    worker::TlsParts,
};

const NAME: &str = "a.test";

fn parts(server: Option<Arc<Server>>, upstream: Option<Arc<Upstream>>) -> TlsParts {
    let name: Arc<str> = "test".into();
    TlsParts {
        listeners: server.into_iter().map(|server| (name.clone(), server)).collect::<BTreeMap<_, _>>(),
        pools: upstream.into_iter().map(|upstream| (name.clone(), upstream)).collect(),
    }
}

fn start(protocol: Protocol, backends: &[SocketAddr], limits: Limits, parts: &TlsParts) -> Fixture {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    Fixture::start_secured(
        socket.into(),
        address,
        snapshot(1, protocol, address, backends, limits),
        None,
        parts,
    )
}

/// A backend that speaks TLS.
fn sealed_responder(
    authority: &Authority,
    respond: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let config = authority.peer_config(NAME);
    backend(move |socket| {
        let mut stream = BufReader::new(accept(&config, socket));
        while let Ok(Some(request)) = super::peers::try_read_message(&mut stream) {
            if stream.get_mut().write_all(&respond(&request)).is_err() {
                return;
            }
        }
    })
}

fn get(client: &mut BufReader<Client>, path: &str) -> Message {
    client.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).unwrap();
    read_message(client).expect("a response")
}

#[test]
fn requests_come_and_go_sealed() {
    let authority = Authority::new();
    let parts = parts(Some(authority.server(&[NAME], &[b"http/1.1"])), None);
    let backends = [responder(|request| ok(request.fields.join("\n").as_bytes()))];
    let fixture = start(Protocol::Http, &backends, Limits::default(), &parts);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let config = authority.client_config(versions, &[b"http/1.1"]);
        for _ in 0..2 {
            let mut client = BufReader::new(connect(&config, NAME, fixture.connect()));
            for _ in 0..5 {
                let said = String::from_utf8(get(&mut client, "/").body).unwrap();
                assert!(said.contains("X-Forwarded-Proto: https"), "{said}");
            }
        }
    }
    let listener = &fixture.handle.metrics.listeners[0];
    assert_eq!(listener.handshakes.value(), 4);
    assert_eq!(listener.requests.value(), 20);
    fixture.stop();
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    let authority = Authority::new();
    let (server, upstream) = (authority.server(&[NAME], &[]), authority.upstream(NAME));
    let plain = responder(|request| ok(&request.body));
    let sealed = sealed_responder(&authority, |request| ok(&request.body));
    let ways = [
        (Some(server.clone()), None, plain),
        (None, Some(upstream.clone()), sealed),
        (Some(server), Some(upstream), sealed),
    ];
    for (server, upstream, backend) in ways {
        let is_sealed = server.is_some();
        let fixture = start(Protocol::Http, &[backend], Limits::default(), &parts(server, upstream));
        let config = authority.client_config(&[&TLS13], &[]);
        for len in [0, 1, 5_000, 16_384, 16_385, 70_000, 1 << 20, 5 << 20] {
            let sent = pattern(len);
            let mut request =
                format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len}\r\n\r\n").into_bytes();
            request.extend_from_slice(&sent);
            let socket = fixture.connect();
            let received = if is_sealed {
                let mut client = BufReader::new(connect(&config, NAME, socket));
                client.get_mut().write_all(&request).unwrap();
                read_message(&mut client)
            } else {
                let mut client = BufReader::new(socket);
                client.get_mut().write_all(&request).unwrap();
                read_message(&mut client)
            };
            assert!(received.expect("a response").body == sent, "{len} bytes");
        }
        fixture.stop();
    }
}

#[test]
fn a_relay_ends_each_way_by_itself() {
    let authority = Authority::new();
    let echo = backend(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let parts = parts(Some(authority.server(&[NAME], &[])), None);
    let fixture = start(Protocol::Tcp, &[echo], Limits::default(), &parts);
    let config = authority.client_config(&[&TLS13], &[]);
    for len in [0, 10, 3 << 20] {
        let sent = pattern(len);
        let mut client = connect(&config, NAME, fixture.connect());
        client.conn.complete_io(&mut client.sock).unwrap();
        client.write_all(&sent).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut received = Vec::new();
        // It fails where the end is not said within TLS.
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{len} bytes came back as {}", received.len());
    }
    fixture.stop();
}

#[test]
fn kept_connections_to_backends_outlive_their_tickets() {
    let authority = Authority::new();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let config = authority.peer_config(NAME);
    let backends = [backend(move |socket| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut stream = BufReader::new(accept(&config, socket));
        while let Ok(Some(_)) = super::peers::try_read_message(&mut stream) {
            stream.get_mut().write_all(&ok(b"x")).unwrap();
        }
    })];
    let fixture =
        start(Protocol::Http, &backends, Limits::default(), &parts(None, Some(authority.upstream(NAME))));
    let mut client = super::peers::Client::new(&fixture);
    for _ in 0..10 {
        assert_eq!(client.get("/").body, b"x");
        // Tickets come behind the first answer, while it is kept.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    fixture.stop();
}

#[test]
fn who_is_refused_is_told_and_counted() {
    let authority = Authority::new();
    let parts = parts(Some(authority.server(&[NAME], &[b"http/1.1"])), None);
    let fixture = start(Protocol::Http, &[responder(|_| ok(b""))], Limits::default(), &parts);
    let shake = |config, name: &str| {
        let mut client = connect(&config, name, fixture.connect());
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").and_then(|()| client.flush())?;
        client.read(&mut [0; 1]).map(drop)
    };
    let good = authority.client_config(&[&TLS13], &[b"http/1.1"]);
    let said = |error: std::io::Error| error.to_string();
    assert!(said(shake(good.clone(), "b.test").unwrap_err()).contains("UnrecognisedName"));
    wait_until("it is counted", || fixture.reason(CloseReason::TlsNoCertificate) == 1);
    let odd = authority.client_config(&[&TLS13], &[b"spdy/1"]);
    let refused = said(shake(odd, NAME).unwrap_err());
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    wait_until("it is counted", || fixture.reason(CloseReason::TlsNothingInCommon) == 1);
    let stranger = Authority::new().client_config(&[&TLS13], &[b"http/1.1"]);
    shake(stranger, NAME).unwrap_err();
    wait_until("it is counted", || fixture.reason(CloseReason::TlsAlert) == 1);
    // In the clear: told in the clear.
    let mut lost = super::peers::Client::over(fixture.connect());
    lost.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(lost.receive().start, "HTTP/1.1 400 Bad Request");
    let mut garbage = fixture.connect();
    garbage.write_all(&[0x16, 3, 1, 0, 4, 0xff, 0, 0, 0]).unwrap();
    let mut alert = Vec::new();
    garbage.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    wait_until("both are counted", || fixture.reason(CloseReason::TlsHello) == 2);
    assert_eq!(fixture.handle.metrics.listeners[0].requests.value(), 0);
    fixture.stop();
}

#[test]
fn a_handshake_that_is_not_done_in_time_ends() {
    let authority = Authority::new();
    let parts = parts(Some(authority.server(&[NAME], &[])), None);
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let fixture = start(Protocol::Http, &[responder(|_| ok(b""))], limits, &parts);
    let mut silent: TcpStream = fixture.connect();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    wait_until("it is counted", || fixture.reason(CloseReason::TlsTimeout) == 1);
    // One that comes and goes has asked for nothing.
    fixture.connect().shutdown(Shutdown::Both).unwrap();
    wait_until("it is gone", || fixture.admission.open() == 0);
    assert_eq!(fixture.reason(CloseReason::TlsTimeout), 1);
    fixture.stop();
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let authority = Authority::new();
    let entries = [authority.entry("a", &[NAME], false), authority.entry("b", &["b.test"], false)];
    let server = Arc::new(Server::new(&entries, &[]).unwrap());
    let fixture =
        start(Protocol::Http, &[responder(|_| ok(b""))], Limits::default(), &parts(Some(server), None));
    let config = authority.client_config(&[&TLS13], &[]);
    let mut client = BufReader::new(connect(&config, NAME, fixture.connect()));
    assert_eq!(get(&mut client, "/").start, "HTTP/1.1 200 OK");
    client.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").unwrap();
    assert_eq!(read_message(&mut client).unwrap().start, "HTTP/1.1 421 Misdirected Request");
    assert_eq!(fixture.reason(CloseReason::Misdirected), 1);
    fixture.stop();
}

#[test]
fn a_backend_that_is_not_who_it_should_be_gets_no_request() {
    let authority = Authority::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let stranger = sealed_responder(&Authority::new(), move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        ok(b"")
    });
    let clear = responder(|_| ok(b""));
    let upstream = authority.upstream(NAME);
    for (backend, reason) in [(stranger, CloseReason::UpstreamCertificate), (clear, CloseReason::UpstreamTls)]
    {
        let limits = Limits { connect_timeout: Duration::from_secs(1), ..Limits::default() };
        let fixture = start(Protocol::Http, &[backend], limits, &parts(None, Some(upstream.clone())));
        let mut client = super::peers::Client::new(&fixture);
        let response = client.get("/");
        assert!(response.start.starts_with("HTTP/1.1 50"), "{}", response.start);
        assert_eq!(fixture.reason(reason), 1, "{reason:?}");
        fixture.stop();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert!(PATIENCE > Duration::from_secs(1));
}

#[test]
fn a_backend_is_told_who_a_client_is_by_us_alone() {
    let authority = Authority::new();
    let known = Arc::new(Server::new(&[authority.entry_for_known("a", &[NAME])], &[]).unwrap());
    let echo = [responder(|request| ok(request.fields.join("\n").as_bytes()))];
    let fixture = start(Protocol::Http, &echo, Limits::default(), &parts(Some(known), None));
    let mut client =
        BufReader::new(connect(&authority.known_client_config("me.test"), NAME, fixture.connect()));
    let request =
        format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nX-Client-Names: DNS:root\r\nx_client_names: x\r\n\r\n");
    client.get_mut().write_all(request.as_bytes()).unwrap();
    let said = String::from_utf8(read_message(&mut client).unwrap().body).unwrap();
    let told: Vec<_> = said
        .lines()
        .filter(|line| line.to_ascii_lowercase().replace('_', "-").starts_with("x-client"))
        .collect();
    assert_eq!(told, ["x-client-names: DNS:me.test"]);
    // Who shows none is turned away before it can ask.
    let mut nobody = connect(&authority.client_config(&[&TLS13], &[]), NAME, fixture.connect());
    let refused = nobody.write_all(b"GET / HTTP/1.1\r\n").and_then(|()| nobody.read(&mut [0; 1]).map(drop));
    assert!(refused.unwrap_err().to_string().contains("CertificateRequired"));
    wait_until("it is counted", || fixture.reason(CloseReason::TlsClientCertificate) == 1);
    assert_eq!(fixture.handle.metrics.listeners[0].requests.value(), 1);
    fixture.stop();
}
