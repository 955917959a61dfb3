//! The command line's side of the unix socket. Blocking; one request, one answer.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// Longest silence of the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer taken.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Fields in an answer's head.
const FIELDS_MAX: usize = 32;

/// Asks for `path`; gives the document, or the API's own error.
///
/// # Errors
/// No daemon answers at `socket`, it refuses, or what it says is no answer; the message names the socket.
pub fn get(socket: &Path, path: &str) -> Result<Value, String> {
    let place = socket.display();
    let answer = exchange(socket, path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no lb answers at {place} ({error}); is it running, and is --admin right?")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{place}: {error}; the admin socket is for its owner and group lb")
        }
        _ => format!("{place}: {error}"),
    })?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("{place}: the answer is not HTTP"))?;
    let document: Value =
        serde_json::from_slice(body).map_err(|error| format!("{place}: the answer is not JSON: {error}"))?;
    match document.pointer("/error/message").and_then(Value::as_str) {
        Some(message) => Err(message.to_owned()),
        None if status == 200 => Ok(document),
        None => Err(format!("{place}: status {status}")),
    }
}

fn exchange(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body. The server sends its length and closes, so the body is the rest, checked against the length.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let body = answer.get(length..)?;
    let stated = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let stated: usize = std::str::from_utf8(stated.value).ok()?.parse().ok()?;
    (stated == body.len()).then_some((head.code?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_answer_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((200, &b"{}"[..])));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_path() {
        let error = get(Path::new("/nonexistent/lb.sock"), "/v1/status").unwrap_err();
        assert!(error.contains("/nonexistent/lb.sock") && error.contains("is it running"), "{error}");
    }
}
