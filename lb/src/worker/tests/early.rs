//! Requests that come before hands are shaken.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    Fixture,
    peers::{ok, read_message, responder},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol},
    metrics::ListenerMetrics,
    model::reason::CloseReason,
    tls::{
        Server, Sessions,
        fixture::{Authority, ClientConfig, ClientConnection, begin, connect},
    },
    worker::TlsParts,
};

const NAME: &str = "a.test";
const BYTES_MAX: u32 = 4 << 10;

/// What backends were asked: the first line, and what was said of it having come early.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

fn recorder(asked: &Asked) -> SocketAddr {
    let asked = asked.clone();
    responder(move |request| {
        let early: Vec<_> = request.fields.iter().filter(|line| line.starts_with("Early-Data")).collect();
        assert!(early.len() <= 1, "{early:?}");
        asked.lock().unwrap().push((request.start.clone(), request.value("early-data").map(str::to_owned)));
        ok(b"here")
    })
}

fn asked(path: &str, early: Option<&str>) -> (String, Option<String>) {
    (format!("{path} HTTP/1.1"), early.map(str::to_owned))
}

fn start(backend: SocketAddr, server: &Arc<Server>, protocol: Protocol, limits: Limits) -> Fixture {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listeners = BTreeMap::from([("test".into(), server.clone())]);
    let parts = TlsParts { listeners, ..TlsParts::default() };
    let snapshot = snapshot(1, protocol, address, &[backend], limits);
    Fixture::start_secured(socket.into(), address, snapshot, None, &parts)
}

/// What there is for a test of one worker.
struct Scene {
    server: Arc<Server>,
    config: Arc<ClientConfig>,
    asked: Asked,
    backend: SocketAddr,
    fixture: Fixture,
}

impl Scene {
    fn new(protocol: Protocol, alpn: &[&[u8]], limits: Limits) -> Self {
        let authority = Authority::new();
        let server = authority.early_server(&[NAME], alpn, BYTES_MAX, &Sessions::new(Vec::new()));
        let asked = Asked::default();
        let backend = recorder(&asked);
        let fixture = start(backend, &server, protocol, limits);
        Self { server, config: authority.early_client_config(alpn), asked, backend, fixture }
    }

    /// A first connection, after which the client has tickets.
    fn meet(&self) {
        let mut client = connect(&self.config, NAME, self.fixture.connect());
        client.flush().unwrap();
        while client.conn.tls13_tickets_received() < 2 {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
    }

    fn metrics(&self) -> &ListenerMetrics {
        &self.fixture.handle.metrics.listeners[0]
    }

    fn asked(&self) -> Vec<(String, Option<String>)> {
        self.asked.lock().unwrap().clone()
    }
}

/// One that says what it says when it is told to.
struct Slow {
    conn: ClientConnection,
    socket: TcpStream,
}

impl Slow {
    /// The ClientHello, and `early` behind it: all that goes at first.
    fn flight(config: &Arc<ClientConfig>, early: &[u8]) -> (ClientConnection, Vec<u8>) {
        let mut conn = begin(config, NAME);
        conn.early_data().expect("a ticket that lets data come early").write_all(early).unwrap();
        let mut flight = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut flight).unwrap();
        }
        (conn, flight)
    }

    fn begin(scene: &Scene, early: &[u8]) -> Self {
        let (conn, flight) = Self::flight(&scene.config, early);
        let mut socket = scene.fixture.connect();
        socket.write_all(&flight).unwrap();
        Self { conn, socket }
    }

    /// Says what it has to say.
    fn say(&mut self) {
        while self.conn.wants_write() {
            self.conn.write_tls(&mut self.socket).unwrap();
        }
    }

    /// Reads until `is_enough`, and says nothing meanwhile.
    fn listen(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut heard = Vec::new();
        while !is_enough(&heard) {
            assert!(self.conn.read_tls(&mut self.socket).unwrap() > 0, "it ended");
            let state = self.conn.process_new_packets().unwrap();
            let before = heard.len();
            heard.resize(before + state.plaintext_bytes_to_read(), 0);
            self.conn.reader().read_exact(&mut heard[before..]).unwrap();
        }
        heard
    }

    fn hears_answer(&mut self) {
        let heard = self.listen(|heard| heard.ends_with(b"here"));
        assert!(heard.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn request(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {NAME}\r\n{more}\r\n").into_bytes()
}

#[test]
fn a_safe_request_is_answered_before_hands_are_shaken() {
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], Limits::default());
    scene.meet();
    let mut early = request("GET", "/1", "");
    early.extend(request("HEAD", "/2", "Early-Data: 1\r\nearly_data: 0\r\nConnection: early-data\r\n"));
    early.extend(request("GET", "/3", ""));
    let mut client = Slow::begin(&scene, &early);
    client.listen(|heard| heard.windows(4).filter(|end| end == b"here").count() == 2);
    let early = [asked("GET /1", Some("1")), asked("HEAD /2", Some("1")), asked("GET /3", Some("1"))];
    assert_eq!(scene.asked(), early);
    // Hands are shaken, and the rest is as always; what the client itself says is left to it.
    client.say();
    let tickets = client.conn.tls13_tickets_received();
    while client.conn.tls13_tickets_received() == tickets {
        client.listen(|_| true);
        client.conn.read_tls(&mut client.socket).unwrap();
        client.conn.process_new_packets().unwrap();
    }
    for (path, more, said) in [("/4", "", None), ("/5", "Early-Data: 1\r\n", Some("1"))] {
        client.conn.writer().write_all(&request("GET", path, more)).unwrap();
        client.say();
        client.hears_answer();
        assert_eq!(scene.asked().last(), Some(&asked(&format!("GET {path}"), said)));
    }
    let metrics = scene.metrics();
    assert_eq!((metrics.early_accepted.value(), metrics.early_rejected.value()), (1, 0));
    assert_eq!((metrics.early_passed.value(), metrics.early_held.value()), (3, 0));
    scene.fixture.stop();
}

#[test]
fn another_waits_until_hands_are_shaken() {
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], Limits::default());
    for (at, (method, more, body)) in [
        ("POST", "Content-Length: 0\r\n", ""),
        ("PUT", "", ""),
        ("GET", "Content-Length: 3\r\n", "abc"),
        ("GET", "Connection: upgrade\r\nUpgrade: websocket\r\n", ""),
        ("get", "", ""),
    ]
    .into_iter()
    .enumerate()
    {
        scene.meet();
        let mut early = request(method, "/", more);
        early.extend_from_slice(body.as_bytes());
        let mut client = Slow::begin(&scene, &early);
        let held = at as u64 + 1;
        wait_until("it is held", || scene.metrics().early_held.value() == held);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(scene.asked().len(), at, "{method} was not passed on");
        client.listen(|_| true);
        while client.conn.is_handshaking() {
            client.conn.read_tls(&mut client.socket).unwrap();
            client.conn.process_new_packets().unwrap();
        }
        assert_eq!(scene.asked().len(), at, "{method} was not passed on");
        client.say();
        client.hears_answer();
        assert_eq!(scene.asked().last(), Some(&asked(&format!("{method} /"), None)));
    }
    assert_eq!(scene.metrics().early_passed.value(), 0);
    scene.fixture.stop();
}

#[test]
fn who_never_shakes_hands_does_nothing_that_counts() {
    let limits = Limits { head_timeout: Duration::from_millis(300), ..Limits::default() };
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], limits);
    scene.meet();
    let mut client = Slow::begin(&scene, &request("DELETE", "/", ""));
    wait_until("it is given up", || scene.fixture.reason(CloseReason::TlsTimeout) == 1);
    while matches!(client.socket.read(&mut [0; 4096]), Ok(1..)) {}
    // Behind an answer, too, hands have to be shaken.
    scene.meet();
    let mut client = Slow::begin(&scene, &request("GET", "/", ""));
    client.listen(|heard| heard.ends_with(b"here"));
    wait_until("it is given up", || scene.fixture.reason(CloseReason::TlsTimeout) == 2);
    assert_eq!(scene.asked(), [asked("GET /", Some("1"))]);
    scene.fixture.stop();
}

#[test]
fn what_is_said_again_is_not_heard() {
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], Limits::default());
    scene.meet();
    let other = start(scene.backend, &scene.server, Protocol::Http, Limits::default());
    let (_, flight) = Slow::flight(&scene.config, &request("GET", "/", ""));
    scene.fixture.connect().write_all(&flight).unwrap();
    wait_until("it has come", || scene.asked().len() == 1);
    for (fixture, count) in [(&scene.fixture, 1), (&other, 1), (&other, 2)] {
        let mut socket = fixture.connect();
        socket.write_all(&flight).unwrap();
        // Hands would be shaken, by who knows more than what was said.
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        drop(socket);
        let rejected = &fixture.handle.metrics.listeners[0].early_rejected;
        wait_until("it is turned away", || rejected.value() == count);
    }
    assert_eq!(scene.asked(), [asked("GET /", Some("1"))]);
    assert_eq!(scene.metrics().early_accepted.value(), 1);
    other.stop();
    scene.fixture.stop();
}

#[test]
fn a_client_says_again_itself_what_was_not_taken() {
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], Limits::default());
    scene.meet();
    // Another process: it has none of the sessions.
    let authority = Authority::new();
    let server = authority.early_server(&[NAME], &[b"http/1.1"], BYTES_MAX, &Sessions::new(Vec::new()));
    let stranger = start(scene.backend, &server, Protocol::Http, Limits::default());
    let (mut conn, flight) = Slow::flight(&scene.config, &request("GET", "/", ""));
    let mut socket = stranger.connect();
    socket.write_all(&flight).unwrap();
    // It is of another authority, too, so that the client gives up; what it said early went nowhere.
    conn.complete_io(&mut socket).unwrap_err();
    let metrics = &stranger.handle.metrics.listeners[0];
    wait_until("it is turned away", || metrics.early_rejected.value() == 1);
    assert_eq!((metrics.requests.value(), scene.asked().len()), (0, 0));
    stranger.stop();
    scene.fixture.stop();
}

#[test]
fn a_relay_waits_for_hands() {
    let scene = Scene::new(Protocol::Tcp, &[], Limits::default());
    scene.meet();
    wait_until("the first is gone", || scene.fixture.admission.open() == 0);
    let accepted = || scene.fixture.handle.metrics.backends[1].connects.value();
    let before = accepted();
    let mut client = Slow::begin(&scene, &request("GET", "/", ""));
    client.listen(|_| true);
    while client.conn.is_handshaking() {
        client.conn.read_tls(&mut client.socket).unwrap();
        client.conn.process_new_packets().unwrap();
    }
    assert_eq!(accepted(), before);
    client.say();
    client.hears_answer();
    assert_eq!(scene.asked(), [asked("GET /", None)]);
    drop(client);
    scene.fixture.stop();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Streams whose answers have begun.
fn answered(mut heard: &[u8]) -> Vec<u8> {
    let mut streams = Vec::new();
    while let Some((&[a, b, c, kind, _, _, _, _, stream], rest)) = heard.split_first_chunk::<9>() {
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        streams.extend((kind == 1).then_some(stream));
        heard = rest.get(len..).unwrap_or_default();
    }
    streams
}

#[test]
fn streams_pass_or_wait_each_by_itself() {
    let scene = Scene::new(Protocol::Http, &[b"h2"], Limits::default());
    scene.meet();
    let head = |method: u8, stream: u8| {
        let fields = [&[method, 0x87, 0x84, 0x41, NAME.len() as u8], NAME.as_bytes()].concat();
        frame(1, 5, stream, &fields)
    };
    let mut early = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    early.extend(frame(4, 0, 0, &[]));
    // POST, then GET.
    early.extend(head(0x83, 1));
    early.extend(head(0x82, 3));
    let mut client = Slow::begin(&scene, &early);
    let heard = client.listen(|heard| !answered(heard).is_empty());
    assert_eq!(answered(&heard), [3]);
    wait_until("one waits", || scene.metrics().early_held.value() == 1);
    assert_eq!(scene.asked(), [asked("GET /", Some("1"))]);
    client.say();
    let heard = client.listen(|heard| !answered(heard).is_empty());
    assert_eq!(answered(&heard), [1]);
    assert_eq!(scene.asked(), [asked("GET /", Some("1")), asked("POST /", None)]);
    assert_eq!(scene.metrics().early_passed.value(), 1);
    // Tickets wait for no answer.
    drop(client);
    scene.meet();
    let client = Slow::begin(&scene, &early[..early.len() - head(0x82, 3).len()]);
    wait_until("it waits", || scene.metrics().early_held.value() == 2);
    drop(client.socket.shutdown(std::net::Shutdown::Both));
    wait_until("it is gone", || scene.fixture.admission.open() == 0);
    assert_eq!(scene.asked().len(), 2);
    scene.fixture.stop();
}

#[test]
fn a_connection_without_early_data_is_as_always() {
    let scene = Scene::new(Protocol::Http, &[b"http/1.1"], Limits::default());
    for _ in 0..3 {
        let mut client = BufReader::new(connect(&scene.config, NAME, scene.fixture.connect()));
        client.get_mut().write_all(&request("POST", "/", "Content-Length: 0\r\n")).unwrap();
        assert_eq!(read_message(&mut client).unwrap().body, b"here");
    }
    assert_eq!(scene.metrics().resumptions.value(), 2);
    assert_eq!((scene.metrics().early_accepted.value(), scene.metrics().early_rejected.value()), (0, 0));
    assert!(scene.asked().iter().all(|asked| asked.1.is_none()));
    scene.fixture.stop();
}
