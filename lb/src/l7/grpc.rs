//! What of gRPC concerns who passes it on: whether a request is one, how long its client waits, and what it is told of a failure
//! of ours. Source: gRPC over HTTP2, and its mapping of HTTP statuses.

use std::time::Duration;

use super::http1::{Field, RequestHead};
use crate::model::reason::CloseReason;

/// Whether a request speaks gRPC. gRPC-Web does not: its clients read HTTP's status.
pub fn is_spoken(head: &RequestHead, buf: &[u8]) -> bool {
    if head.method(buf) != b"POST" {
        return false;
    }
    let Some(kind) = value(head, buf, b"content-type") else { return false };
    let prefix = b"application/grpc";
    let is_so = kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is_so && matches!(kind.get(prefix.len()), None | Some(b'+' | b';' | b' '))
}

/// How long the client waits, by `grpc-timeout`: up to eight digits and a unit.
pub fn timeout(head: &RequestHead, buf: &[u8]) -> Option<Duration> {
    if !is_spoken(head, buf) {
        return None;
    }
    let (unit, digits) = value(head, buf, b"grpc-timeout")?.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn value<'b>(head: &RequestHead, buf: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    let is_it = |field: &&Field| field.name.of(buf).eq_ignore_ascii_case(name);
    head.fields().iter().find(is_it).map(|field| field.value.of(buf))
}

/// Appends an answer that has a status and nothing else. Appends nothing for a reason without a status.
pub fn encode_failure(out: &mut Vec<u8>, reason: CloseReason, lines: &[u8], close: bool) {
    if reason.status() == 0 {
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: ");
    out.extend_from_slice(itoa::Buffer::new().format(status_of(reason)).as_bytes());
    out.extend_from_slice(b"\r\ngrpc-message: ");
    out.extend_from_slice(reason.name().as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n");
    out.extend_from_slice(lines);
    out.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
}

/// gRPC's status for a reason of ours.
const fn status_of(reason: CloseReason) -> u8 {
    const DEADLINE_EXCEEDED: u8 = 4;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    match reason.status() {
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 431 => RESOURCE_EXHAUSTED,
        404 | 405 | 501 => UNIMPLEMENTED,
        429 | 502 | 503 => UNAVAILABLE,
        _ => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::{HeadLimits, Parsed};

    fn with<T>(lines: &str, look: impl FnOnce(&RequestHead, &[u8]) -> T) -> T {
        let text = format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let limits = HeadLimits { bytes: 4096, fields: 20, target: 1000, method: 20 };
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &limits), Ok(Parsed::Complete));
        look(&head, text.as_bytes())
    }

    #[test]
    fn it_is_known_by_its_content() {
        for (kind, is_so) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(with(&format!("Content-Type: {kind}\r\n"), is_spoken), is_so, "{kind}");
        }
        assert!(!with("", is_spoken));
    }

    #[test]
    fn timeouts() {
        assert_eq!(with("grpc-timeout: 1S\r\n", timeout), None);
        for (said, meant) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("15S", Some(Duration::from_secs(15))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789m", None),
            ("m", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
        ] {
            let lines = format!("Content-Type: application/grpc\r\ngrpc-timeout: {said}\r\n");
            assert_eq!(with(&lines, timeout), meant, "{said}");
        }
    }

    #[test]
    fn failures_have_a_status() {
        let mut out = Vec::new();
        encode_failure(&mut out, CloseReason::NoBackend, b"Retry-After: 7\r\n", false);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\ngrpc-message: no-backend\r\n\
             Content-Length: 0\r\nRetry-After: 7\r\n\r\n"
        );
        assert_eq!((status_of(CloseReason::Deadline), status_of(CloseReason::NoRoute)), (4, 12));
    }
}
