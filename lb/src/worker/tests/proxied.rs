//! PROXY headers, in and out.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use super::{
    Fixture, PATIENCE, backend,
    peers::{Client, ok, read_message, responder, try_read_message},
    snapshot, wait_until,
};
use crate::{
    config::{Limits, Protocol, ProxyHeaders, ProxyVersion},
    model::reason::CloseReason,
    relay::proxy::{self, Ends, Extras, Parsed},
    tls::fixture::{Authority, accept},
    worker::TlsParts,
};

const CLIENT: &str = "192.0.2.7:40112";
const DESTINATION: &str = "198.51.100.1:8443";

/// A worker that looks for headers of whoever is in `trusted`.
fn start(protocol: Protocol, headers: ProxyHeaders, trusted: &str, limits: Limits) -> Fixture {
    let echo = match protocol {
        Protocol::Http => responder(|request| {
            let told = |name| request.value(name).unwrap_or("-").to_owned();
            ok(format!("{} {}", told("x-forwarded-for"), told("x-forwarded-port")).as_bytes())
        }),
        Protocol::Tcp | Protocol::Udp => backend(|mut stream| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            let _ = stream.write_all(&bytes);
        }),
    };
    Fixture::start_with(
        |address| {
            let mut snapshot = snapshot(1, protocol, address, &[echo], limits);
            snapshot.listeners[0].proxy_protocol = headers;
            snapshot.listeners[0].trusted_proxies = vec![trusted.parse().unwrap()];
            snapshot
        },
        None,
    )
}

fn header(version: ProxyVersion) -> Vec<u8> {
    let ends = Some(Ends::new(CLIENT.parse().unwrap(), DESTINATION.parse().unwrap()));
    let mut out = Vec::new();
    match version {
        ProxyVersion::V1 => proxy::write_v1(&mut out, ends),
        ProxyVersion::V2 => proxy::write_v2(&mut out, ends, &Extras::default()),
    }
    out
}

fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn a_header_names_the_client_however_it_is_cut() {
    let fixture = start(Protocol::Http, ProxyHeaders::Require, "127.0.0.0/8", Limits::default());
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let request = [&header(version)[..], b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        for cut in (0..=request.len()).step_by(5) {
            let mut client = Client::new(&fixture);
            client.writer.set_nodelay(true).unwrap();
            client.send(&request[..cut]);
            client.send(&request[cut..]);
            assert_eq!(client.receive().body, b"192.0.2.7 8443");
            // Of the header's client, too, is what comes next.
            assert_eq!(client.get("/").body, b"192.0.2.7 8443");
        }
    }
    fixture.stop();
}

#[test]
fn who_speaks_for_himself_is_his_own_client() {
    let fixture = start(Protocol::Http, ProxyHeaders::Require, "127.0.0.0/8", Limits::default());
    let mut local = Vec::new();
    proxy::write_v2(&mut local, None, &Extras::default());
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local] {
        let mut client = Client::new(&fixture);
        client.send(&header);
        let port = fixture.address.port();
        assert_eq!(client.get("/").body, format!("127.0.0.1 {port}").as_bytes());
    }
    fixture.stop();
}

#[test]
fn a_relay_passes_on_what_stands_behind_the_header_and_not_the_header() {
    let fixture = start(Protocol::Tcp, ProxyHeaders::Accept, "127.0.0.0/8", Limits::default());
    let hello = [&header(ProxyVersion::V2)[..], b"hello"].concat();
    for (sent, expected) in
        [(&hello[..], &b"hello"[..]), (b"hello", b"hello"), (&header(ProxyVersion::V1), b"")]
    {
        let mut client = fixture.connect();
        client.write_all(sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(client), expected);
    }
    fixture.stop();
}

#[test]
fn a_header_from_elsewhere_is_never_believed() {
    let fixture = start(Protocol::Http, ProxyHeaders::Require, "10.0.0.0/8", Limits::default());
    let mut client = fixture.connect();
    let _ = client.write_all(&header(ProxyVersion::V2));
    assert!(rest(client).is_empty());
    assert_eq!(fixture.reason(CloseReason::ProxyUntrusted), 1);
    fixture.stop();

    // Where none is required it is what it looks like: a bad request.
    let fixture = start(Protocol::Http, ProxyHeaders::Accept, "10.0.0.0/8", Limits::default());
    assert_eq!(
        Client::new(&fixture).get("/").body,
        format!("127.0.0.1 {}", fixture.address.port()).as_bytes()
    );
    let mut client = Client::new(&fixture);
    client.send(header(ProxyVersion::V1));
    assert!(client.receive().start.starts_with("HTTP/1.1 400 "));
    assert_eq!(fixture.reason(CloseReason::RequestLine), 1);
    fixture.stop();
}

#[test]
fn what_is_no_sound_header_ends_the_connection_unanswered() {
    let limits = Limits { head_timeout: Duration::from_millis(150), ..Limits::default() };
    let fixture = start(Protocol::Http, ProxyHeaders::Require, "127.0.0.0/8", limits);
    let exchange = |bytes: &[u8]| {
        let mut client = fixture.connect();
        client.write_all(bytes).unwrap();
        assert!(rest(client).is_empty());
    };
    exchange(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(fixture.reason(CloseReason::ProxyMissing), 1);
    exchange(b"PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    exchange(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c");
    assert_eq!(fixture.reason(CloseReason::ProxyHeader), 2);
    exchange(b"PROXY TCP4 ");
    assert_eq!(fixture.reason(CloseReason::HeadTimeout), 1);
    // A look whether somebody listens is nobody's fault.
    drop(fixture.connect());
    wait_until("it is gone", || fixture.handle.metrics.listeners[0].open.value() == 0);
    assert_eq!(fixture.reason(CloseReason::ClientGone), 0);
    let mut client = fixture.connect();
    client.write_all(b"PROXY").unwrap();
    drop(client);
    wait_until("it is counted", || fixture.reason(CloseReason::ClientGone) == 1);
    fixture.stop();
}

#[test]
fn connections_count_for_the_client_and_not_for_the_proxy() {
    let limits = Limits { connections_per_ip: 2, ..Limits::default() };
    let fixture = start(Protocol::Http, ProxyHeaders::Require, "127.0.0.0/8", limits);
    let connect = |client: &str| {
        let mut peer = Client::new(&fixture);
        peer.send(format!("PROXY TCP4 {client} 198.51.100.1 1 2\r\n"));
        peer
    };
    let mut kept: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(&connect).into();
    kept.iter_mut().for_each(|client| assert!(client.get("/").start.contains("200")));
    let mut refused = connect("192.0.2.1");
    assert!(refused.is_closed());
    assert_eq!(fixture.reason(CloseReason::ConnectionsPerIp), 1);
    drop(kept);
    fixture.stop();
}

/// A worker before `backend` whose pool introduces clients.
fn introducing(protocol: Protocol, version: ProxyVersion, backend: SocketAddr) -> Fixture {
    Fixture::start_with(
        |address| {
            let mut snapshot = snapshot(1, protocol, address, &[backend], Limits::default());
            snapshot.pools[0].proxy_protocol = Some(version);
            snapshot.pools[0].keepalive.per_worker = 0;
            snapshot
        },
        None,
    )
}

/// The header at the front of what comes, which is taken from there.
fn read_header(from: &mut impl Read) -> Ends {
    let mut bytes = Vec::new();
    loop {
        if let Parsed::Complete(header) = proxy::parse(&bytes).unwrap() {
            assert_eq!(header.len, bytes.len());
            return header.ends.unwrap();
        }
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
}

#[test]
fn a_backend_is_told_who_the_client_is_before_it_speaks() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        // It greets first, as many protocols do: the header must not wait for the client.
        let backend = backend(|stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ends { client, destination } = read_header(&mut reader);
            let mut writer = stream;
            writer.write_all(format!("{client} {destination}\n").as_bytes()).unwrap();
        });
        let fixture = introducing(Protocol::Tcp, version, backend);
        let client = fixture.connect();
        let expected = format!("{} {}\n", client.local_addr().unwrap(), fixture.address);
        let mut greeting = String::new();
        BufReader::new(client).read_line(&mut greeting).unwrap();
        assert_eq!(greeting, expected);
        fixture.stop();
    }
}

#[test]
fn a_header_goes_in_the_clear_before_tls() {
    let authority = Authority::new();
    for (protocol, version) in [
        (Protocol::Http, ProxyVersion::V1),
        (Protocol::Http, ProxyVersion::V2),
        (Protocol::Tcp, ProxyVersion::V2),
    ] {
        let (told, tells) = mpsc::channel();
        let config = authority.peer_config("a.test");
        let backend = backend(move |stream| {
            // Not a byte more is read: what follows is TLS.
            told.send(read_header(&mut &stream).client).unwrap();
            let mut sealed = BufReader::new(accept(&config, stream));
            while try_read_message(&mut sealed).ok().flatten().is_some() {
                sealed.get_mut().write_all(&ok(b"sealed")).unwrap();
            }
        });
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut snapshot = snapshot(1, protocol, address, &[backend], Limits::default());
        snapshot.pools[0].proxy_protocol = Some(version);
        snapshot.pools[0].keepalive.per_worker = 0;
        let pools = BTreeMap::from([("test".into(), authority.upstream("a.test"))]);
        let parts = TlsParts { pools, ..TlsParts::default() };
        let fixture = Fixture::start_secured(socket.into(), address, snapshot, None, &parts);
        let mut clients = [Client::new(&fixture), Client::new(&fixture)];
        for at in [0, 1, 0] {
            clients[at].send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
            assert_eq!(clients[at].receive().body, b"sealed");
            // A relay keeps the connection that began so.
            if protocol == Protocol::Http || at == 1 {
                let client = clients[at].writer.local_addr().unwrap();
                while tells.recv_timeout(PATIENCE).unwrap() != client {}
            }
        }
        drop(clients);
        fixture.stop();
    }
}

#[test]
fn no_request_travels_under_the_name_of_another_client() {
    let (told, tells) = mpsc::channel();
    let backend = backend(move |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        told.send(read_header(&mut reader).client).unwrap();
        let mut writer = stream;
        while read_message(&mut reader).is_some() {
            writer.write_all(&ok(b"")).unwrap();
        }
    });
    let fixture = introducing(Protocol::Http, ProxyVersion::V2, backend);
    let mut clients = [Client::new(&fixture), Client::new(&fixture)];
    for at in [0, 1, 0] {
        clients[at].send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
        assert!(clients[at].receive().start.contains("200"));
        let client = clients[at].writer.local_addr().unwrap();
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), client);
        clients[at].get("/");
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), client);
    }
    fixture.stop();
}
