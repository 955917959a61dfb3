//! What the caller sends.

use super::{Connection, Gone};
use crate::{
    events::Events,
    frame::{self, HEAD_BYTES, NUMBER_MAX, flag, kind},
    hpack::{Encoder, FieldWriter, Request},
    streams::{Slot, Stream, Want, Way},
};

/// What a stream is expected to send when its turn has come.
const TURN_BYTES: i32 = 16 << 10;

/// Why a request cannot be begun on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many go on as the server takes at once.
    Full,
    /// Nothing more is taken: one side has ended it, or all numbers were used.
    Over,
}

impl Connection {
    /// Whether a request can be begun: of a client alone.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn can_ask(&self) -> Result<(), Refusal> {
        let is_over = self.is_server
            || self.fault.is_some()
            || self.has_ended()
            || self.looked_at.is_some()
            || self.opened > NUMBER_MAX - 2;
        if is_over {
            Err(Refusal::Over)
        } else if self.streams.active() >= self.granted.streams_max {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Begins a request, whose fields are what `write` writes.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was written.
    pub fn send_request(
        &mut self,
        request: &Request<'_>,
        ends: bool,
        write: impl FnOnce(&mut FieldWriter<'_>),
    ) -> Result<Stream, Refusal> {
        self.can_ask()?;
        let id = if self.opened == 0 { 1 } else { self.opened + 2 };
        (self.opened, self.taken) = (id, 0);
        let send = if ends { Way::Ended } else { Way::Body };
        let mut slot = Slot::new(Way::Head, send, self.granted.stream_window as i32, self.stream_window);
        slot.was_head = request.method == b"HEAD";
        slot.is_tunnel = request.method == b"CONNECT";
        let stream = self.streams.insert(id, slot);
        self.put_block(id, ends, |encoder, out| encoder.request(request, out), write);
        Ok(stream)
    }

    /// Sends the head of a response, whose fields are what `write` writes: interim ones, with a status below 200, and a last
    /// one. `ends`: nothing follows; never of an interim one.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn send_response(
        &mut self,
        stream: Stream,
        status: u16,
        ends: bool,
        write: impl FnOnce(&mut FieldWriter<'_>),
    ) -> Result<(), Gone> {
        let slot = self.sending(stream, Way::Head)?;
        let ends = ends && status >= 200;
        if status >= 200 {
            slot.send = if ends { Way::Ended } else { Way::Body };
        }
        self.put_block(stream.id(), ends, |encoder, out| encoder.status(status, out), write);
        self.settle(stream);
        Ok(())
    }

    /// Sends trailers, which end what goes on the stream.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn send_trailers(
        &mut self,
        stream: Stream,
        write: impl FnOnce(&mut FieldWriter<'_>),
    ) -> Result<(), Gone> {
        let slot = self.sending(stream, Way::Body)?;
        (slot.send, slot.want) = (Way::Ended, Want::Nothing);
        self.put_block(stream.id(), true, |_, _| {}, write);
        self.settle(stream);
        Ok(())
    }

    fn sending(&mut self, stream: Stream, way: Way) -> Result<&mut Slot, Gone> {
        if self.fault.is_some() {
            return Err(Gone);
        }
        self.streams.get_mut(stream).filter(|slot| slot.send == way).ok_or(Gone)
    }

    /// Writes a header block where it belongs, in as many frames as the peer wants.
    fn put_block(
        &mut self,
        id: u32,
        ends: bool,
        first: impl FnOnce(&mut Encoder, &mut Vec<u8>),
        write: impl FnOnce(&mut FieldWriter<'_>),
    ) {
        self.meter.credit_head();
        let out = self.out.buffer();
        let start = out.len();
        let flags = Self::end_flag(ends);
        frame::put_head(out, 0, kind::HEADERS, flags | flag::END_HEADERS, id);
        self.encoder.begin(out);
        first(&mut self.encoder, out);
        write(&mut FieldWriter::new(&mut self.encoder, out));
        let len = out.len() - start - HEAD_BYTES;
        let len_max = self.granted.payload_bytes_max as usize;
        if len > len_max {
            let block = out.split_off(start + HEAD_BYTES);
            out.truncate(start);
            split_block(out, &block, len_max, flags, id);
        } else if let Some(place) = out.get_mut(start..start + 3) {
            place.copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        }
    }

    /// Sends as much of `data` as the windows let, and as there is room for. Of less than all the stream hears by
    /// [`Events::window`] when it is worth trying again. `ends`: nothing follows `data`; true of what was sent whole.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn send_data(&mut self, stream: Stream, data: &[u8], ends: bool) -> Result<usize, Gone> {
        let len = self.take_room(stream, data.len())?;
        let ends = ends && len == data.len();
        if ends && let Some(slot) = self.streams.get_mut(stream) {
            slot.send = Way::Ended;
        }
        let payload_max = self.granted.payload_bytes_max as usize;
        let out = self.out.buffer();
        let mut rest = data.get(..len).unwrap_or_default();
        while !rest.is_empty() || ends {
            let (payload, more) = rest.split_at(rest.len().min(payload_max));
            let is_last = more.is_empty();
            frame::put_head(out, payload.len(), kind::DATA, Self::end_flag(ends && is_last), stream.id());
            out.extend_from_slice(payload);
            self.meter.credit_data();
            rest = more;
            if is_last {
                break;
            }
        }
        self.settle(stream);
        Ok(len)
    }

    /// As many of `wanted` bytes as may go. Of fewer, the stream waits for more.
    fn take_room(&mut self, stream: Stream, wanted: usize) -> Result<usize, Gone> {
        let most = self.out.room().min(self.send_window.max(0) as usize);
        let slot = self.sending(stream, Way::Body)?;
        let len = wanted.min(most).min(slot.send_window.max(0) as usize);
        slot.send_window -= len as i32;
        slot.want = match len {
            len if len == wanted => Want::Nothing,
            _ if slot.send_window <= 0 => Want::Window,
            _ => Want::Turn,
        };
        if slot.want == Want::Turn && !std::mem::replace(&mut slot.is_queued, true) {
            self.stand_in_line(stream);
        }
        self.send_window -= len as i32;
        Ok(len)
    }

    fn stand_in_line(&mut self, stream: Stream) {
        // Those that were reset while they waited are not waited for.
        if self.queue.len() > 64 + 2 * self.streams.active() as usize {
            let streams = &self.streams;
            self.queue.retain(|stream| streams.get(*stream).is_some());
        }
        self.queue.push_back(stream);
    }

    /// Bytes that [`Connection::send_data`] would take of a stream.
    pub fn capacity(&self, stream: Stream) -> usize {
        let Some(slot) = self.streams.get(stream).filter(|slot| slot.send == Way::Body) else { return 0 };
        (slot.send_window.min(self.send_window).max(0) as usize).min(self.out.room())
    }

    /// Tells streams that wait for their turn that it has come: to be called when what was pending has gone. As many are told
    /// as will use what there is, so that a peer who opens windows by single bytes wakes one and not all.
    pub fn resume(&mut self, events: &mut impl Events) {
        let mut left = self.out.room().min(self.send_window.max(0) as usize);
        while left > 0
            && let Some(stream) = self.queue.pop_front()
        {
            // Those that do not get all they want stand in line again, behind the others.
            let Some(slot) = self.streams.get_mut(stream) else { continue };
            slot.is_queued = false;
            if slot.want == Want::Turn {
                slot.want = Want::Nothing;
                left -= left.min(slot.send_window.clamp(1, TURN_BYTES) as usize);
                events.window(stream);
            }
        }
    }
}

/// Source: RFC 9113, 6.10.
fn split_block(out: &mut Vec<u8>, block: &[u8], len_max: usize, flags: u8, id: u32) {
    let mut parts = block.chunks(len_max).peekable();
    let (mut kind, mut flags) = (kind::HEADERS, flags);
    while let Some(part) = parts.next() {
        flags |= if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
        frame::put_head(out, part.len(), kind, flags, id);
        out.extend_from_slice(part);
        (kind, flags) = (kind::CONTINUATION, 0);
    }
}
