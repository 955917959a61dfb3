//! What each kind of frame comes to in each state of a stream: the table of RFC 9113, 5.1, as either side meets it.

use super::common::{
    Answer::{self, GoAway, Nothing, Reset},
    *,
};
use lb_http2::{By, Code, Flaw, Request, Settings};

const GONE: Answer = GoAway(Code::PROTOCOL_ERROR);
const MALFORMED: Answer = Reset(Code::PROTOCOL_ERROR);
const CLOSED: Answer = Reset(Code::STREAM_CLOSED);
const CLOSED_FOR_ALL: Answer = GoAway(Code::STREAM_CLOSED);

/// Servers in each state of stream 1.
fn servers() -> [(&'static str, Peer); 8] {
    let post = request("POST", "/");
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    let whole = frame(HEADERS, WHOLE, 1, &post);
    let led = |way: &[u8]| {
        let mut peer = Peer::server(Settings::default());
        peer.receive(way).unwrap();
        peer
    };
    let mut local = led(&open);
    let stream = local.log.streams[0];
    local.connection.send_response(stream, 200, true, |_| {}).unwrap();
    let mut ended = led(&whole);
    ended.connection.send_response(ended.log.streams[0], 200, true, |_| {}).unwrap();
    let mut states = [
        ("idle", led(&[])),
        ("open", led(&open)),
        ("half-closed (remote)", led(&whole)),
        ("half-closed (local)", local),
        ("closed by both", ended),
        ("closed by its client", led(&[open, number(RST_STREAM, 1, 8)].concat())),
        ("closed by us", led(&frame(HEADERS, END_HEADERS, 1, &request("POST", "x")))),
        ("closed by a later one", led(&frame(HEADERS, WHOLE, 5, &post))),
    ];
    states.iter_mut().for_each(|(_, peer)| drop(peer.sent()));
    states
}

#[test]
fn a_server_gets_each_frame_in_each_state() {
    let get = request("GET", "/");
    let fields = field("x", "y");
    let promise = [&[0, 0, 0, 2][..], &get].concat();
    for (what, bytes, expected) in [
        ("DATA", frame(DATA, 0, 1, b"x"), [GONE, Nothing, CLOSED, Nothing, CLOSED, CLOSED, Nothing, CLOSED]),
        (
            "DATA, the last",
            frame(DATA, END_STREAM, 1, b"x"),
            [GONE, Nothing, CLOSED, Nothing, CLOSED, CLOSED, Nothing, CLOSED],
        ),
        (
            "HEADERS",
            frame(HEADERS, WHOLE, 1, &get),
            [Nothing, MALFORMED, CLOSED, MALFORMED, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing, GONE],
        ),
        (
            "trailers",
            frame(HEADERS, WHOLE, 1, &fields),
            [MALFORMED, Nothing, CLOSED, Nothing, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing, GONE],
        ),
        (
            "endless trailers",
            frame(HEADERS, END_HEADERS, 1, &fields),
            [MALFORMED, MALFORMED, CLOSED, MALFORMED, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing, GONE],
        ),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 5]), [Nothing; 8]),
        ("PRIORITY upon itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 5]), [Nothing; 8]),
        (
            "RST_STREAM",
            number(RST_STREAM, 1, 8),
            [GONE, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing],
        ),
        (
            "WINDOW_UPDATE",
            number(WINDOW_UPDATE, 1, 1),
            [GONE, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing],
        ),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &promise), [GONE; 8]),
        ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &fields), [GONE; 8]),
        ("unknown", frame(UNKNOWN, 0xff, 1, b"x"), [Nothing; 8]),
    ] {
        for ((state, mut peer), expected) in servers().into_iter().zip(expected) {
            let received = peer.receive(&bytes);
            let answer = peer.answer(1);
            assert_eq!(answer, expected, "{what} when {state}");
            assert_eq!(received.is_err(), matches!(answer, GoAway(_)), "{what} when {state}");
            if received.is_ok() {
                // The connection goes on.
                peer.told();
                peer.receive(&frame(HEADERS, WHOLE, 101, &get)).unwrap();
                assert!(matches!(&peer.told()[..], [Told::Head(101, ..)]), "{what} when {state}");
            }
        }
    }
}

const ASK: Request<'_> =
    Request { method: b"GET", scheme: b"http", authority: b"a.test", path: b"/", protocol: b"" };

/// Clients in each state of stream 1.
fn clients() -> [(&'static str, Peer); 6] {
    let ask = |way: &[u8]| {
        let mut peer = Peer::client(Settings::default());
        peer.connection.send_request(&ASK, true, |_| {}).unwrap();
        peer.receive(way).unwrap();
        peer.sent();
        peer
    };
    let ok = block(&[(":status", "200")]);
    let mut ours = ask(&frame(HEADERS, END_HEADERS, 1, &ok));
    ours.connection.send_reset(ours.log.streams[0], Code::CANCEL);
    ours.sent();
    [
        ("idle", Peer::client(Settings::default())),
        ("asked", ask(&[])),
        ("answered", ask(&frame(HEADERS, END_HEADERS, 1, &ok))),
        ("ended", ask(&frame(HEADERS, WHOLE, 1, &ok))),
        ("reset by its server", ask(&number(RST_STREAM, 1, 2))),
        ("reset by us", ours),
    ]
}

#[test]
fn a_client_gets_each_frame_in_each_state() {
    let ok = block(&[(":status", "200")]);
    for (what, bytes, expected) in [
        ("DATA", frame(DATA, 0, 1, b"x"), [GONE, MALFORMED, Nothing, CLOSED, CLOSED, Nothing]),
        (
            "HEADERS",
            frame(HEADERS, WHOLE, 1, &ok),
            [GONE, Nothing, MALFORMED, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing],
        ),
        (
            "interim HEADERS",
            frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103")])),
            [GONE, Nothing, MALFORMED, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing],
        ),
        (
            "interim HEADERS, the last",
            frame(HEADERS, WHOLE, 1, &block(&[(":status", "103")])),
            [GONE, MALFORMED, MALFORMED, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing],
        ),
        (
            "trailers",
            frame(HEADERS, WHOLE, 1, &field("x", "y")),
            [GONE, MALFORMED, Nothing, CLOSED_FOR_ALL, CLOSED_FOR_ALL, Nothing],
        ),
        ("RST_STREAM", number(RST_STREAM, 1, 0), [GONE, Nothing, Nothing, Nothing, Nothing, Nothing]),
        ("WINDOW_UPDATE", number(WINDOW_UPDATE, 1, 1), [GONE, Nothing, Nothing, Nothing, Nothing, Nothing]),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), [GONE; 6]),
        ("HEADERS of its own", frame(HEADERS, WHOLE, 2, &ok), [GONE; 6]),
    ] {
        for ((state, mut peer), expected) in clients().into_iter().zip(expected) {
            let received = peer.receive(&bytes);
            let answer = peer.answer(1);
            assert_eq!(answer, expected, "{what} when {state}");
            assert_eq!(received.is_err(), matches!(answer, GoAway(_)), "{what} when {state}");
        }
    }
}

#[test]
fn what_has_come_whole_is_not_lost_to_a_reset() {
    let mut peer = Peer::client(Settings::default());
    peer.connection.send_request(&ASK, true, |_| {}).unwrap();
    let whole = [
        frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")])),
        frame(DATA, END_STREAM, 1, b"hello"),
        number(RST_STREAM, 1, 0),
    ];
    peer.receive(&whole.concat()).unwrap();
    assert_eq!(peer.told(), [Told::Head(1, "200 ".into(), false), Told::Data(1, b"hello".to_vec(), true)]);
    assert_eq!(peer.connection.streams(), 0);
    peer.sent();
    assert!(!peer.connection.is_idle(), "what has come is held");
    peer.connection.release(peer.log.streams[0], 5);
    assert!(peer.connection.is_idle());
}

#[test]
fn an_end_names_what_nobody_has_looked_at() {
    let mut peer = Peer::client(Settings::default());
    for _ in 0..3 {
        peer.connection.send_request(&ASK, true, |_| {}).unwrap();
    }
    peer.receive(&frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
    let mut told = peer.told();
    assert_eq!(told.pop(), Some(Told::GoAway(1, Code::NO_ERROR)));
    told.sort_by_key(|told| matches!(told, Told::Reset(5, ..)));
    assert_eq!(told, [3, 5].map(|id| Told::Reset(id, Code::NO_ERROR, By::Unseen)));
    assert!(peer.connection.can_ask().is_err());
    peer.receive(&frame(HEADERS, WHOLE, 1, &block(&[(":status", "200")]))).unwrap();
    assert_eq!(peer.connection.streams(), 0);
}

#[test]
fn an_end_is_said_twice() {
    let get = request("GET", "/");
    let mut peer = Peer::server(Settings::default());
    peer.receive(&frame(HEADERS, WHOLE, 1, &get)).unwrap();
    peer.connection.shutdown();
    let said = peer.sent();
    assert_eq!(said.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [GOAWAY, PING]);
    assert_eq!(number_at(&said[0].payload, 0), i32::MAX as u32);
    // It had not read of it.
    peer.receive(&frame(HEADERS, WHOLE, 3, &get)).unwrap();
    peer.receive(&frame(PING, ACK, 0, &said[1].payload)).unwrap();
    let again = peer.sent();
    assert_eq!((again[0].kind, number_at(&again[0].payload, 0)), (GOAWAY, 3));
    peer.told();
    // What comes now is passed over, but for what it does to the table.
    let remembered = [get.clone(), vec![0x40, 1, b'x', 1, b'y']].concat();
    peer.receive(&frame(HEADERS, END_HEADERS, 5, &remembered)).unwrap();
    peer.receive(&frame(DATA, END_STREAM, 5, b"x")).unwrap();
    assert_eq!(peer.told(), []);
    peer.receive(&frame(HEADERS, END_HEADERS, 7, &[0xbe])).unwrap();
    assert_eq!(peer.answer(7), Nothing);
    assert!(!peer.connection.is_over());
    for stream in peer.log.streams.clone() {
        peer.connection.send_response(stream, 200, true, |_| {}).unwrap();
    }
    assert!(peer.connection.is_over());
}

#[test]
fn one_stream_too_many_is_refused() {
    let get = request("GET", "/");
    let mut peer = Peer::server(Settings { streams_max: 2, ..Settings::default() });
    for id in [1, 3, 5] {
        peer.receive(&frame(HEADERS, WHOLE, id, &get)).unwrap();
    }
    assert_eq!(peer.answer(5), Reset(Code::REFUSED_STREAM));
    assert_eq!(peer.told().len(), 2);
    peer.connection.send_response(peer.log.streams[0], 200, true, |_| {}).unwrap();
    peer.receive(&frame(HEADERS, WHOLE, 7, &get)).unwrap();
    assert_eq!((peer.answer(7), peer.told().len()), (Nothing, 1));
}

#[test]
fn a_server_says_how_many_it_takes() {
    let mut peer = Peer::client(Settings::default());
    peer.receive(&setting(3, 1)).unwrap();
    let first = peer.connection.send_request(&ASK, true, |_| {}).unwrap();
    assert_eq!(peer.connection.send_request(&ASK, true, |_| {}), Err(lb_http2::Refusal::Full));
    peer.connection.send_reset(first, Code::CANCEL);
    assert_eq!(peer.connection.send_request(&ASK, true, |_| {}).map(lb_http2::Stream::id), Ok(3));
}

#[test]
fn lengths_that_are_none() {
    let head = |length: &str, flags| {
        let fields = [request("POST", "/"), field("content-length", length)].concat();
        frame(HEADERS, flags, 1, &fields)
    };
    for (name, bytes, flaw) in [
        ("signed", head("+5", END_HEADERS), Flaw::ContentLength),
        ("of nothing", head("5", WHOLE), Flaw::Length),
        ("too long", [head("5", END_HEADERS), frame(DATA, 0, 1, b"123456")].concat(), Flaw::Length),
        ("too short", [head("5", END_HEADERS), frame(DATA, END_STREAM, 1, b"123")].concat(), Flaw::Length),
        (
            "too short, with trailers",
            [head("5", END_HEADERS), frame(DATA, 0, 1, b"123"), frame(HEADERS, WHOLE, 1, &field("x", "y"))]
                .concat(),
            Flaw::Length,
        ),
    ] {
        let mut peer = Peer::server(Settings::default());
        peer.receive(&bytes).unwrap();
        assert_eq!(peer.answer(1), MALFORMED, "{name}");
        let last = peer.told().pop().unwrap();
        let expected = [Told::Rejected(1, flaw), Told::Reset(1, Code::PROTOCOL_ERROR, By::Us(flaw))];
        assert!(expected.contains(&last), "{name}: {last:?}");
    }
    let mut peer = Peer::server(Settings::default());
    let bytes = [head("5", END_HEADERS), frame(DATA, PADDED, 1, b"\x0312345\0\0\0"), frame(DATA, 1, 1, b"")];
    peer.receive(&bytes.concat()).unwrap();
    assert_eq!(peer.answer(1), Nothing);
    assert_eq!(peer.told().pop(), Some(Told::Data(1, b"12345".to_vec(), true)));
}

/// Source: RFC 8441, 4 and 5.
#[test]
fn tunnels() {
    let connect = block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.test"),
    ]);
    let mut server = Peer::server(Settings { allows_protocols: false, ..Settings::default() });
    server.receive(&frame(HEADERS, END_HEADERS, 1, &connect)).unwrap();
    assert_eq!(server.told(), [Told::Rejected(1, Flaw::Protocol)]);

    let mut client = Peer::client(Settings::default());
    assert!(!client.connection.allows_protocols());
    client.receive(&setting(8, 1)).unwrap();
    assert!(client.connection.allows_protocols());
    let ask = Request { method: b"CONNECT", path: b"/chat", protocol: b"websocket", ..ASK };
    let asked = client.connection.send_request(&ask, false, |_| {}).unwrap();
    let mut server = Peer::server(Settings::default());
    server.receive(client.connection.pending()).unwrap();
    client.sent();
    assert_eq!(server.told(), [Told::Head(1, "CONNECT http a.test /chat ".into(), false)]);
    // What it says of a length means nothing (RFC 9110, 9.3.6).
    let granted = server.log.streams[0];
    server
        .connection
        .send_response(granted, 200, false, |out| out.push(b"content-length", b"1").unwrap())
        .unwrap();
    assert_eq!(server.connection.send_data(granted, b"hello", false), Ok(5));
    client.receive(server.connection.pending()).unwrap();
    server.sent();
    assert_eq!(client.connection.send_data(asked, b"world", true), Ok(5));
    server.receive(client.connection.pending()).unwrap();
    client.sent();
    assert_eq!(server.told(), [Told::Data(1, b"world".to_vec(), true)]);
    assert_eq!(server.connection.send_data(granted, b"", true), Ok(0));
    client.receive(server.connection.pending()).unwrap();
    assert_eq!(client.told().last(), Some(&Told::Data(1, b"hello".to_vec(), true)));
    assert_eq!((client.connection.streams(), server.connection.streams()), (0, 0));
}

/// What describes a body it does not carry (RFC 9110, 9.3.2) has none.
#[test]
fn answers_without_content() {
    for (method, status, data, flawed) in [
        ("HEAD", "200", false, false),
        ("HEAD", "200", true, true),
        ("GET", "304", false, false),
        ("GET", "204", true, true),
        ("GET", "200", true, true),
    ] {
        let mut peer = Peer::client(Settings::default());
        peer.connection.send_request(&Request { method: method.as_bytes(), ..ASK }, true, |_| {}).unwrap();
        let head = block(&[(":status", status), ("content-length", "5")]);
        peer.receive(&frame(HEADERS, if data { END_HEADERS } else { WHOLE }, 1, &head)).unwrap();
        if data {
            peer.receive(&frame(DATA, END_STREAM, 1, b"1234")).unwrap();
        }
        let is_flawed = peer.told().contains(&Told::Reset(1, Code::PROTOCOL_ERROR, By::Us(Flaw::Length)));
        assert_eq!(is_flawed, flawed, "{method} {status} {data}");
    }
}
