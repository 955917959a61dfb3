//! What may be sent, and who is told that it may.

use lb_http2::{By, Code, Gone, Settings};

use super::common::*;

fn open(peer: &mut Peer, id: u32) {
    peer.receive(&frame(HEADERS, WHOLE, id, &request("GET", "/"))).unwrap();
    let stream = *peer.log.streams.last().unwrap();
    peer.connection.send_response(stream, 200, false, |_| {}).unwrap();
    peer.sent();
    peer.told();
}

fn data(frames: &[Frame]) -> Vec<(u32, usize, bool)> {
    frames
        .iter()
        .filter(|frame| frame.kind == DATA)
        .map(|frame| (frame.stream, frame.payload.len(), frame.flags & END_STREAM != 0))
        .collect()
}

#[test]
fn a_streams_window() {
    let mut peer = Peer::server(Settings::default());
    peer.receive(&setting(4, 10)).unwrap();
    open(&mut peer, 1);
    let stream = peer.log.streams[0];
    assert_eq!(peer.connection.capacity(stream), 10);
    assert_eq!(peer.connection.send_data(stream, &[0; 25], true), Ok(10));
    assert_eq!(peer.connection.send_data(stream, &[0; 15], true), Ok(0));
    peer.receive(&number(WINDOW_UPDATE, 1, 5)).unwrap();
    assert_eq!(peer.told(), [Told::Window(1)]);
    assert_eq!(peer.connection.send_data(stream, &[0; 15], true), Ok(5));
    // A smaller window is owed for (RFC 9113, 6.9.2).
    peer.receive(&setting(4, 2)).unwrap();
    peer.receive(&number(WINDOW_UPDATE, 1, 8)).unwrap();
    assert_eq!((peer.told(), peer.connection.capacity(stream)), (vec![Told::Settings], 0));
    peer.receive(&setting(4, 12)).unwrap();
    assert_eq!(peer.told(), [Told::Window(1), Told::Settings]);
    assert_eq!(peer.connection.send_data(stream, &[0; 10], true), Ok(10));
    assert_eq!(data(&peer.sent()), [(1, 10, false), (1, 5, false), (1, 10, true)]);
    assert_eq!(peer.connection.send_data(stream, b"x", true), Err(Gone));
    assert!(peer.connection.is_idle());
}

#[test]
fn the_connections_window_goes_round() {
    let mut peer = Peer::server(Settings { out_bytes_max: 1 << 20, ..Settings::default() });
    peer.receive(&setting(4, 1 << 20)).unwrap();
    [1, 3, 5].into_iter().for_each(|id| open(&mut peer, id));
    let [first, second, third] = peer.log.streams[..] else { panic!() };
    assert_eq!(peer.connection.send_data(first, &[0; 70_000], true), Ok(65_535));
    let sent = data(&peer.sent());
    assert_eq!(sent, [(1, 16_384, false), (1, 16_384, false), (1, 16_384, false), (1, 16_383, false)]);
    assert_eq!(peer.connection.send_data(second, &[0; 10], true), Ok(0));
    assert_eq!(peer.connection.send_data(third, &[0; 10], true), Ok(0));
    peer.connection.send_reset(third, Code::CANCEL);
    peer.receive(&number(WINDOW_UPDATE, 1, 10)).unwrap();
    assert_eq!(peer.told(), [], "it is not what they wait for");
    peer.receive(&number(WINDOW_UPDATE, 0, 10)).unwrap();
    assert_eq!(peer.told(), [Told::Window(1)], "one has use for all of it");
    assert_eq!(peer.connection.send_data(first, &[0; 4_465], true), Ok(10));
    peer.receive(&number(WINDOW_UPDATE, 0, 90)).unwrap();
    assert_eq!(peer.told(), [Told::Window(3)], "then it is the other's turn");
    peer.receive(&number(RST_STREAM, 3, 8)).unwrap();
    assert_eq!(
        peer.told(),
        [Told::Reset(3, Code(8), By::Peer), Told::Window(1)],
        "who is gone has no use for it"
    );
    assert_eq!(peer.connection.send_data(first, &[0; 4_455], true), Ok(90));
    open(&mut peer, 7);
    let last = *peer.log.streams.last().unwrap();
    assert_eq!(peer.connection.send_data(last, &[0; 10], true), Ok(0));
    peer.receive(&number(WINDOW_UPDATE, 0, 1 << 20)).unwrap();
    assert_eq!(peer.told(), [Told::Window(1), Told::Window(7)]);
    assert_eq!(peer.connection.send_data(last, &[0; 10], true), Ok(10));
    assert_eq!(data(&peer.sent()), [(7, 10, true)]);
}

/// Who was not told yet and tries all the same has had its turn.
#[test]
fn nobody_stands_in_line_twice_or_for_nothing() {
    let mut peer = Peer::server(Settings { out_bytes_max: 100, ..Settings::default() });
    [1, 3].into_iter().for_each(|id| open(&mut peer, id));
    let [first, second] = peer.log.streams[..] else { panic!() };
    assert_eq!(peer.connection.send_data(first, &[0; 200], true), Ok(100));
    assert_eq!(peer.connection.send_data(second, &[0; 10], true), Ok(0));
    peer.sent();
    assert_eq!(peer.connection.send_data(first, &[0; 50], false), Ok(50));
    peer.connection.send_trailers(first, |_| {}).unwrap();
    peer.sent();
    peer.connection.resume(&mut peer.log);
    assert_eq!(peer.told(), [Told::Window(3)]);
    for _ in 0..3 {
        assert_eq!(peer.connection.send_data(second, &[0; 101], true), Ok(100));
        assert_eq!(peer.connection.send_data(second, &[0; 101], true), Ok(0));
        peer.sent();
    }
    peer.connection.resume(&mut peer.log);
    peer.connection.resume(&mut peer.log);
    assert_eq!(peer.told(), [Told::Window(3)]);
}

#[test]
fn what_waits_to_be_sent_is_bounded() {
    let mut peer = Peer::server(Settings { out_bytes_max: 1000, ..Settings::default() });
    open(&mut peer, 1);
    let stream = peer.log.streams[0];
    assert_eq!(peer.connection.send_data(stream, &[0; 2000], true), Ok(1000));
    assert_eq!(peer.connection.send_data(stream, &[0; 1000], true), Ok(0));
    peer.connection.resume(&mut peer.log);
    assert_eq!(peer.told(), []);
    assert!(peer.connection.is_congested());
    let mut buffer = Vec::new();
    peer.connection.take_pending(&mut buffer);
    assert_eq!(data(&frames(&buffer)), [(1, 1000, false)]);
    assert!(!peer.connection.is_congested());
    peer.connection.resume(&mut peer.log);
    assert_eq!(peer.told(), [Told::Window(1)]);
    assert_eq!(peer.connection.send_data(stream, &[0; 1000], true), Ok(1000));
}

/// Windows are opened by what was released, in halves; what is padding, or of nobody, is released at once.
#[test]
fn windows_are_opened_again() {
    let settings = Settings { stream_window: 1000, connection_window: 0, ..Settings::default() };
    let mut peer = Peer::server(settings);
    peer.receive(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/"))).unwrap();
    let stream = peer.log.streams[0];
    peer.receive(&frame(DATA, 0, 1, &[0; 700])).unwrap();
    assert_eq!(peer.sent(), []);
    peer.connection.release(stream, 499);
    let updates = |peer: &mut Peer| -> Vec<(u32, u32)> {
        peer.sent().iter().map(|frame| (frame.stream, number_at(&frame.payload, 0))).collect()
    };
    assert_eq!(updates(&mut peer), [(0, 499)], "the connection's window is 0 by half");
    peer.connection.release(stream, 1);
    assert_eq!(updates(&mut peer), [(1, 500), (0, 1)]);
    peer.receive(&frame(DATA, PADDED, 1, &[&[255][..], &[0; 256]].concat())).unwrap();
    assert_eq!(updates(&mut peer), [(0, 256)]);
    // More than is held cannot be released.
    peer.connection.release(stream, 100_000);
    assert_eq!(updates(&mut peer), [(0, 201)]);
    peer.receive(&frame(DATA, 0, 1, &[0; 100])).unwrap();
    peer.connection.send_reset(stream, Code::CANCEL);
    let sent = peer.sent();
    assert_eq!(sent.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [WINDOW_UPDATE, RST_STREAM]);
    assert_eq!(number_at(&sent[0].payload, 0), 100);
    peer.receive(&frame(DATA, 0, 1, &[0; 50])).unwrap();
    assert_eq!(updates(&mut peer), [(0, 50)]);
}

#[test]
fn a_head_of_many_frames() {
    let mut peer = Peer::server(Settings::default());
    peer.receive(&frame(HEADERS, WHOLE, 1, &request("GET", "/"))).unwrap();
    let value = "\u{1f600}".repeat(10_000);
    let stream = peer.log.streams[0];
    peer.connection
        .send_response(stream, 200, true, |fields| fields.push(b"x", value.as_bytes()).unwrap())
        .unwrap();
    let sent = peer.sent();
    let kinds: Vec<_> = sent.iter().map(|frame| (frame.kind, frame.flags, frame.payload.len())).collect();
    assert_eq!(kinds[..2], [(HEADERS, END_STREAM, 16_384), (CONTINUATION, 0, 16_384)]);
    assert_eq!((kinds.len(), kinds[2].0, kinds[2].1), (3, CONTINUATION, END_HEADERS));
    let mut client = Peer::client(Settings { head_bytes_max: 1 << 20, ..Settings::default() });
    let ask =
        lb_http2::Request { method: b"GET", scheme: b"http", authority: b"a", path: b"/", protocol: b"" };
    client.connection.send_request(&ask, true, |_| {}).unwrap();
    let bytes: Vec<u8> =
        sent.iter().flat_map(|sent| frame(sent.kind, sent.flags, sent.stream, &sent.payload)).collect();
    client.receive(&bytes).unwrap();
    assert_eq!(client.told(), [Told::Head(1, format!("200 x={value} "), true)]);
}

#[test]
fn a_connection_is_small() {
    let mut peer = Peer::server(Settings::default());
    for at in 0..20 {
        let id = 2 * at + 1;
        open(&mut peer, id);
        let stream = *peer.log.streams.last().unwrap();
        peer.connection.send_data(stream, b"hello", true).unwrap();
        peer.sent();
    }
    assert!(peer.connection.is_idle());
    peer.connection.trim();
    let bytes = size_of::<lb_http2::Connection>() + peer.connection.heap_bytes();
    assert!(
        bytes < 1536,
        "{bytes}: {} and {}",
        size_of::<lb_http2::Connection>(),
        peer.connection.heap_bytes()
    );
}
