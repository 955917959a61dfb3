//! Header blocks: requests, responses, trailers. Source: RFC 9113, 6.2, 6.10 and 8.1.

use super::Connection;
use crate::{
    code::Code,
    events::Events,
    fault::Fault,
    field::Flaw,
    frame::{FrameHead, flag},
    head::{self, Head},
    streams::{Closed, Slot, Stream, Way},
};

/// A buffer for blocks that is empty keeps as much memory.
const KEPT_BYTES_MAX: usize = 16 << 10;

impl Connection {
    pub(super) fn handle_headers(
        &mut self,
        head: FrameHead,
        fragment: &[u8],
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.handle_block(head.stream, ends, fragment, events);
        }
        self.block.extend_from_slice(fragment);
        self.continued = Some((head.stream, ends));
        Ok(())
    }

    pub(super) fn handle_continuation(
        &mut self,
        head: FrameHead,
        fragment: &[u8],
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        self.block.extend_from_slice(fragment);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some((id, ends)) = self.continued.take() else { return Ok(()) };
        let mut block = std::mem::take(&mut self.block);
        let handled = self.handle_block(id, ends, &block, events);
        block.clear();
        block.shrink_to(KEPT_BYTES_MAX);
        self.block = block;
        handled
    }

    /// A whole block, which is read whatever becomes of it: the table depends on it.
    fn handle_block(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        self.fields.clear();
        self.decoder.decode(block, &mut self.fields)?;
        if let Some(stream) = self.streams.find(id) {
            return match self.streams.get(stream).map(|slot| slot.receive) {
                Some(Way::Head) => self.handle_response(stream, ends, events),
                Some(Way::Body) => self.handle_trailers(stream, ends, events),
                _ => self.reset_flawed(stream, Flaw::Ended, events),
            };
        }
        if self.is_server && id.is_multiple_of(2) {
            return Err(Fault::StreamId);
        }
        if self.is_idle_stream(id) {
            return if self.is_server {
                self.handle_request(id, ends, events)
            } else {
                Err(Fault::IdleStream)
            };
        }
        match self.recent.find(id) {
            Closed::ByUs => Ok(()),
            _ if self.is_server && id > self.taken => Ok(()),
            Closed::ByPeer => Err(Fault::ClosedStream),
            Closed::Unknown => Err(Fault::StreamId),
        }
    }

    fn handle_request(&mut self, id: u32, ends: bool, events: &mut impl Events) -> Result<(), Fault> {
        self.opened = id;
        if self.has_ended() {
            // Its client was told, and asks elsewhere (RFC 9113, 6.8).
            return Ok(());
        }
        self.taken = id;
        if self.streams.active() >= self.settings.streams_max {
            return self.reset_unknown(id, Code::REFUSED_STREAM);
        }
        let receive = if ends { Way::Ended } else { Way::Body };
        let mut slot = Slot::new(receive, Way::Head, self.granted.stream_window as i32, self.stream_window);
        if let Some(what) = self.fields.too_large() {
            let stream = self.streams.insert(id, slot);
            events.too_large(stream, what, ends);
            return Ok(());
        }
        match head::check_request(&self.fields, self.settings.allows_protocols, ends) {
            Ok(found) => {
                let head = Head::new(&self.fields, found);
                slot.is_tunnel = head.method() == b"CONNECT";
                slot.left = if slot.is_tunnel { None } else { head.content_length() };
                let stream = self.streams.insert(id, slot);
                events.head(stream, &head, ends);
                Ok(())
            }
            Err(flaw) => {
                events.rejected(id, flaw);
                self.reset_unknown(id, flaw.code())
            }
        }
    }

    fn handle_response(&mut self, stream: Stream, ends: bool, events: &mut impl Events) -> Result<(), Fault> {
        let Some(slot) = self.streams.get_mut(stream) else { return Ok(()) };
        let found = match self.fields.too_large() {
            Some(_) => Err(Flaw::TooLarge),
            None => head::check_response(&self.fields, slot.was_head, ends),
        };
        let head = match found {
            Ok(found) => Head::new(&self.fields, found),
            Err(flaw) => return self.reset_flawed(stream, flaw, events),
        };
        let status = head.status();
        if status >= 200 {
            slot.receive = if ends { Way::Ended } else { Way::Body };
            slot.left = match status {
                200..=299 if slot.is_tunnel => None,
                204 | 304 => Some(0),
                _ if slot.was_head => Some(0),
                _ => head.content_length(),
            };
        }
        events.head(stream, &head, ends);
        self.settle(stream);
        Ok(())
    }

    fn handle_trailers(&mut self, stream: Stream, ends: bool, events: &mut impl Events) -> Result<(), Fault> {
        let Some(slot) = self.streams.get_mut(stream) else { return Ok(()) };
        let found = match self.fields.too_large() {
            Some(_) => Err(Flaw::TooLarge),
            None if !ends => Err(Flaw::Order),
            None => head::check_trailers(&self.fields),
        };
        let is_whole = slot.left.is_none_or(|left| left == 0);
        match found {
            Ok(found) if is_whole => {
                slot.receive = Way::Ended;
                events.trailers(stream, &Head::new(&self.fields, found));
                self.settle(stream);
                Ok(())
            }
            Ok(_) => self.reset_flawed(stream, Flaw::Length, events),
            Err(flaw) => self.reset_flawed(stream, flaw, events),
        }
    }
}
