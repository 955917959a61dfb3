//! tcp listeners.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Fixture, PATIENCE, backend, closed_port, pattern, wait_until};
use crate::{
    config::{Limits, Protocol},
    model::{BackendId, reason::CloseReason},
    worker::Command,
};

/// Answers with all it got, once the client has ended its side.
fn echo_after_end(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

#[test]
fn a_relay_keeps_every_byte_and_the_half_close() {
    let fixture = Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], Limits::default());
    for len in [0, 1, 5_000, 300_000, 16 << 20] {
        let sent = pattern(len);
        let mut client = fixture.connect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{len} bytes came back as {}", received.len());
    }
    assert!(fixture.handle.metrics.spliced_bytes.value() > 16 << 20, "bulk left user space");
    assert!(!has_kernel_workers(), "nothing was punted to an io_uring worker thread");
    fixture.stop();
}

fn has_kernel_workers() -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("iou-wrk"))
    })
}

#[test]
fn many_relays_at_once() {
    let fixture = Arc::new(Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], Limits::default()));
    let clients: Vec<_> = (0..50)
        .map(|at| {
            let fixture = fixture.clone();
            thread::spawn(move || {
                let sent = pattern(20_000 * (at + 1));
                let mut client = fixture.connect();
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut received = Vec::new();
                client.read_to_end(&mut received).unwrap();
                assert!(received == sent);
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    Arc::into_inner(fixture).unwrap().stop();
}

#[test]
fn a_refused_backend_is_passed_over() {
    let fixture = Fixture::start(Protocol::Tcp, &[closed_port(), backend(echo_after_end)], Limits::default());
    for _ in 0..4 {
        let mut client = fixture.connect();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"hello");
    }
    let backends = &fixture.handle.metrics.backends;
    assert_eq!(backends[1].connect_failures.value(), 2, "round robin tried the dead one every other time");
    assert_eq!(backends[2].connects.value(), 4);
    fixture.stop();
}

#[test]
fn nobody_to_go_to_is_a_reset_with_a_reason() {
    let fixture = Fixture::start(Protocol::Tcp, &[closed_port()], Limits::default());
    let read = fixture.connect().read(&mut [0; 1]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(fixture.reason(CloseReason::ConnectFailed), 1);
    fixture.health.set(BackendId(1), false);
    assert!(fixture.connect().read(&mut [0; 1]).is_err());
    assert_eq!(fixture.reason(CloseReason::NoBackend), 1);
    fixture.stop();
}

#[test]
fn silence_ends_a_relay() {
    let limits = Limits { idle_timeout: Duration::from_millis(150), ..Limits::default() };
    let fixture = Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], limits);
    let mut client = fixture.connect();
    client.write_all(b"x").unwrap();
    assert!(client.read(&mut [0; 1]).is_err());
    assert_eq!(fixture.reason(CloseReason::IdleTimeout), 1);
    fixture.stop();
}

#[test]
fn limits_of_connections_are_exact() {
    let limits = Limits { connections_per_ip: 2, ..Limits::default() };
    let fixture = Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], limits);
    let (_one, _two) = (fixture.connect(), fixture.connect());
    wait_until("two are in", || fixture.admission.open() == 2);
    let read = fixture.connect().read(&mut [0; 1]);
    assert!(matches!(read, Ok(0) | Err(_)), "the third is turned away");
    assert_eq!(fixture.reason(CloseReason::ConnectionsPerIp), 1);
    fixture.stop();
}

#[test]
fn a_drain_lets_relays_finish_and_takes_no_more() {
    let fixture = Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], Limits::default());
    let mut client = fixture.connect();
    client.write_all(b"before").unwrap();
    wait_until("the relay runs", || fixture.handle.metrics.backends[1].in_flight.value() == 1);
    fixture.handle.send(Command::Drain { deadline: Instant::now() + PATIENCE });
    wait_until("nobody listens", || TcpStream::connect(fixture.address).is_err());
    client.write_all(b" and after").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"before and after");
    fixture.finish();
}

#[test]
fn the_end_of_patience_ends_a_drain() {
    let fixture = Fixture::start(Protocol::Tcp, &[backend(echo_after_end)], Limits::default());
    let mut client = fixture.connect();
    client.write_all(b"never ending").unwrap();
    wait_until("the relay runs", || fixture.handle.metrics.backends[1].in_flight.value() == 1);
    let metrics = fixture.handle.metrics.clone();
    fixture.handle.send(Command::Drain { deadline: Instant::now() + Duration::from_millis(100) });
    fixture.finish();
    assert!(client.read(&mut [0; 1]).is_err());
    assert_eq!(metrics.reason(CloseReason::Draining).value(), 1);
}
