//! DATA and its windows. Source: RFC 9113, 6.1 and 6.9.

use super::{
    Connection,
    receive::{Data, Reading},
};
use crate::{
    code::Code,
    events::Events,
    fault::Fault,
    field::Flaw,
    frame::{self, FrameHead, flag, kind},
    streams::{Closed, Stream, Way},
};

impl Connection {
    /// DATA begins, with so much padding.
    pub(super) fn begin_data(
        &mut self,
        head: FrameHead,
        padding: Option<u8>,
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        let padding_len = padding.map_or(0, u32::from);
        let around = padding_len + u32::from(padding.is_some());
        let len = head.len.checked_sub(around).ok_or(Fault::Padding)?;
        let ends = head.has(flag::END_STREAM);
        if len == 0 && !ends {
            self.meter.count_empty_data()?;
        }
        // Bounded by the largest frame.
        self.receive_window -= head.len as i32;
        if self.receive_window < 0 {
            return Err(Fault::Window);
        }
        let stream = self.admit_data(head, len, ends, events)?;
        // What nobody holds is released at once.
        match stream {
            Some(stream) => self.release_both(stream, around),
            None => self.release_connection(head.len),
        }
        self.reading = Reading::Data(Data { stream, left: len, padding: padding_len, ends });
        Ok(())
    }

    /// The stream whose DATA it is; `None`: it is passed over, and what is wrong with it has been dealt with.
    fn admit_data(
        &mut self,
        head: FrameHead,
        len: u32,
        ends: bool,
        events: &mut impl Events,
    ) -> Result<Option<Stream>, Fault> {
        let Some(stream) = self.streams.find(head.stream) else {
            return self.pass_over(head.stream).map(|()| None);
        };
        let Some(slot) = self.streams.get_mut(stream) else { return Ok(None) };
        slot.receive_window -= head.len as i32;
        let left = slot.left.map(|left| left.checked_sub(len.into()));
        let flaw = match (slot.receive, left) {
            (Way::Ended, _) => Flaw::Ended,
            (Way::Head, _) => Flaw::DataFirst,
            _ if slot.receive_window < 0 => Flaw::Window,
            (Way::Body, Some(None)) => Flaw::Length,
            (Way::Body, Some(Some(left))) if ends && left > 0 => Flaw::Length,
            (Way::Body, left) => {
                slot.left = left.flatten();
                slot.held += len;
                return Ok(Some(stream));
            }
        };
        self.reset_flawed(stream, flaw, events).map(|()| None)
    }

    /// A frame that only a stream may have that is open, on one that is not.
    pub(super) fn pass_over(&mut self, id: u32) -> Result<(), Fault> {
        if self.is_idle_stream(id) {
            return Err(Fault::IdleStream);
        }
        match self.recent.find(id) {
            Closed::ByUs => Ok(()),
            // Its client was told that nothing more is taken.
            _ if self.is_server && id > self.taken => Ok(()),
            Closed::ByPeer | Closed::Unknown => self.reset_unknown(id, Code::STREAM_CLOSED),
        }
    }

    /// Whether nobody has begun the stream (RFC 9113, 5.1).
    pub(super) const fn is_idle_stream(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.opened
    }

    /// Hands on what has come of DATA; whether that was the last of it.
    pub(super) fn take_data(&mut self, rest: &mut &[u8], mut data: Data, events: &mut impl Events) -> bool {
        let (piece, more) = rest.split_at(rest.len().min(data.left as usize));
        data.left -= piece.len() as u32;
        let padding = if data.left == 0 { more.len().min(data.padding as usize) } else { 0 };
        data.padding -= padding as u32;
        *rest = more.get(padding..).unwrap_or_default();
        let is_over = data.left == 0 && data.padding == 0;
        self.reading = if is_over { Reading::Head } else { Reading::Data(data) };
        // It may have been reset in between.
        if let Some(stream) = data.stream
            && let Some(slot) = self.streams.get_mut(stream)
        {
            let ends = is_over && data.ends;
            if ends {
                slot.receive = Way::Ended;
            }
            if ends || !piece.is_empty() {
                events.data(stream, piece, ends);
            }
            if ends {
                self.settle(stream);
            }
        }
        is_over
    }

    /// The caller is done with so many bytes of a stream, and the peer may send as many again.
    pub fn release(&mut self, stream: Stream, len: usize) {
        let Some(slot) = self.streams.get_mut(stream) else { return };
        let len = (len as u32).min(slot.held);
        slot.held -= len;
        self.release_both(stream, len);
        self.settle(stream);
        self.check_invariants();
    }

    /// Opens both windows by `len`. The peer is told by halves of a window.
    fn release_both(&mut self, stream: Stream, len: u32) {
        if self.fault.is_some() {
            return;
        }
        let limit = self.settings.stream_window / 2;
        if let Some(slot) = self.streams.get_mut(stream)
            && slot.receive == Way::Body
        {
            slot.untold += len;
            if slot.untold > 0 && slot.untold >= limit {
                let by = std::mem::take(&mut slot.untold);
                slot.receive_window += by as i32;
                frame::put_number(self.out.buffer(), kind::WINDOW_UPDATE, stream.id(), by);
            }
        }
        self.release_connection(len);
    }

    /// Opens the connection's window.
    pub(super) fn release_connection(&mut self, len: u32) {
        if self.fault.is_some() {
            return;
        }
        self.untold += len;
        if self.untold > 0 && self.untold >= self.settings.connection_window / 2 {
            let by = std::mem::take(&mut self.untold);
            self.receive_window += by as i32;
            frame::put_number(self.out.buffer(), kind::WINDOW_UPDATE, 0, by);
        }
    }
}
