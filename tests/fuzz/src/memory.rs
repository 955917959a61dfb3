//! A peer of HTTP/2 in memory, and a reader of frames that shares nothing with ours.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use lb::l7::http2::Wire;
use lb_tests::frames::{ACK, END_STREAM, frame, kind};

/// Pieces that are sent in the time of one that comes.
const SENT_AT_ONCE: usize = 16;

/// Bytes that come in pieces, and those that are sent, taken in pieces as well. Who has a copy has the same.
#[derive(Clone, Debug)]
pub struct Memory {
    ends: Rc<RefCell<Ends>>,
    /// What has come and was not consumed.
    filled: Vec<u8>,
}

#[derive(Debug)]
struct Ends {
    coming: Vec<u8>,
    taken: usize,
    /// Most that goes at once.
    piece: usize,
    has_ended: bool,
    sending: Vec<u8>,
    sent: Vec<u8>,
    now: Instant,
}

impl Memory {
    /// These are going to come; `piece`: how much at once, and of what is sent some more.
    pub fn new(coming: Vec<u8>, piece: usize) -> Self {
        let ends = Ends {
            coming,
            taken: 0,
            piece,
            has_ended: false,
            sending: Vec::new(),
            sent: Vec::new(),
            now: Instant::now(),
        };
        Self { ends: Rc::new(RefCell::new(ends)), filled: Vec::new() }
    }

    /// The peer ends behind what is going to come.
    pub fn end(&self) {
        self.ends.borrow_mut().has_ended = true;
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.ends.borrow().has_ended
    }

    /// Bytes that have come, and bytes that were sent.
    pub fn moved(&self) -> (usize, usize) {
        let ends = self.ends.borrow();
        (ends.taken, ends.sent.len())
    }

    /// What was sent.
    pub fn sent(&self) -> Vec<u8> {
        self.ends.borrow().sent.clone()
    }
}

impl Wire for Memory {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.filled.is_empty() {
            let mut ends = self.ends.borrow_mut();
            let rest = &ends.coming[ends.taken..];
            if rest.is_empty() && !ends.has_ended {
                return Poll::Pending;
            }
            let len = rest.len().min(ends.piece);
            self.filled.extend_from_slice(&rest[..len]);
            ends.taken += len;
        }
        Poll::Ready(Ok(&self.filled))
    }

    fn consume(&mut self, len: usize) {
        self.filled.drain(..len);
    }

    fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.ends.borrow_mut();
        let ends = &mut *ends;
        let len = ends.sending.len().min(ends.piece.saturating_mul(SENT_AT_ONCE));
        ends.sent.extend(ends.sending.drain(..len));
        if ends.sending.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let mut ends = self.ends.borrow_mut();
        assert!(ends.sending.is_empty() && !bytes.is_empty(), "one after another");
        ends.sending = bytes;
        Ok(())
    }

    fn now(&self) -> Instant {
        self.ends.borrow().now
    }
}

/// A frame, as it lies in bytes: kind, flags, stream, payload.
pub type Frame<'a> = (u8, u8, u32, &'a [u8]);

/// The whole frames at the front, and what is left.
pub fn frames(mut bytes: &[u8]) -> (Vec<Frame<'_>>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) = bytes.split_first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((kind, flags, u32::from_be_bytes([d & 0x7f, e, f, g]), payload));
        bytes = rest;
    }
    (frames, bytes)
}

/// What DATA frames carry, by stream, each up to its end.
pub fn payloads(bytes: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut streams: BTreeMap<u32, (Vec<u8>, bool)> = BTreeMap::new();
    for (kind, flags, stream, payload) in frames(bytes).0 {
        if kind != kind::DATA && kind != kind::HEADERS {
            continue;
        }
        let (data, has_ended) = streams.entry(stream).or_default();
        if *has_ended {
            continue;
        }
        *has_ended = flags & END_STREAM != 0;
        if kind == kind::DATA {
            data.extend_from_slice(unpadded(flags, payload));
        }
    }
    streams.into_iter().map(|(stream, (data, _))| (stream, data)).collect()
}

/// Source: RFC 9113, 6.1.
fn unpadded(flags: u8, payload: &[u8]) -> &[u8] {
    match payload {
        [padding, data @ ..] if flags & 0x8 != 0 => &data[..data.len().saturating_sub(usize::from(*padding))],
        _ => payload,
    }
}

/// What is sent is whole frames, none longer than the peer's default lets it be, and not much more than came.
///
/// # Panics
/// It is not.
pub fn is_sound(sent: &[u8], received: usize) {
    let (frames, rest) = frames(sent);
    assert!(rest.is_empty(), "half a frame: {rest:?}");
    assert!(
        frames.iter().all(|(kind, _, _, payload)| *kind <= kind::CONTINUATION && payload.len() <= 1 << 16)
    );
    assert!(sent.len() <= (16 << 10) + 8 * received, "{} bytes for {received}", sent.len());
}

/// Settings of a peer that says nothing of them, and what it says to ours.
pub fn settings() -> Vec<u8> {
    [frame(kind::SETTINGS, 0, 0, &[]), frame(kind::SETTINGS, ACK, 0, &[])].concat()
}
