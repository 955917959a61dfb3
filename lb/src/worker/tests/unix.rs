//! Backends that are unix sockets.

use std::{
    io::{BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Fixture, PATIENCE, pattern,
    peers::{Client, ok, read_message},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol, ProxyVersion, Snapshot},
    model::{BackendAddress, UnixAddress, reason::CloseReason},
};

/// A name in the abstract namespace that no other test has.
fn name() -> UnixAddress {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    UnixAddress::new(&format!("@lb-test-{}-{next}", std::process::id())).unwrap()
}

fn listen(address: &UnixAddress) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(address.sun_path()).unwrap()).unwrap();
    socket
}

/// Runs `serve` once per connection, on a thread of its own.
fn backend(address: &UnixAddress, serve: impl Fn(UnixStream) + Send + Sync + 'static) {
    let socket = listen(address);
    socket.listen(128).unwrap();
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
}

fn start(protocol: Protocol, backend: &UnixAddress, edit: impl FnOnce(&mut Snapshot)) -> Fixture {
    let place = "127.0.0.1:1".parse().unwrap();
    let unix = |address| {
        let mut snapshot = snapshot(1, protocol, address, &[place], Limits::default());
        let only = &mut snapshot.pools[0].backends[0];
        (only.name, only.address) = (backend.to_string().into(), BackendAddress::Unix(backend.clone()));
        edit(&mut snapshot);
        snapshot
    };
    Fixture::start_with(unix, None)
}

#[test]
fn requests_go_over_kept_connections() {
    let directory = std::env::temp_dir().join(format!("lb-unix-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = UnixAddress::new(directory.join("app.sock").to_str().unwrap()).unwrap();
    _ = std::fs::remove_file(path.sun_path());
    for address in [path, name()] {
        backend(&address, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut writer = stream;
            while let Some(request) = read_message(&mut reader) {
                let told = request.value("x-forwarded-for").unwrap_or_default().to_owned();
                let body = [told.as_bytes(), &request.body].concat();
                writer.write_all(&ok(&body)).unwrap();
            }
        });
        let fixture = start(Protocol::Http, &address, |_| {});
        let mut client = Client::new(&fixture);
        for len in [0, 10, 3_000_000] {
            let body = pattern(len);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
            client.send(&body);
            assert!(client.receive().body == [b"127.0.0.1", &body[..]].concat(), "{len} bytes");
        }
        let metrics = &fixture.handle.metrics.backends[1];
        assert_eq!((metrics.connects.value(), metrics.reuses.value()), (1, 2));
        fixture.stop();
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_relay_keeps_every_byte_and_the_half_close() {
    let address = name();
    backend(&address, |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let fixture = start(Protocol::Tcp, &address, |_| {});
    for len in [0, 5_000, 16 << 20] {
        fixture.gets_back(len);
    }
    assert!(fixture.handle.metrics.spliced_bytes.value() > 16 << 20, "bulk left user space");
    fixture.stop();
}

#[test]
fn a_proxy_header_tells_of_the_client() {
    let address = name();
    backend(&address, |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let fixture =
        start(Protocol::Tcp, &address, |snapshot| snapshot.pools[0].proxy_protocol = Some(ProxyVersion::V1));
    let mut client = fixture.connect();
    let (own, other) = (client.local_addr().unwrap(), fixture.address);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello", own.port(), other.port()));
    fixture.stop();
}

#[test]
fn a_socket_that_is_not_there_is_a_failed_connect() {
    let fixture = start(Protocol::Http, &name(), |_| {});
    let mut client = Client::new(&fixture);
    assert_eq!(client.get("/").start, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(fixture.reason(CloseReason::ConnectFailed), 1);
    fixture.stop();
}

/// Its queue has one place (unix(7): connect fails with EAGAIN); whoever finds it taken waits, without turning the ring
/// in a circle, until it is not.
#[test]
fn a_full_queue_is_waited_for() {
    let address = name();
    let socket = listen(&address);
    socket.listen(0).unwrap();
    let fill = || {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&socket2::SockAddr::unix(address.sun_path()).unwrap()).ok().map(|()| client)
    };
    let queued: Vec<_> = std::iter::from_fn(fill).take(64).collect();
    assert!(queued.len() < 64, "the queue is never full");
    let fixture = start(Protocol::Http, &address, |snapshot| {
        snapshot.limits.connect_timeout = Duration::from_millis(300);
    });
    let mut client = Client::new(&fixture);
    let began = Instant::now();
    assert_eq!(client.get("/").start, "HTTP/1.1 504 Gateway Timeout");
    assert!(began.elapsed() >= Duration::from_millis(250));
    assert_eq!(fixture.reason(CloseReason::ConnectTimeout), 1);
    let turns = fixture.handle.metrics.turns.value();
    assert!(turns < 2_000, "{turns} turns");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let turns = fixture.handle.metrics.turns.value();
    wait_until("it asks again", || fixture.handle.metrics.turns.value() > turns + 3);
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    let serve = |stream: UnixStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = read_message(&mut reader) {
            _ = request;
            writer.write_all(&ok(b"late")).unwrap();
        }
    };
    let server = thread::spawn(move || {
        for _ in 0..queued.len() {
            drop(listener.accept().unwrap());
        }
        drop(queued);
        serve(listener.accept().unwrap().0);
    });
    assert_eq!(client.receive().body, b"late");
    fixture.stop();
    server.join().unwrap();
}
