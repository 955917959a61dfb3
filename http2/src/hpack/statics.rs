//! The fields that both sides know from the start. Source: RFC 7541, appendix A.

/// Of all, by index less one.
#[rustfmt::skip]
const FIELDS: [(&[u8], &[u8]); COUNT] = [
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"),
    (b":path", b"/index.html"), (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"),
    (b":status", b"204"), (b":status", b"206"), (b":status", b"304"), (b":status", b"400"),
    (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""), (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""), (b"access-control-allow-origin", b""),
    (b"age", b""), (b"allow", b""), (b"authorization", b""), (b"cache-control", b""),
    (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""), (b"content-length", b""),
    (b"content-location", b""), (b"content-range", b""), (b"content-type", b""), (b"cookie", b""),
    (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""),
    (b"from", b""), (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""),
    (b"if-none-match", b""), (b"if-range", b""), (b"if-unmodified-since", b""), (b"last-modified", b""),
    (b"link", b""), (b"location", b""), (b"max-forwards", b""), (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""), (b"range", b""), (b"referer", b""), (b"refresh", b""),
    (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""), (b"strict-transport-security", b""),
    (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""), (b"via", b""),
    (b"www-authenticate", b""),
];

/// How many there are; the table of the connection begins behind them.
pub(super) const COUNT: usize = 61;

/// Their indexes, for those that are written often.
pub(super) mod index {
    pub(in crate::hpack) const AUTHORITY: u8 = 1;
    pub(in crate::hpack) const METHOD_GET: u8 = 2;
    pub(in crate::hpack) const METHOD_POST: u8 = 3;
    pub(in crate::hpack) const PATH_ROOT: u8 = 4;
    pub(in crate::hpack) const SCHEME_HTTP: u8 = 6;
    pub(in crate::hpack) const SCHEME_HTTPS: u8 = 7;
    pub(in crate::hpack) const STATUS_200: u8 = 8;
    pub(in crate::hpack) const ACCEPT_ENCODING: u8 = 16;
}

/// The field with an index from 1; `None`: it is none of these.
pub(super) fn field(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    FIELDS.get(index.wrapping_sub(1)).copied()
}

/// The index of a status that is known as a whole.
pub(super) const fn status(status: u16) -> Option<u8> {
    Some(match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return None,
    })
}

/// The index of a name that is no pseudo header field's; 0: it is not known.
pub(super) fn name(name: &[u8]) -> u8 {
    match name {
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"accept" => 19,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_where_it_stands() {
        for (at, (text, value)) in FIELDS.iter().enumerate().filter(|(_, (text, _))| !text.starts_with(b":"))
        {
            assert_eq!(usize::from(name(text)), at + 1);
            assert_eq!(field(at + 1), Some((*text, *value)));
        }
        assert_eq!(name(b"x"), 0);
        assert_eq!((field(0), field(62)), (None, None));
        for code in 100..600 {
            let Some(at) = status(code) else { continue };
            assert_eq!(field(at.into()), Some((&b":status"[..], code.to_string().as_bytes())));
        }
        let expected: [(&[u8], &[u8]); 8] = [
            (b":authority", b""),
            (b":method", b"GET"),
            (b":method", b"POST"),
            (b":path", b"/"),
            (b":scheme", b"http"),
            (b":scheme", b"https"),
            (b":status", b"200"),
            (b"accept-encoding", b"gzip, deflate"),
        ];
        use index::*;
        let indexes = [
            AUTHORITY,
            METHOD_GET,
            METHOD_POST,
            PATH_ROOT,
            SCHEME_HTTP,
            SCHEME_HTTPS,
            STATUS_200,
            ACCEPT_ENCODING,
        ];
        for (at, expected) in indexes.into_iter().zip(expected) {
            assert_eq!(field(at.into()), Some(expected));
        }
    }
}
