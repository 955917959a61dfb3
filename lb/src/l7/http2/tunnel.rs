//! Tunnels in a stream: an extended CONNECT is written down as what asks for another protocol in HTTP/1.1, and what grants
//! that there is written down as its answer. Source: RFC 8441.

use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use lb_http2::{Head, Known};

use super::fields;
use crate::model::reason::CloseReason;

/// How our own heads ask for another protocol.
const OFFER: &[u8] = b"\r\nConnection: upgrade\r\nUpgrade: ";
/// What a client of WebSocket is recognised by (RFC 6455, 4.1).
pub(super) const KEY: &str = "sec-websocket-key";

/// Which protocol is asked for; `None`: the request is no CONNECT.
///
/// # Errors
/// [`CloseReason::Method`]: a CONNECT without a protocol; [`CloseReason::Http2Message`]: the request says how long it is.
pub(super) fn asked<'h>(head: &Head<'h>) -> Result<Option<&'h [u8]>, CloseReason> {
    if head.method() != b"CONNECT" {
        return Ok(None);
    }
    // A token, as the names of upgrades are (RFC 8441, 4).
    let protocol = head.protocol().ok_or(CloseReason::Method)?;
    if head.fields().any(|field| field.known == Known::ContentLength) {
        return Err(CloseReason::Http2Message);
    }
    Ok(Some(protocol))
}

/// Appends the lines that ask for `protocol`. `has_key`: a key of WebSocket stands among the fields already.
pub(super) fn push_ask(protocol: &[u8], has_key: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"connection: upgrade\r\n");
    fields::push(out, b"upgrade", protocol);
    // A backend of HTTP/1.1 wants to be asked with it, and HTTP/2 has no use for it (RFC 8441, 5).
    if protocol.eq_ignore_ascii_case(b"websocket") && !has_key {
        fields::push(out, KEY.as_bytes(), STANDARD.encode(nonce()).as_bytes());
    }
}

/// What a backend was asked for, in whose answer that has to stand again.
#[derive(Debug)]
pub(super) struct Ask {
    protocol: Vec<u8>,
    /// What proves that a server of WebSocket has read the key (RFC 6455, 4.2.2).
    accept: Option<String>,
}

impl Ask {
    /// Where a head which [`encode_request`](crate::l7::http1::encode_request) has made asks for another protocol: for the
    /// first that it names, with the key that stands among the fields.
    pub(super) fn of(head: &[u8], fields: &[httparse::Header<'_>]) -> Option<Self> {
        let at = memchr::memmem::find(head, OFFER)? + OFFER.len();
        let rest = head.get(at..)?;
        let end = rest.iter().position(|byte| b",\r".contains(byte))?;
        let key = fields.iter().find(|field| field.name.eq_ignore_ascii_case(KEY));
        Some(Self { protocol: rest.get(..end)?.to_vec(), accept: key.map(|key| accept(key.value)) })
    }

    pub(super) fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    /// Appends the lines that grant it.
    pub(super) fn push_grant(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"connection: upgrade\r\n");
        fields::push(out, b"upgrade", &self.protocol);
        if let Some(accept) = &self.accept {
            fields::push(out, b"sec-websocket-accept", accept.as_bytes());
        }
    }
}

/// Source: RFC 6455, 4.2.2.
fn accept(key: &[u8]) -> String {
    let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sum.update(key);
    sum.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sum.finish())
}

/// Sixteen bytes that nobody has seen before (RFC 6455, 4.1); the keys of the standard library's hashes are such.
fn nonce() -> [u8; 16] {
    let halves = [RandomState::new().hash_one(0), RandomState::new().hash_one(1)];
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(halves.iter().flat_map(|half| half.to_ne_bytes())).for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{of_request, pseudo},
        *,
    };

    fn connect(protocol: Option<&str>, fields: &[(&str, &str)]) -> Result<Option<Vec<u8>>, CloseReason> {
        let mut all = pseudo("CONNECT", protocol.map(|_| ("https", "/chat")), "a.example");
        all.extend(protocol.map(|protocol| (":protocol", protocol.as_bytes())));
        all.extend(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
        of_request(&all, false, |head| asked(head).map(|asked| asked.map(<[u8]>::to_vec)))
    }

    #[test]
    fn what_is_asked_for() {
        let get =
            of_request(&pseudo("GET", Some(("https", "/")), "a"), false, |head| asked(head).map(|_| ()));
        assert_eq!(get, Ok(()));
        assert_eq!(connect(Some("websocket"), &[]), Ok(Some(b"websocket".to_vec())));
        assert_eq!(connect(None, &[]), Err(CloseReason::Method));
        for protocol in ["", "web socket", "a, b", "a\r\nb: c"] {
            assert_eq!(connect(Some(protocol), &[]), Err(CloseReason::Http2Message), "{protocol:?}");
        }
        assert_eq!(connect(Some("websocket"), &[("content-length", "1")]), Err(CloseReason::Http2Message));
    }

    #[test]
    fn a_server_of_websocket_shows_that_it_has_read_the_key() {
        // Source: RFC 6455, 1.3.
        let (key, accept) = (b"dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, x\r\n\r\n";
        let fields = [httparse::Header { name: "Sec-WebSocket-Key", value: key }];
        let ask = Ask::of(head, &fields).unwrap();
        assert_eq!(ask.protocol(), b"websocket");
        let mut out = Vec::new();
        ask.push_grant(&mut out);
        let expected =
            format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(Ask::of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &fields).is_none());
    }

    #[test]
    fn keys_are_for_websocket_and_never_the_same() {
        let ask = |protocol: &str, has_key| {
            let mut out = Vec::new();
            push_ask(protocol.as_bytes(), has_key, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(ask("x", false), "connection: upgrade\r\nupgrade: x\r\n");
        let asked = ask("websocket", false);
        let (start, key) = asked.split_once("sec-websocket-key: ").unwrap();
        assert_eq!(start, "connection: upgrade\r\nupgrade: websocket\r\n");
        assert_eq!(STANDARD.decode(key.trim_end()).unwrap().len(), 16);
        assert_ne!(ask("websocket", false), asked);
        assert!(!ask("websocket", true).contains("key"));
    }
}
