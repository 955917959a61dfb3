//! Frames of a backend of HTTP/2: each response that comes of them is one of HTTP/1.1, and nothing is beside it.
//!
//! ```text
//! input = how much comes at once (bits 0 and 1), no settings before (2), nobody reads until it has ended (3) (1 byte) frames
//! ```

use std::{
    collections::BTreeMap,
    pin::pin,
    task::{Context, Poll, Waker},
};

use lb::{
    config::Limits,
    l7::{
        http1::{Body, BodyReader, Parsed, ResponseHead, Side, Step},
        http2::{Asking, Client, Grants, Requests, begin, budgets},
    },
};
use lb_tests::frames::{END_HEADERS, END_STREAM, PREFACE, WHOLE, block, field, frame, kind};

use super::{
    Target,
    http2_client::{PIECES, words},
    request::{WIDE, plain_fields},
};
use crate::{
    bytes::show,
    memory::{Memory, is_sound, payloads, settings},
};

/// See the module.
pub const TARGET: Target = Target { name: "http2_backend", run, seeds, words };

const GRANTS_BYTES: u32 = 1024;
const FIELDS_MAX: usize = 16;
/// Turns that no input takes.
const TURNS_MAX: usize = 20_000;

/// Those that are begun, on streams 1, 3 and 5.
const REQUESTS: [&str; 3] = [
    "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "HEAD /b HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nagain\r\n0\r\n\r\n",
];

fn run(input: &[u8]) {
    let Some((&options, input)) = input.split_first() else { return };
    let begun = if options & 4 == 0 { settings() } else { Vec::new() };
    let wire = Memory::new([&begun, input].concat(), PIECES[usize::from(options & 3)]);
    let budgets = budgets(&Limits { head_bytes: GRANTS_BYTES as usize, ..Limits::default() });
    let grants = Grants { head_bytes: GRANTS_BYTES, fields_max: FIELDS_MAX, budgets };
    let mut task = Context::from_waker(Waker::noop());
    let Some((mut client, requests)) = first_words(&wire, &grants, input) else { return };
    let bodies = payloads(input);
    let mut going: Vec<_> =
        (0..REQUESTS.len()).map(|at| Exchange::new(requests.begin(at == 2), at, options & 8 == 0)).collect();
    let mut before = (usize::MAX, usize::MAX);
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "without end: {}", show(input));
        if client.poll(&mut task).is_ready() {
            break;
        }
        let has_moved = step(&mut going, &bodies);
        let moved = wire.moved();
        if !has_moved && moved == before {
            if wire.has_ended() {
                break;
            }
            wire.end();
        }
        before = moved;
    }
    while client.poll_flush(&mut task).is_pending() {}
    drop(client);
    going.iter_mut().for_each(|one| one.reads = true);
    while step(&mut going, &bodies) {}
    assert!(going.is_empty(), "{going:?} without a connection: {}", show(input));
    let sent = wire.sent();
    is_sound(sent.strip_prefix(PREFACE).expect("a preface"), input.len() + begun.len());
}

/// `None`: the backend has not said what it takes.
fn first_words(wire: &Memory, grants: &Grants, input: &[u8]) -> Option<(Client<Memory>, Requests)> {
    let mut task = Context::from_waker(Waker::noop());
    let mut beginning = pin!(begin(wire.clone(), grants));
    let mut before = (usize::MAX, usize::MAX);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(begun) = beginning.as_mut().poll(&mut task) {
            return begun.ok();
        }
        let moved = wire.moved();
        if moved == before {
            wire.end();
        }
        before = moved;
    }
    panic!("without end: {}", show(input));
}

/// Whether anything has moved; those that are over are not there any more.
fn step(going: &mut Vec<Exchange>, bodies: &BTreeMap<u32, Vec<u8>>) -> bool {
    let mut has_moved = false;
    going.retain_mut(|one| {
        let (moved, goes_on) = one.step(bodies);
        has_moved |= moved;
        goes_on
    });
    has_moved
}

#[derive(Debug)]
struct Exchange {
    asking: Asking,
    at: usize,
    written: usize,
    /// Nothing more is taken of the request.
    is_written: bool,
    reads: bool,
    text: Vec<u8>,
}

impl Exchange {
    const fn new(asking: Asking, at: usize, reads: bool) -> Self {
        Self { asking, at, written: 0, is_written: false, reads, text: Vec::new() }
    }

    /// Whether anything has moved, and whether it goes on.
    fn step(&mut self, bodies: &BTreeMap<u32, Vec<u8>>) -> (bool, bool) {
        let mut task = Context::from_waker(Waker::noop());
        let before = (self.written, self.is_written, self.text.len());
        if !self.is_written {
            let request = REQUESTS[self.at].as_bytes();
            self.is_written = self.asking.poll_write(&mut task, request, &mut self.written).is_ready();
        }
        while self.reads {
            match self.asking.poll_read(&mut task, &mut self.text) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.is_one_message(bodies);
                    return (true, false);
                }
                Poll::Ready(Err(_)) => {
                    self.is_seen_to_be_broken();
                    return (true, false);
                }
                Poll::Pending => break,
            }
        }
        ((self.written, self.is_written, self.text.len()) != before, true)
    }

    /// The final head, and where its body begins; `None`: it has not come.
    fn head(&self) -> Option<(ResponseHead, usize)> {
        let (mut at, is_head) = (0, self.at == 1);
        loop {
            let (rest, mut head) = (&self.text[at..], ResponseHead::default());
            let parsed = head.parse(rest, &WIDE, is_head);
            if rest.is_empty() {
                return None;
            }
            assert_eq!(parsed, Ok(Parsed::Complete), "{}", show(&self.text));
            let fields = plain_fields(&rest[..head.len()]);
            let is_framing = |name: &str| ["content-length", "transfer-encoding"].contains(&name);
            assert!(fields.iter().filter(|(name, _)| is_framing(name)).count() <= 1, "{}", show(&self.text));
            at += head.len();
            if !head.is_interim() {
                return Some((head, at));
            }
        }
    }

    fn is_one_message(&self, bodies: &BTreeMap<u32, Vec<u8>>) {
        let (head, at) = self.head().expect("a head");
        let behind = &self.text[at..];
        if head.body() == Body::None {
            // Of a response that has none, whoever passes it on looks at what comes behind its head.
            return;
        }
        assert_ne!(head.body(), Body::UntilClose, "{}", show(&self.text));
        let (payload, used) = body(head.body(), behind).expect("a whole body");
        assert_eq!(used, behind.len(), "{}", show(&self.text));
        let expected = bodies.get(&(2 * self.at as u32 + 1));
        assert_eq!(Some(&payload), expected, "{}", show(&self.text));
    }

    /// What has broken off does not look whole, but for what a length says.
    fn is_seen_to_be_broken(&self) {
        if let Some((head, at)) = self.head()
            && head.body() == Body::Chunked
        {
            assert_eq!(body(head.body(), &self.text[at..]), None, "{}", show(&self.text));
        }
    }
}

/// The payload at the start of `input`, and the bytes that it took; `None`: it is broken, or not all there.
fn body(body: Body, input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut reader = BodyReader::new(body, Side::Response);
    let (mut at, mut payload) = (0, Vec::new());
    while !reader.is_done() {
        match reader.next(&input[at..]).ok()? {
            Step::Data { skip, len } => {
                payload.extend_from_slice(&input[at + skip..at + skip + len]);
                at += skip + len;
            }
            Step::Done { consumed } => at += consumed,
            Step::More { .. } => return None,
        }
    }
    Some((payload, at))
}

fn seeds() -> Vec<Vec<u8>> {
    let status = |status: &str| block(&[(":status", status)]);
    let head = |flags, stream, block: &[u8]| frame(kind::HEADERS, flags | END_HEADERS, stream, block);
    let data = |flags, stream, data: &[u8]| frame(kind::DATA, flags, stream, data);
    let sized = [status("200"), field("content-length", "5")].concat();
    let answers = [head(END_STREAM, 3, &sized), head(END_STREAM, 5, &status("204"))].concat();
    let inputs = [
        [&head(0, 1, &sized)[..], &data(END_STREAM, 1, b"hello"), &answers].concat(),
        [&head(0, 1, &status("200"))[..], &data(0, 1, b"hello"), &data(END_STREAM, 1, b"!"), &answers]
            .concat(),
        [
            &head(0, 1, &status("103"))[..],
            &head(0, 1, &status("100")),
            &head(0, 1, &status("200")),
            &data(0, 1, b"x"),
            &head(END_STREAM, 1, &field("x-sum", "1")),
            &answers,
        ]
        .concat(),
        [&head(0, 1, &sized)[..], &data(0, 1, b"he"), &frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 2])].concat(),
        [&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])[..], &head(END_STREAM, 1, &status("404"))]
            .concat(),
        [&head(0, 3, &sized)[..], &data(END_STREAM, 3, b"hello")].concat(),
        [&head(0, 5, &status("304"))[..], &data(END_STREAM, 5, b"hello"), &data(0, 1, b"x")].concat(),
        [&frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])[..], &answers, &head(WHOLE, 1, &status("500"))]
            .concat(),
        [&frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])[..], &head(WHOLE, 1, &status("200"))].concat(),
    ];
    inputs.iter().enumerate().map(|(at, input)| [&[at as u8 & 3][..], input].concat()).collect()
}
