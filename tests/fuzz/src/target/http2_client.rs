//! Frames of a client of HTTP/2: each request that comes of them is one of HTTP/1.1, the same, and nothing is beside it.
//!
//! ```text
//! input = how much comes at once (bits 0 and 1), nobody reads (2), no settings before (3) (1 byte) frames
//! ```

use std::{
    collections::BTreeMap,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use lb::{
    config::Limits,
    l7::{
        http1::{Parsed, RequestHead},
        http2::{Asked, BodyForm, Inflow, Next, Outflow, Server, Settings, budgets},
    },
};
use lb_http2::{By, Code, Connection, Events, Flaw, Head, Stream, TooLarge};
use lb_tests::frames::{END_HEADERS, END_STREAM, PREFACE, WHOLE, block, field, frame, kind, request};

use super::{
    Target,
    request::{WIDE, plain_fields},
    stream::body,
};
use crate::{
    bytes::show,
    memory::{Memory, is_sound, payloads, settings},
};

/// See the module.
pub const TARGET: Target = Target { name: "http2_client", run, seeds, words };

const STREAMS_MAX: u32 = 4;
const HEAD_BYTES: u32 = 1024;
const FIELDS_MAX: usize = 16;
/// Turns that no input takes.
const TURNS_MAX: usize = 20_000;
/// Sizes of pieces, as inputs choose them.
pub(super) const PIECES: [usize; 4] = [usize::MAX, 1, 7, 100];

const ANSWER: &[u8] = b"HTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";

fn run(input: &[u8]) {
    let Some((&options, input)) = input.split_first() else { return };
    let begun = if options & 8 == 0 { settings() } else { Vec::new() };
    let wire = Memory::new([PREFACE, &begun, input].concat(), PIECES[usize::from(options & 3)]);
    let grants = Settings {
        streams_max: STREAMS_MAX,
        head_bytes: HEAD_BYTES,
        fields_max: FIELDS_MAX,
        budgets: budgets(&Limits { head_bytes: HEAD_BYTES as usize, ..Limits::default() }),
    };
    let heard = Heard::all(&[PREFACE, &begun, input].concat());
    let mut server = Server::new(wire.clone(), &grants);
    let bodies = payloads(input);
    let mut task = Context::from_waker(Waker::noop());
    let mut going: Vec<Exchange> = Vec::new();
    let mut before = (usize::MAX, usize::MAX);
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "without end: {}", show(input));
        match server.poll_next(&mut task) {
            Poll::Ready(Ok(Next::Asked(asked))) => going.push(Exchange::begin(asked, &heard)),
            Poll::Ready(Ok(Next::Refused(_))) => {}
            Poll::Ready(Err(_)) => break,
            Poll::Pending => {
                let has_moved = step(&mut going, options & 4 == 0, &bodies);
                assert!(going.len() <= STREAMS_MAX as usize, "{} at once", going.len());
                let moved = wire.moved();
                if !has_moved && moved == before {
                    assert!(!wire.has_ended(), "goes on without a client: {}", show(input));
                    wire.end();
                }
                before = moved;
            }
        }
    }
    while server.poll_flush(&mut task).is_pending() {}
    drop(server);
    step(&mut going, true, &bodies);
    assert!(going.is_empty(), "{going:?} without a connection");
    is_sound(&wire.sent(), input.len() + begun.len());
}

/// Whether anything has moved; those that are over are not there any more.
fn step(going: &mut Vec<Exchange>, reads: bool, bodies: &BTreeMap<u32, Vec<u8>>) -> bool {
    let mut has_moved = false;
    going.retain_mut(|one| {
        let (moved, goes_on) = one.step(reads, bodies);
        has_moved |= moved;
        goes_on
    });
    has_moved
}

/// A head as it came: method, authority, target, and fields.
type Said = ((String, String, String), Vec<(String, String)>);

/// Every head that a client says, by the engine alone.
#[derive(Debug, Default)]
struct Heard(Vec<Said>);

impl Heard {
    fn all(bytes: &[u8]) -> Rc<Self> {
        let mut heard = Self::default();
        let settings = lb_http2::Settings {
            streams_max: u32::MAX,
            head_bytes_max: HEAD_BYTES,
            ..lb_http2::Settings::default()
        };
        _ = Connection::server(settings).receive(bytes, Instant::now(), &mut heard);
        Rc::new(heard)
    }
}

impl Events for Heard {
    fn head(&mut self, _: Stream, head: &Head<'_>, _: bool) {
        let own = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
        let authority = head.authority().or(head.host()).unwrap_or_default();
        let line = (own(head.method()), own(authority), own(head.path().unwrap_or_default()));
        let fields = head.fields().map(|field| (own(field.name), own(field.value)));
        self.0.push((line, fields.collect()));
    }

    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
    fn data(&mut self, _: Stream, _: &[u8], _: bool) {}
    fn trailers(&mut self, _: Stream, _: &Head<'_>) {}
    fn reset(&mut self, _: Stream, _: Code, _: By) {}
    fn rejected(&mut self, _: u32, _: Flaw) {}
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

/// A request, as it is written down, and how far its answer has come.
#[derive(Debug)]
struct Exchange {
    heard: Rc<Heard>,
    is_head: bool,
    form: BodyForm,
    inflow: Inflow,
    outflow: Outflow,
    text: Vec<u8>,
    is_whole: bool,
    answered: usize,
}

impl Exchange {
    fn begin(asked: Asked, heard: &Rc<Heard>) -> Self {
        let Asked { head, is_head, form, inflow, outflow } = asked;
        let heard = heard.clone();
        Self { heard, is_head, form, inflow, outflow, text: head, is_whole: false, answered: 0 }
    }

    /// Whether anything has moved, and whether it goes on.
    fn step(&mut self, reads: bool, bodies: &BTreeMap<u32, Vec<u8>>) -> (bool, bool) {
        let mut task = Context::from_waker(Waker::noop());
        let before = self.text.len();
        while reads && !self.is_whole {
            match self.inflow.poll_read(&mut task, &mut self.text) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.is_whole = true;
                    self.is_one_message(bodies);
                }
                Poll::Ready(Err(_)) => {
                    self.is_seen_to_be_broken();
                    return (true, false);
                }
                Poll::Pending => break,
            }
        }
        let answered = self.answered;
        if self.is_whole {
            let taking = self.outflow.poll_write(&mut task, ANSWER, &mut self.answered, self.is_head);
            if taking.is_ready() {
                return (true, false);
            }
        }
        let goes_on = self.outflow.poll_reset(&mut task).is_pending();
        (self.text.len() > before || self.answered > answered || !goes_on, goes_on)
    }

    /// Our reader finds it, and nothing behind it; one that shares nothing with ours finds the same fields.
    fn is_one_message(&self, bodies: &BTreeMap<u32, Vec<u8>>) {
        let (text, mut head) = (&self.text, RequestHead::default());
        assert_eq!(head.parse(text, &WIDE), Ok(Parsed::Complete), "{}", show(text));
        if self.form == BodyForm::Tunnel {
            return;
        }
        let behind = &text[head.len()..];
        let (payload, used) = body(head.body(), behind).expect("a whole body");
        assert_eq!(used, behind.len(), "{}", show(text));
        assert!(bodies.values().any(|body| *body == payload) || payload.is_empty(), "{}", show(text));
        let is_framing = |name: &str| ["host", "content-length", "transfer-encoding"].contains(&name);
        let written = plain_fields(&text[..head.len()]);
        let framing = written.iter().filter(|(name, _)| is_framing(name) && name != "host").count();
        assert!(framing <= 1 && written.iter().filter(|(name, _)| name == "host").count() == 1);
        let others = |fields: &[(String, String)]| -> Vec<_> {
            fields.iter().filter(|(name, _)| !is_framing(name) && name != "cookie").cloned().collect()
        };
        let own = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
        let line = (own(head.method(text)), own(head.authority(text)), own(head.target(text)));
        let is_this = |(said, fields): &Said| *said == line && others(fields) == others(&written);
        assert!(self.heard.0.iter().any(is_this), "{} of {:?}", show(text), self.heard);
    }

    /// Whose stream has broken off does not look whole, but for what a length says.
    fn is_seen_to_be_broken(&self) {
        let (text, mut head) = (&self.text, RequestHead::default());
        if head.parse(text, &WIDE) == Ok(Parsed::Complete)
            && plain_fields(&text[..head.len()]).iter().any(|(name, _)| name == "transfer-encoding")
        {
            assert_eq!(body(head.body(), &text[head.len()..]), None, "{}", show(text));
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let get = request("GET", "/a?b");
    let post = [request("POST", "/"), field("content-length", "5")].concat();
    let begin = |block: &[u8]| frame(kind::HEADERS, END_HEADERS, 1, block);
    let whole = |stream, block: &[u8]| frame(kind::HEADERS, WHOLE, stream, block);
    let data = |flags, data: &[u8]| frame(kind::DATA, flags, 1, data);
    let more = [get.clone(), field("cookie", "a=b"), field("cookie", "c"), field("x", "y")].concat();
    let hosted = block(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a.test:8443")]);
    let inputs = [
        whole(1, &get),
        [whole(1, &more), whole(3, &request("HEAD", "/")), whole(5, &hosted)].concat(),
        [begin(&post), data(0, b"hel"), data(END_STREAM, b"lo")].concat(),
        [begin(&request("PUT", "/x")), data(0, b"hello"), data(0x9, b"\x02more\0\0")].concat(),
        [begin(&request("PUT", "/x")), data(0, b"hello"), whole(1, &field("x-sum", "1"))].concat(),
        [begin(&post), data(0, b"hello"), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat(),
        [begin(&post), data(END_STREAM, b"hello GET / HTTP/1.1\r\n\r\n")].concat(),
        [
            frame(kind::HEADERS, END_STREAM, 1, &get),
            frame(kind::CONTINUATION, END_HEADERS, 1, &field("x", "y")),
        ]
        .concat(),
        [frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), whole(1, &get)].concat(),
        (0..8).flat_map(|at| frame(kind::HEADERS, END_HEADERS, 2 * at + 1, &request("POST", "/"))).collect(),
        (0..8)
            .flat_map(|at| {
                [begin_at(2 * at + 1), frame(kind::RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])].concat()
            })
            .collect(),
    ];
    inputs.iter().enumerate().map(|(at, input)| [&[at as u8 & 7][..], input].concat()).collect()
}

fn begin_at(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS, stream, &request("GET", "/"))
}

/// Of which frames are made, those of backends too.
pub(super) fn words() -> Vec<Vec<u8>> {
    let mut words = vec![
        frame(kind::DATA, END_STREAM, 1, b"hello"),
        frame(kind::DATA, 0, 1, b""),
        frame(kind::DATA, 0, 3, b"0\r\n\r\n"),
        frame(kind::HEADERS, WHOLE, 1, &field("x", "y")),
        frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        frame(kind::RST_STREAM, 0, 3, &[0; 4]),
        frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 3]),
        frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]),
        frame(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        frame(kind::PING, 0, 0, &[7; 8]),
        frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
        frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 5]),
        frame(kind::CONTINUATION, END_HEADERS, 1, &[]),
        frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        vec![0x3f, 0xe1, 0x1f],
        vec![0xbe],
    ];
    for (name, value) in [
        (":method", "HEAD"),
        (":authority", "b.test"),
        (":path", "*"),
        (":status", "100"),
        (":status", "204"),
        ("host", "a.test"),
        ("content-length", "5"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "trailers"),
        ("cookie", ""),
        ("x", "a\r\nb: c"),
    ] {
        words.push(field(name, value));
    }
    words
}
