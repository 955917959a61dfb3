//! Tunnels in a stream: an extended CONNECT is written down as what asks for another protocol in HTTP/1.1, and what grants
//! that there is written down as its answer. Source: RFC 8441.

use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, Method, Request, header, request::Parts};

use super::fields;
use crate::model::reason::CloseReason;

/// How our own heads ask for another protocol.
const OFFER: &[u8] = b"\r\nConnection: upgrade\r\nUpgrade: ";

/// Which protocol is asked for; `None`: the request is no CONNECT.
///
/// # Errors
/// [`CloseReason::Method`]: a CONNECT without a protocol; [`CloseReason::Http2Message`]: what is asked for is no name of one,
/// or the request says how long it is.
pub(super) fn asked(parts: &Parts) -> Result<Option<&str>, CloseReason> {
    if parts.method != Method::CONNECT {
        return Ok(None);
    }
    let protocol = parts.extensions.get::<Protocol>().ok_or(CloseReason::Method)?.as_str();
    // `:protocol` has one name of the registry of upgrade tokens (RFC 8441, 4), which are names as those of fields are.
    let is_name = HeaderName::from_bytes(protocol.as_bytes()).is_ok();
    let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
    if is_name && !has_length { Ok(Some(protocol)) } else { Err(CloseReason::Http2Message) }
}

/// Appends the lines that ask for `protocol`.
pub(super) fn push_ask(protocol: &str, given: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"connection: upgrade\r\n");
    fields::push(out, b"upgrade", protocol.as_bytes());
    // A backend of HTTP/1.1 wants to be asked with it, and HTTP/2 has no use for it (RFC 8441, 5).
    if protocol.eq_ignore_ascii_case("websocket") && !given.contains_key(header::SEC_WEBSOCKET_KEY) {
        fields::push(out, b"sec-websocket-key", STANDARD.encode(nonce()).as_bytes());
    }
}

/// What a backend was asked for, in whose answer that has to stand again.
pub(super) struct Ask {
    protocol: String,
    /// What proves that a server of WebSocket has read the key (RFC 6455, 4.2.2).
    accept: Option<String>,
}

impl Ask {
    /// Where a head which [`encode_request`](crate::l7::http1::encode_request) has made asks for another protocol: for the
    /// first that it names. Its key is taken from the request.
    pub(super) fn of(head: &[u8], request: &mut Request<()>) -> Option<Self> {
        let at = memchr::memmem::find(head, OFFER)? + OFFER.len();
        let end = head[at..].iter().position(|byte| b",\r".contains(byte))?;
        let protocol = std::str::from_utf8(&head[at..at + end]).ok()?.to_owned();
        let key = request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
        Some(Self { protocol, accept: key.map(|key| accept(key.as_bytes())) })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.as_str().into()
    }

    /// Appends the lines that grant it.
    pub(super) fn push_grant(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"connection: upgrade\r\n");
        fields::push(out, b"upgrade", self.protocol.as_bytes());
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
    use http::Request;

    use super::*;

    fn connect(protocol: Option<&'static str>, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::connect("https://a.example/chat");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(asked(&Request::get("/").body(()).unwrap().into_parts().0), Ok(None));
        assert_eq!(asked(&connect(Some("websocket"), &[])), Ok(Some("websocket")));
        assert_eq!(asked(&connect(None, &[])), Err(CloseReason::Method));
        for protocol in ["", "web socket", "a, b", "a\r\nb: c"] {
            assert_eq!(asked(&connect(Some(protocol), &[])), Err(CloseReason::Http2Message), "{protocol:?}");
        }
        let length = [("content-length", "1")];
        assert_eq!(asked(&connect(Some("websocket"), &length)), Err(CloseReason::Http2Message));
    }

    #[test]
    fn a_server_of_websocket_shows_that_it_has_read_the_key() {
        // Source: RFC 6455, 1.3.
        let (key, accept) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, x\r\n\r\n";
        let mut request = Request::get("/").header(header::SEC_WEBSOCKET_KEY, key).body(()).unwrap();
        let ask = Ask::of(head, &mut request).unwrap();
        assert!(request.headers().is_empty());
        assert_eq!(ask.protocol().as_str(), "websocket");
        let mut out = Vec::new();
        ask.push_grant(&mut out);
        let expected =
            format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(Ask::of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut request).is_none());
    }

    #[test]
    fn keys_are_for_websocket_and_never_the_same() {
        let ask = |protocol, given: &HeaderMap| {
            let mut out = Vec::new();
            push_ask(protocol, given, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(ask("x", &HeaderMap::new()), "connection: upgrade\r\nupgrade: x\r\n");
        let asked = ask("websocket", &HeaderMap::new());
        let (start, key) = asked.split_once("sec-websocket-key: ").unwrap();
        assert_eq!(start, "connection: upgrade\r\nupgrade: websocket\r\n");
        assert_eq!(STANDARD.decode(key.trim_end()).unwrap().len(), 16);
        assert_ne!(ask("websocket", &HeaderMap::new()), asked);
        let given = HeaderMap::from_iter([(header::SEC_WEBSOCKET_KEY, "x".parse().unwrap())]);
        assert!(!ask("websocket", &given).contains("key"));
    }
}
