//! What a worker counts for who looks for outliers; for the others it counts nothing.

use std::{
    io::{BufReader, Write},
    net::SocketAddr,
    time::Duration,
};

use super::{
    Fixture, backend, closed_port,
    peers::{Client, read_message},
    snapshot,
};
use crate::{
    config::{Limits, Outlier, Protocol},
    model::BackendId,
};

fn start(backends: &[SocketAddr], protocol: Protocol, outlier: Option<Outlier>) -> Fixture {
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() };
    let with = |address| {
        let mut snapshot = snapshot(1, protocol, address, backends, limits);
        snapshot.pools[0].choosing.outlier = outlier;
        snapshot
    };
    Fixture::start_with(with, None)
}

/// Answers, errors, and errors in a row, of the first backend.
fn counted(fixture: &Fixture) -> (u64, u64, u64) {
    let metrics = fixture.handle.metrics.backend(BackendId(1));
    (metrics.answers.value(), metrics.errors.value(), metrics.error_run.value())
}

/// Answers with the status that the path says; `/reset` breaks off, `/hang` says nothing.
fn moody() -> SocketAddr {
    backend(|stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = read_message(&mut reader) {
            let path = request.start.split(' ').nth(1).unwrap_or_default().to_owned();
            match &path[1..] {
                "reset" => return,
                "hang" => {}
                status => {
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                    writer.write_all(head.as_bytes()).unwrap();
                }
            }
        }
    })
}

#[test]
fn whatever_a_backend_fails_at_is_an_error() {
    let fixture = start(&[moody()], Protocol::Http, Some(Outlier::default()));
    for (path, status, expected) in [
        ("/200", "200", (1, 0, 0)),
        ("/500", "500", (1, 1, 1)),
        ("/503", "503", (1, 2, 2)),
        ("/404", "404", (2, 2, 0)),
        ("/reset", "502", (2, 3, 1)),
        ("/hang", "504", (2, 4, 2)),
        ("/302", "302", (3, 4, 0)),
    ] {
        let answer = Client::new(&fixture).get(path);
        assert!(answer.start.contains(status), "{path}: {}", answer.start);
        assert_eq!(counted(&fixture), expected, "{path}");
    }
    fixture.stop();
}

#[test]
fn one_that_cannot_be_reached_errs_and_a_relay_that_connects_is_an_answer() {
    let fixture = start(&[closed_port()], Protocol::Http, Some(Outlier::default()));
    assert!(Client::new(&fixture).get("/").start.contains("502"));
    assert_eq!(counted(&fixture), (0, 1, 1));
    fixture.stop();
    let fixture = start(&[moody()], Protocol::Tcp, Some(Outlier::default()));
    assert!(Client::new(&fixture).get("/500").start.contains("500"));
    assert_eq!(counted(&fixture), (1, 0, 0));
    fixture.stop();
}

#[test]
fn without_the_key_nothing_is_counted() {
    let fixture = start(&[moody()], Protocol::Http, None);
    for path in ["/200", "/500", "/reset"] {
        Client::new(&fixture).get(path);
    }
    assert_eq!(counted(&fixture), (0, 0, 0));
    fixture.stop();
}
