//! Frames of the connection, and those that say something of a stream. Source: RFC 9113, 6.3 to 6.9.

use super::Connection;
use crate::{
    code::Code,
    events::{By, Events},
    fault::Fault,
    field::Flaw,
    frame::{self, FrameHead, NUMBER_MAX, flag, kind},
    settings::WINDOW_AT_FIRST,
    streams::{Closed, Want},
};

impl Connection {
    pub(super) fn handle_window_update(
        &mut self,
        head: FrameHead,
        number: u32,
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        let by = (number & NUMBER_MAX) as i32;
        if head.stream == 0 {
            if by == 0 {
                return Err(Fault::WindowUpdate);
            }
            self.send_window = self.send_window.checked_add(by).ok_or(Fault::Window)?;
            self.resume(events);
            return Ok(());
        }
        let Some(stream) = self.streams.find(head.stream) else {
            // It may have crossed with the end (RFC 9113, 5.1).
            return if self.is_idle_stream(head.stream) { Err(Fault::IdleStream) } else { Ok(()) };
        };
        let Some(slot) = self.streams.get_mut(stream) else { return Ok(()) };
        let flaw = match slot.send_window.checked_add(by) {
            _ if by == 0 => Flaw::WindowUpdate,
            None => Flaw::WindowOverflow,
            Some(window) => {
                slot.send_window = window;
                if slot.want == Want::Window && window > 0 {
                    slot.want = Want::Nothing;
                    events.window(stream);
                }
                return Ok(());
            }
        };
        self.reset_flawed(stream, flaw, events)
    }

    pub(super) fn handle_reset(
        &mut self,
        head: FrameHead,
        number: u32,
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        let Some(stream) = self.streams.find(head.stream) else {
            return if self.is_idle_stream(head.stream) { Err(Fault::IdleStream) } else { Ok(()) };
        };
        // Where both have said their end there is nothing to give up; what has come of it stays.
        if self.streams.get(stream).is_some_and(|slot| slot.is_active) {
            self.close(stream, Closed::ByPeer);
            events.reset(stream, Code(number), By::Peer);
            // It may have been its turn.
            self.resume(events);
        }
        Ok(())
    }

    pub(super) fn handle_bad_priority(
        &mut self,
        head: FrameHead,
        events: &mut impl Events,
    ) -> Result<(), Fault> {
        match self.streams.find(head.stream) {
            Some(stream) => self.reset_flawed(stream, Flaw::FrameSize, events),
            // No stream is there that could be reset.
            None => Err(Fault::FrameSize),
        }
    }

    pub(super) fn handle_settings(&mut self, payload: &[u8], events: &mut impl Events) -> Result<(), Fault> {
        let before = self.granted.stream_window as i32;
        self.granted.take(payload, self.is_server)?;
        self.has_settings = true;
        self.encoder.resize(self.granted.table_bytes_max as usize);
        // Neither is negative.
        let by = self.granted.stream_window as i32 - before;
        for (stream, slot) in self.streams.iter_mut().filter(|_| by != 0) {
            slot.send_window = slot.send_window.checked_add(by).ok_or(Fault::Window)?;
            if slot.want == Want::Window && slot.send_window > 0 {
                slot.want = Want::Nothing;
                events.window(stream);
            }
        }
        frame::put_head(self.out.buffer(), 0, kind::SETTINGS, flag::ACK, 0);
        events.settings();
        Ok(())
    }

    /// From now on what we said holds (RFC 9113, 6.5.3). It is said once.
    pub(super) fn handle_acknowledged(&mut self) {
        if std::mem::replace(&mut self.is_acknowledged, true) {
            return;
        }
        self.decoder.limit(self.settings.table_bytes_max as usize);
        self.stream_window = self.settings.stream_window.min(NUMBER_MAX) as i32;
        let by = self.stream_window - WINDOW_AT_FIRST as i32;
        for (_, slot) in self.streams.iter_mut() {
            slot.receive_window = slot.receive_window.saturating_add(by);
        }
    }

    pub(super) fn handle_ping(&mut self, head: FrameHead, payload: &[u8]) {
        if head.has(flag::ACK) {
            self.handle_pong(payload);
            return;
        }
        let out = self.out.buffer();
        frame::put_head(out, payload.len(), kind::PING, flag::ACK, 0);
        out.extend_from_slice(payload);
    }

    pub(super) fn handle_goaway(&mut self, payload: &[u8], events: &mut impl Events) {
        let last = frame::number(payload) & NUMBER_MAX;
        let code = Code(frame::number(payload.get(4..).unwrap_or_default()));
        // It may be said again, of fewer.
        let last = self.looked_at.map_or(last, |before| before.min(last));
        self.looked_at = Some(last);
        if !self.is_server {
            while let Some(stream) = self.streams.find_active_beyond(last) {
                self.close(stream, Closed::ByUs);
                events.reset(stream, code, By::Unseen);
            }
        }
        events.goaway(last, code);
    }
}
