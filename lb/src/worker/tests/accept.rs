//! Who gets in, at the edges: a drain in the middle of a storm, descriptors running out.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command as Process,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Fixture, PATIENCE, backend, closed_port, has_kernel_workers, wait_until};
use crate::{
    config::{Limits, Protocol},
    model::reason::CloseReason,
    worker::Command,
};

fn echo(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let _ = stream.write_all(&bytes);
}

#[test]
fn a_drain_serves_everybody_who_had_a_connection() {
    for _ in 0..5 {
        let fixture = Fixture::start(Protocol::Tcp, &[backend(echo)], Limits::default());
        let mut clients: Vec<_> = (0..64).map(|_| fixture.connect()).collect();
        fixture.handle.send(Command::Drain { deadline: Instant::now() + PATIENCE });
        for (at, client) in clients.iter_mut().enumerate() {
            let word = format!("client {at}");
            client.write_all(word.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut received = String::new();
            client.read_to_string(&mut received).unwrap();
            assert_eq!(received, word);
        }
        fixture.finish();
    }
}

#[test]
fn a_stop_closes_every_connection() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let fixture = Fixture::start(protocol, &[backend(echo)], Limits::default());
        let mut clients: Vec<_> = (0..20).map(|_| fixture.connect()).collect();
        wait_until("all are in", || fixture.admission.open() == 20);
        fixture.stop();
        for client in &mut clients {
            let end = client.read(&mut [0; 1]);
            assert!(!matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{end:?}");
        }
    }
}

#[test]
fn an_idle_worker_has_no_kernel_threads() {
    let fixture = Fixture::start(Protocol::Http, &[backend(echo)], Limits::default());
    let _idle = fixture.connect();
    wait_until("it is in", || fixture.admission.open() == 1);
    let turns = fixture.handle.metrics.turns.value();
    thread::sleep(Duration::from_millis(300));
    assert!(!has_kernel_workers(), "the read of the doorbell waits inside the ring");
    let turned = fixture.handle.metrics.turns.value() - turns;
    assert!(turned < 10, "{turned} turns in 0.3 s of silence");
    fixture.stop();
}

/// Lowers the limit of open files, which is the process's own: so the test runs itself in a child.
#[test]
fn accepting_goes_on_when_descriptors_come_back() {
    const CHILD: &str = "LB_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    let output = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "worker::tests::accept::accepting_goes_on_when_descriptors_come_back",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran nothing: {text}");
}

fn few_descriptors() {
    let whole = getrlimit(Resource::Nofile);
    // Before anything is armed: an accept goes by the limit of its arming.
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..whole }).unwrap();
    // Nobody listens there: a backend's accept would meet the limit, too, and end its thread.
    let fixture = Fixture::start(Protocol::Http, &[closed_port()], Limits::default());
    let _first = fixture.connect();
    wait_until("the first is in", || fixture.admission.open() == 1);
    let client = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let clients: Vec<_> = (0..8).map(|_| client()).collect();
    let mut all_others = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        all_others.push(file);
    }
    for client in &clients {
        client.connect(&fixture.address.into()).unwrap();
    }
    wait_until("some met the limit", || fixture.reason(CloseReason::Resources) > 0);
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(200));
    let met = fixture.reason(CloseReason::Resources);
    let most = 2 + begun.elapsed().as_millis() as u64 / 50;
    assert!(met <= most, "it pauses between attempts: {met} in {:?}", begun.elapsed());
    assert_eq!(fixture.admission.open(), 1);
    drop(all_others);
    wait_until("all are in", || fixture.admission.open() == 9);
    drop(clients);
    fixture.stop();
}
