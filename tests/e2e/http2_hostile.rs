//! Clients that break HTTP/2: what is sent, and the answer that it gets. Nothing of it reaches a backend.

use anyhow::{Result, ensure};
use lb_tests::{
    daemon::Daemon,
    frames::{
        Answer::{self, GoAway, Nothing, Reset, Status},
        END_HEADERS, END_STREAM, Hostile, WHOLE, block,
        code::{COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR},
        field, frame, kind, request,
    },
    peer::{Service, TcpServer},
    scene::{self, Scene},
};

/// `/` is a backend's, `/sound` is answered here.
pub(super) const CONFIG: &str = r#"
[listener.clear]
bind = ["10.77.0.2:8080"]
protocol = "http"
h2c = true
pool = "silent"

[route.sound]
listener = "clear"
path = "/sound"
respond = { status = 200 }

[pool.silent]
backends = ["10.77.0.11:4000"]
"#;

/// What is sent behind the preface, and what comes of it on stream 1.
pub(super) struct Case {
    name: String,
    /// Sent before, and what comes of that.
    way: Option<(Vec<u8>, Answer)>,
    bytes: Vec<u8>,
    answer: Answer,
}

pub(super) fn case(name: impl Into<String>, bytes: Vec<u8>, answer: Answer) -> Case {
    Case { name: name.into(), way: None, bytes, answer }
}

impl Case {
    /// Comes behind this.
    pub(super) fn behind(self, way: Vec<u8>, answer: Answer) -> Self {
        Self { way: Some((way, answer)), ..self }
    }
}

/// Tries all, each on a connection of its own, and says of all that differ.
pub(super) fn try_all(scene: &Scene, cases: &[Case]) -> Result<()> {
    let topology = scene.topology();
    let mut wrong = Vec::new();
    for Case { name, way, bytes, answer } in cases {
        let mut client = Hostile::connect(&topology.client.netns, topology.lb.v4.into(), 8080, &[])?;
        if let Some((way, expected)) = way {
            client.send(way);
            let got = client.answer(1, matches!(expected, Reset(_) | Status(_)))?;
            ensure!(got == *expected, "{name}: {got:?} on the way");
        }
        client.send(bytes);
        let got = client.answer(1, matches!(answer, Reset(_) | Status(_)));
        let after = match &got {
            Ok(Reset(_) | Nothing | Status(_)) => client.is_sound(101, "/sound"),
            _ => Ok(()),
        };
        if got.as_ref().ok() != Some(answer) || after.is_err() {
            wrong.push(format!("{name}: {answer:?} expected, {got:?}, then {after:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

/// Tries all; nothing of them may reach a backend.
fn none_gets_through(cases: &[Case]) {
    scene::run(|scene| {
        let backend = TcpServer::start(&scene.topology().b1, 4000, Service::Silent)?;
        let _daemon = Daemon::start(scene, CONFIG)?;
        try_all(scene, cases)?;
        ensure!(backend.accepted() == 0, "{} connections, {} bytes", backend.accepted(), backend.received());
        Ok(())
    });
}

fn headers(block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, WHOLE, 1, block)
}

/// A sound head with this behind it.
fn with(more: &[u8]) -> Vec<u8> {
    headers(&[&request("GET", "/"), more].concat())
}

fn pseudo(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(&block(fields))
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "a.test");
const PATH: (&str, &str) = (":path", "/");

#[test]
fn rows_41_and_42_fields_that_no_request_has() {
    let malformed = |name: &str, bytes| case(name, bytes, Reset(PROTOCOL_ERROR));
    let mut cases = Vec::new();
    for (name, value) in [
        ("X-Upper", "a"),
        ("Host", "a.test"),
        (":unknown", "a"),
        ("connection", "close"),
        ("connection", "x-private"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":path", "/"),
        ("host", "b.test"),
    ] {
        cases.push(malformed(&format!("{name}: {value}"), with(&field(name, value))));
    }
    for (name, fields) in [
        ("no method", &[SCHEME, AUTHORITY, PATH][..]),
        ("no scheme", &[METHOD, AUTHORITY, PATH]),
        ("no path", &[METHOD, SCHEME, AUTHORITY]),
        ("no authority", &[METHOD, SCHEME, PATH]),
        ("two methods", &[METHOD, METHOD, SCHEME, AUTHORITY, PATH]),
        ("two schemes", &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]),
        ("two authorities", &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH]),
        ("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, PATH]),
        ("late path", &[METHOD, SCHEME, AUTHORITY, ("x", "y"), PATH]),
        ("two hosts", &[METHOD, SCHEME, PATH, ("host", "a.test"), ("host", "a.test")]),
        ("user in authority", &[METHOD, SCHEME, (":authority", "u@a.test"), PATH]),
        ("path in authority", &[METHOD, SCHEME, (":authority", "a.test/x"), PATH]),
        ("empty authority", &[METHOD, SCHEME, (":authority", ""), PATH]),
        ("CONNECT with a path", &[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH]),
        ("CONNECT", &[(":method", "CONNECT"), AUTHORITY]),
        ("nothing at all", &[]),
    ] {
        cases.push(malformed(name, pseudo(fields)));
    }
    none_gets_through(&cases);
}

#[test]
fn row_43_what_would_be_another_message_in_http1() {
    let malformed = |name: String, bytes| case(name, bytes, Reset(PROTOCOL_ERROR));
    let mut cases = Vec::new();
    for value in [" a", "a ", "\ta", "a\t"] {
        cases.push(malformed(format!("value {value:?}"), with(&field("x", value))));
    }
    for value in ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "\r\n\r\nGET / HTTP/1.1", "\x01", "\x7f"] {
        cases.push(malformed(format!("value {value:?}"), with(&field("x", value))));
    }
    for name in ["", "a b", "a:b", "a\r\nb", "a\0", "a\n", "\u{e9}", "a\x7f", "a(", " a", "a "] {
        cases.push(malformed(format!("name {name:?}"), with(&field(name, "a"))));
    }
    for path in
        ["", "x", "/a#b", "*", "/a b", "/a\r\nx: y", "/a\0", "/ HTTP/1.1\r\n\r\nGET /", "http://a.test/"]
    {
        cases.push(malformed(format!("path {path:?}"), headers(&request("GET", path))));
    }
    for method in ["", "G ET", "GET\r\n", "GET / HTTP/1.1\r\nX:", "G\0"] {
        cases.push(malformed(format!("method {method:?}"), headers(&request(method, "/"))));
    }
    for scheme in ["", "ht tp", "http\r\n", "ftp", "1http", "http://a.test"] {
        let bytes = pseudo(&[METHOD, (":scheme", scheme), AUTHORITY, PATH]);
        cases.push(malformed(format!("scheme {scheme:?}"), bytes));
    }
    for authority in ["a b", "a\r\nx: y", "a\0", "a,b", "a:b", "a:99999", "[::1", "a.test#"] {
        let bytes = pseudo(&[METHOD, SCHEME, (":authority", authority), PATH]);
        cases.push(malformed(format!("authority {authority:?}"), bytes));
    }
    none_gets_through(&cases);
}

#[test]
fn row_44_lengths_that_are_none() {
    let mut cases = Vec::new();
    for length in ["+5", "-1", "5, 6", "0x5", "5 5", "", "99999999999999999999"] {
        let fields = [request("POST", "/"), field("content-length", length)].concat();
        let bytes =
            [frame(kind::HEADERS, END_HEADERS, 1, &fields), frame(kind::DATA, END_STREAM, 1, b"12345")];
        cases.push(case(format!("length {length:?}"), bytes.concat(), Reset(PROTOCOL_ERROR)));
    }
    let two = [request("POST", "/"), field("content-length", "5"), field("content-length", "6")].concat();
    cases.push(case("two lengths", frame(kind::HEADERS, END_HEADERS, 1, &two), Reset(PROTOCOL_ERROR)));
    cases.push(case("5 of nothing", with(&field("content-length", "5")), Reset(PROTOCOL_ERROR)));
    none_gets_through(&cases);
}

#[test]
fn row_45_streams_that_are_not_there() {
    let get = request("GET", "/sound");
    let whole = |stream| frame(kind::HEADERS, WHOLE, stream, &get);
    none_gets_through(&[
        case("even", whole(2), GoAway(PROTOCOL_ERROR)),
        case("stream 0", whole(0), GoAway(PROTOCOL_ERROR)),
        case("decreasing", [whole(5), whole(3)].concat(), GoAway(PROTOCOL_ERROR)),
        case("DATA on idle", frame(kind::DATA, 0, 1, b"x"), GoAway(PROTOCOL_ERROR)),
        case("DATA on 0", frame(kind::DATA, 0, 0, b"x"), GoAway(PROTOCOL_ERROR)),
        case("RST_STREAM on idle", frame(kind::RST_STREAM, 0, 1, &[0; 4]), GoAway(PROTOCOL_ERROR)),
        case("RST_STREAM on 0", frame(kind::RST_STREAM, 0, 0, &[0; 4]), GoAway(PROTOCOL_ERROR)),
        case(
            "WINDOW_UPDATE on idle",
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            GoAway(PROTOCOL_ERROR),
        ),
        case("SETTINGS on 1", frame(kind::SETTINGS, 0, 1, &[]), GoAway(PROTOCOL_ERROR)),
        case("PING on 1", frame(kind::PING, 0, 1, &[0; 8]), GoAway(PROTOCOL_ERROR)),
        case("GOAWAY on 1", frame(kind::GOAWAY, 0, 1, &[0; 8]), GoAway(PROTOCOL_ERROR)),
        case(
            "padding longer than the frame",
            frame(kind::HEADERS, WHOLE | 0x8, 1, &[9, 0]),
            GoAway(PROTOCOL_ERROR),
        ),
        case("a stream that depends on itself", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), Nothing),
        case(
            "reset by us, and again",
            [frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "x")), whole(1)].concat(),
            Reset(PROTOCOL_ERROR),
        ),
    ]);
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

#[test]
fn rows_46_and_47_sizes_and_windows() {
    let open = frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "/sound"));
    let on_open = |more: Vec<u8>| [open.clone(), more].concat();
    let update = |stream, by: u32| frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let size = |name: &str, kind: u8, flags: u8, stream: u32, length: usize| {
        case(name, frame(kind, flags, stream, &vec![0; length]), GoAway(FRAME_SIZE_ERROR))
    };
    none_gets_through(&[
        size("HEADERS too long", kind::HEADERS, WHOLE, 1, 16_385),
        size("DATA too long", kind::DATA, 0, 1, 16_385),
        size("unknown and too long", kind::UNKNOWN, 0, 1, 16_385),
        size("SETTINGS of 5", kind::SETTINGS, 0, 0, 5),
        size("SETTINGS that acknowledges with more", kind::SETTINGS, 1, 0, 6),
        size("PING of 7", kind::PING, 0, 0, 7),
        size("PING of 9", kind::PING, 0, 0, 9),
        size("GOAWAY of 7", kind::GOAWAY, 0, 0, 7),
        size("WINDOW_UPDATE of 3", kind::WINDOW_UPDATE, 0, 0, 3),
        size("RST_STREAM of 3", kind::RST_STREAM, 0, 1, 3),
        size("RST_STREAM of 5", kind::RST_STREAM, 0, 1, 5),
        size("PRIORITY of 4", kind::PRIORITY, 0, 1, 4),
        case("MAX_FRAME_SIZE of 16383", setting(5, 16_383), GoAway(PROTOCOL_ERROR)),
        case("MAX_FRAME_SIZE of 2^24", setting(5, 1 << 24), GoAway(PROTOCOL_ERROR)),
        case("ENABLE_PUSH of 2", setting(2, 2), GoAway(PROTOCOL_ERROR)),
        case("INITIAL_WINDOW_SIZE of 2^31", setting(4, 1 << 31), GoAway(FLOW_CONTROL_ERROR)),
        case("an unknown setting", setting(0x7777, 7), Nothing),
        case("WINDOW_UPDATE of 0 for all", update(0, 0), GoAway(PROTOCOL_ERROR)),
        case("WINDOW_UPDATE of 0", on_open(update(1, 0)), Reset(PROTOCOL_ERROR)),
        case("WINDOW_UPDATE beyond 2^31 - 1 for all", update(0, i32::MAX as u32), GoAway(FLOW_CONTROL_ERROR)),
        case("WINDOW_UPDATE beyond 2^31 - 1", on_open(update(1, i32::MAX as u32)), Reset(FLOW_CONTROL_ERROR)),
    ]);
}

#[test]
fn rows_48_and_49_header_blocks() {
    let get = request("GET", "/sound");
    let begin = frame(kind::HEADERS, END_STREAM, 1, &get);
    let more = |stream, flags, block: &[u8]| frame(kind::CONTINUATION, flags, stream, block);
    let block = |name: &str, block: &[u8]| case(name, with(block), GoAway(COMPRESSION_ERROR));
    let mut flood = begin.clone();
    (0..200).for_each(|_| flood.extend(more(1, 0, b"")));
    none_gets_through(&[
        case("alone", more(1, END_HEADERS, b""), GoAway(PROTOCOL_ERROR)),
        case(
            "of another stream",
            [begin.clone(), more(3, END_HEADERS, b"")].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        case(
            "PING between",
            [begin.clone(), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        case(
            "unknown between",
            [begin.clone(), frame(kind::UNKNOWN, 0, 0, &[])].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        case("HEADERS between", [begin.clone(), headers(&get)].concat(), GoAway(PROTOCOL_ERROR)),
        case("behind an end", [headers(&get), more(1, END_HEADERS, b"")].concat(), GoAway(PROTOCOL_ERROR)),
        case(
            "in pieces",
            [begin, more(1, 0, &field("x", "y")), more(1, END_HEADERS, b"")].concat(),
            Status(200),
        ),
        case("flood", flood, GoAway(ENHANCE_YOUR_CALM)),
        block("index 0", &[0x80]),
        block("index of nothing", &[0xbe]),
        block("name of nothing", &[0x7f, 0x40, 1, b'a']),
        block("a number without end", &[0xff; 30]),
        block("a table larger than was granted", &[0x3f, 0xff, 0xff, 0x7f]),
        block("a table's size behind a field", &[0x20]),
        block("text that ends early", &[0x00, 5, b'a']),
        block("Huffman's end of text", &[0x00, 0x81, 0xff, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ]);
}

#[test]
fn rows_50_and_51_floods() {
    let get = request("GET", "/sound");
    let post = request("POST", "/sound");
    let begin = frame(kind::HEADERS, END_HEADERS, 1, &post);
    let flood = |name: &str, begin: &[u8], one: Vec<u8>, count: usize| {
        case(name, [begin, &one.repeat(count)].concat(), GoAway(ENHANCE_YOUR_CALM))
    };
    let streams =
        |each: &dyn Fn(u32) -> Vec<u8>| (0..1_500).flat_map(|at| each(2 * at + 1)).collect::<Vec<u8>>();
    let reset_at_once = streams(&|stream| {
        [frame(kind::HEADERS, END_HEADERS, stream, &get), frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    });
    // We are made to reset: by windows and lengths that are none, by heads that are none.
    let made = |head: &[u8], more: &dyn Fn(u32) -> Vec<u8>| {
        streams(&|stream| [frame(kind::HEADERS, END_HEADERS, stream, head), more(stream)].concat())
    };
    let wide = i32::MAX.to_be_bytes();
    let long = [request("POST", "/sound"), field("content-length", "1")].concat();
    let malformed = streams(&|stream| frame(kind::HEADERS, WHOLE, stream, &request("GET", "x")));
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'a'; 4000]].concat();
    let bomb = |count| [&get[..], &entry, &vec![0xbe; count]].concat();
    let crumbs = |count| [get.clone(), field("cookie", "").repeat(count)].concat();
    none_gets_through(&[
        flood("PING", &[], frame(kind::PING, 0, 0, &[0; 8]), 500),
        flood("SETTINGS", &[], frame(kind::SETTINGS, 0, 0, &[]), 500),
        flood("empty DATA", &begin, frame(kind::DATA, 0, 1, b""), 500),
        flood("WINDOW_UPDATE", &[], frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 4_000),
        flood("PRIORITY", &[], frame(kind::PRIORITY, 0, 7, &[0; 5]), 2_000),
        flood("unknown", &[], frame(kind::UNKNOWN, 0, 0, b"x"), 500),
        case("rapid reset", reset_at_once, GoAway(ENHANCE_YOUR_CALM)),
        case(
            "made to reset by windows",
            made(&post, &|stream| frame(kind::WINDOW_UPDATE, 0, stream, &wide)),
            GoAway(ENHANCE_YOUR_CALM),
        ),
        case(
            "made to reset by lengths",
            made(&long, &|stream| frame(kind::DATA, 0, stream, b"xy")),
            GoAway(ENHANCE_YOUR_CALM),
        ),
        case(
            "streams that depend on themselves",
            streams(&|stream| frame(kind::PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())),
            GoAway(ENHANCE_YOUR_CALM),
        ),
        case("made to reset by heads that are none", malformed, GoAway(ENHANCE_YOUR_CALM)),
        case("a field that is told of 20 times", headers(&bomb(20)), Status(431)),
        case("a field that is told of 12000 times", headers(&bomb(12_000)), Status(431)),
        case("crumbs", headers(&crumbs(200)), Reset(PROTOCOL_ERROR)),
        case("few crumbs", headers(&crumbs(100)), Status(200)),
    ]);
}

#[test]
fn row_52_what_is_not_for_clients_and_what_is_passed_over() {
    let get = request("GET", "/sound");
    let promise = [&[0, 0, 0, 2][..], &get].concat();
    none_gets_through(&[
        case("PUSH_PROMISE", frame(kind::PUSH_PROMISE, END_HEADERS, 1, &promise), GoAway(PROTOCOL_ERROR)),
        case("unknown", frame(kind::UNKNOWN, 0xff, 1, b"anything"), Nothing),
        case("unknown on 0", frame(kind::UNKNOWN, 0xff, 0, b""), Nothing),
        case("a reserved bit", frame(kind::WINDOW_UPDATE, 0xff, 1 << 31, &[0x80, 0, 0, 1]), Nothing),
        case("a reserved bit of a stream", frame(kind::HEADERS, WHOLE, 1 | 1 << 31, &get), Status(200)),
        case("unknown flags", frame(kind::HEADERS, WHOLE | 0xd2, 1, &get), Status(200)),
        case("PRIORITY on idle", frame(kind::PRIORITY, 0, 9, &[0, 0, 0, 3, 5]), Nothing),
    ]);
}
