//! How much a peer can make a connection of HTTP/2 hold: heads of many small fields, most of them a byte on the wire, which a
//! window of nothing keeps there (bad-input row 51), and what comes near it.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use lb::l7::http2::{self, Budgets, Next, Server, Settings};
use lb_tests::counting::{self, Counting};

#[global_allocator]
static HEAP: Counting = Counting;

/// As a worker has it.
const LIST_BYTES: u32 = 32 << 10;
const STREAMS: u32 = 100;

/// Most that a stream's head makes us hold, whatever its fields are.
const HELD_BY_STREAM: usize = 80_000;
/// What a connection may hold that has no stream.
const HELD_BY_CONNECTION: usize = 500_000;
/// What is read at once.
const PIECE_BYTES: usize = 16 << 10;

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The client's side in memory: what it gets is read for its frames and thrown away.
#[derive(Default)]
struct Wire {
    /// Bytes of what it sends that were taken.
    taken: usize,
    /// Nothing more is taken from the server.
    is_stuck: bool,
    is_sending: bool,
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

/// What it sends lies ready.
struct Pipe {
    wire: Rc<RefCell<Wire>>,
    input: Vec<u8>,
    now: Instant,
}

impl http2::Wire for Pipe {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let rest = &self.input[self.wire.borrow().taken..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(&rest[..rest.len().min(PIECE_BYTES)]))
    }

    fn consume(&mut self, len: usize) {
        self.wire.borrow_mut().taken += len;
    }

    fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.wire.borrow();
        if wire.is_stuck && wire.is_sending { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let mut wire = self.wire.borrow_mut();
        wire.is_sending = true;
        if !wire.is_stuck {
            bytes.iter().for_each(|&byte| wire.take(byte));
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now
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
/// are silent and the client's window is 0.
fn connection(what: &str, bytes: &[u8], is_stuck: bool) -> Outcome {
    let input = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(0x4, 0, 0, &[0, 0x4, 0, 0, 0, 0]),
        frame(0x4, 1, 0, &[]),
        bytes.to_vec(),
    ]
    .concat();
    let wire = Rc::new(RefCell::new(Wire { head: Vec::with_capacity(32), is_stuck, ..Wire::default() }));
    let settings = Settings {
        streams_max: STREAMS,
        head_bytes: LIST_BYTES,
        fields_max: 128,
        budgets: Budgets::default(),
    };
    let mut server = Server::new(Pipe { wire: wire.clone(), input, now: Instant::now() }, &settings);
    let mut context = Context::from_waker(Waker::noop());
    let mut requests = Vec::with_capacity(STREAMS as usize * 2);
    let ((), most, kept) = counting::held_by(|| {
        loop {
            let before = wire.borrow().taken;
            match server.poll_next(&mut context) {
                Poll::Ready(Ok(Next::Asked(asked))) => requests.push(asked),
                Poll::Ready(Ok(Next::Refused(_))) => {}
                Poll::Pending if wire.borrow().taken > before => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        assert!(server.poll_flush(&mut context).is_ready() || is_stuck);
    });
    let outcome = Outcome { got: wire.borrow().got, requests: requests.len(), most, kept };
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
        let held = connection(what, &bytes, false);
        // One of too many fields is refused, and its stream waits for nothing.
        let (requests, resets) = if what == "one long value" { (STREAMS, 0) } else { (0, STREAMS) };
        assert_eq!((held.requests, held.got.resets, held.got.goaway), (requests as usize, resets, None));
        assert!(held.most <= HELD_BY_CONNECTION + requests as usize * HELD_BY_STREAM, "{what}: {held:?}");
    }
}

#[test]
fn row_51_what_else_comes_with_a_head_is_bounded() {
    counting::leave_out_this_thread();
    // 16 000 changes of the table's size, and a value that keeps them in memory.
    let block = [&[0x20; 16_000][..], PSEUDO, &[0x00, 0x01, b'x', 0x01, b'y']].concat();
    let pins: Vec<u8> =
        (0..STREAMS).flat_map(|at| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, &block)).collect();
    let pins = connection("a little that pins much", &pins, false);
    assert!(pins.most <= STREAMS as usize * HELD_BY_STREAM, "{pins:?}");
    let fields: Vec<u8> = (0..900).flat_map(own_name).collect();
    let both: Vec<u8> = (0..STREAMS)
        .flat_map(|at| {
            let stream = 1 + 2 * at;
            let begin = frame(HEADERS, END_HEADERS, stream, &[PSEUDO, &fields].concat());
            [begin, frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)].concat()
        })
        .collect();
    let both = connection("heads and trailers", &both, false);
    assert!(both.most <= 2 * STREAMS as usize * HELD_BY_STREAM, "{both:?}");
}

/// What is kept of what was answered, while the client reads nothing.
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
            let outcome = connection(&format!("{what}, stuck {is_stuck}"), &bytes, is_stuck);
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
    let refused = connection("twice too long", &twice, false);
    assert_eq!((refused.requests, refused.got.resets), (0, STREAMS), "{:?}", refused.got);
    let far = head(1, &[COOKIE, &[NEWEST; 16_000]].concat());
    let far = connection("far too long", &far, false);
    assert_eq!((far.requests, far.got.resets, far.got.goaway), (0, 1, None));
    let stuck = connection("twice too long, and nothing is read", &twice, true);
    assert_eq!(stuck.requests, 0);
}

#[test]
fn row_48_and_51_blocks_without_an_end() {
    counting::leave_out_this_thread();
    let begin = |fields: &[u8]| frame(HEADERS, END_STREAM, 1, &[PSEUDO, fields].concat());
    let small = [begin(COOKIE), frame(CONTINUATION, 0, 1, &[NEWEST]).repeat(1_000)].concat();
    let small = connection("small continuations", &small, false);
    assert_eq!(small.got.goaway, Some(ENHANCE_YOUR_CALM));
    let empty = [begin(COOKIE), frame(CONTINUATION, 0, 1, &[]).repeat(1_000)].concat();
    let empty = connection("empty continuations", &empty, false);
    assert_eq!(empty.got.goaway, Some(ENHANCE_YOUR_CALM));
    // A value of 4 MiB is announced.
    let announced = begin(&[0x00, 0x01, b'x', 0x7f, 0x81, 0xff, 0xff, 0x01]);
    let long = [announced, frame(CONTINUATION, 0, 1, &[b'x'; 16_384]).repeat(50)].concat();
    let long = connection("a value without an end", &long, false);
    assert_eq!(long.got.goaway, Some(ENHANCE_YOUR_CALM));
}
