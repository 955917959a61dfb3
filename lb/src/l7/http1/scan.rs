//! The strict reading of a head, byte by byte: the first byte that breaks a rule decides the answer, so the
//! answer is the same however the input is cut, and comes as soon as that byte does.

use super::HeadLimits;
use crate::{
    l7::headers::{is_tchar, is_value_byte},
    model::reason::CloseReason,
};

/// Why the scan ended before the end of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input ended.
    Partial,
    /// A rule was broken.
    Refused(CloseReason),
}

/// Length of a whole request head, from any empty line before it to the blank line after it.
pub(super) fn scan_request(buf: &[u8], limits: &HeadLimits) -> Result<usize, Stop> {
    bounded(buf, limits, |cursor| {
        request_line(cursor, limits)?;
        field_lines(cursor, limits)
    })
}

/// Length of a whole response head. Every refusal is [`CloseReason::BadResponse`].
pub(super) fn scan_response(buf: &[u8], limits: &HeadLimits) -> Result<usize, Stop> {
    let scanned = bounded(buf, limits, |cursor| {
        status_line(cursor)?;
        field_lines(cursor, limits)
    });
    scanned.map_err(|stop| match stop {
        Stop::Partial => Stop::Partial,
        Stop::Refused(_) => Stop::Refused(CloseReason::BadResponse),
    })
}

fn bounded(
    buf: &[u8],
    limits: &HeadLimits,
    scan: impl FnOnce(&mut Cursor<'_>) -> Result<(), Stop>,
) -> Result<usize, Stop> {
    let mut cursor = Cursor { buf: buf.get(..limits.bytes).unwrap_or(buf), at: 0 };
    match scan(&mut cursor) {
        Ok(()) => Ok(cursor.at),
        Err(Stop::Partial) if buf.len() >= limits.bytes => Err(Stop::Refused(CloseReason::HeadTooLarge)),
        Err(stop) => Err(stop),
    }
}

struct Cursor<'b> {
    buf: &'b [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.buf.get(self.at).copied().ok_or(Stop::Partial)
    }

    fn take(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, bytes: &[u8], otherwise: CloseReason) -> Result<(), Stop> {
        for &byte in bytes {
            if self.take()? != byte {
                return Err(Stop::Refused(otherwise));
            }
        }
        Ok(())
    }
}

fn request_line(cursor: &mut Cursor<'_>, limits: &HeadLimits) -> Result<(), Stop> {
    use CloseReason::{Http2Preface, Method, RequestLine, Target, TargetTooLong, Version};

    // One empty line is passed over, as RFC 9112, 2.2 asks; more than one is no slip any more.
    if cursor.peek()? == b'\r' {
        cursor.expect(b"\r\n", RequestLine)?;
    }
    let method = cursor.at;
    while is_tchar(cursor.peek()?) {
        cursor.at += 1;
        if cursor.at - method > limits.method {
            return Err(Stop::Refused(Method));
        }
    }
    let method = cursor.buf.get(method..cursor.at).unwrap_or_default();
    if method.is_empty() {
        return Err(Stop::Refused(RequestLine));
    }
    cursor.expect(b" ", RequestLine)?;

    let target = cursor.at;
    loop {
        match cursor.take()? {
            b' ' => break,
            b'\r' | b'\n' => return Err(Stop::Refused(RequestLine)),
            byte if !is_target_byte(byte) => return Err(Stop::Refused(Target)),
            _ if cursor.at - target > limits.target => return Err(Stop::Refused(TargetTooLong)),
            _ => {}
        }
    }
    let target = cursor.buf.get(target..cursor.at - 1).unwrap_or_default();
    if target.is_empty() {
        return Err(Stop::Refused(RequestLine));
    }

    cursor.expect(b"HTTP/", RequestLine)?;
    match [cursor.take()?, cursor.take()?, cursor.take()?] {
        [b'1', b'.', b'0' | b'1'] => {}
        [b'2', b'.', b'0'] if method == b"PRI" && target == b"*" => return Err(Stop::Refused(Http2Preface)),
        _ => return Err(Stop::Refused(Version)),
    }
    if cursor.peek()?.is_ascii_digit() {
        return Err(Stop::Refused(Version));
    }
    cursor.expect(b"\r\n", RequestLine)
}

/// Visible ASCII without `#`: a fragment never goes on the wire (RFC 9112, 3.2), and neither do raw octets
/// beyond ASCII (RFC 3986, 2).
#[inline]
pub(in crate::l7) const fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

fn status_line(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    use CloseReason::BadResponse;

    cursor.expect(b"HTTP/1.", BadResponse)?;
    if !matches!(cursor.take()?, b'0' | b'1') {
        return Err(Stop::Refused(BadResponse));
    }
    cursor.expect(b" ", BadResponse)?;
    // Classes beyond 5 do not exist (RFC 9110, 15).
    if !matches!(cursor.take()?, b'1'..=b'5') {
        return Err(Stop::Refused(BadResponse));
    }
    for _ in 0..2 {
        if !cursor.take()?.is_ascii_digit() {
            return Err(Stop::Refused(BadResponse));
        }
    }
    // Servers forget the space before an empty reason; nothing hangs on it.
    if cursor.peek()? == b'\r' {
        return cursor.expect(b"\r\n", BadResponse);
    }
    cursor.expect(b" ", BadResponse)?;
    value_line(cursor)
}

fn field_lines(cursor: &mut Cursor<'_>, limits: &HeadLimits) -> Result<(), Stop> {
    use CloseReason::{HeaderSyntax, TooManyFields};

    let mut fields = 0;
    while cursor.peek()? != b'\r' {
        if fields == limits.fields.min(HeadLimits::FIELDS_MAX) {
            return Err(Stop::Refused(TooManyFields));
        }
        fields += 1;
        let name = cursor.at;
        while is_tchar(cursor.peek()?) {
            cursor.at += 1;
        }
        if cursor.at == name {
            return Err(Stop::Refused(HeaderSyntax));
        }
        cursor.expect(b":", HeaderSyntax)?;
        value_line(cursor)?;
    }
    cursor.expect(b"\r\n", HeaderSyntax)
}

/// Value bytes up to and with CRLF.
fn value_line(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    while is_value_byte(cursor.peek()?) {
        cursor.at += 1;
    }
    cursor.expect(b"\r\n", CloseReason::HeaderSyntax)
}
