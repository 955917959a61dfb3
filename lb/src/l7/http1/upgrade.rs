//! Changing to another protocol in the middle of a connection (RFC 9110, 7.8): what is asked, and what may be answered.
//!
//! A client offers protocols; a backend is offered those of them that the route passes on, written anew; and only a 101
//! that names nothing else begins a tunnel. Whatever else comes back is an ordinary response, and what the client has sent
//! meanwhile is its next request. `h2c` is never passed on: it would carry requests past every route.

use std::sync::Arc;

use super::{request::RequestHead, response::ResponseHead};
use crate::l7::headers::{FieldKind, list};

/// Protocols that are passed on, lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrades(Arc<[Arc<str>]>);

impl Upgrades {
    /// Those that a route names.
    pub const fn new(protocols: Arc<[Arc<str>]>) -> Self {
        Self(protocols)
    }

    fn passes(&self, protocol: &[u8]) -> bool {
        self.0.iter().any(|known| protocol.eq_ignore_ascii_case(known.as_bytes()))
    }

    /// What the client offers of it, in its order. None of a request that asks in a way we do not pass on.
    fn offered<'a>(&'a self, head: &'a RequestHead, buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let fields =
            head.fields().iter().filter(|field| head.asks_upgrade() && field.kind == FieldKind::Upgrade);
        fields.flat_map(|field| list(field.value.of(buf))).filter(|protocol| self.passes(protocol))
    }

    /// Whether the client, whose head was parsed from `buf`, offers any of it.
    pub fn is_offered(&self, head: &RequestHead, buf: &[u8]) -> bool {
        head.asks_upgrade() && self.offered(head, buf).next().is_some()
    }

    /// Appends the lines that ask a backend.
    pub(super) fn push_offer(&self, out: &mut Vec<u8>, head: &RequestHead, buf: &[u8]) {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
        for (at, protocol) in self.offered(head, buf).enumerate() {
            if at > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(protocol);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a 101 (parsed from `answer_buf`) changes to nothing but what was offered (RFC 9110, 7.8: a server must not
    /// change to what the client did not ask for).
    pub fn accepts(&self, head: &RequestHead, buf: &[u8], answer: &ResponseHead, answer_buf: &[u8]) -> bool {
        let mut chosen = protocols(answer, answer_buf).peekable();
        chosen.peek().is_some()
            && chosen
                .all(|protocol| self.offered(head, buf).any(|offer| offer.eq_ignore_ascii_case(protocol)))
    }
}

/// What a 101 changes to.
pub fn protocols<'a>(answer: &'a ResponseHead, buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    answer
        .fields()
        .iter()
        .filter(|field| field.kind == FieldKind::Upgrade)
        .flat_map(|field| list(field.value.of(buf)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::{HeadLimits, Parsed};

    fn websocket() -> Upgrades {
        Upgrades::new(Arc::from([Arc::from("websocket"), Arc::from("x/1")]))
    }

    fn request(start: &str, fields: &str) -> (RequestHead, Vec<u8>) {
        let buf = format!("{start}\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        assert_eq!(head.parse(&buf, &HeadLimits::default()), Ok(Parsed::Complete));
        (head, buf)
    }

    #[test]
    fn only_what_is_passed_on_is_asked_for() {
        for (start, fields, offer) in [
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", "websocket"),
            ("GET / HTTP/1.1", "connection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\n", "WebSocket"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c, x/1, websocket\r\n", "x/1, websocket"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "websocket"),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", ""),
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n", ""),
            ("GET / HTTP/1.1", "Connection: upgrade\r\n", ""),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket/13\r\n", ""),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: web socket\r\n", ""),
            ("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", ""),
            ("POST / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", ""),
            (
                "POST / HTTP/1.1",
                "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
                "",
            ),
        ] {
            let (head, buf) = request(start, fields);
            assert_eq!(websocket().is_offered(&head, &buf), !offer.is_empty(), "{fields:?}");
            if !offer.is_empty() {
                let mut out = Vec::new();
                websocket().push_offer(&mut out, &head, &buf);
                assert_eq!(out, format!("Connection: upgrade\r\nUpgrade: {offer}\r\n").into_bytes());
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let (head, buf) = request("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n");
        for (upgrade, expected) in [
            ("websocket", true),
            ("WebSocket", true),
            ("h2c", false),
            ("x/1", false),
            ("websocket, h2c", false),
            ("websocket,", false),
            ("", false),
        ] {
            let answer_buf = format!("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
            let mut answer = ResponseHead::default();
            assert_eq!(
                answer.parse(answer_buf.as_bytes(), &HeadLimits::default(), false),
                Ok(Parsed::Complete)
            );
            let accepts = websocket().accepts(&head, &buf, &answer, answer_buf.as_bytes());
            assert_eq!(accepts, expected, "{upgrade:?}");
        }
    }
}
