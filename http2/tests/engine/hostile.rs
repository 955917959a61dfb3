//! Clients that break HTTP/2, or do too much of something. Bad-input rows 41 to 52.

use std::time::{Duration, Instant};

use super::common::{
    Answer::{self, GoAway, Nothing, Reset},
    *,
};
use lb_http2::{Abuse, Code, Connection, Fault, Settings, TooLarge};

/// Each on a connection of its own.
fn try_all(cases: &[(&str, Vec<u8>, Answer)]) {
    for (name, bytes, expected) in cases {
        let mut peer = Peer::server(Settings::default());
        let received = peer.receive(bytes);
        assert_eq!(peer.answer(1), *expected, "{name}");
        assert_eq!(received.is_err(), matches!(expected, GoAway(_)), "{name}");
        assert_eq!(received.err().map(Fault::code).map_or(*expected, GoAway), *expected, "{name}");
    }
}

#[test]
fn frames_of_no_size() {
    let size = |kind: u8, flags: u8, stream: u32, len: usize| frame(kind, flags, stream, &vec![0; len]);
    let wrong = GoAway(Code::FRAME_SIZE_ERROR);
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", "/"));
    try_all(&[
        ("HEADERS too long", size(HEADERS, WHOLE, 1, 16_385), wrong),
        ("DATA too long", size(DATA, 0, 1, 16_385), wrong),
        ("unknown and too long", size(UNKNOWN, 0, 1, 16_385), wrong),
        ("SETTINGS of 5", size(SETTINGS, 0, 0, 5), wrong),
        ("SETTINGS that acknowledges with more", size(SETTINGS, ACK, 0, 6), wrong),
        ("PING of 7", size(PING, 0, 0, 7), wrong),
        ("PING of 9", size(PING, 0, 0, 9), wrong),
        ("GOAWAY of 7", size(GOAWAY, 0, 0, 7), wrong),
        ("WINDOW_UPDATE of 3", size(WINDOW_UPDATE, 0, 0, 3), wrong),
        ("RST_STREAM of 3", size(RST_STREAM, 0, 1, 3), wrong),
        ("RST_STREAM of 5", size(RST_STREAM, 0, 1, 5), wrong),
        ("PRIORITY of 4, of no stream", size(PRIORITY, 0, 1, 4), wrong),
        ("PRIORITY of 4", [open.clone(), size(PRIORITY, 0, 1, 4)].concat(), Reset(Code::FRAME_SIZE_ERROR)),
        ("padded DATA of nothing", [open.clone(), size(DATA, PADDED, 1, 0)].concat(), wrong),
        (
            "more padding than DATA",
            [open.clone(), frame(DATA, PADDED, 1, &[3, 0, 0])].concat(),
            GoAway(Code::PROTOCOL_ERROR),
        ),
        ("nothing but padding", [open, frame(DATA, PADDED, 1, &[2, 0, 0])].concat(), Nothing),
        ("more padding than HEADERS", frame(HEADERS, WHOLE | 8, 1, &[9, 0]), GoAway(Code::PROTOCOL_ERROR)),
    ]);
}

#[test]
fn frames_where_they_do_not_belong() {
    let get = request("GET", "/");
    let whole = |stream| frame(HEADERS, WHOLE, stream, &get);
    let begin = frame(HEADERS, END_STREAM, 1, &get);
    let more = |stream, flags, block: &[u8]| frame(CONTINUATION, flags, stream, block);
    let gone = GoAway(Code::PROTOCOL_ERROR);
    try_all(&[
        ("even", whole(2), gone),
        ("stream 0", whole(0), gone),
        ("decreasing", [whole(5), whole(3)].concat(), gone),
        ("DATA on 0", frame(DATA, 0, 0, b"x"), gone),
        ("RST_STREAM on 0", number(RST_STREAM, 0, 0), gone),
        ("PRIORITY on 0", frame(PRIORITY, 0, 0, &[0; 5]), gone),
        ("SETTINGS on 1", frame(SETTINGS, 0, 1, &[]), gone),
        ("PING on 1", frame(PING, 0, 1, &[0; 8]), gone),
        ("GOAWAY on 1", frame(GOAWAY, 0, 1, &[0; 8]), gone),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), gone),
        ("CONTINUATION alone", more(1, END_HEADERS, b""), gone),
        ("CONTINUATION of another", [begin.clone(), more(3, END_HEADERS, b"")].concat(), gone),
        ("PING between", [begin.clone(), frame(PING, 0, 0, &[0; 8])].concat(), gone),
        ("unknown between", [begin.clone(), frame(UNKNOWN, 0, 0, &[])].concat(), gone),
        ("HEADERS between", [begin.clone(), whole(1)].concat(), gone),
        ("CONTINUATION behind an end", [whole(1), more(1, END_HEADERS, b"")].concat(), gone),
        ("in pieces", [begin, more(1, 0, &field("x", "y")), more(1, END_HEADERS, b"")].concat(), Nothing),
        ("unknown", frame(UNKNOWN, 0xff, 1, b"anything"), Nothing),
        ("a reserved bit", frame(WINDOW_UPDATE, 0xff, 1 << 31, &[0x80, 0, 0, 1]), Nothing),
        ("a reserved bit of a stream", frame(HEADERS, WHOLE, 1 | 1 << 31, &get), Nothing),
        ("unknown flags", frame(HEADERS, WHOLE | 0xd2, 1, &get), Nothing),
        ("PRIORITY_UPDATE", frame(0x10, 0, 0, b"\0\0\0\x01u=1"), Nothing),
    ]);
}

#[test]
fn settings_and_windows() {
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", "/"));
    let on_open = |more: Vec<u8>| [open.clone(), more].concat();
    let most = i32::MAX as u32;
    try_all(&[
        ("MAX_FRAME_SIZE of 16383", setting(5, 16_383), GoAway(Code::PROTOCOL_ERROR)),
        ("ENABLE_PUSH of 2", setting(2, 2), GoAway(Code::PROTOCOL_ERROR)),
        ("INITIAL_WINDOW_SIZE of 2^31", setting(4, 1 << 31), GoAway(Code::FLOW_CONTROL_ERROR)),
        ("an unknown setting", setting(0x7777, 7), Nothing),
        ("WINDOW_UPDATE of 0 for all", number(WINDOW_UPDATE, 0, 0), GoAway(Code::PROTOCOL_ERROR)),
        ("WINDOW_UPDATE of 0", on_open(number(WINDOW_UPDATE, 1, 0)), Reset(Code::PROTOCOL_ERROR)),
        ("too wide for all", number(WINDOW_UPDATE, 0, most), GoAway(Code::FLOW_CONTROL_ERROR)),
        ("too wide", on_open(number(WINDOW_UPDATE, 1, most)), Reset(Code::FLOW_CONTROL_ERROR)),
        (
            "too wide by SETTINGS",
            on_open([number(WINDOW_UPDATE, 1, most - 65_535), setting(4, 65_536)].concat()),
            GoAway(Code::FLOW_CONTROL_ERROR),
        ),
    ]);
}

#[test]
fn blocks_that_are_none() {
    let with = |more: &[u8]| frame(HEADERS, WHOLE, 1, &[&request("GET", "/"), more].concat());
    for (name, block) in [
        ("index 0", &[0x80][..]),
        ("index of nothing", &[0xbe]),
        ("a number without end", &[0xff; 30]),
        ("a table larger than was granted", &[0x3f, 0xff, 0xff, 0x7f]),
        ("a table's size behind a field", &[0x20]),
        ("text that ends early", &[0x00, 5, b'a']),
        ("Huffman's end of text", &[0x00, 0x81, 0xff, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] {
        try_all(&[(name, with(block), GoAway(Code::COMPRESSION_ERROR))]);
    }
    for (name, value) in
        [("X-Upper", "a"), (":unknown", "a"), ("x", "a\r\nb: c"), ("x", " a"), ("", "a"), ("connection", "a")]
    {
        try_all(&[(name, with(&field(name, value)), Reset(Code::PROTOCOL_ERROR))]);
    }
}

/// What is malformed has its fields remembered all the same.
#[test]
fn the_table_outlives_what_is_malformed() {
    let mut peer = Peer::server(Settings::default());
    let bad = [request("GET", "x"), vec![0x40, 1, b'x', 1, b'y']].concat();
    peer.receive(&frame(HEADERS, WHOLE, 1, &bad)).unwrap();
    peer.receive(&frame(HEADERS, WHOLE, 3, &[request("GET", "/"), vec![0xbe]].concat())).unwrap();
    let told = peer.told();
    assert_eq!(told.last(), Some(&Told::Head(3, "GET http a.test / x=y ".into(), true)));
}

#[test]
fn the_preface() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()] {
        let mut log = Log::default();
        let mut connection = Connection::server(Settings::default());
        assert_eq!(connection.receive(bytes, Instant::now(), &mut log), Err(Fault::Preface));
        assert_eq!(frames(connection.pending()).last().unwrap().kind, GOAWAY);
        assert_eq!(connection.receive(b"x", Instant::now(), &mut log), Err(Fault::Preface));
        assert!(log.told.is_empty());
    }
}

fn abuse(settings: Settings, begin: &[u8], one: &dyn Fn(u32) -> Vec<u8>) -> (Option<Abuse>, u32) {
    let mut peer = Peer::server(settings);
    peer.receive(begin).unwrap();
    for count in 0..20_000 {
        if let Err(fault) = peer.receive(&one(count)) {
            assert_eq!(peer.answer(0), GoAway(Code::ENHANCE_YOUR_CALM));
            let Fault::Abuse(abuse) = fault else { panic!("{fault:?}") };
            return (Some(abuse), count);
        }
        peer.sent();
    }
    (None, 0)
}

#[test]
fn too_much_of_something() {
    let get = request("GET", "/");
    let post = request("POST", "/");
    let begin = frame(HEADERS, END_HEADERS, 1, &post);
    let rapid = |at: u32| {
        let id = 2 * at + 3;
        [frame(HEADERS, END_HEADERS, id, &get), number(RST_STREAM, id, 8)].concat()
    };
    let made = |at: u32| {
        let id = 2 * at + 3;
        [frame(HEADERS, END_HEADERS, id, &post), number(WINDOW_UPDATE, id, 0)].concat()
    };
    let malformed = |at: u32| frame(HEADERS, WHOLE, 2 * at + 3, &request("GET", "x"));
    let part = |_| frame(CONTINUATION, 0, 1, b"");
    let wide = Settings {
        budgets: lb_http2::Budgets { heads: 10_000, ..Default::default() },
        ..Settings::default()
    };
    for (name, begin, one, expected, count) in [
        ("PING", &begin, &(|_| frame(PING, 0, 0, &[0; 8])) as &dyn Fn(u32) -> Vec<u8>, Abuse::Pings, 100),
        ("SETTINGS", &begin, &|_| frame(SETTINGS, 0, 0, &[]), Abuse::Settings, 48),
        ("empty DATA", &begin, &|_| frame(DATA, 0, 1, b""), Abuse::EmptyData, 100),
        ("padded DATA", &begin, &|_| frame(DATA, PADDED, 1, &[1, 0]), Abuse::EmptyData, 100),
        ("WINDOW_UPDATE", &begin, &|_| number(WINDOW_UPDATE, 0, 1), Abuse::WindowUpdates, 1000),
        ("PRIORITY", &begin, &|_| frame(PRIORITY, 0, 7, &[0; 5]), Abuse::Priorities, 500),
        ("unknown", &begin, &|_| frame(UNKNOWN, 0, 0, b"x"), Abuse::Unknown, 100),
        ("rapid reset", &begin, &rapid, Abuse::Resets, 100),
        ("made to reset", &begin, &made, Abuse::ResetsEmitted, 500),
        ("malformed", &begin, &malformed, Abuse::ResetsEmitted, 500),
        ("CONTINUATION", &frame(HEADERS, 0, 1, &get), &part, Abuse::Continuations, 20),
        (
            "CONTINUATION of much",
            &frame(HEADERS, 0, 1, &get),
            &|_| frame(CONTINUATION, 0, 1, &[0; 16_384]),
            Abuse::HeaderBlock,
            7,
        ),
    ] {
        assert_eq!(abuse(wide, begin, one), (Some(expected), count), "{name}");
    }
    let heads = abuse(Settings { streams_max: 1000, ..Settings::default() }, &begin, &|at| {
        frame(HEADERS, WHOLE, 2 * at + 3, &get)
    });
    assert_eq!(heads, (Some(Abuse::Heads), 299));
}

#[test]
fn what_is_too_much_at_once_is_not_too_much_in_time() {
    let start = Instant::now();
    let (mut connection, mut log) = (Connection::server(Settings::default()), Log::default());
    connection.receive(&hello(), start, &mut log).unwrap();
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(50);
    for second in 0..100 {
        let now = start + Duration::from_secs(second);
        connection.receive(&pings, now, &mut log).unwrap();
        connection.consume(usize::MAX);
    }
    let now = start + Duration::from_secs(99);
    assert_eq!(connection.receive(&pings, now, &mut log), Err(Fault::Abuse(Abuse::Pings)));
}

/// Bad-input row 51: what is indexed costs nothing to say. It is answered, and the connection goes on.
#[test]
fn heads_that_are_too_large() {
    let get = request("GET", "/");
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'a'; 4000]].concat();
    let bomb = |count| [&get[..], &entry, &vec![0xbe; count]].concat();
    let crumbs = |count| [get.clone(), field("cookie", "").repeat(count)].concat();
    for (name, block, expected) in [
        ("a field that is told of 20 times", bomb(20), Some(TooLarge::Bytes)),
        ("a field that is told of 12000 times", bomb(12_000), Some(TooLarge::Bytes)),
        ("crumbs", crumbs(200), Some(TooLarge::Count)),
        ("few crumbs", crumbs(128), None),
    ] {
        let mut peer = Peer::server(Settings::default());
        peer.receive(&frame(HEADERS, WHOLE, 1, &block)).unwrap();
        let told = peer.told();
        match (&told[..], expected) {
            ([Told::TooLarge(1, what, true)], Some(expected)) => assert_eq!(*what, expected, "{name}"),
            ([Told::Head(1, _, true)], None) => {}
            _ => panic!("{name}: {told:?}"),
        }
        assert!(peer.connection.heap_bytes() < 200 << 10, "{name}: {}", peer.connection.heap_bytes());
        peer.connection.send_response(peer.log.streams[0], 431, true, |_| {}).unwrap();
        peer.connection.trim();
        let kept = peer.connection.heap_bytes();
        assert!(kept < 10 << 10, "{name}: {kept}");
    }
}

#[test]
fn more_than_a_window() {
    let settings = Settings { stream_window: 10, connection_window: 0, ..Settings::default() };
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", "/"));
    let mut peer = Peer::server(settings);
    peer.receive(&[open.clone(), frame(DATA, 0, 1, &[0; 10])].concat()).unwrap();
    peer.receive(&frame(DATA, 0, 1, &[0; 1])).unwrap();
    assert_eq!(peer.answer(1), Reset(Code::FLOW_CONTROL_ERROR));
    // What is passed over counts.
    let more = frame(DATA, 0, 1, &[0; 16_384]).repeat(3);
    peer.receive(&more).unwrap();
    let mut peer = Peer::server(Settings { stream_window: 1 << 20, connection_window: 0, ..settings });
    let sent = [open, frame(DATA, 0, 1, &[0; 16_384]).repeat(3)].concat();
    peer.receive(&sent).unwrap();
    let rest = frame(DATA, 0, 1, &[0; 16_384]);
    assert_eq!(peer.receive(&rest), Err(Fault::Window));
}
