//! Field names that mean something to a proxy, and the lists in their values.

/// Whether a byte may stand in a token. Source: RFC 9110, 5.6.2.
#[inline]
pub const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a byte may stand in a field value: HTAB, SP, VCHAR, obs-text. Source: RFC 9110, 5.5.
#[inline]
pub const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Without the spaces and tabs at both ends (OWS, RFC 9110, 5.6.3).
pub fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Elements of a comma-separated list, trimmed; empty ones included, so that the caller decides about them.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows)
}

/// Whether it is a token and not empty.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

/// What a field name means to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldKind {
    /// Nothing: passed on, and `Connection` may name it.
    #[default]
    Plain,
    /// End to end whatever `Connection` says: authentication, cookies, what describes the content.
    Protected,
    /// Hop by hop whether or not `Connection` names it: never passed on.
    Hop,
    /// Spelt with `_` like a name that we set or interpret. CGI-like backends cannot tell the two apart, so it
    /// is never passed on.
    Lookalike,
    /// Like [`FieldKind::Lookalike`], of a name that frames the message: refused in requests.
    FramingLookalike,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `TE`: hop by hop; written anew where the client takes trailers.
    Te,
    /// `Upgrade`: hop by hop; written anew where we ask a backend for another protocol.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Port`.
    ForwardedPort,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Request-Id`.
    RequestId,
}

impl FieldKind {
    /// Of a field name, in any case.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let kind = match name.len() {
            2 => first_of(name, &[("te", Self::Te)]),
            3 => first_of(name, &[("via", Self::Protected)]),
            4 => first_of(name, &[("host", Self::Host), ("date", Self::Protected)]),
            // `Proxy` becomes the variable HTTP_PROXY in CGI-like backends (httpoxy, CVE-2016-5385).
            5 => first_of(name, &[("proxy", Self::Hop)]),
            6 => first_of(
                name,
                &[("cookie", Self::Protected), ("expect", Self::Expect), ("origin", Self::Protected)],
            ),
            7 => first_of(name, &[("upgrade", Self::Upgrade), ("trailer", Self::Hop)]),
            8 => first_of(name, &[("location", Self::Protected)]),
            9 => first_of(name, &[("forwarded", Self::Forwarded)]),
            10 => first_of(
                name,
                &[
                    ("connection", Self::Connection),
                    ("keep-alive", Self::Hop),
                    ("set-cookie", Self::Protected),
                    // No hop takes it away (RFC 8470, 5.1).
                    ("early-data", Self::Protected),
                ],
            ),
            12 => first_of(name, &[("content-type", Self::Protected), ("x-request-id", Self::RequestId)]),
            13 => first_of(
                name,
                &[
                    ("authorization", Self::Protected),
                    ("cache-control", Self::Protected),
                    ("content-range", Self::Protected),
                ],
            ),
            14 => first_of(name, &[("content-length", Self::ContentLength), ("http2-settings", Self::Hop)]),
            15 => first_of(name, &[("x-forwarded-for", Self::ForwardedFor)]),
            16 => first_of(
                name,
                &[
                    ("x-forwarded-host", Self::ForwardedHost),
                    ("x-forwarded-port", Self::ForwardedPort),
                    ("proxy-connection", Self::Hop),
                    ("content-encoding", Self::Protected),
                    ("www-authenticate", Self::Protected),
                ],
            ),
            17 => first_of(
                name,
                &[("transfer-encoding", Self::TransferEncoding), ("x-forwarded-proto", Self::ForwardedProto)],
            ),
            18 => first_of(name, &[("proxy-authenticate", Self::Hop)]),
            19 => first_of(name, &[("proxy-authorization", Self::Hop)]),
            25 => first_of(name, &[("proxy-authentication-info", Self::Hop)]),
            _ => Self::Plain,
        };
        if kind == Self::Plain && name.contains(&b'_') { lookalike(name) } else { kind }
    }

    /// Whether `Connection` may make this field hop-by-hop. Without this a client could strip what another
    /// hop relies on.
    #[inline]
    pub const fn is_strippable(self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Whether it tells of the client: only a trusted proxy's word is believed.
    #[inline]
    pub const fn is_testimony(self) -> bool {
        matches!(
            self,
            Self::ForwardedFor
                | Self::ForwardedProto
                | Self::ForwardedHost
                | Self::ForwardedPort
                | Self::Forwarded
                | Self::RequestId
        )
    }

    /// Whether it may stand in trailers. Source: RFC 9110, 6.5.1.
    pub const fn is_allowed_in_trailer(self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// The longest name that [`FieldKind::of`] knows.
pub const KNOWN_NAME_BYTES_MAX: usize = 25;

/// The kind of the candidate that `name` is. The first letter rules nearly all of them out.
#[inline(always)]
fn first_of(name: &[u8], candidates: &[(&'static str, FieldKind)]) -> FieldKind {
    let Some(&first) = name.first() else { return FieldKind::Plain };
    for &(known, kind) in candidates {
        let known = known.as_bytes();
        if known.first() == Some(&(first | 0x20)) && name.eq_ignore_ascii_case(known) {
            return kind;
        }
    }
    FieldKind::Plain
}

#[cold]
fn lookalike(name: &[u8]) -> FieldKind {
    let mut dashed = [0; KNOWN_NAME_BYTES_MAX];
    let Some(dashed) = dashed.get_mut(..name.len()) else { return FieldKind::Plain };
    for (to, &from) in dashed.iter_mut().zip(name) {
        *to = if from == b'_' { b'-' } else { from };
    }
    match FieldKind::of(dashed) {
        FieldKind::Plain => FieldKind::Plain,
        FieldKind::ContentLength | FieldKind::TransferEncoding => FieldKind::FramingLookalike,
        _ => FieldKind::Lookalike,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(FieldKind::of(b"cOnTent-LengTh"), FieldKind::ContentLength);
        assert_eq!(FieldKind::of(b"TRANSFER-ENCODING"), FieldKind::TransferEncoding);
        assert_eq!(FieldKind::of(b"Proxy-Authentication-Info"), FieldKind::Hop);
        assert_eq!(FieldKind::of(b"accept"), FieldKind::Plain);
        assert_eq!(FieldKind::of(b""), FieldKind::Plain);
    }

    #[test]
    fn underscores_do_not_hide_a_name() {
        assert_eq!(FieldKind::of(b"Content_Length"), FieldKind::FramingLookalike);
        assert_eq!(FieldKind::of(b"transfer_ENCODING"), FieldKind::FramingLookalike);
        assert_eq!(FieldKind::of(b"X_Forwarded-For"), FieldKind::Lookalike);
        assert_eq!(FieldKind::of(b"my_header"), FieldKind::Plain);
        assert_eq!(FieldKind::of(&[b'_'; 300]), FieldKind::Plain);
    }

    #[test]
    fn lists_keep_their_empty_elements() {
        let elements: Vec<_> = list(b" a ,,\tb").collect();
        assert_eq!(elements, [b"a".as_slice(), b"", b"b"]);
        assert_eq!(trim_ows(b" \t "), b"");
    }
}
