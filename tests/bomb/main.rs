//! How much a peer can make `h2` hold: heads of many small fields, most of them a byte on the wire, which a window of nothing
//! keeps there (bad-input row 51), and what comes near it.

use std::{
    cell::RefCell,
    future::Future as _,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::server;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use lb_tests::counting::{self, Counting};

#[global_allocator]
static HEAP: Counting = Counting;

/// As a worker has it.
const LIST_BYTES: u32 = 32 << 10;
const STREAMS: u32 = 100;

/// Most that a stream's head makes `h2` hold, whatever its fields are.
const HELD_BY_STREAM: usize = 200_000;
/// What is held by streams that were turned into bytes, with heads of a few fields.
const HELD_BY_TAKEN: usize = 2_000;
/// What a connection may hold that has no stream: `h2` remembers up to 1024 streams that it has reset for an error.
const HELD_BY_CONNECTION: usize = 2_000_000;

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PROTOCOL_ERROR: u8 = 0x1;
const COMPRESSION_ERROR: u8 = 0x9;
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The client's side in memory: what it sends lies ready, what it gets is read for its frames and thrown away.
#[derive(Default)]
struct Wire {
    input: Vec<u8>,
    at: usize,
    /// Nothing more is taken from the server.
    is_stuck: bool,
    got: Got,
    head: Vec<u8>,
    skip: usize,
}

/// What the server sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Got {
    heads: u32,
    resets: u32,
    /// The code.
    goaway: Option<u8>,
}

#[derive(Clone)]
struct Pipe(Rc<RefCell<Wire>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let rest = &wire.input[wire.at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let len = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..len]);
        wire.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        if wire.is_stuck {
            return Poll::Pending;
        }
        bytes.iter().for_each(|&byte| wire.take(byte));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// A byte from the server.
    fn take(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.head.push(byte);
        let wanted = if self.head.get(3) == Some(&GOAWAY) { 17 } else { 9 };
        if self.head.len() < wanted {
            return;
        }
        let len = usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
        match self.head[3] {
            HEADERS => self.got.heads += 1,
            RST_STREAM => self.got.resets += 1,
            GOAWAY => self.got.goaway = Some(self.head[16]),
            _ => {}
        }
        self.skip = len - (wanted - 9);
        self.head.clear();
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What stands before its fields: GET https://a/, in HPACK.
const PSEUDO: &[u8] = &[0x82, 0x87, 0x84, 0x01, 0x01, b'a'];
/// What the pseudo header fields of `PSEUDO` count, and a little more.
const PSEUDO_BYTES: usize = 180;
/// The newest entry of the dynamic table: one byte, one field.
const NEWEST: u8 = 0xbe;
/// `cookie: ` into the dynamic table.
const COOKIE: &[u8] = &[0x60, 0x00];

fn head(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[PSEUDO, fields].concat())
}

/// What became of a connection.
#[derive(Debug)]
struct Outcome {
    got: Got,
    /// Requests that came through.
    requests: usize,
    /// Most bytes held at once, and bytes held while all streams waited.
    most: usize,
    kept: usize,
}

impl Outcome {
    fn say(&self, what: &str, sent: usize) {
        println!(
            "{what}: {sent} bytes sent, {} requests, most {} held, {} kept, {:?}",
            self.requests, self.most, self.kept, self.got
        );
    }
}

/// A connection on which `bytes` come behind the client's settings. What comes through is held, as it is while backends
/// are silent and the client's window is 0; or turned into the head of HTTP/1.1 and let go, as a worker does.
fn connection(what: &str, bytes: &[u8], holds: bool, is_stuck: bool) -> Outcome {
    let preface = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(0x4, 0, 0, &[0, 0x4, 0, 0, 0, 0]),
        frame(0x4, 1, 0, &[]),
    ]
    .concat();
    let input = preface.clone();
    let wire = Rc::new(RefCell::new(Wire { input, head: Vec::with_capacity(32), ..Wire::default() }));
    let mut builder = server::Builder::new();
    builder.max_header_list_size(LIST_BYTES).max_concurrent_streams(STREAMS);
    let mut context = Context::from_waker(Waker::noop());
    let mut handshake = pin!(builder.handshake::<_, Bytes>(Pipe(wire.clone())));
    let Poll::Ready(Ok(mut server)) = handshake.as_mut().poll(&mut context) else { panic!("no handshake") };
    assert!(server.poll_accept(&mut context).is_pending());
    {
        let mut wire = wire.borrow_mut();
        (wire.input, wire.at, wire.is_stuck) = (bytes.to_vec(), 0, is_stuck);
    }
    let mut requests = Vec::with_capacity(STREAMS as usize * 2);
    let mut heads = Vec::with_capacity(STREAMS as usize * 2);
    let ((), most, kept) = counting::held_by(|| {
        while let Poll::Ready(Some(Ok((request, respond)))) = server.poll_accept(&mut context) {
            if holds {
                requests.push((request, respond));
            } else {
                let (parts, body) = request.into_parts();
                let mut out = Vec::new();
                // One of too many fields is refused, and its stream waits for nothing.
                _ = lb::l7::http2::write_request(&parts, false, 128, &mut out);
                heads.push((out, body, respond));
            }
        }
    });
    let outcome = Outcome { got: wire.borrow().got, requests: requests.len() + heads.len(), most, kept };
    outcome.say(what, bytes.len());
    outcome
}

/// Heads of as many fields as just fit into the list.
fn many(first: &[u8], field: impl Fn(usize) -> Vec<u8>, field_bytes: usize) -> Vec<u8> {
    let count = (LIST_BYTES as usize - PSEUDO_BYTES) / field_bytes - 1;
    let fields: Vec<u8> = (0..count).flat_map(&field).collect();
    (0..STREAMS)
        .flat_map(|at| {
            let first = if at == 0 { first } else { &[] };
            head(1 + 2 * at, &[first, &fields].concat())
        })
        .collect()
}

/// A field of two letters of its own and no value.
fn own_name(at: usize) -> Vec<u8> {
    let letter = |at: usize| b'a' + (at % 26) as u8;
    vec![0x00, 0x03, letter(at), letter(at / 26), letter(at / 676), 0x00]
}

#[test]
fn row_51_heads_of_many_fields_are_bounded() {
    counting::leave_out_this_thread();
    // 16 000 bytes are 25 600 zeros.
    let huffman = [&[0x00, 0x01, b'x', 0xff, 0x81, 0x7c][..], &[0; 16_000]].concat();
    let huffman: Vec<u8> = (0..STREAMS).flat_map(|at| head(1 + 2 * at, &huffman)).collect();
    for (what, bytes) in [
        ("crumbs by index", many(COOKIE, |_| vec![NEWEST], 38)),
        ("fields by index", many(&[0x40, 0x01, b'x', 0x00], |_| vec![NEWEST], 33)),
        ("names of their own", many(&[], own_name, 35)),
        ("one long value", huffman),
    ] {
        let held = connection(what, &bytes, true, false);
        assert_eq!((held.requests, held.got.goaway), (STREAMS as usize, None));
        assert!(held.most <= STREAMS as usize * HELD_BY_STREAM, "{what}: {held:?}");
        let taken = connection(what, &bytes, false, false);
        assert_eq!((taken.requests, taken.got.goaway), (STREAMS as usize, None));
        let is_refused = what != "one long value";
        assert!(!is_refused || taken.kept <= STREAMS as usize * HELD_BY_TAKEN, "{what}: {taken:?}");
    }
}

#[test]
fn row_51_what_else_comes_with_a_head_is_bounded() {
    counting::leave_out_this_thread();
    // 16 000 changes of the table's size, and a value that keeps them in memory.
    let block = [&[0x20; 16_000][..], PSEUDO, &[0x00, 0x01, b'x', 0x01, b'y']].concat();
    let pins: Vec<u8> =
        (0..STREAMS).flat_map(|at| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, &block)).collect();
    let pins = connection("a little that pins much", &pins, true, false);
    assert!(pins.most <= STREAMS as usize * HELD_BY_STREAM, "{pins:?}");
    let fields: Vec<u8> = (0..900).flat_map(own_name).collect();
    let both: Vec<u8> = (0..STREAMS)
        .flat_map(|at| {
            let stream = 1 + 2 * at;
            let begin = frame(HEADERS, END_HEADERS, stream, &[PSEUDO, &fields].concat());
            [begin, frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)].concat()
        })
        .collect();
    let both = connection("heads and trailers", &both, true, false);
    assert!(both.most <= 2 * STREAMS as usize * HELD_BY_STREAM, "{both:?}");
}

/// What `h2` keeps of what it has answered, while the client reads nothing.
#[test]
fn row_50_what_is_answered_and_not_read_is_bounded() {
    counting::leave_out_this_thread();
    let over = [COOKIE, &[NEWEST; 900]].concat();
    let streams =
        |each: &dyn Fn(u32) -> Vec<u8>| (0..5_000).flat_map(|at| each(1 + 2 * at)).collect::<Vec<_>>();
    for (what, bytes) in [
        ("heads too long", streams(&|stream| head(stream, &over))),
        ("streams too many", streams(&|stream| head(stream, &[]))),
        (
            "resets",
            streams(&|stream| [head(stream, &[]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()),
        ),
        ("streams of a broken head", streams(&|stream| head(stream, &[0x00, 0x02, b't', b'e', 0x01, b'x']))),
        ("pings", frame(0x6, 0, 0, &[0; 8]).repeat(5_000)),
        ("settings", frame(0x4, 0, 0, &[0, 0x3, 0, 0, 0, 1]).repeat(5_000)),
    ] {
        for is_stuck in [false, true] {
            let outcome = connection(&format!("{what}, stuck {is_stuck}"), &bytes, true, is_stuck);
            assert!(outcome.most <= HELD_BY_CONNECTION, "{what}: {outcome:?}");
        }
    }
}

#[test]
fn row_51_longer_lists_are_refused() {
    counting::leave_out_this_thread();
    let twice = [COOKIE, &[NEWEST; 1_700]].concat();
    let twice: Vec<u8> =
        (0..STREAMS).flat_map(|at| head(1 + 2 * at, if at == 0 { &twice } else { &twice[2..] })).collect();
    let refused = connection("twice too long", &twice, true, false);
    assert_eq!((refused.requests, refused.got.heads), (0, STREAMS), "{:?}", refused.got);
    let far = head(1, &[COOKIE, &[NEWEST; 16_000]].concat());
    let far = connection("far too long", &far, true, false);
    assert_eq!((far.requests, far.got.goaway), (0, Some(ENHANCE_YOUR_CALM)));
    let stuck = connection("twice too long, and nothing is read", &twice, true, true);
    assert_eq!(stuck.requests, 0);
}

#[test]
fn row_48_and_51_blocks_without_an_end() {
    counting::leave_out_this_thread();
    let begin = |fields: &[u8]| frame(HEADERS, END_STREAM, 1, &[PSEUDO, fields].concat());
    let small = [begin(COOKIE), frame(CONTINUATION, 0, 1, &[NEWEST]).repeat(1_000)].concat();
    let small = connection("small continuations", &small, true, false);
    assert_eq!(small.got.goaway, Some(ENHANCE_YOUR_CALM));
    let empty = [begin(COOKIE), frame(CONTINUATION, 0, 1, &[]).repeat(1_000)].concat();
    let empty = connection("empty continuations", &empty, true, false);
    assert_eq!(empty.got.goaway, Some(ENHANCE_YOUR_CALM));
    // A value of 4 MiB is announced.
    let announced = begin(&[0x00, 0x01, b'x', 0x7f, 0x81, 0xff, 0xff, 0x01]);
    let long = [announced, frame(CONTINUATION, 0, 1, &[b'x'; 16_384]).repeat(50)].concat();
    let long = connection("a value without an end", &long, true, false);
    assert!(
        matches!(long.got.goaway, Some(ENHANCE_YOUR_CALM | COMPRESSION_ERROR | PROTOCOL_ERROR)),
        "{long:?}"
    );
}
