//! TLS that the kernel seals. Most kernels that these tests run on have none of it; `cargo xtask vmtest` runs them where it is,
//! and says so by `LB_KTLS=required`.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use super::{
    Fixture, backend, pattern,
    peers::{self, Message, ok, read_message, responder, try_read_message},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol},
    model::reason::CloseReason,
    sys::ktls,
    tls::{
        KernelSuites, Server, Upstream,
        fixture::{Authority, Client, TLS12, TLS13, accept, connect},
    },
    worker::TlsParts,
};

const NAME: &str = "a.test";
const LARGE: usize = 1 << 20;

/// What the kernel seals; `None`, and said so, where it need not.
fn suites() -> Option<KernelSuites> {
    match KernelSuites::probe(ktls::try_keys) {
        Ok(suites) => Some(suites),
        Err(error) if std::env::var_os("LB_KTLS").is_none() => {
            eprintln!("skipped: the kernel seals no TLS: {error}");
            None
        }
        Err(error) => panic!("LB_KTLS is set, and the kernel takes no keys: {error}"),
    }
}

fn start(
    protocol: Protocol,
    backend: SocketAddr,
    server: Option<Arc<Server>>,
    upstream: Option<Arc<Upstream>>,
) -> Option<Fixture> {
    let suites = suites()?;
    let name: Arc<str> = "test".into();
    let parts = TlsParts {
        listeners: server.into_iter().map(|server| (name.clone(), server)).collect::<BTreeMap<_, _>>(),
        pools: upstream.into_iter().map(|upstream| (name.clone(), upstream)).collect(),
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let snapshot = snapshot(1, protocol, address, &[backend], Limits::default());
    Some(Fixture::start_sealed(socket.into(), address, snapshot, None, (&parts, suites)))
}

/// Answers `/large` with as much, and anything else with what was asked.
fn answers() -> SocketAddr {
    let large = ok(&pattern(LARGE));
    responder(move |request| if request.start.contains("/large") { large.clone() } else { ok(&request.body) })
}

fn ask(client: &mut BufReader<Client>, method: &str, path: &str, body: &[u8]) -> Message {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", body.len());
    client.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    read_message(client).expect("a response")
}

#[test]
fn large_answers_are_spliced_and_whole_by_every_suite() {
    let authority = Authority::new();
    let server = authority.server(&[NAME], &[]);
    let Some(fixture) = start(Protocol::Http, answers(), Some(server), None) else { return };
    let (large, metrics) = (pattern(LARGE), &fixture.handle.metrics);
    let clients = authority.clients_by_suite();
    assert_eq!(clients.len(), 6);
    for (at, (name, config)) in clients.into_iter().enumerate() {
        let (handed, spliced) = (metrics.kernel_tls.value(), metrics.spliced_bytes.value());
        assert_eq!(handed, at as u64, "once for each connection: before {name}");
        let mut client = BufReader::new(connect(&config, NAME, fixture.connect()));
        assert_eq!(ask(&mut client, "POST", "/", b"before").body, b"before", "{name}");
        assert_eq!(metrics.kernel_tls.value(), handed, "small ones are sealed here");
        for _ in 0..2 {
            assert!(ask(&mut client, "GET", "/large", b"").body == large, "{name}");
            assert_eq!(ask(&mut client, "POST", "/", b"after").body, b"after", "{name}");
        }
        assert!(metrics.spliced_bytes.value() > spliced + LARGE as u64, "{name}");
        // What comes is opened here still.
        assert!(ask(&mut client, "POST", "/", &large).body == large, "{name}");
    }
    assert_eq!(metrics.kernel_tls.value(), 6);
    fixture.stop();
}

#[test]
fn a_relay_is_sealed_by_the_kernel_and_ends_each_way_by_itself() {
    let authority = Authority::new();
    let echo = backend(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let server = authority.server(&[NAME], &[]);
    let Some(fixture) = start(Protocol::Tcp, echo, Some(server), None) else { return };
    let sent = pattern(LARGE);
    for version in [&TLS12, &TLS13] {
        let config = authority.client_config(&[version], &[]);
        let mut client = connect(&config, NAME, fixture.connect());
        client.write_all(&sent).unwrap();
        // To the backend no end of ours goes before this.
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut received = Vec::new();
        // It fails where the end is not said within TLS.
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} bytes", received.len());
    }
    fixture.stop();
}

#[test]
fn a_relay_goes_on_both_ways_once_the_kernel_seals() {
    let authority = Authority::new();
    let answers = backend(|mut stream| {
        stream.write_all(&pattern(LARGE)).unwrap();
        let mut word = [0; 5];
        while stream.read_exact(&mut word).is_ok() {
            stream.write_all(&word).unwrap();
        }
        stream.write_all(b"bye").unwrap();
    });
    let server = authority.server(&[NAME], &[]);
    let Some(fixture) = start(Protocol::Tcp, answers, Some(server), None) else { return };
    for (at, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let config = authority.client_config(&[version], &[]);
        let mut client = connect(&config, NAME, fixture.connect());
        let mut large = vec![0; LARGE];
        client.read_exact(&mut large).unwrap();
        assert!(large == pattern(LARGE));
        assert_eq!(fixture.handle.metrics.kernel_tls.value(), at as u64 + 1);
        for _ in 0..3 {
            client.write_all(b"hello").unwrap();
            client.read_exact(&mut large[..5]).unwrap();
            assert_eq!(&large[..5], b"hello");
        }
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut last = Vec::new();
        client.read_to_end(&mut last).unwrap();
        assert_eq!(last, b"bye");
    }
    fixture.stop();
}

#[test]
fn what_the_kernel_keeps_for_a_slow_client_goes_before_the_end() {
    let authority = Authority::new();
    let large = pattern(4 * LARGE);
    let whole = [b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\n", &large[..]].concat();
    let closing = backend(move |mut stream| {
        stream.read_exact(&mut [0; 16]).unwrap();
        stream.write_all(&whole).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let server = authority.server(&[NAME], &[]);
    let Some(fixture) = start(Protocol::Http, closing, Some(server), None) else { return };
    let config = authority.client_config(&[&TLS13], &[]);
    let socket = fixture.connect();
    let mut client = connect(&config, NAME, socket);
    // By HTTP/1.0 the end of the body is that of the connection.
    client.write_all(format!("GET / HTTP/1.0\r\nHost: {NAME}\r\n\r\n").as_bytes()).unwrap();
    let mut received = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        match client.read(&mut piece).unwrap() {
            0 => break,
            len => received.extend_from_slice(&piece[..len]),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(received.ends_with(&large), "{} bytes", received.len());
    assert_eq!(fixture.handle.metrics.kernel_tls.value(), 1);
    fixture.stop();
}

#[test]
fn large_requests_to_backends_that_speak_tls_are_spliced() {
    let authority = Authority::new();
    let config = authority.peer_config(NAME);
    let sealed = backend(move |socket| {
        let mut stream = BufReader::new(accept(&config, socket));
        while let Ok(Some(request)) = try_read_message(&mut stream) {
            if stream.get_mut().write_all(&ok(&request.body)).is_err() {
                return;
            }
        }
    });
    let Some(fixture) = start(Protocol::Http, sealed, None, Some(authority.upstream(NAME))) else { return };
    let (large, metrics) = (pattern(LARGE), &fixture.handle.metrics);
    let mut client = peers::Client::new(&fixture);
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {LARGE}\r\n\r\n");
        client.send(head);
        // The head alone is no body; what follows it comes in bulk.
        client.send(&large);
        assert!(client.receive().body == large);
        assert_eq!(client.get("/").body, b"");
    }
    assert!(metrics.spliced_bytes.value() > LARGE as u64 / 2);
    assert_eq!(metrics.kernel_tls.value(), 1, "one connection, kept");
    fixture.stop();
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_and_let_go() {
    let authority = Authority::new();
    let server = authority.server(&[NAME], &[]);
    let Some(fixture) = start(Protocol::Http, answers(), Some(server), None) else { return };
    let requests = &fixture.handle.metrics.listeners[0].requests;
    // Within a request, as nothing more is said to whoever breaks off between two.
    let begin = |version| {
        let config = authority.client_config(&[version], &[]);
        let mut client = BufReader::new(connect(&config, NAME, fixture.connect()));
        assert_eq!(ask(&mut client, "GET", "/large", b"").body.len(), LARGE);
        let before = requests.value();
        let half = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 6\r\n\r\nabc");
        client.get_mut().write_all(half.as_bytes()).unwrap();
        wait_until("it has come", || requests.value() > before);
        client
    };
    for version in [&TLS12, &TLS13] {
        let mut client = begin(version);
        client.get_mut().sock.write_all(&[&[23, 3, 3, 0, 30][..], &[7; 30]].concat()).unwrap();
        let said = client.read(&mut [0]).unwrap_err().to_string();
        assert!(said.contains("BadRecordMac"), "{said}");
    }
    // Other keys are asked for, which the kernel does not take.
    let mut client = begin(&TLS13);
    client.get_mut().conn.refresh_traffic_keys().unwrap();
    client.get_mut().write_all(b"def").unwrap();
    let said = client.read(&mut [0]).unwrap_err().to_string();
    assert!(said.contains("InternalError"), "{said}");
    // An end where more was to come.
    let mut client = begin(&TLS13);
    client.get_mut().conn.send_close_notify();
    client.get_mut().flush().unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is said within TLS");
    wait_until("all are counted", || fixture.reason(CloseReason::ClientGone) == 4);
    let mut client = begin(&TLS13);
    client.get_mut().write_all(b"def").unwrap();
    assert_eq!(read_message(&mut client).unwrap().body, b"abcdef", "others go on");
    fixture.stop();
}
