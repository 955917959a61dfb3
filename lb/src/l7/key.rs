//! What of a request its backend is chosen by.

use super::{cookie, http1::RequestHead};
use crate::config::Key;

/// The key of a request whose head was parsed from `buf`; `None` where it has none, or goes by its client's address. An
/// empty one is none. Fields that are not passed on, and those that tell of the client, are looked at as routes do:
/// not where `Connection` names them, and the latter only for trusted clients.
pub fn of<'b>(key: &'b Key, head: &'b RequestHead, buf: &'b [u8], is_trusted: bool) -> Option<&'b [u8]> {
    let found = match key {
        Key::Address => None,
        Key::Path => Some(head.path(buf)),
        Key::Header(name) => {
            let mut seen = head
                .fields()
                .iter()
                .filter(|field| !field.is_hop && (is_trusted || !field.kind.is_testimony()))
                .filter(|field| field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()));
            seen.next().map(|field| field.value.of(buf))
        }
        Key::Cookie(name) => cookie::values(head, buf, name.as_bytes()).next(),
    };
    found.filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::{HeadLimits, Parsed};

    #[test]
    fn keys_of_a_request() {
        let input = b"GET /a/./%62?q HTTP/1.1\r\nHost: h\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-User: u\r\n\
            x-user: v\r\nX-Empty:\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: s=1; t=2\r\n\r\n";
        let mut head = RequestHead::default();
        assert_eq!(head.parse(input, &HeadLimits::default()), Ok(Parsed::Complete));
        let of = |key: Key, is_trusted| of(&key, &head, input, is_trusted).map(<[u8]>::to_vec);
        let header = |name: &str| Key::Header(name.into());
        for (key, expected) in [
            (Key::Address, None),
            (Key::Path, Some(&b"/a/b"[..])),
            (header("x-user"), Some(b"u")),
            (header("host"), Some(b"h")),
            (header("x-hop"), None),
            (header("x-empty"), None),
            (header("x-none"), None),
            (header("x-forwarded-for"), None),
            (Key::Cookie("t".into()), Some(b"2")),
            (Key::Cookie("u".into()), None),
        ] {
            assert_eq!(of(key.clone(), false).as_deref(), expected, "{key}");
        }
        assert_eq!(of(header("x-forwarded-for"), true).as_deref(), Some(&b"192.0.2.1"[..]));
    }
}
