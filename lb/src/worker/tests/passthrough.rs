//! Relays that go by the name in a TLS ClientHello.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::Arc,
    time::Duration,
};

use super::{Fixture, backend, snapshot};
use crate::{
    config::{
        HostMatch, Limits, PathMatch, PoolSnapshot, Protocol, ProxyVersion, Rewrite, RouteAction,
        RouteSnapshot, Slots,
    },
    model::{BackendId, PoolId, RouteId, reason::CloseReason},
};

/// A backend that says its name, then all it got.
fn named(name: &'static str) -> std::net::SocketAddr {
    backend(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = stream.write_all(&[name.as_bytes(), &bytes].concat());
    })
}

fn route(id: u16, host: HostMatch, pool: u16) -> RouteSnapshot {
    RouteSnapshot {
        id: RouteId(id),
        name: format!("route-{id}").into(),
        listener: "test".into(),
        host,
        path: PathMatch::Any,
        conditions: Arc::default(),
        priority: 0,
        action: RouteAction::Forward { pool: PoolId(pool), rewrite: Rewrite::default() },
        request_headers: Arc::default(),
        response_headers: Arc::default(),
        timeout: Duration::from_secs(60),
        deadline: None,
        policy: Arc::default(),
    }
}

/// Pools "0", "1" and "2", the first of them the listener's own if it has one; `a.test` and `*.test` have routes.
fn start(has_pool: bool, header: Option<ProxyVersion>) -> Fixture {
    let limits = Limits { head_timeout: Duration::from_millis(300), ..Limits::default() };
    Fixture::start_with(
        |address| {
            let backends = ["0", "1", "2"].map(named);
            let mut snapshot = snapshot(1, Protocol::Tcp, address, &backends, limits);
            let all = snapshot.pools.remove(0);
            snapshot.pools = (0..3)
                .map(|at: u16| PoolSnapshot {
                    id: PoolId(at),
                    backends: vec![all.backends[usize::from(at)].clone()],
                    proxy_protocol: header,
                    ..all.clone()
                })
                .collect();
            snapshot.routes = Slots::from(vec![
                route(0, HostMatch::Exact("a.test".into()), 1),
                route(1, HostMatch::Suffix(".test".into()), 2),
            ]);
            let listener = &mut snapshot.listeners[0];
            listener.routes = vec![RouteId(0), RouteId(1)];
            listener.pool = has_pool.then_some(PoolId(0));
            snapshot
        },
        None,
    )
}

/// A ClientHello, in records of at most `size` bytes.
fn hello(name: Option<&str>, size: usize) -> Vec<u8> {
    let sized = |part: &[u8]| [&(part.len() as u16).to_be_bytes()[..], part].concat();
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
    if let Some(name) = name {
        let entry = sized(&[&[0][..], &sized(name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &sized(&entry)].concat());
    }
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &sized(chunk)].concat()).collect()
}

/// What comes back for bytes that are sent in two pieces.
fn exchange(fixture: &Fixture, bytes: &[u8], cut: usize) -> Vec<u8> {
    let mut client = fixture.connect();
    client.set_nodelay(true).unwrap();
    let _ = client.write_all(&bytes[..cut]);
    let _ = client.write_all(&bytes[cut..]);
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    answer
}

#[test]
fn the_name_says_the_pool_and_every_byte_goes_through() {
    let fixture = start(true, None);
    for (name, pool) in [
        (Some("a.test"), "1"),
        (Some("A.TEST"), "1"),
        (Some("b.test"), "2"),
        (Some("x.a.test"), "2"),
        (Some("test"), "0"),
        (None, "0"),
    ] {
        for size in [1000, 30] {
            let bytes = [&hello(name, size)[..], b"and more"].concat();
            for cut in (0..bytes.len()).step_by(7) {
                let expected = [pool.as_bytes(), &bytes].concat();
                assert_eq!(exchange(&fixture, &bytes, cut), expected, "{name:?}");
            }
        }
    }
    // Whoever does not speak TLS, too, goes to the listener's pool.
    assert_eq!(exchange(&fixture, b"SSH-2.0-x\r\n", 4), b"0SSH-2.0-x\r\n");
    fixture.stop();
}

#[test]
fn who_has_no_way_is_turned_away_by_name() {
    let fixture = start(false, None);
    for (bytes, reason, count) in [
        (hello(Some("a.example"), 1000), CloseReason::NoRoute, 1),
        (hello(None, 1000), CloseReason::NoServerName, 1),
        (b"SSH-2.0-x\r\n".to_vec(), CloseReason::NotTls, 1),
        (hello(Some("a b"), 1000), CloseReason::ClientHello, 1),
        (hello(Some("a.test"), 3), CloseReason::ClientHello, 2),
        (hello(Some("a.test"), 1000)[..20].to_vec(), CloseReason::ClientGone, 1),
    ] {
        assert!(exchange(&fixture, &bytes, 3).is_empty());
        assert_eq!(fixture.reason(reason), count, "{reason:?}");
    }
    let mut silent = fixture.connect();
    assert!(silent.read(&mut [0; 1]).is_err());
    assert_eq!(fixture.reason(CloseReason::HeadTimeout), 1);
    fixture.stop();
}

#[test]
fn the_backend_is_told_the_name() {
    let fixture = start(true, Some(ProxyVersion::V2));
    let bytes = hello(Some("a.test"), 1000);
    let answer = exchange(&fixture, &bytes, 0);
    assert!(answer.ends_with(&bytes));
    let authority = [&[2, 0, 6][..], b"a.test"].concat();
    assert!(answer.windows(authority.len()).any(|window| window == authority), "{}", answer.escape_ascii());
    assert_eq!(fixture.handle.metrics.backend(BackendId(2)).connects.value(), 1);
    fixture.stop();
}
