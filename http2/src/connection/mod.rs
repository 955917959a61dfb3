//! One connection, of either side.
//!
//! ```text
//!  bytes --> receive: frames --> control: SETTINGS, PING, windows, ends
//!               |                heads: blocks --> HPACK --> sound or not --> Events
//!               `--------------- data: as it comes ------------------------> Events
//!  calls --> send: heads, DATA, resets --> one buffer --> pending
//! ```

mod control;
mod data;
mod ends;
mod heads;
mod receive;
mod send;

use std::collections::VecDeque;

pub use self::send::Refusal;
use self::{ends::Ending, receive::Reading};
use crate::{
    code::Code,
    fault::Fault,
    fields::Fields,
    frame::{NUMBER_MAX, PREFACE},
    hpack::{Decoder, Encoder},
    meter::Meter,
    out::Out,
    settings::{Granted, Settings, WINDOW_AT_FIRST},
    streams::{Recent, Stream, Streams},
};

/// The connection, without its wire.
///
/// Whoever has it gives it what comes, by [`Connection::receive`], and sends what is [pending](Connection::pending).
#[derive(Debug)]
pub struct Connection {
    is_server: bool,
    settings: Settings,
    /// What the peer has said of itself, and whether it has.
    granted: Granted,
    has_settings: bool,
    /// The peer has taken note of what we said.
    is_acknowledged: bool,
    reading: Reading,
    /// What has come of a frame's header, or of a payload that has to be there whole.
    partial: Vec<u8>,
    /// The stream whose header block goes on with CONTINUATION, whether that ends it, and what of the block has come.
    continued: Option<(u32, bool)>,
    block: Vec<u8>,
    decoder: Decoder,
    encoder: Encoder,
    fields: Fields,
    streams: Streams,
    recent: Recent,
    /// The highest stream that was opened: a client's.
    opened: u32,
    /// The highest that was not passed over, because its client was told that nothing more is taken.
    taken: u32,
    /// What a stream may send at first; ours is another once the peer has acknowledged it.
    stream_window: i32,
    /// What all streams may send.
    send_window: i32,
    /// What the peer may send on all.
    receive_window: i32,
    /// Bytes that were released and that the peer was not told of.
    untold: u32,
    out: Out,
    /// Streams that wait for their turn to send.
    queue: VecDeque<Stream>,
    meter: Meter,
    ending: Ending,
    /// The highest stream that the peer looks at, once it has said that it takes nothing more.
    looked_at: Option<u32>,
    fault: Option<Fault>,
}

/// The stream has ended, in the way that was to be used, or its connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Connection {
    /// Of a server: the client's preface comes first. What the server says first is pending at once.
    pub fn server(settings: Settings) -> Self {
        Self::new(settings, true)
    }

    /// Of a client. What it says first is pending at once.
    pub fn client(settings: Settings) -> Self {
        Self::new(settings, false)
    }

    fn new(settings: Settings, is_server: bool) -> Self {
        let mut out = Out::new(settings.out_bytes_max);
        if !is_server {
            out.buffer().extend_from_slice(PREFACE);
        }
        settings.put(is_server, out.buffer());
        let receive_window = settings.connection_window.clamp(WINDOW_AT_FIRST, NUMBER_MAX) as i32;
        Self {
            is_server,
            granted: Granted::AT_FIRST,
            has_settings: false,
            is_acknowledged: false,
            reading: if is_server { Reading::Preface { matched: 0 } } else { Reading::Head },
            partial: Vec::new(),
            continued: None,
            block: Vec::new(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            fields: Fields::new(settings.head_bytes_max as usize, settings.head_fields_max as usize),
            streams: Streams::default(),
            recent: Recent::new(),
            opened: 0,
            taken: 0,
            stream_window: WINDOW_AT_FIRST as i32,
            send_window: WINDOW_AT_FIRST as i32,
            receive_window,
            untold: 0,
            out,
            queue: VecDeque::new(),
            meter: Meter::new(settings.budgets),
            ending: Ending::No,
            looked_at: None,
            fault: None,
            settings,
        }
    }

    /// Streams that go on.
    pub const fn streams(&self) -> usize {
        self.streams.active() as usize
    }

    /// Whether nothing goes on: no stream, no part of a frame, nothing to be sent.
    pub const fn is_idle(&self) -> bool {
        self.streams.is_empty()
            && matches!(self.reading, Reading::Head)
            && self.partial.is_empty()
            && self.out.is_empty()
    }

    /// Whether the peer has said what it grants; before, a client should not ask (RFC 9113, 3.4 lets it).
    pub const fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// Streams that the peer takes at once.
    pub const fn streams_max(&self) -> u32 {
        self.granted.streams_max
    }

    /// Whether a server may be asked for tunnels of other protocols (RFC 8441, 3).
    pub const fn allows_protocols(&self) -> bool {
        self.granted.allows_protocols
    }

    /// Why it cannot go on.
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether so much waits to be sent that nothing more should be received: what is answered to it has no other bound, for
    /// heads are sent whatever waits.
    pub const fn is_congested(&self) -> bool {
        self.out.room() == 0
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        self.out.pending()
    }

    /// So much of it was sent. Streams that wait for room hear of it by [`Connection::resume`].
    pub fn consume(&mut self, len: usize) {
        self.out.consume(len);
    }

    /// Takes all that is to be sent, for an empty buffer, which is used from now on.
    pub fn take_pending(&mut self, buffer: &mut Vec<u8>) {
        self.out.swap(buffer);
    }

    /// Gives back the memory that it has no use for while nothing goes on. What comes next allocates it again: this is for
    /// connections that have been idle for some time.
    pub fn trim(&mut self) {
        self.decoder.trim();
        self.encoder.trim();
        self.fields.trim();
        self.streams.trim();
        self.out.trim();
        for buffer in [&mut self.partial, &mut self.block] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Bytes that it has on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.decoder.heap_bytes()
            + self.encoder.heap_bytes()
            + self.fields.heap_bytes()
            + self.streams.heap_bytes()
            + self.out.heap_bytes()
            + self.partial.capacity()
            + self.block.capacity()
            + self.queue.capacity() * size_of::<Stream>()
    }

    /// Ends it at once: GOAWAY is written, and nothing more is read.
    pub fn abort(&mut self, code: Code) {
        self.fail(Fault::Ours(code));
    }
}
