//! Bytes into frames, however they are cut.

use std::time::Instant;

use super::Connection;
use crate::{
    events::Events,
    fault::Fault,
    frame::{self, FrameHead, HEAD_BYTES, NUMBER_MAX, PREFACE, flag, kind},
    settings::{Settings, WINDOW_AT_FIRST},
    streams::Stream,
};

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// A client's preface, of which so much has come.
    Preface { matched: u8 },
    /// A frame's header.
    Head,
    /// A payload that has to be there whole.
    Payload(FrameHead),
    /// How much padding DATA has.
    Padding(FrameHead),
    /// DATA, as it comes.
    Data(Data),
    /// What nobody needs.
    Skip(u32),
}

/// DATA that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// `None`: it is passed over.
    pub(super) stream: Option<Stream>,
    /// Bytes that are still to come, and those of padding behind them.
    pub(super) left: u32,
    pub(super) padding: u32,
    /// It ends its stream.
    pub(super) ends: bool,
}

impl Connection {
    /// Takes what has come, all of it, and says what comes of it.
    ///
    /// # Errors
    /// The connection cannot go on: what is pending, GOAWAY being the last of it, should be sent, and the wire closed.
    pub fn receive(&mut self, bytes: &[u8], now: Instant, events: &mut impl Events) -> Result<(), Fault> {
        self.meter.decay(now);
        let mut rest = bytes;
        while self.fault.is_none() {
            match self.step(&mut rest, events) {
                Ok(true) => {}
                Ok(false) => {
                    self.check_invariants();
                    return Ok(());
                }
                Err(fault) => self.fail(fault),
            }
        }
        self.fault.map_or(Ok(()), Err)
    }

    /// What holds between any two calls.
    pub(super) fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.fault.is_none() {
            let active = self.streams.iter().filter(|slot| slot.is_active).count();
            assert_eq!(active, self.streams(), "streams are counted");
            let held: i64 = self.streams.iter().map(|slot| i64::from(slot.held)).sum();
            let all = held + i64::from(self.receive_window) + i64::from(self.untold);
            let granted = self.settings.connection_window.clamp(WINDOW_AT_FIRST, NUMBER_MAX);
            assert_eq!(all, i64::from(granted), "each byte may be sent, is held, or was released");
            assert!(self.streams.iter().all(|slot| slot.held > 0 || slot.is_active), "the rest is forgotten");
        }
    }

    /// Takes one part of a frame; whether there was enough for it.
    #[inline]
    fn step(&mut self, rest: &mut &[u8], events: &mut impl Events) -> Result<bool, Fault> {
        match self.reading {
            Reading::Preface { matched } => self.take_preface(rest, matched),
            Reading::Head => {
                let Some(head) = self.take_head(rest) else { return Ok(false) };
                self.begin(head)?;
                Ok(true)
            }
            Reading::Payload(head) => self.take_payload(rest, head, events),
            Reading::Padding(head) => {
                let Some((&padding, more)) = rest.split_first() else { return Ok(false) };
                *rest = more;
                self.begin_data(head, Some(padding), events)?;
                Ok(true)
            }
            Reading::Data(data) => Ok(self.take_data(rest, data, events)),
            Reading::Skip(left) => {
                let len = rest.len().min(left as usize);
                *rest = rest.get(len..).unwrap_or_default();
                let left = left - len as u32;
                self.reading = if left == 0 { Reading::Head } else { Reading::Skip(left) };
                Ok(left == 0)
            }
        }
    }

    fn take_preface(&mut self, rest: &mut &[u8], matched: u8) -> Result<bool, Fault> {
        let expected = PREFACE.get(usize::from(matched)..).unwrap_or_default();
        let len = expected.len().min(rest.len());
        let (came, more) = rest.split_at(len);
        if !expected.starts_with(came) {
            return Err(Fault::Preface);
        }
        *rest = more;
        let is_whole = len == expected.len();
        self.reading =
            if is_whole { Reading::Head } else { Reading::Preface { matched: matched + len as u8 } };
        Ok(is_whole)
    }

    #[inline]
    fn take_head(&mut self, rest: &mut &[u8]) -> Option<FrameHead> {
        if self.partial.is_empty()
            && let Some((head, more)) = rest.split_first_chunk()
        {
            *rest = more;
            return Some(FrameHead::read(head));
        }
        if !fill(&mut self.partial, rest, HEAD_BYTES) {
            return None;
        }
        let head = self.partial.first_chunk().map(FrameHead::read);
        self.partial.clear();
        head
    }

    /// A frame's header is there: what is wrong with it, and how its payload is read.
    fn begin(&mut self, head: FrameHead) -> Result<(), Fault> {
        if head.len > Settings::PAYLOAD_BYTES_MAX || !head.has_sound_length() {
            return Err(Fault::FrameSize);
        }
        if !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::Preface);
        }
        match self.continued {
            None if head.kind != kind::CONTINUATION => {}
            Some((id, _)) if head.kind == kind::CONTINUATION && head.stream == id => {}
            _ => return Err(Fault::Continuation),
        }
        self.meter.count(head)?;
        let is_of_stream = match head.kind {
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION => Some(true),
            kind::SETTINGS | kind::PING | kind::GOAWAY | kind::PRIORITY_UPDATE => Some(false),
            _ => None,
        };
        if is_of_stream.is_some_and(|is_of_stream| is_of_stream != (head.stream != 0)) {
            return Err(Fault::StreamId);
        }
        self.reading = match head.kind {
            kind::PUSH_PROMISE => return Err(Fault::Promise),
            kind::DATA if head.has(flag::PADDED) && head.len == 0 => return Err(Fault::FrameSize),
            kind::DATA if head.has(flag::PADDED) => Reading::Padding(head),
            kind::DATA
            | kind::HEADERS
            | kind::PRIORITY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::WINDOW_UPDATE
            | kind::CONTINUATION => Reading::Payload(head),
            _ => Reading::Skip(head.len),
        };
        Ok(())
    }

    /// A payload that has to be there whole; of DATA nothing has to.
    #[inline]
    fn take_payload(
        &mut self,
        rest: &mut &[u8],
        head: FrameHead,
        events: &mut impl Events,
    ) -> Result<bool, Fault> {
        if head.kind == kind::DATA {
            self.begin_data(head, None, events)?;
            return Ok(true);
        }
        let len = head.len as usize;
        if self.partial.is_empty()
            && let Some((payload, more)) = rest.split_at_checked(len)
        {
            *rest = more;
            self.reading = Reading::Head;
            self.handle(head, payload, events)?;
            return Ok(true);
        }
        if !fill(&mut self.partial, rest, len) {
            return Ok(false);
        }
        let mut payload = std::mem::take(&mut self.partial);
        self.reading = Reading::Head;
        let handled = self.handle(head, &payload, events);
        payload.clear();
        self.partial = payload;
        handled.map(|()| true)
    }

    fn handle(&mut self, head: FrameHead, payload: &[u8], events: &mut impl Events) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => {
                let fragment = frame::fragment(head, payload).ok_or(Fault::Padding)?;
                self.handle_headers(head, fragment, events)
            }
            kind::CONTINUATION => self.handle_continuation(head, payload, events),
            kind::WINDOW_UPDATE => self.handle_window_update(head, frame::number(payload), events),
            kind::RST_STREAM => self.handle_reset(head, frame::number(payload), events),
            kind::SETTINGS if head.has(flag::ACK) => {
                self.handle_acknowledged();
                Ok(())
            }
            kind::SETTINGS => self.handle_settings(payload, events),
            kind::PING => {
                self.handle_ping(head, payload);
                Ok(())
            }
            kind::GOAWAY => {
                self.handle_goaway(payload, events);
                Ok(())
            }
            // What depends on what is of no matter to us, itself even (RFC 9113, 5.3.2); its length is (6.3).
            _ if head.len != 5 => self.handle_bad_priority(head, events),
            _ => Ok(()),
        }
    }
}

/// Fills up to `len`; whether that many are there.
fn fill(partial: &mut Vec<u8>, rest: &mut &[u8], len: usize) -> bool {
    let (came, more) = rest.split_at(rest.len().min(len - partial.len()));
    partial.extend_from_slice(came);
    *rest = more;
    partial.len() == len
}
