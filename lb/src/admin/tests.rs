//! The server on real sockets: a temporary unix socket and a port of the kernel's choice.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_abi::capture::{CaptureCounters, CaptureRecord};

use super::{
    Ask, Doors, PacketsSource, Server, View, ask_why, begin_capture,
    capture::{Event, Feed, Packet},
    client::CaptureStream,
    fixture,
    fixture::TemporaryDirectory,
    generations::GenerationSource,
    get,
    packets::Refusal,
};
use crate::metrics::encode::checker;

/// A server on real sockets.
pub(crate) struct Running {
    _server: Server,
    _directory: TemporaryDirectory,
    pub(crate) socket: PathBuf,
    pub(crate) http: SocketAddr,
}

/// A port nobody uses at this moment.
fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn directory(name: &str) -> TemporaryDirectory {
    TemporaryDirectory::new(&format!("admin-{name}"))
}

pub(crate) fn start(name: &str, view: View) -> Running {
    let directory = directory(name);
    let (socket, http) = (directory.join("admin.sock"), free_port());
    let doors = Doors { socket: socket.clone(), http: Some(http) };
    Running { _server: Server::start(Arc::new(view), doors).unwrap(), _directory: directory, socket, http }
}

pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn both_doors_answer() {
    let mut view = fixture::view();
    view.packets = Some(PacketsSource::new(|ask| match ask {
        Ask::Packets(reply) => drop(reply.send(fixture::packets())),
        Ask::Flows(reply) => drop(reply.send(fixture::flows())),
        Ask::Why(_, reply) => drop(reply.send(Ok(None))),
        Ask::Capture(_, reply) => drop(reply.send(Err(Refusal::Busy("one runs already".to_owned())))),
    }));
    let running = start("both", view);
    let mode = std::fs::metadata(&running.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = get(&running.socket, "/v1/status").unwrap();
    assert_eq!(status["generation"], 1);
    assert_eq!(status["listeners"][0]["steer"], "hash", "the packet path was asked");
    let workers = get(&running.socket, "/v1/show/workers").unwrap();
    assert_eq!(workers["workers"].as_array().unwrap().len(), 2);
    let flows = get(&running.socket, "/v1/show/flows").unwrap();
    assert_eq!(flows["flows"][0]["vip"], "dns");
    let question = "tcp 198.51.100.7:1234 -> 127.0.0.1:8080".parse().unwrap();
    let why = ask_why(&running.socket, &question).unwrap();
    assert!(why["text"].as_str().unwrap().contains("listener web (http) takes it"), "{why}");
    let refused = begin_capture(&running.socket, &[("count", "1".to_owned())]).unwrap_err();
    assert_eq!(refused, "one runs already");
    let refused = begin_capture(&running.socket, &[("vip", "no&such=".to_owned())]).unwrap_err();
    assert_eq!(refused, "no vip \"no&such=\"");
    let error = get(&running.socket, "/v1/show/nothing").unwrap_err();
    assert_eq!(error, "no such resource");
    let answer = exchange(
        TcpStream::connect(running.http).unwrap(),
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(checker::parse(body).contains_key("lb_control_generation"));
    let refused = exchange(
        UnixStream::connect(&running.socket).unwrap(),
        "DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert!(
        refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nallow: GET, HEAD\r\n"),
        "{refused}"
    );
}

/// A capture's events are sent in here, and it ends when this or the stream does.
fn capturing(name: &str) -> (Running, flume::Sender<Event>, CaptureStream) {
    let (events, feed) = flume::bounded(4);
    let feed = Feed { interfaces: [(2, "eth0".to_owned())].into(), vips: [].into(), events: feed };
    let feed = std::sync::Mutex::new(Some(feed));
    let mut view = fixture::view();
    view.packets = Some(PacketsSource::new(move |ask| {
        let Ask::Capture(wish, reply) = ask else { return };
        assert_eq!(wish.count, Some(7));
        drop(reply.send(Ok(feed.lock().unwrap().take().unwrap())));
    }));
    let running = start(name, view);
    let stream = begin_capture(&running.socket, &[("count", "7".to_owned())]).unwrap();
    (running, events, stream)
}

#[test]
fn a_capture_is_streamed_block_by_block() {
    let (_running, events, mut stream) = capturing("capture");
    let mut next = |kind: &str| {
        let block = stream.next_block(|| false).unwrap().unwrap_or_else(|| panic!("no {kind}"));
        (block.is_packet, block.tally)
    };
    assert_eq!([next("section"), next("interface")], [(false, None), (false, None)]);
    let record = CaptureRecord { length: 60, ingress: 2, ..CaptureRecord::default() };
    for _ in 0..3 {
        let packet = Packet { at: Duration::from_secs(1), record, frame: vec![7; 14] };
        events.send(Event::Packet(Box::new(packet))).unwrap();
        assert_eq!(next("packet"), (true, None), "each as it comes");
    }
    let tally = CaptureCounters { wanted: 3, ..CaptureCounters::default() };
    events.send(Event::Tally(tally)).unwrap();
    assert_eq!(next("tally"), (false, Some(tally)));
    assert_eq!(stream.next_block(|| true).unwrap(), None, "nothing waits");
    drop(events);
    assert_eq!(stream.next_block(|| false).unwrap(), None, "the daemon's side ended");
}

/// Nothing has to be sent for that: a capture whose client went must not go on in the packet path.
#[test]
fn a_capture_ends_when_its_client_goes() {
    let (_running, events, mut stream) = capturing("left");
    stream.next_block(|| false).unwrap().unwrap();
    assert!(!events.is_disconnected());
    drop(stream);
    let began = Instant::now();
    while !events.is_disconnected() {
        assert!(began.elapsed() < Duration::from_secs(5), "the feed is still held");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn generations_are_listed_and_read_one_by_one() {
    let listed = |view: View| {
        let running = start("generations", view);
        let rows = get(&running.socket, "/v1/generations").unwrap();
        assert_eq!(rows, get(&running.socket, "/v1/show/generations").unwrap());
        (running, rows["generations"].clone())
    };
    let (_running, rows) = listed(fixture::view());
    assert_eq!((&rows[0]["generation"], &rows[0]["source"]), (&1.into(), &"lb.toml".into()));
    let mut view = fixture::view();
    view.generations = fixture::generations();
    let config = view.config.to_json();
    view.documents = Some(GenerationSource::new(|generation, reply| match generation.0 {
        0 => drop(reply.send(Ok(Some(serde_json::json!({ "version": 1 }))))),
        _ => drop(reply.send(Err("the disk is gone".to_owned()))),
    }));
    let (running, rows) = listed(view);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let expected = serde_json::json!({
        "generation": 1, "state": "current", "when": "2023-11-14T22:13:20Z", "by": "api", "uid": 0, "pid": null,
        "source": "api", "digest": "e1", "changed": ["pool.app.backends"], "references": { "hash.key": crate::config::Digest::of(b"x") },
    });
    assert_eq!(rows[0], expected);
    let current = get(&running.socket, "/v1/generations/1").unwrap();
    assert_eq!((&current["config"], &current["by"]), (&config, &"api".into()), "nobody had to be asked");
    assert_eq!(get(&running.socket, "/v1/generations/0").unwrap()["config"]["version"], 1);
    let error = get(&running.socket, "/v1/generations/2").unwrap_err();
    assert_eq!(error, "no such generation is kept", "it is not in the list");
    let mut view = fixture::view();
    view.generations = fixture::generations();
    view.documents =
        Some(GenerationSource::new(|_, reply| drop(reply.send(Err("the disk is gone".to_owned())))));
    let (running, _) = listed(view);
    assert_eq!(get(&running.socket, "/v1/generations/0").unwrap_err(), "the disk is gone");
}

#[test]
fn a_silent_packet_path_does_not_hang_a_scrape() {
    let mut view = fixture::view();
    let (held, _keep) = flume::unbounded();
    view.packets = Some(PacketsSource::new(move |reply| drop(held.send(reply))));
    let running = start("silent", view);
    let began = Instant::now();
    assert_eq!(get(&running.socket, "/v1/status").unwrap()["xdp"], serde_json::Value::Null);
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[test]
fn slow_clients_are_cut_off_and_do_not_shut_others_out() {
    let running = start("slow", fixture::view());
    let mut slow: Vec<_> = (0..8).map(|_| TcpStream::connect(running.http).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
    }
    let ready = exchange(
        TcpStream::connect(running.http).unwrap(),
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert!(ready.ends_with("\r\n\r\nready\n"), "{ready}");
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap(), 0, "closed at the head deadline, without an answer");
    }
}

#[test]
fn a_taken_socket_is_refused_and_a_stale_one_replaced() {
    let first = start("taken", fixture::view());
    let again = Server::start(Arc::new(fixture::view()), Doors { socket: first.socket.clone(), http: None });
    let error = again.unwrap_err().to_string();
    assert!(error.contains("another process listens there"), "{error}");
    let other = directory("other");
    let again = Server::start(
        Arc::new(fixture::view()),
        Doors { socket: other.join("admin.sock"), http: Some(first.http) },
    );
    assert!(again.unwrap_err().to_string().contains(&first.http.to_string()));

    let kept = directory("stale");
    let stale = kept.join("admin.sock");
    std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let _server =
        Server::start(Arc::new(fixture::view()), Doors { socket: stale.clone(), http: None }).unwrap();
    assert_eq!(get(&stale, "/v1/status").unwrap()["state"], "ready");
}

#[test]
fn a_server_that_is_handed_over_answers_whom_it_let_in_and_lets_nobody_else_in() {
    let directory = directory("retired");
    let socket = directory.join("admin.sock");
    let doors = Doors { socket: socket.clone(), http: None };
    let old = Server::start(Arc::new(fixture::view()), doors.clone()).unwrap();
    let mut early = UnixStream::connect(&socket).unwrap();
    early.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let (path, _, mut lent) = old.handle().lend().unwrap();
    assert_eq!((path, lent.len()), (socket.clone(), 1));
    let (go, may_go) = flume::bounded(1);
    let open = doors.open_but(lent.pop(), None).unwrap();
    let view = View { degraded: Some("the new one".to_owned()), ..fixture::view() };
    let _new = Server::start_at(Arc::new(view), doors, open, may_go).unwrap();
    assert!(old.handle().retire());
    let late = std::thread::spawn({
        let socket = socket.clone();
        move || get(&socket, "/v1/status").unwrap()
    });
    let answer = exchange(early, "Host: a\r\n\r\n");
    assert!(answer.ends_with("ok\n"), "{answer}");
    old.handle().finish();
    drop(old);
    drop(go);
    assert_eq!(late.join().unwrap()["degraded"], "the new one");
    assert_eq!(get(&socket, "/v1/status").unwrap()["degraded"], "the new one", "the file is still there");
}
