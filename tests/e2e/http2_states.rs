//! What each kind of frame comes to in each state of a stream: the whole table of RFC 9113, 5.1, as a server meets it.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use lb_tests::{
    daemon::Daemon,
    frames::{
        Answer::{self, GoAway, Nothing, Reset, Status},
        END_HEADERS, END_STREAM, Hostile, WHOLE,
        code::{INTERNAL_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED},
        field, frame, kind, request,
    },
    nginx::Nginx,
    peer::{Service, TcpServer},
    scene,
    wait::{self, PATIENCE},
};

use super::http2_hostile::{CONFIG, Case, case, try_all};

/// States, what leads there on stream 1, and what comes of that.
fn states() -> [(&'static str, Vec<u8>, Answer); 6] {
    let post = request("POST", "/");
    let open = frame(kind::HEADERS, END_HEADERS, 1, &post);
    let whole = frame(kind::HEADERS, WHOLE, 1, &post);
    let reset = frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let malformed = frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "x"));
    let later = frame(kind::HEADERS, WHOLE, 5, &request("GET", "/sound"));
    [
        ("idle", Vec::new(), Nothing),
        ("open", open.clone(), Nothing),
        ("half-closed (remote)", whole, Nothing),
        ("closed by its client", [open, reset].concat(), Nothing),
        ("closed by us", malformed, Reset(PROTOCOL_ERROR)),
        ("closed by a later one", later, Nothing),
    ]
}

/// Frames, and what each comes to in each of [`states`].
fn rows() -> Vec<(&'static str, Vec<u8>, [Answer; 6])> {
    let (gone, malformed, closed) = (GoAway(PROTOCOL_ERROR), Reset(PROTOCOL_ERROR), Reset(STREAM_CLOSED));
    let behind = GoAway(STREAM_CLOSED);
    let get = request("GET", "/sound");
    let fields = field("x", "y");
    let promise = [&[0, 0, 0, 2][..], &get].concat();
    let reset = frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let update = frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    vec![
        ("DATA", frame(kind::DATA, 0, 1, b"x"), [gone, Nothing, closed, closed, Nothing, closed]),
        (
            "DATA, the last",
            frame(kind::DATA, END_STREAM, 1, b"x"),
            [gone, Nothing, closed, closed, Nothing, closed],
        ),
        (
            "HEADERS",
            frame(kind::HEADERS, WHOLE, 1, &get),
            [Status(200), malformed, closed, behind, Nothing, gone],
        ),
        (
            "trailers",
            frame(kind::HEADERS, WHOLE, 1, &fields),
            [malformed, Nothing, closed, behind, Nothing, gone],
        ),
        (
            "endless trailers",
            frame(kind::HEADERS, END_HEADERS, 1, &fields),
            [malformed, malformed, closed, behind, Nothing, gone],
        ),
        ("PRIORITY", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 5]), [Nothing; 6]),
        ("RST_STREAM", reset, [gone, Nothing, Nothing, Nothing, Nothing, Nothing]),
        ("WINDOW_UPDATE", update, [gone, Nothing, Nothing, Nothing, Nothing, Nothing]),
        ("PUSH_PROMISE", frame(kind::PUSH_PROMISE, END_HEADERS, 1, &promise), [gone; 6]),
        ("CONTINUATION", frame(kind::CONTINUATION, END_HEADERS, 1, &fields), [gone; 6]),
        ("unknown", frame(kind::UNKNOWN, 0xff, 1, b"x"), [Nothing; 6]),
    ]
}

#[test]
fn every_frame_in_every_state() {
    scene::run(|scene| {
        let backend = TcpServer::start(&scene.topology().b1, 4000, Service::Silent)?;
        let _daemon = Daemon::start(scene, CONFIG)?;
        let mut cases: Vec<Case> = Vec::new();
        for (what, bytes, answers) in rows() {
            for ((state, way, led), answer) in states().into_iter().zip(answers) {
                cases.push(case(format!("{what} when {state}"), bytes.clone(), answer).behind(way, led));
            }
        }
        try_all(scene, &cases)?;
        // Those that are open do get there.
        ensure!(backend.accepted() > 0);
        Ok(())
    });
}

/// Row 44, where the head was sound: what was begun at the backend is broken off there, and kept for nobody.
#[test]
fn what_breaks_off_is_broken_off_at_the_backend() {
    scene::run(|scene| {
        let topology = scene.topology();
        let backend = TcpServer::start(&topology.b1, 4000, Service::Silent)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let head = [request("POST", "/"), field("content-length", "5")].concat();
        let head = frame(kind::HEADERS, END_HEADERS, 1, &head);
        for (name, more, answer) in [
            ("too long", frame(kind::DATA, 0, 1, b"1234567"), Reset(PROTOCOL_ERROR)),
            ("too short", frame(kind::DATA, END_STREAM, 1, b"123"), Reset(PROTOCOL_ERROR)),
            ("given up", frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), Nothing),
        ] {
            let mut client = Hostile::connect(&topology.client.netns, topology.lb.v4.into(), 8080, &[])?;
            let before = backend.received();
            client.send(&head);
            wait::until("a head", PATIENCE, || (backend.received() > before).then_some(()))?;
            client.send(&more);
            let got = client.answer(1, answer != Nothing)?;
            ensure!(got == answer, "{name}: {got:?}");
            client.is_sound(3, "/sound")?;
            wait::until_ok("an end at the backend", PATIENCE, || {
                let metrics = daemon.metrics()?;
                for gauge in ["lb_upstream_in_flight_exchanges", "lb_upstream_shelved_connections"] {
                    let count = metrics.sum(gauge, &["pool=\"silent\""]);
                    ensure!(count == Some(0.0), "{name}: {gauge}: {count:?}");
                }
                Ok(())
            })?;
        }
        ensure!(backend.accepted() == 3, "{} connections", backend.accepted());
        Ok(())
    });
}

/// Whose windows stay closed while answers wait for him is given up as one who reads nothing: stream by stream, each with all
/// that it held.
#[test]
fn windows_that_never_open_are_not_waited_for() {
    const STREAMS: u32 = 20;
    let config = CONFIG.replace("10.77.0.11:4000", "10.77.0.11:80") + "\n[limits]\nidle_timeout = \"2s\"\n";
    scene::run(|scene| {
        let topology = scene.topology();
        let nginx = Nginx::start(scene, &topology.b1)?;
        nginx.offer("large", 1 << 20)?;
        let daemon = Daemon::start(scene, &config)?;
        // INITIAL_WINDOW_SIZE, 0.
        let closed = [0, 4, 0, 0, 0, 0];
        let mut client = Hostile::connect(&topology.client.netns, topology.lb.v4.into(), 8080, &closed)?;
        let mut waiting: BTreeSet<u32> = (0..STREAMS).map(|at| 2 * at + 1).collect();
        for &stream in &waiting {
            client.send(&frame(kind::HEADERS, WHOLE, stream, &request("GET", "/files/large")));
        }
        let held = || {
            let metrics = daemon.metrics()?;
            metrics.sum("lb_upstream_in_flight_exchanges", &["pool=\"silent\""]).context("no such gauge")
        };
        wait::until_ok("answers that wait", PATIENCE, || {
            let held = held()?;
            ensure!(held == f64::from(STREAMS), "{held} exchanges");
            Ok(())
        })?;
        while !waiting.is_empty() {
            let got = client.receive()?.context("the connection has ended before its streams")?;
            match got.kind {
                kind::RST_STREAM => {
                    ensure!(
                        got.payload == INTERNAL_ERROR.to_be_bytes() && waiting.remove(&got.stream),
                        "{got:?}"
                    );
                }
                kind::DATA => ensure!(got.payload.is_empty(), "{got:?}"),
                _ => {}
            }
        }
        wait::until_ok("an end of it", PATIENCE, || {
            let held = held()?;
            ensure!(held == 0.0, "{held} exchanges");
            let given_up = daemon.metrics()?.sum("lb_worker_closes_total", &["reason=\"client-gone\""]);
            ensure!(given_up == Some(f64::from(STREAMS)), "{given_up:?} given up");
            Ok(())
        })
    });
}

/// RFC 9113, 5.1.2: it may be asked for again, as soon as one of the others is over.
#[test]
fn one_stream_too_many_is_refused() {
    const MOST: u32 = 100;
    scene::run(|scene| {
        let topology = scene.topology();
        let _backend = TcpServer::start(&topology.b1, 4000, Service::Silent)?;
        let _daemon = Daemon::start(scene, CONFIG)?;
        let mut client = Hostile::connect(&topology.client.netns, topology.lb.v4.into(), 8080, &[])?;
        let stream = |at: u32| 2 * at + 1;
        let begin = |at| frame(kind::HEADERS, END_HEADERS, stream(at), &request("POST", "/"));
        (0..MOST).for_each(|at| client.send(&begin(at)));
        ensure!(client.answer(stream(0), false)? == Nothing);
        client.send(&begin(MOST));
        let got = client.answer(stream(MOST), true)?;
        ensure!(got == Reset(REFUSED_STREAM), "{got:?}");
        client.send(&frame(kind::RST_STREAM, 0, stream(0), &[0, 0, 0, 8]));
        client.is_sound(stream(MOST + 1), "/sound")
    });
}
