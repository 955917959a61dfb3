//! Answers that we give ourselves.

use crate::model::reason::CloseReason;

/// Appends a whole answer for `reason`: status line, a line of text that names the reason, and its length.
/// Appends nothing for a reason without a status: those connections are just closed. `lines`: further field lines, each with its
/// CRLF.
pub fn encode_error(out: &mut Vec<u8>, reason: CloseReason, lines: &[u8], head_request: bool, close: bool) {
    if reason.status() == 0 {
        return;
    }
    let mut digits = itoa::Buffer::new();
    let status = digits.format(reason.status()).as_bytes();
    let phrase = phrase(reason.status()).as_bytes();
    let name = reason.name().as_bytes();
    let length = status.len() + 1 + phrase.len() + 2 + name.len() + 1;

    out.extend_from_slice(b"HTTP/1.1 ");
    for part in [status, b" ", phrase, b"\r\nContent-Type: text/plain\r\nContent-Length: "] {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(lines);
    out.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
    if !head_request {
        for part in [status, b" ", phrase, b": ", name, b"\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// Reason phrases of the statuses that a [`CloseReason`] can carry. Source: RFC 9110, 15; RFC 6585.
const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_makes_a_sound_answer() {
        for &reason in CloseReason::ALL {
            for (head_request, close) in [(false, false), (false, true), (true, true)] {
                let mut out = Vec::new();
                encode_error(&mut out, reason, b"Retry-After: 7\r\n", head_request, close);
                if reason.status() == 0 {
                    assert!(out.is_empty());
                    continue;
                }
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut response = httparse::Response::new(&mut headers);
                let head = response.parse(&out).unwrap().unwrap();
                assert_eq!(response.code, Some(reason.status()));
                assert_ne!(response.reason, Some("Error"), "{reason:?} has no phrase");
                let value = |name: &str| {
                    let field = response.headers.iter().find(|h| h.name == name)?;
                    Some(std::str::from_utf8(field.value).unwrap())
                };
                let body = std::str::from_utf8(&out[head..]).unwrap();
                let length = value("Content-Length").unwrap().parse::<usize>().unwrap();
                assert_eq!(body.len(), if head_request { 0 } else { length });
                assert!(head_request || body.ends_with(&format!("{}\n", reason.name())));
                assert_eq!(value("Connection"), close.then_some("close"));
                assert_eq!(value("Retry-After"), Some("7"));
            }
        }
    }
}
