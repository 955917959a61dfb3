//! Ends: of streams, and of the connection. Source: RFC 9113, 5.4 and 6.8.

use super::{Connection, receive::Reading};
use crate::{
    code::Code,
    events::{By, Events},
    fault::Fault,
    field::Flaw,
    frame::{self, NUMBER_MAX, flag, kind},
    streams::{Closed, Stream, Way},
};

/// How far an end is that we have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was not.
    No,
    /// What is under way is still taken, until the answer to a PING.
    Said,
    /// Nothing more is taken.
    Over,
}

/// Of the PING that asks whether the peer has read of the end.
const PING: [u8; 8] = *b"the end?";

impl Connection {
    /// Takes nothing new, and finishes what was begun. GOAWAY is said twice: of all streams there can be, and, once the peer
    /// has read that, of those that were begun until then.
    pub fn shutdown(&mut self) {
        if self.ending != Ending::No || self.fault.is_some() {
            return;
        }
        if !self.is_server {
            self.finish_shutdown();
            return;
        }
        self.ending = Ending::Said;
        self.put_goaway(NUMBER_MAX, Code::NO_ERROR);
        let out = self.out.buffer();
        frame::put_head(out, PING.len(), kind::PING, 0, 0);
        out.extend_from_slice(&PING);
    }

    /// The same, and does not wait for the peer.
    pub fn finish_shutdown(&mut self) {
        if self.ending != Ending::Over && self.fault.is_none() {
            self.ending = Ending::Over;
            self.put_goaway(self.taken, Code::NO_ERROR);
        }
    }

    pub(super) fn handle_pong(&mut self, payload: &[u8]) {
        if self.ending == Ending::Said && payload == PING {
            self.finish_shutdown();
        }
    }

    /// Whether no new stream is taken.
    pub(super) fn has_ended(&self) -> bool {
        self.ending == Ending::Over
    }

    /// Whether we have said that it ends, and all that was begun is over: the wire can be closed once nothing is pending.
    pub fn is_over(&self) -> bool {
        self.fault.is_some() || (self.has_ended() && self.streams.active() == 0)
    }

    /// The highest stream that the peer looks at, once it has said that it takes nothing more.
    pub const fn looked_at(&self) -> Option<u32> {
        self.looked_at
    }

    fn put_goaway(&mut self, last: u32, code: Code) {
        let out = self.out.buffer();
        frame::put_head(out, 8, kind::GOAWAY, 0, 0);
        out.extend_from_slice(&last.to_be_bytes());
        out.extend_from_slice(&code.0.to_be_bytes());
    }

    /// The connection cannot go on.
    pub(super) fn fail(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.put_goaway(self.taken, fault.code());
            self.fault = Some(fault);
            self.reading = Reading::Head;
        }
    }

    /// Resets a stream for what the peer did.
    pub(super) fn reset_flawed(
        &mut self,
        stream: Stream,
        flaw: Flaw,
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        self.close(stream, Closed::ByUs);
        events.reset(stream, flaw.code(), By::Us(flaw));
        self.put_reset(stream.id(), flaw.code())
    }

    /// Resets a stream that the caller has never heard of, or no longer.
    pub(super) fn reset_unknown(&mut self, id: u32, code: Code) -> Result<(), Fault> {
        self.recent.push(id, Closed::ByUs);
        self.put_reset(id, code)
    }

    fn put_reset(&mut self, id: u32, code: Code) -> Result<(), Fault> {
        frame::put_number(self.out.buffer(), kind::RST_STREAM, id, code.0);
        Ok(self.meter.count_reset(code)?)
    }

    /// Gives a stream up, and all that has come of it. Where it has ended both ways it is only forgotten.
    pub fn send_reset(&mut self, stream: Stream, code: Code) {
        let Some(slot) = self.streams.get(stream) else { return };
        let is_active = slot.is_active;
        self.close(stream, Closed::ByUs);
        if is_active
            && self.fault.is_none()
            && let Err(fault) = self.put_reset(stream.id(), code)
        {
            self.fail(fault);
        }
        self.check_invariants();
    }

    /// Forgets a stream, whose bytes are released.
    pub(super) fn close(&mut self, stream: Stream, how: Closed) {
        if let Some(slot) = self.streams.remove(stream) {
            if slot.is_active {
                self.recent.push(stream.id(), how);
            }
            self.release_connection(slot.held);
        }
    }

    /// Forgets a stream that has ended both ways, once the caller holds nothing of it.
    pub(super) fn settle(&mut self, stream: Stream) {
        let Some(slot) = self.streams.get(stream) else { return };
        if slot.receive != Way::Ended || slot.send != Way::Ended {
            return;
        }
        let (is_active, is_held) = (slot.is_active, slot.held > 0);
        if is_active {
            self.recent.push(stream.id(), Closed::ByPeer);
            self.streams.deactivate(stream);
        }
        if !is_held {
            self.streams.remove(stream);
        }
    }

    /// The flag of a frame that ends its stream.
    pub(super) const fn end_flag(ends: bool) -> u8 {
        if ends { flag::END_STREAM } else { 0 }
    }
}
