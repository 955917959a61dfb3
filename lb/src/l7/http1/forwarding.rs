//! What a backend is told of the client.
//!
//! A client could have written anything, so its words on this are left out, in any spelling that some backend could take
//! for them. A trusted proxy's are kept, and ours added where they are lists: `X-Forwarded-For`, `Forwarded`. Of several
//! lines of what is no list the last one counts: it is the nearest hop's.

use std::{io::Write as _, net::IpAddr};

use super::RequestHead;
use crate::l7::headers::{FieldKind, trim_ows};

/// What the backend is told of the client.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// Address of the client's connection.
    pub client: IpAddr,
    /// What the client spoke: `http` or `https`.
    pub scheme: &'a str,
    /// `Host` for an HTTP/1.0 request that names none; the backend's name and port will do.
    pub authority: &'a [u8],
    /// Port that the client connected to.
    pub port: u16,
    /// Whether the client is a proxy whose word is believed.
    pub is_trusted: bool,
    /// Whether `Forwarded` (RFC 7239) is sent too.
    pub says_forwarded: bool,
    /// `X-Request-Id`, where no trusted proxy gave one; unlike any other.
    pub request_id: [u64; 2],
}

/// Longest request id of a proxy that is kept.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Appends the lines.
pub(super) fn push_forwarding(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &RequestHead,
    forwarding: &Forwarding<'_>,
) {
    let authority = head.authority(buf);
    out.extend_from_slice(b"X-Forwarded-For: ");
    if forwarding.is_trusted {
        push_list(out, buf, head, FieldKind::ForwardedFor);
    }
    push_address(out, forwarding.client);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(scheme(buf, head, forwarding));
    let host = trusted(buf, head, forwarding, FieldKind::ForwardedHost).unwrap_or(authority);
    if !host.is_empty() {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(host);
    }
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    match trusted(buf, head, forwarding, FieldKind::ForwardedPort) {
        Some(port) => out.extend_from_slice(port),
        None => out.extend_from_slice(itoa::Buffer::new().format(forwarding.port).as_bytes()),
    }
    if forwarding.says_forwarded {
        out.extend_from_slice(b"\r\nForwarded: ");
        if forwarding.is_trusted {
            push_list(out, buf, head, FieldKind::Forwarded);
        }
        push_element(out, forwarding, authority);
    }
    out.extend_from_slice(b"\r\nX-Request-Id: ");
    push_request_id(out, buf, head, forwarding);
    out.extend_from_slice(b"\r\n");
}

/// The client that a request is of: the peer, or whom trusted proxies name. Of what they name the last address that is not
/// itself a trusted proxy's: whatever stands before it is that client's own word.
pub fn client_address(
    head: &RequestHead,
    buf: &[u8],
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let fields = head.fields().iter().rev().filter(|field| field.kind == FieldKind::ForwardedFor);
    for named in fields.flat_map(|field| field.value.of(buf).rsplit(|&byte| byte == b',')) {
        if !is_trusted(client) {
            break;
        }
        let named = std::str::from_utf8(trim_ows(named)).ok();
        let Some(named) = named.and_then(|text| text.parse::<IpAddr>().ok()) else { break };
        client = named.to_canonical();
    }
    client
}

/// The id of a request: a trusted proxy's, else ours.
pub fn push_request_id(out: &mut Vec<u8>, buf: &[u8], head: &RequestHead, forwarding: &Forwarding<'_>) {
    match trusted(buf, head, forwarding, FieldKind::RequestId).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX) {
        Some(id) => out.extend_from_slice(id),
        None => forwarding.request_id.into_iter().for_each(|half| push_hex(out, half)),
    }
}

/// What the client spoke to whoever is nearest to it.
pub(in crate::l7) fn scheme<'b>(buf: &'b [u8], head: &RequestHead, forwarding: &Forwarding<'b>) -> &'b [u8] {
    let said = trusted(buf, head, forwarding, FieldKind::ForwardedProto);
    said.filter(|said| matches!(*said, b"http" | b"https")).unwrap_or(forwarding.scheme.as_bytes())
}

/// The last value of a field that a trusted proxy wrote and that is not empty.
fn trusted<'b>(
    buf: &'b [u8],
    head: &RequestHead,
    forwarding: &Forwarding<'_>,
    kind: FieldKind,
) -> Option<&'b [u8]> {
    if !forwarding.is_trusted {
        return None;
    }
    let last = head.fields().iter().rfind(|field| field.kind == kind)?;
    Some(last.value.of(buf)).filter(|value| !value.is_empty())
}

/// All values of a list field, each with a comma behind it.
fn push_list(out: &mut Vec<u8>, buf: &[u8], head: &RequestHead, kind: FieldKind) {
    for field in head.fields().iter().filter(|field| field.kind == kind) {
        let value = field.value.of(buf);
        if !value.is_empty() {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
}

/// `for=192.0.2.7;host="a:80";proto=http`. An authority has nothing that ends a quoted string. Source: RFC 7239, 4.
fn push_element(out: &mut Vec<u8>, forwarding: &Forwarding<'_>, authority: &[u8]) {
    let is_v4 = forwarding.client.to_canonical().is_ipv4();
    out.extend_from_slice(if is_v4 { b"for=" } else { b"for=\"[" });
    push_address(out, forwarding.client);
    if !is_v4 {
        out.extend_from_slice(b"]\"");
    }
    if !authority.is_empty() {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(authority);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(forwarding.scheme.as_bytes());
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// 16 digits.
fn push_hex(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits: [u8; 16] = std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at)) as usize & 15]);
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::{HeadLimits, Parsed};

    fn told(fields: &str, forwarding: &Forwarding<'_>) -> String {
        let input = format!("GET / HTTP/1.1\r\nHost: a:8080\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        assert_eq!(head.parse(input.as_bytes(), &HeadLimits::default()), Ok(Parsed::Complete));
        let mut out = Vec::new();
        push_forwarding(&mut out, input.as_bytes(), &head, forwarding);
        String::from_utf8(out).unwrap()
    }

    fn forwarding() -> Forwarding<'static> {
        Forwarding {
            client: [192, 0, 2, 7].into(),
            scheme: "http",
            authority: b"",
            port: 8080,
            is_trusted: false,
            says_forwarded: true,
            request_id: [0x1234_5678_9abc_def0, 7],
        }
    }

    const SAID: &str = "X-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: 10.1.1.1\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: first\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\n\
        Forwarded: for=203.0.113.9\r\nX-Request-Id: abc-1\r\n";

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let expected = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a:8080\r\n\
            X-Forwarded-Port: 8080\r\nForwarded: for=192.0.2.7;host=\"a:8080\";proto=http\r\n\
            X-Request-Id: 123456789abcdef00000000000000007\r\n";
        assert_eq!(told(SAID, &forwarding()), expected);
        assert_eq!(told("", &forwarding()), expected);
    }

    #[test]
    fn a_trusted_proxy_is_added_to() {
        let trusting =
            Forwarding { is_trusted: true, client: "2001:db8::7".parse().unwrap(), ..forwarding() };
        assert_eq!(
            told(SAID, &trusting),
            "X-Forwarded-For: 203.0.113.9, 10.1.1.1, 2001:db8::7\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\n\
             Forwarded: for=203.0.113.9, for=\"[2001:db8::7]\";host=\"a:8080\";proto=http\r\n\
             X-Request-Id: abc-1\r\n"
        );
        let long = format!("X-Request-Id: {}\r\nX-Forwarded-Proto: gopher\r\n", "x".repeat(129));
        let got = told(&long, &trusting);
        assert!(got.contains("X-Request-Id: 1234") && got.contains("X-Forwarded-Proto: http\r\n"), "{got}");
    }

    #[test]
    fn the_client_is_whom_trusted_proxies_name() {
        let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
        for (peer, fields, expected) in [
            ("192.0.2.7", "X-Forwarded-For: 203.0.113.9\r\n", "192.0.2.7"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: forged, 198.51.100.1, 203.0.113.9 , 10.0.0.2\r\n", "203.0.113.9"),
            (
                "10.0.0.1",
                "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nx-forwarded-for: 10.0.0.2\r\n",
                "203.0.113.9",
            ),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9, what, 10.0.0.2\r\n", "10.0.0.2"),
            ("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3"),
            ("10.0.0.1", "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
        ] {
            let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut head = RequestHead::default();
            assert_eq!(head.parse(input.as_bytes(), &HeadLimits::default()), Ok(Parsed::Complete));
            let client = client_address(&head, input.as_bytes(), peer.parse().unwrap(), is_trusted);
            assert_eq!(client.to_string(), expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn addresses() {
        for (address, text) in [
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:192.0.2.255", "192.0.2.255"),
            ("0.10.100.9", "0.10.100.9"),
        ] {
            let mut out = Vec::new();
            push_address(&mut out, address.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }
}
