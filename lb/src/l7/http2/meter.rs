//! Frames counted on their way, since `h2` shows its callers none: what costs us much and the peer little has a budget.
//!
//! A [`Meter`] sees the bytes of both directions before `h2` does, or after it. It reads the nine bytes before each frame,
//! and of two kinds the first byte or four behind them; it judges of what `h2` judges only what that has the wrong word for:
//! lengths that are none, and promises. Counts are halved with each second
//! that passes, so that a budget is what may come at once, and half of it what may come each second for ever.

use std::time::{Duration, Instant};

use h2::Reason;

use crate::config::Limits;

/// How many frames of a kind may come at once. Of a peer that keeps to the protocol none comes near these.
///
/// Where they come from: Sozu ships 100 resets (10 000 in a lifetime), 500 of our own, 100 pings, 50 settings, 100 empty
/// DATA frames, 20 CONTINUATION frames, 100 of what is odd. Those that honest peers send along with what they get are
/// measured against that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// RST_STREAM from the peer (CVE-2023-44487).
    pub resets: u32,
    /// RST_STREAM from the peer as long as the connection lives.
    pub resets_in_all: u64,
    /// RST_STREAM that we send for what the peer did wrong (CVE-2025-8671).
    pub resets_emitted: u32,
    /// PING, answers too, beyond one for each DATA frame that we send: who measures the path sends as many.
    pub pings: u32,
    /// SETTINGS, answers too.
    pub settings: u32,
    /// DATA that carries nothing and ends nothing.
    pub empty_data: u32,
    /// HEADERS beyond four for each that we send: a stream has a head and trailers, and a backend may send interim heads,
    /// which `h2` keeps until they are asked for.
    pub heads: u32,
    /// CONTINUATION of one header block (CVE-2024-27316).
    pub continuations_of_block: u32,
    /// CONTINUATION of all.
    pub continuations: u32,
    /// Bytes of one header block as it is sent.
    pub block_bytes: u32,
    /// WINDOW_UPDATE beyond four for each DATA frame that we send and one for each head that comes.
    pub window_updates: u32,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218).
    pub priorities: u32,
    /// Frames of no known kind, or of a kind that comes once.
    pub unknown: u32,
}

impl Budgets {
    /// As the config has them. As it is sent a block can be longer than what it says, if not by much: the rarest letters have
    /// up to four times their size in Huffman's code, and nobody is made to use it.
    pub fn new(limits: &Limits) -> Self {
        let said = &limits.http2;
        Self {
            resets: said.resets,
            resets_in_all: said.resets_in_all.into(),
            resets_emitted: said.resets_emitted,
            pings: said.pings,
            settings: said.settings,
            empty_data: said.empty_data,
            heads: said.heads,
            continuations_of_block: said.continuations.div_ceil(5),
            continuations: said.continuations,
            block_bytes: u32::try_from(limits.head_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
            window_updates: said.window_updates,
            priorities: said.priorities,
            unknown: said.unknown,
        }
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self::new(&Limits::default())
    }
}

/// What there was too much of, or what has no place at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// See [`Budgets::resets`] and [`Budgets::resets_in_all`].
    Resets,
    /// See [`Budgets::resets_emitted`].
    ResetsEmitted,
    /// See [`Budgets::pings`].
    Pings,
    /// See [`Budgets::settings`].
    Settings,
    /// See [`Budgets::empty_data`].
    EmptyData,
    /// See [`Budgets::heads`].
    Heads,
    /// See [`Budgets::continuations_of_block`] and [`Budgets::continuations`].
    Continuations,
    /// See [`Budgets::block_bytes`].
    HeaderBlock,
    /// See [`Budgets::window_updates`].
    WindowUpdates,
    /// See [`Budgets::priorities`].
    Priorities,
    /// See [`Budgets::unknown`].
    Unknown,
    /// A frame of a length that its kind does not have (RFC 9113, 4.2).
    FrameSize,
    /// PUSH_PROMISE: clients never may (RFC 9113, 8.4), and backends were told not to.
    Promise,
}

impl Abuse {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::ResetsEmitted => "resets-emitted",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::EmptyData => "empty-data",
            Self::Heads => "heads",
            Self::Continuations => "continuations",
            Self::HeaderBlock => "header-block",
            Self::WindowUpdates => "window-updates",
            Self::Priorities => "priorities",
            Self::Unknown => "unknown-frames",
            Self::FrameSize => "frame-size",
            Self::Promise => "promise",
        }
    }

    /// What the peer is told.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::FrameSize => Reason::FRAME_SIZE_ERROR,
            Self::Promise => Reason::PROTOCOL_ERROR,
            _ => Reason::ENHANCE_YOUR_CALM,
        }
    }
}

/// Counts of one connection. Once over a budget it stays so.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    budgets: Budgets,
    received: Scanner,
    sent: Scanner,
    counts: Counts,
    /// When the counts were halved last.
    halved_at: Option<Instant>,
    abuse: Option<Abuse>,
    has_goaway: bool,
}

/// Counts that are halved, but for those that say otherwise.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resets: u32,
    /// Not halved.
    resets_in_all: u64,
    resets_emitted: u32,
    pings: u32,
    settings: u32,
    empty_data: u32,
    heads: u32,
    continuations: u32,
    window_updates: u32,
    priorities: u32,
    unknown: u32,
    /// Of the header block that is under way; begun anew with each.
    block: Block,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    continuations: u32,
    bytes: u32,
}

const HALF_LIFE: Duration = Duration::from_secs(1);
/// Halvings after which nothing is left of any count.
const HALVINGS_MAX: u32 = 32;
/// WINDOW_UPDATE that may come for each DATA frame that we send: for the stream and for the connection, from a peer that
/// tells of each half of one.
const UPDATES_PER_DATA: u32 = 4;
/// HEADERS that may come for each that we send.
const HEADS_PER_HEAD: u32 = 4;

impl Meter {
    /// For a client's connection: the preface of RFC 9113, 3.4 comes before its first frame.
    pub(super) fn of_client(budgets: Budgets) -> Self {
        Self::new(budgets, Scanner::new(PREFACE_BYTES), Scanner::new(0))
    }

    /// For a connection to a backend: the preface is ours.
    pub(super) fn of_backend(budgets: Budgets) -> Self {
        Self::new(budgets, Scanner::new(0), Scanner::new(PREFACE_BYTES))
    }

    fn new(budgets: Budgets, received: Scanner, sent: Scanner) -> Self {
        Self {
            budgets,
            received,
            sent,
            counts: Counts::default(),
            halved_at: None,
            abuse: None,
            has_goaway: false,
        }
    }

    /// Counts what has come from the peer, however it is cut.
    ///
    /// # Errors
    /// What there is too much of: the peer is to be told to calm down (RFC 9113, 10.5), and sent away.
    pub(super) fn see(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.decay(now);
        while let Some(frame) = self.received.next(&mut bytes) {
            self.has_goaway |= frame.kind == Kind::GOAWAY;
            if self.abuse.is_none() {
                self.abuse = self.count(frame).err();
            }
        }
        self.verdict()
    }

    /// Counts what we have sent.
    ///
    /// # Errors
    /// Like [`Meter::see`].
    pub(super) fn emitted(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.decay(now);
        while let Some(frame) = self.sent.next(&mut bytes) {
            self.credit(frame);
        }
        self.verdict()
    }

    /// Whether the peer has said that it takes nothing more.
    pub(super) const fn has_goaway(&self) -> bool {
        self.has_goaway
    }

    fn verdict(&self) -> Result<(), Abuse> {
        self.abuse.map_or(Ok(()), Err)
    }

    /// Halves the counts for each whole second since they last were.
    fn decay(&mut self, now: Instant) {
        let last = *self.halved_at.get_or_insert(now);
        let passed = now.saturating_duration_since(last);
        if passed < HALF_LIFE {
            return;
        }
        let halvings = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        self.halved_at = last.checked_add(HALF_LIFE.saturating_mul(halvings)).or(Some(now));
        let counts = &mut self.counts;
        for count in [
            &mut counts.resets,
            &mut counts.resets_emitted,
            &mut counts.pings,
            &mut counts.settings,
            &mut counts.empty_data,
            &mut counts.heads,
            &mut counts.continuations,
            &mut counts.window_updates,
            &mut counts.priorities,
            &mut counts.unknown,
        ] {
            *count = if halvings >= HALVINGS_MAX { 0 } else { *count >> halvings };
        }
    }

    /// A frame of the peer's.
    fn count(&mut self, frame: Frame) -> Result<(), Abuse> {
        let (counts, budgets) = (&mut self.counts, &self.budgets);
        if frame.has_wrong_length() {
            return Err(Abuse::FrameSize);
        }
        match frame.kind {
            Kind::DATA if frame.is_empty && frame.flags & END_STREAM == 0 => {
                add(&mut counts.empty_data, budgets.empty_data, Abuse::EmptyData)
            }
            Kind::DATA => Ok(()),
            Kind::HEADERS => {
                counts.window_updates = counts.window_updates.saturating_sub(1);
                counts.block = Block { continuations: 0, bytes: frame.len };
                add(&mut counts.heads, budgets.heads, Abuse::Heads)?;
                if frame.len > budgets.block_bytes { Err(Abuse::HeaderBlock) } else { Ok(()) }
            }
            Kind::CONTINUATION => {
                let block = &mut counts.block;
                block.bytes = block.bytes.saturating_add(frame.len);
                add(&mut block.continuations, budgets.continuations_of_block, Abuse::Continuations)?;
                add(&mut counts.continuations, budgets.continuations, Abuse::Continuations)?;
                if block.bytes > budgets.block_bytes { Err(Abuse::HeaderBlock) } else { Ok(()) }
            }
            Kind::RST_STREAM => {
                counts.resets_in_all += 1;
                if counts.resets_in_all > budgets.resets_in_all {
                    return Err(Abuse::Resets);
                }
                add(&mut counts.resets, budgets.resets, Abuse::Resets)
            }
            Kind::PUSH_PROMISE => Err(Abuse::Promise),
            Kind::PING => add(&mut counts.pings, budgets.pings, Abuse::Pings),
            Kind::SETTINGS => add(&mut counts.settings, budgets.settings, Abuse::Settings),
            Kind::WINDOW_UPDATE => {
                add(&mut counts.window_updates, budgets.window_updates, Abuse::WindowUpdates)
            }
            Kind::PRIORITY | Kind::PRIORITY_UPDATE => {
                add(&mut counts.priorities, budgets.priorities, Abuse::Priorities)
            }
            _ => add(&mut counts.unknown, budgets.unknown, Abuse::Unknown),
        }
    }

    /// A frame of ours: what it gives the peer reason for, or what the peer gave us reason for.
    fn credit(&mut self, frame: Frame) {
        let counts = &mut self.counts;
        match frame.kind {
            Kind::DATA => {
                counts.pings = counts.pings.saturating_sub(1);
                counts.window_updates = counts.window_updates.saturating_sub(UPDATES_PER_DATA);
            }
            Kind::HEADERS => counts.heads = counts.heads.saturating_sub(HEADS_PER_HEAD),
            Kind::RST_STREAM if is_fault_of_peer(frame.code) => {
                let over = add(&mut counts.resets_emitted, self.budgets.resets_emitted, Abuse::ResetsEmitted);
                self.abuse = self.abuse.or(over.err());
            }
            _ => {}
        }
    }
}

fn add(count: &mut u32, budget: u32, abuse: Abuse) -> Result<(), Abuse> {
    *count = count.saturating_add(1);
    if *count > budget { Err(abuse) } else { Ok(()) }
}

/// Whether we reset for what the peer did: not because all was said, nor for a failure of ours or of the other side.
const fn is_fault_of_peer(code: u32) -> bool {
    const NO_ERROR: u32 = 0x0;
    const INTERNAL_ERROR: u32 = 0x2;
    const CANCEL: u32 = 0x8;
    const CONNECT_ERROR: u32 = 0xa;
    !matches!(code, NO_ERROR | INTERNAL_ERROR | CANCEL | CONNECT_ERROR)
}

/// Bytes of `PRI * HTTP/2.0 CRLF CRLF SM CRLF CRLF`.
const PREFACE_BYTES: u32 = 24;
const HEADER_BYTES: usize = 9;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const ACK: u8 = 0x1;

/// Kinds of frames. Source: RFC 9113, 6, and RFC 9218, 7.1.
struct Kind;

impl Kind {
    const DATA: u8 = 0x0;
    const HEADERS: u8 = 0x1;
    const PRIORITY: u8 = 0x2;
    const RST_STREAM: u8 = 0x3;
    const SETTINGS: u8 = 0x4;
    const PUSH_PROMISE: u8 = 0x5;
    const PING: u8 = 0x6;
    const GOAWAY: u8 = 0x7;
    const WINDOW_UPDATE: u8 = 0x8;
    const CONTINUATION: u8 = 0x9;
    const PRIORITY_UPDATE: u8 = 0x10;
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    len: u32,
    /// Nothing but padding; only told of DATA.
    is_empty: bool,
    /// Only told of RST_STREAM.
    code: u32,
}

impl Frame {
    /// Source: RFC 9113, 6.3 to 6.9.
    const fn has_wrong_length(&self) -> bool {
        match self.kind {
            Kind::PRIORITY => self.len != 5,
            Kind::RST_STREAM | Kind::WINDOW_UPDATE => self.len != 4,
            Kind::SETTINGS => !self.len.is_multiple_of(6) || (self.flags & ACK != 0 && self.len > 0),
            Kind::PING => self.len != 8,
            Kind::GOAWAY => self.len < 8,
            _ => false,
        }
    }
}

/// Finds frames in a stream of bytes.
#[derive(Clone, Copy, Debug)]
struct Scanner {
    /// Bytes that are passed over: a preface, or what is left of a payload.
    skip: u32,
    /// The header of a frame, and behind it what more is needed of it.
    head: [u8; HEADER_BYTES + 4],
    have: u8,
}

impl Scanner {
    const fn new(skip: u32) -> Self {
        Self { skip, head: [0; HEADER_BYTES + 4], have: 0 }
    }

    /// The next frame whose beginning is there; takes what it has read from `bytes`, all of them where it finds none.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            *bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip -= skipped as u32;
            if self.skip > 0 || bytes.is_empty() {
                return None;
            }
            let have = usize::from(self.have);
            let missing = self.wanted().saturating_sub(have).min(bytes.len());
            let (taken, rest) = bytes.split_at_checked(missing)?;
            self.head.get_mut(have..have + missing)?.copy_from_slice(taken);
            *bytes = rest;
            self.have += missing as u8;
            if usize::from(self.have) >= HEADER_BYTES && usize::from(self.have) == self.wanted() {
                let frame = self.frame();
                self.skip = frame.len - u32::from(self.have - HEADER_BYTES as u8);
                (self.head, self.have) = ([0; HEADER_BYTES + 4], 0);
                return Some(frame);
            }
        }
    }

    /// Bytes of `head` that tell all of this frame, as far as it is known.
    fn wanted(&self) -> usize {
        if usize::from(self.have) < HEADER_BYTES {
            return HEADER_BYTES;
        }
        let [_, _, _, kind, flags, ..] = self.head;
        let of_payload = match kind {
            Kind::DATA if flags & PADDED != 0 => 1,
            Kind::RST_STREAM => 4,
            _ => 0,
        };
        HEADER_BYTES + of_payload.min(self.len()) as usize
    }

    fn len(&self) -> u32 {
        let [a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c])
    }

    fn frame(&self) -> Frame {
        let [_, _, _, kind, flags, _, _, _, _, first, second, third, fourth] = self.head;
        let len = self.len();
        let padding = if flags & PADDED != 0 { 1 + u32::from(first) } else { 0 };
        let code = u32::from_be_bytes([first, second, third, fourth]);
        Frame { kind, flags, len, is_empty: len <= padding, code }
    }
}

#[cfg(test)]
mod tests;
