//! What a field's name and value may be, and which fields mean something to HTTP/2 itself.

use crate::code::Code;

/// Names that mean something to HTTP/2, or to whoever turns its messages into others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// Any other.
    Other,
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `:protocol` (RFC 8441, 4)
    Protocol,
    /// A name with a colon that is none of these.
    OtherPseudo,
    /// `host`
    Host,
    /// `content-length`
    ContentLength,
    /// `cookie`
    Cookie,
    /// `set-cookie`
    SetCookie,
    /// `te`
    Te,
    /// `authorization` and `proxy-authorization`
    Authorization,
    /// `connection`, `keep-alive`, `proxy-connection`, `transfer-encoding` and `upgrade`: of a connection of HTTP/1
    /// (RFC 9113, 8.2.2).
    OfConnection,
}

impl Known {
    /// Of a name in lower case.
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"te" => Self::Te,
            b"host" => Self::Host,
            b"cookie" => Self::Cookie,
            b"set-cookie" => Self::SetCookie,
            b"content-length" => Self::ContentLength,
            b"authorization" | b"proxy-authorization" => Self::Authorization,
            b"connection" | b"upgrade" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" => {
                Self::OfConnection
            }
            b":path" => Self::Path,
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            b":authority" => Self::Authority,
            [b':', ..] => Self::OtherPseudo,
            _ => Self::Other,
        }
    }

    /// Whether the name begins with a colon.
    pub const fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::Scheme
                | Self::Authority
                | Self::Path
                | Self::Status
                | Self::Protocol
                | Self::OtherPseudo
        )
    }
}

/// What is wrong with a message, or with what comes on its stream: the stream is reset, the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flaw {
    /// A name is empty, not in lower case, or no token (RFC 9113, 8.2.1).
    Name,
    /// A value has bytes that none may have, or spaces at an end (RFC 9113, 8.2.1).
    Value,
    /// A field of a connection of HTTP/1 (RFC 9113, 8.2.2).
    OfConnection,
    /// `te` says more than `trailers` (RFC 9113, 8.2.2).
    Te,
    /// A pseudo header field that does not exist, or not in such a message (RFC 9113, 8.3).
    PseudoUnknown,
    /// One that stands twice.
    PseudoTwice,
    /// One behind a field.
    PseudoLate,
    /// One that should be there is not.
    PseudoMissing,
    /// `:method` is no token.
    Method,
    /// `:scheme` is none (RFC 3986, 3.1).
    Scheme,
    /// `:authority` is empty, has a user, or what no authority has; or nothing says which it is (RFC 9113, 8.3.1).
    Authority,
    /// `:path` has no slash, or what no target has (RFC 9113, 8.3.1).
    Path,
    /// `:status` is none (RFC 9113, 8.3.2 and 8.6).
    Status,
    /// `:protocol` is no token, or was not allowed (RFC 8441, 4).
    Protocol,
    /// `content-length` is none, or there are two.
    ContentLength,
    /// More or less came than `content-length` says (RFC 9113, 8.1.1).
    Length,
    /// Trailers that end nothing, or an interim head that does; a head where none belongs (RFC 9113, 8.1).
    Order,
    /// DATA before the head.
    DataFirst,
    /// A frame behind the end (RFC 9113, 5.1).
    Ended,
    /// More came than the window lets (RFC 9113, 6.9.1).
    Window,
    /// WINDOW_UPDATE by 0 (RFC 9113, 6.9).
    WindowUpdate,
    /// A window larger than there are (RFC 9113, 6.9.1).
    WindowOverflow,
    /// PRIORITY of another length than it has (RFC 9113, 6.3).
    FrameSize,
    /// More fields, or larger ones, than were allowed, where nothing can be answered.
    TooLarge,
}

impl Flaw {
    /// What the peer is told.
    pub const fn code(self) -> Code {
        match self {
            Self::Ended => Code::STREAM_CLOSED,
            Self::Window | Self::WindowOverflow => Code::FLOW_CONTROL_ERROR,
            Self::FrameSize => Code::FRAME_SIZE_ERROR,
            _ => Code::PROTOCOL_ERROR,
        }
    }

    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "field-name",
            Self::Value => "field-value",
            Self::OfConnection => "connection-field",
            Self::Te => "te",
            Self::PseudoUnknown => "pseudo-unknown",
            Self::PseudoTwice => "pseudo-twice",
            Self::PseudoLate => "pseudo-late",
            Self::PseudoMissing => "pseudo-missing",
            Self::Method => "method",
            Self::Scheme => "scheme",
            Self::Authority => "authority",
            Self::Path => "path",
            Self::Status => "status",
            Self::Protocol => "protocol",
            Self::ContentLength => "content-length",
            Self::Length => "length",
            Self::Order => "order",
            Self::DataFirst => "data-first",
            Self::Ended => "ended",
            Self::Window => "window",
            Self::WindowUpdate => "window-update",
            Self::WindowOverflow => "window-overflow",
            Self::FrameSize => "frame-size",
            Self::TooLarge => "too-large",
        }
    }
}

/// Bytes by what they may be part of.
static CLASSES: [u8; 256] = classes();
const LOWER_TOKEN: u8 = 1;
const TOKEN: u8 = 2;
const TARGET: u8 = 4;

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let is_mark = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if byte.is_ascii_alphanumeric() || is_mark {
            classes[at] |= TOKEN;
            classes[at] |= if byte.is_ascii_uppercase() { 0 } else { LOWER_TOKEN };
        }
        if byte.is_ascii_graphic() && byte != b'#' {
            classes[at] |= TARGET;
        }
        at += 1;
    }
    classes
}

#[inline]
fn all(text: &[u8], class: u8) -> bool {
    // Without a branch for each byte.
    text.iter().fold(class, |kept, &byte| kept & CLASSES[usize::from(byte)]) != 0
}

/// Whether it is a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && all(text, TOKEN)
}

/// The same, in lower case.
pub(crate) fn is_lower_token(text: &[u8]) -> bool {
    !text.is_empty() && all(text, LOWER_TOKEN)
}

/// Whether it may be a value, or the middle of one: RFC 9110, 5.5.
pub(crate) fn is_text(text: &[u8]) -> bool {
    // In numbers, not by the table: many at once.
    text.iter().fold(true, |all, &byte| all & (((byte >= b' ') & (byte != 0x7f)) | (byte == b'\t')))
}

/// Whether all bytes may be in what a request is for.
pub(crate) fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && all(text, TARGET)
}

/// What is wrong with a name.
pub(crate) fn check_name(known: Known, name: &[u8]) -> Option<Flaw> {
    match known {
        Known::Other if !is_lower_token(name) => Some(Flaw::Name),
        Known::OfConnection => Some(Flaw::OfConnection),
        Known::OtherPseudo => Some(Flaw::PseudoUnknown),
        _ => None,
    }
}

/// What is wrong with a value.
pub(crate) fn check_value(known: Known, value: &[u8]) -> Option<Flaw> {
    let is_sound = is_text(value)
        && !matches!(value.first(), Some(b' ' | b'\t'))
        && !matches!(value.last(), Some(b' ' | b'\t'));
    match known {
        _ if !is_sound => Some(Flaw::Value),
        Known::Te if !value.eq_ignore_ascii_case(b"trailers") => Some(Flaw::Te),
        Known::Method if !is_token(value) => Some(Flaw::Method),
        Known::Protocol if !is_token(value) => Some(Flaw::Protocol),
        Known::Scheme if !is_scheme(value) => Some(Flaw::Scheme),
        Known::Authority if !is_authority(value) => Some(Flaw::Authority),
        Known::Path if !is_target(value) => Some(Flaw::Path),
        Known::Status if !is_status(value) => Some(Flaw::Status),
        _ => None,
    }
}

/// Source: RFC 3986, 3.1.
fn is_scheme(text: &[u8]) -> bool {
    matches!(text, [b'a'..=b'z' | b'A'..=b'Z', rest @ ..]
        if rest.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)))
}

/// Which host it is, its reader finds out; here, that it cannot be read as anything else. No user: RFC 9113, 8.3.1.
fn is_authority(text: &[u8]) -> bool {
    is_target(text) && !text.iter().any(|byte| b"@/?\\".contains(byte))
}

/// Three digits, and not 101: RFC 9113, 8.6.
fn is_status(text: &[u8]) -> bool {
    matches!(text, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']) && text != b"101"
}

/// A number of bytes, of digits alone.
pub(crate) fn length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { length.checked_mul(10)?.checked_add(digit.into()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["x", "x-y", "!#$%&'*+-.^_`|~09az"] {
            assert_eq!(check_name(Known::of(name.as_bytes()), name.as_bytes()), None, "{name}");
        }
        for name in ["", "X", "a b", "a:", "a\r\nb", "a\0", "\u{e9}", "a\x7f", "a(", " a", "a "] {
            assert_eq!(check_name(Known::of(name.as_bytes()), name.as_bytes()), Some(Flaw::Name), "{name:?}");
        }
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            assert_eq!(check_name(Known::of(name.as_bytes()), b""), Some(Flaw::OfConnection), "{name:?}");
        }
        assert_eq!(check_name(Known::of(b":x"), b":x"), Some(Flaw::PseudoUnknown));
        assert_eq!(check_name(Known::of(b":Path"), b":Path"), Some(Flaw::PseudoUnknown));
    }

    #[test]
    fn values() {
        let check = |name: &str, value: &str| check_value(Known::of(name.as_bytes()), value.as_bytes());
        for value in ["", "a", "a b\tc", "\u{e9}"] {
            assert_eq!(check("x", value), None, "{value:?}");
        }
        for value in [" a", "a ", "\ta", "a\t", "a\r\nx: y", "a\nb", "a\rb", "a\0b", "\x01", "\x7f", " "] {
            assert_eq!(check("x", value), Some(Flaw::Value), "{value:?}");
        }
        assert_eq!(check("te", "Trailers"), None);
        for (name, flaw, bad) in [
            ("te", Flaw::Te, &["gzip", "trailers, deflate", ""][..]),
            (":method", Flaw::Method, &["", "G ET", "G:"]),
            (":scheme", Flaw::Scheme, &["", "ht tp", "1http", "http://a.test"]),
            (":authority", Flaw::Authority, &["", "a b", "u@a.test", "a/b", "a.test#"]),
            (":path", Flaw::Path, &["", "/a b", "/a#b", "/\u{e9}"]),
            (":status", Flaw::Status, &["", "20", "2000", "+20", "020", "2x0", "101"]),
            (":protocol", Flaw::Protocol, &["", "a, b"]),
        ] {
            for value in bad {
                assert_eq!(check(name, value), Some(flaw), "{name}: {value:?}");
            }
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+5", "-1", "5, 6", "0x5", "5 5", "18446744073709551616", "99999999999999999999"] {
            assert_eq!(length(bad.as_bytes()), None, "{bad}");
        }
    }
}
