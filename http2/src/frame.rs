//! The nine bytes before each frame. Source: RFC 9113, 4.1.

/// Bytes of a frame's header.
pub(crate) const HEAD_BYTES: usize = 9;
/// The smallest that anybody may say is the largest payload (RFC 9113, 6.5.2).
pub(crate) const PAYLOAD_BYTES_MIN: u32 = 1 << 14;
/// What a client begins with (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window, and the largest stream (RFC 9113, 5.1.1 and 6.9.1).
pub(crate) const NUMBER_MAX: u32 = (1 << 31) - 1;

/// Kinds of frames. Source: RFC 9113, 6, and RFC 9218, 7.1.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
    pub(crate) const PRIORITY_UPDATE: u8 = 0x10;
}

/// Their flags.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of the payload.
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Without the bit that is reserved.
    pub(crate) stream: u32,
}

impl FrameHead {
    #[inline]
    pub(crate) fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            len: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & NUMBER_MAX,
        }
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Source: RFC 9113, 6.3 to 6.9. A PRIORITY of a wrong length concerns its stream alone.
    pub(crate) const fn has_sound_length(&self) -> bool {
        match self.kind {
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.len == 4,
            kind::SETTINGS => self.len.is_multiple_of(6) && (!self.has(flag::ACK) || self.len == 0),
            kind::PING => self.len == 8,
            kind::GOAWAY => self.len >= 8,
            _ => true,
        }
    }
}

/// Appends a frame's header.
#[inline]
pub(crate) fn put_head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    let [_, l0, l1, l2] = (len as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]);
}

/// Appends a frame of no more than a number.
pub(crate) fn put_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    put_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&number.to_be_bytes());
}

/// The number at the start of a payload that is long enough.
pub(crate) fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The header block in the payload of HEADERS: without padding, and what is said of priorities (RFC 9113, 6.2).
/// `None`: there is more padding than payload.
pub(crate) fn fragment(head: FrameHead, mut payload: &[u8]) -> Option<&[u8]> {
    let mut pad = 0;
    if head.has(flag::PADDED) {
        let (&len, rest) = payload.split_first()?;
        (pad, payload) = (usize::from(len), rest);
    }
    if head.has(flag::PRIORITY) {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(pad)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let mut out = Vec::new();
        put_head(&mut out, 0x01_0203, kind::PING, flag::ACK, 0x7fff_fffe);
        let mut bytes: [u8; HEAD_BYTES] = out.try_into().unwrap();
        bytes[5] |= 0x80;
        let head = FrameHead::read(&bytes);
        assert_eq!(head, FrameHead { len: 0x01_0203, kind: 6, flags: 1, stream: 0x7fff_fffe });
        assert!(!head.has_sound_length());
    }

    #[test]
    fn fragments() {
        let head = |flags| FrameHead { len: 0, kind: kind::HEADERS, flags, stream: 1 };
        for (flags, payload, expected) in [
            (0, &b"abc"[..], Some(&b"abc"[..])),
            (flag::PADDED, b"\x02abc", Some(b"a")),
            (flag::PADDED, b"\x03abc", Some(b"")),
            (flag::PADDED, b"\x04abc", None),
            (flag::PADDED, b"", None),
            (flag::PRIORITY, b"12345a", Some(b"a")),
            (flag::PRIORITY, b"1234", None),
            (flag::PRIORITY | flag::PADDED, b"\x0112345ab", Some(b"a")),
            (flag::PRIORITY | flag::PADDED, b"\x0212345a", None),
        ] {
            assert_eq!(fragment(head(flags), payload), expected, "{payload:?}");
        }
    }
}
