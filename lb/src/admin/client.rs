//! The command line's side of the unix socket. Blocking; one request, one answer.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_abi::capture::CaptureCounters;
use serde_json::Value;

use super::{capture::blocks, packets::CAPTURE_MAX, query::encode};
use crate::model::{Question, RequestQuestion};

/// Longest silence of the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer taken.
pub(super) const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Fields in an answer's head.
const FIELDS_MAX: usize = 32;

/// Asks for `path`; gives the document, or the API's own error.
///
/// # Errors
/// No daemon answers at `socket`, it refuses, or what it says is no answer; the message names the socket.
pub fn get(socket: &Path, path: &str) -> Result<Value, String> {
    let place = socket.display();
    let answer = exchange(socket, path).map_err(|error| no_answer(socket, &error))?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("{place}: the answer is not HTTP"))?;
    document(socket, status, body)
}

pub(super) fn no_answer(socket: &Path, error: &io::Error) -> String {
    let place = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no lb answers at {place} ({error}); is it running, and is --admin right?")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{place}: {error}; the admin socket is for its owner and group lb")
        }
        _ => format!("{place}: {error}"),
    }
}

fn document(socket: &Path, status: u16, body: &[u8]) -> Result<Value, String> {
    let place = socket.display();
    let document: Value =
        serde_json::from_slice(body).map_err(|error| format!("{place}: the answer is not JSON: {error}"))?;
    match document.pointer("/error/message").and_then(Value::as_str) {
        Some(message) => Err(message.to_owned()),
        None if status == 200 => Ok(document),
        None => Err(format!("{place}: status {status}")),
    }
}

/// Asks what would become of a packet.
///
/// # Errors
/// As [`get`].
pub fn why(socket: &Path, question: &Question) -> Result<Value, String> {
    get(socket, &format!("/v1/why?flow={}", encode(&question.to_string())))
}

/// Asks which route would take a request.
///
/// # Errors
/// As [`get`].
pub fn why_request(socket: &Path, question: &RequestQuestion) -> Result<Value, String> {
    get(socket, &format!("/v1/why?request={}", encode(&question.to_string())))
}

/// A capture that runs until this is dropped, or the daemon has sent what was asked for.
#[derive(Debug)]
pub struct CaptureStream {
    stream: UnixStream,
    socket: PathBuf,
    /// Bytes that came and were not given out yet.
    waiting: Vec<u8>,
}

/// One block of a capture's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureBlock {
    /// All of it, as it belongs into a file.
    pub bytes: Vec<u8>,
    /// It is a packet.
    pub is_packet: bool,
    /// The tally it holds, if it is one.
    pub tally: Option<CaptureCounters>,
}

/// How often whoever waits for a block is asked whether to go on.
const BREATH: Duration = Duration::from_millis(100);

/// Begins a capture; `wishes` as in [`super::capture::PARAMETERS`].
///
/// # Errors
/// As [`get`].
pub fn capture(socket: &Path, wishes: &[(&str, String)]) -> Result<CaptureStream, String> {
    let query: Vec<String> = wishes.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    let begin = || -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(CAPTURE_MAX + TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        // Of version 1.0: then the body is not cut into chunks, and ends with the connection.
        write!(stream, "GET /v1/capture?{} HTTP/1.0\r\nHost: localhost\r\n\r\n", query.join("&"))?;
        Ok(stream)
    };
    let stream = begin().map_err(|error| no_answer(socket, &error))?;
    let mut this = CaptureStream { stream, socket: socket.to_owned(), waiting: Vec::new() };
    let status = this.read_head()?;
    if status == 200 {
        return Ok(this);
    }
    let mut rest = Vec::new();
    _ = this.stream.take(ANSWER_BYTES_MAX).read_to_end(&mut rest);
    let body = [this.waiting, rest].concat();
    Err(document(socket, status, &body).err().unwrap_or_else(|| format!("status {status}")))
}

impl CaptureStream {
    /// Reads to the end of the head, and no matter how far beyond.
    fn read_head(&mut self) -> Result<u16, String> {
        let place = self.socket.display().to_string();
        let not_http = || format!("{place}: the answer is not HTTP");
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut head = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(length) = head.parse(&self.waiting).map_err(|_| not_http())? {
                let status = head.code.ok_or_else(not_http)?;
                self.waiting.drain(..length);
                return Ok(status);
            }
            if self.read_more()? == 0 {
                return Err(not_http());
            }
        }
    }

    fn read_more(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 64 << 10];
        let size =
            self.stream.read(&mut buffer).map_err(|error| format!("{}: {error}", self.socket.display()))?;
        self.waiting.extend(&buffer[..size]);
        Ok(size)
    }

    /// The next block. `None`: it is over, on the daemon's side or because `is_enough` says so.
    ///
    /// # Errors
    /// The connection broke, or what comes is no capture.
    pub fn next_block(&mut self, is_enough: impl Fn() -> bool) -> Result<Option<CaptureBlock>, String> {
        self.stream.set_read_timeout(Some(BREATH)).map_err(|error| error.to_string())?;
        loop {
            if let Some((kind, block)) = blocks::block(&self.waiting)? {
                let block = CaptureBlock {
                    bytes: block.to_vec(),
                    is_packet: kind == blocks::PACKET,
                    tally: blocks::tally(block),
                };
                self.waiting.drain(..block.bytes.len());
                return Ok(Some(block));
            }
            if is_enough() {
                return Ok(None);
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) if self.waiting.is_empty() => return Ok(None),
                Ok(0) => return Err("the daemon ended in the middle of a packet".to_owned()),
                Ok(size) => self.waiting.extend(&buffer[..size]),
                Err(error) if is_a_breath(&error) => {}
                Err(error) => return Err(format!("{}: {error}", self.socket.display())),
            }
        }
    }
}

/// Nothing came for a moment, or a signal did.
fn is_a_breath(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
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
pub(super) fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
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
