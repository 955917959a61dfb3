//! tcp listeners.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Fixture, PATIENCE, backend, closed_port, has_kernel_workers, pattern, wait_until};
use crate::{
    config::{Limits, Protocol},
    model::{BackendId, reason::CloseReason},
    sys::pipe::CAPACITY,
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
        fixture.gets_back(len);
    }
    assert!(fixture.handle.metrics.spliced_bytes.value() > 16 << 20, "bulk left user space");
    assert!(!has_kernel_workers(), "nothing was punted to an io_uring worker thread");
    fixture.stop();
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
    let begun = Instant::now();
    fixture.handle.send(Command::Drain { deadline: begun + Duration::from_millis(100) });
    fixture.finish();
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    assert!(client.read(&mut [0; 1]).is_err());
    assert_eq!(metrics.reason(CloseReason::Draining).value(), 1);
}

/// Makes the close of `stream` a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_reset_goes_through_and_is_the_fault_of_who_sent_it() {
    let (told, ends) = mpsc::channel();
    let address = backend(move |mut stream| {
        told.send(stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind())).unwrap();
    });
    let fixture = Fixture::start(Protocol::Tcp, &[address], Limits::default());
    let mut client = fixture.connect();
    client.write_all(b"hello").unwrap();
    wait_until("the bytes went through", || fixture.handle.metrics.listeners[0].received_bytes.value() == 5);
    reset(client);
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(fixture.reason(CloseReason::ClientGone), 1);
    fixture.stop();

    let address = backend(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        reset(stream);
    });
    let fixture = Fixture::start(Protocol::Tcp, &[address], Limits::default());
    let mut client = fixture.connect();
    client.write_all(b"hello").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait_until("it is counted", || fixture.reason(CloseReason::UpstreamClosed) == 1);
    assert_eq!(fixture.reason(CloseReason::ClientGone), 0);
    fixture.stop();
}

/// What TLS clients do: a last word after the backend has closed. It must cost them nothing of the answer.
#[test]
fn a_late_word_to_a_backend_that_is_gone_takes_nothing_from_the_client() {
    const LEN: usize = 4 << 20;
    let address = backend(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(&pattern(LEN)).unwrap();
    });
    let fixture = Fixture::start(Protocol::Tcp, &[address], Limits::default());
    let mut client = fixture.connect();
    client.write_all(b"hello").unwrap();
    // Reads so slowly that most of the answer waits in socket buffers when the backend is gone.
    let sent = &fixture.handle.metrics.listeners[0].sent_bytes;
    let mut received = vec![0; 64 << 10];
    client.read_exact(&mut received).unwrap();
    while sent.value() < LEN as u64 {
        let at = received.len();
        received.resize(at + (64 << 10), 0);
        client.read_exact(&mut received[at..]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        let _ = client.write_all(b"bye");
        thread::sleep(Duration::from_millis(30));
    }
    let _ = client.read_to_end(&mut received);
    assert!(received == pattern(LEN), "{} of {LEN} bytes", received.len());
    drop(client);
    fixture.stop();
}

#[test]
fn a_pipe_with_bytes_in_it_is_never_used_again() {
    let address = backend(|mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        match &first {
            b"g" => stream.write_all(&pattern(4 << 20)).unwrap(),
            // Whatever the host's socket buffers can hold, there is more of it.
            _ => while stream.write_all(&[0xee; 64 << 10]).is_ok() {},
        }
    });
    let fixture = Fixture::start(Protocol::Tcp, &[address], Limits::default());
    let metrics = fixture.handle.metrics.clone();
    for turn in 0..12_u64 {
        let mut bad = fixture.connect();
        bad.write_all(b"b").unwrap();
        // Reads nothing: the pipe fills. Then the relay ends in the middle.
        wait_until("it has left user space", || metrics.splices_started.value() > 2 * turn);
        let stuck = || {
            let before = metrics.spliced_bytes.value();
            thread::sleep(Duration::from_millis(10));
            before == metrics.spliced_bytes.value()
        };
        wait_until("nothing moves any more", stuck);
        reset(bad);
        wait_until("it is gone", || fixture.admission.open() == 0);

        let mut good = fixture.connect();
        good.write_all(b"g").unwrap();
        let mut received = Vec::new();
        good.read_to_end(&mut received).unwrap();
        assert!(received == pattern(4 << 20), "turn {turn}: bytes of another connection");
        drop(good);
        wait_until("it is gone", || fixture.admission.open() == 0);
        assert_eq!(metrics.splices_started.value(), 2 * turn + 2);
    }
    fixture.stop();
}

/// What a socket's buffer may grow to here, by the last field of `tcp_rmem` or `tcp_wmem`.
fn buffer_max(setting: &str) -> usize {
    let path = format!("/proc/sys/net/ipv4/{setting}");
    let text = std::fs::read_to_string(&path).unwrap();
    text.split_whitespace().next_back().and_then(|field| field.parse().ok()).expect(&path)
}

#[test]
fn a_peer_that_does_not_read_costs_a_bounded_amount() {
    const CHUNK: usize = 64 << 10;
    // Two sockets on either side of us, and a pipe, each page of which may stand for the largest segment.
    let pipe = CAPACITY / 4096 * CHUNK;
    let bound = 2 * (buffer_max("tcp_rmem") + buffer_max("tcp_wmem")) + pipe;
    let offered = 2 * bound / CHUNK * CHUNK;
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let address = backend(move |mut stream| {
        while count.load(Ordering::Relaxed) < offered && stream.write_all(&[7; CHUNK]).is_ok() {
            count.fetch_add(CHUNK, Ordering::Relaxed);
        }
    });
    let fixture = Fixture::start(Protocol::Tcp, &[address], Limits::default());
    let mut client = fixture.connect();
    let stuck = || {
        let before = written.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(300));
        before > 0 && before == written.load(Ordering::Relaxed)
    };
    wait_until("the backend can write no more", stuck);
    let held = written.load(Ordering::Relaxed);
    assert!(
        held < bound,
        "{held} bytes of {offered} are somewhere, where {bound} are the most that is right"
    );
    // It was not the backend that had no more.
    let read = std::io::copy(&mut client, &mut std::io::sink()).unwrap();
    assert_eq!(read, offered as u64);
    fixture.stop();
}
