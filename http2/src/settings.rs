//! What either side says of itself. Source: RFC 9113, 6.5, and RFC 8441, 3.

use crate::{
    fault::Fault,
    frame::{self, NUMBER_MAX, PAYLOAD_BYTES_MIN, kind},
    meter::Budgets,
};

/// A window before anything was said of it (RFC 9113, 6.9.2).
pub(crate) const WINDOW_AT_FIRST: u32 = 65_535;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What we grant.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Streams that a client may have at once.
    pub streams_max: u32,
    /// What one stream may send ahead of its reader.
    pub stream_window: u32,
    /// What a connection may; never less than 65535.
    pub connection_window: u32,
    /// Of a head: names, values, and 32 bytes for each field (RFC 9113, 6.5.2).
    pub head_bytes_max: u32,
    /// Fields of a head, crumbs of cookies counted each, pseudo header fields too.
    pub head_fields_max: u32,
    /// What of the peer's heads is remembered; memory that a connection holds while nothing goes on.
    pub table_bytes_max: u32,
    /// What may wait to be sent; beyond it no DATA is taken.
    pub out_bytes_max: usize,
    /// Whether clients may ask for tunnels of other protocols (RFC 8441).
    pub allows_protocols: bool,
    /// What is too much.
    pub budgets: Budgets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            head_bytes_max: 64 << 10,
            head_fields_max: 132,
            table_bytes_max: 4096,
            out_bytes_max: 64 << 10,
            allows_protocols: true,
            budgets: Budgets::default(),
        }
    }
}

impl Settings {
    /// The largest payload that we take; larger ones would only be kept longer.
    pub(crate) const PAYLOAD_BYTES_MAX: u32 = PAYLOAD_BYTES_MIN;

    /// Appends what we say first: SETTINGS, and WINDOW_UPDATE where the connection's window is larger than at first.
    pub(crate) fn put(&self, is_server: bool, out: &mut Vec<u8>) {
        let mut payload = [0; 6 * 5];
        let mut len = 0;
        let mut put = |id: u16, value: u32| {
            if let Some(place) = payload.get_mut(len..len + 6) {
                place[..2].copy_from_slice(&id.to_be_bytes());
                place[2..].copy_from_slice(&value.to_be_bytes());
                len += 6;
            }
        };
        if self.table_bytes_max != 4096 {
            put(HEADER_TABLE_SIZE, self.table_bytes_max);
        }
        if is_server {
            put(MAX_CONCURRENT_STREAMS, self.streams_max);
        } else {
            put(ENABLE_PUSH, 0);
        }
        put(INITIAL_WINDOW_SIZE, self.stream_window.min(NUMBER_MAX));
        put(MAX_HEADER_LIST_SIZE, self.head_bytes_max);
        if is_server && self.allows_protocols {
            put(ENABLE_CONNECT_PROTOCOL, 1);
        }
        frame::put_head(out, len, kind::SETTINGS, 0, 0);
        out.extend_from_slice(payload.get(..len).unwrap_or_default());
        let more = self.connection_window.min(NUMBER_MAX).saturating_sub(WINDOW_AT_FIRST);
        if more > 0 {
            frame::put_number(out, kind::WINDOW_UPDATE, 0, more);
        }
    }
}

/// What the peer grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) table_bytes_max: u32,
    pub(crate) streams_max: u32,
    pub(crate) stream_window: u32,
    pub(crate) payload_bytes_max: u32,
    pub(crate) allows_protocols: bool,
}

impl Granted {
    /// Before anything was said.
    pub(crate) const AT_FIRST: Self = Self {
        table_bytes_max: 4096,
        streams_max: u32::MAX,
        stream_window: WINDOW_AT_FIRST,
        payload_bytes_max: PAYLOAD_BYTES_MIN,
        allows_protocols: false,
    };

    /// Takes what SETTINGS say; what is not known is passed over.
    ///
    /// # Errors
    /// [`Fault::Settings`], [`Fault::Window`]: a value that the setting cannot have.
    pub(crate) fn take(&mut self, payload: &[u8], is_server: bool) -> Result<(), Fault> {
        for &[i0, i1, v0, v1, v2, v3] in payload.as_chunks().0 {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                HEADER_TABLE_SIZE => self.table_bytes_max = value,
                // Servers have nothing that could be pushed to them (RFC 9113, 6.5.2).
                ENABLE_PUSH if value > u32::from(is_server) => return Err(Fault::Settings),
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE if value > NUMBER_MAX => return Err(Fault::Window),
                INITIAL_WINDOW_SIZE => self.stream_window = value,
                MAX_FRAME_SIZE if !(PAYLOAD_BYTES_MIN..1 << 24).contains(&value) => {
                    return Err(Fault::Settings);
                }
                MAX_FRAME_SIZE => self.payload_bytes_max = value,
                // Once allowed it stays so (RFC 8441, 3).
                ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.allows_protocols) => {
                    return Err(Fault::Settings);
                }
                ENABLE_CONNECT_PROTOCOL => self.allows_protocols = value == 1,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_can_be_said() {
        for is_server in [true, false] {
            let settings = Settings { table_bytes_max: 0, ..Settings::default() };
            let mut out = Vec::new();
            settings.put(is_server, &mut out);
            let (said, update) = out.split_at(out.len() - 13);
            let mut granted = Granted::AT_FIRST;
            granted.take(&said[9..], !is_server).unwrap();
            assert_eq!((granted.table_bytes_max, granted.stream_window), (0, 256 << 10));
            assert_eq!(granted.allows_protocols, is_server);
            assert_eq!(granted.streams_max, if is_server { 100 } else { u32::MAX });
            assert_eq!(frame::number(&update[9..]), (1 << 20) - WINDOW_AT_FIRST);
        }
    }

    #[test]
    fn values_that_are_none() {
        let take = |granted: &mut Granted, id: u16, value: u32, is_server| {
            granted.take(&[&id.to_be_bytes()[..], &value.to_be_bytes()].concat(), is_server)
        };
        for (id, value, is_server, expected) in [
            (2, 2, true, Err(Fault::Settings)),
            (2, 1, true, Ok(())),
            (2, 1, false, Err(Fault::Settings)),
            (4, 1 << 31, true, Err(Fault::Window)),
            (4, NUMBER_MAX, true, Ok(())),
            (5, 16_383, true, Err(Fault::Settings)),
            (5, 1 << 24, true, Err(Fault::Settings)),
            (5, (1 << 24) - 1, true, Ok(())),
            (8, 2, false, Err(Fault::Settings)),
            (8, 0, false, Ok(())),
            (0x7777, u32::MAX, true, Ok(())),
        ] {
            let got = take(&mut { Granted::AT_FIRST }, id, value, is_server);
            assert_eq!(got, expected, "{id}: {value}");
        }
        let mut granted = Granted::AT_FIRST;
        assert_eq!(take(&mut granted, 8, 1, false), Ok(()));
        assert_eq!(take(&mut granted, 8, 0, false), Err(Fault::Settings));
    }
}
