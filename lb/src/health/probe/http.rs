//! One request of HTTP/1.1 on a connection that ends with its answer. Strict in reading: what two readers could take
//! differently is malformed (RFC 9112, 11.2).

use std::fmt::Write as _;

use memchr::memmem;

use super::fault::{Fault, Found, quoted};
use crate::config::{BodyTest, HttpCheck, Statuses};

/// Most bytes of heads, interim ones included.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a body that are looked at.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a line before a chunk.
const CHUNK_LINE_MAX: usize = 256;

/// The request.
pub(super) fn question(check: &HttpCheck, address: &str) -> Vec<u8> {
    let method = if check.is_head { "HEAD" } else { "GET" };
    let host = check.host.as_deref().unwrap_or(address);
    let mut text = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", check.path);
    if !check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        text.push_str("User-Agent: lb\r\n");
    }
    for (name, value) in &check.headers {
        // To a string nothing is refused.
        _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The answer, as it comes.
#[derive(Debug)]
pub(super) struct Answer<'s> {
    status: &'s Statuses,
    test: Option<&'s BodyTest>,
    is_head: bool,
    state: State,
    /// Bytes of heads that are behind us.
    heads: usize,
    /// What is not read yet.
    heard: Vec<u8>,
    body: Vec<u8>,
    /// So much of the body was looked through for the text.
    searched: usize,
}

/// What is awaited.
#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    /// So many bytes are left.
    Length(u64),
    End,
    Chunk,
    ChunkData(u64),
    /// The line end behind a chunk.
    ChunkEnd,
}

impl<'s> Answer<'s> {
    pub(super) fn new(status: &'s Statuses, test: Option<&'s BodyTest>, is_head: bool) -> Self {
        let (heard, body) = (Vec::new(), Vec::new());
        Self { status, test, is_head, state: State::Head, heads: 0, heard, body, searched: 0 }
    }

    pub(super) fn handle(&mut self, mut bytes: &[u8]) -> Found {
        // Piece by piece, so that what is held stays within bounds however much comes at once.
        loop {
            let piece = bytes.len().min(HEAD_BYTES_MAX);
            let (now, later) = bytes.split_at(piece);
            self.heard.extend_from_slice(now);
            bytes = later;
            match self.read().unwrap_or_else(Found::Down) {
                Found::More if bytes.is_empty() => return Found::More,
                Found::More => {}
                found => return found,
            }
        }
    }

    pub(super) fn handle_end(&mut self) -> Found {
        match self.state {
            State::End => self.judge_body(),
            State::Head if self.heard.is_empty() && self.heads == 0 => {
                Found::Down(Fault::closed("closed before the answer"))
            }
            _ => Found::Down(Fault::closed("closed within the answer")),
        }
    }

    /// Reads on until it is known what the answer is, or more is needed.
    fn read(&mut self) -> Result<Found, Fault> {
        loop {
            let is_enough = match self.state {
                State::Head => match self.read_head()? {
                    Some(found) => return Ok(found),
                    None if matches!(self.state, State::Head) => return Ok(Found::More),
                    None => false,
                },
                State::End => {
                    self.take(u64::MAX);
                    return Ok(self.found_early().unwrap_or(Found::More));
                }
                State::Length(left) => {
                    let left = left - self.take(left);
                    self.state = State::Length(left);
                    left == 0
                }
                State::Chunk => match self.chunk_line()? {
                    None => return Ok(Found::More),
                    Some(0) => true,
                    Some(len) => {
                        self.state = State::ChunkData(len);
                        false
                    }
                },
                State::ChunkData(left) => match left - self.take(left) {
                    0 => {
                        self.state = State::ChunkEnd;
                        false
                    }
                    left => {
                        self.state = State::ChunkData(left);
                        return Ok(self.found_early().unwrap_or(Found::More));
                    }
                },
                State::ChunkEnd => match self.heard.get(..2) {
                    None if self.heard.first().is_none_or(|byte| *byte == b'\r') => return Ok(Found::More),
                    Some(b"\r\n") => {
                        self.heard.drain(..2);
                        self.state = State::Chunk;
                        false
                    }
                    _ => return Err(Fault::malformed("a chunk is longer than it says")),
                },
            };
            if is_enough {
                return Ok(self.judge_body());
            }
            if let Some(found) = self.found_early() {
                return Ok(found);
            }
            if matches!(self.state, State::Length(_)) && self.heard.is_empty() {
                return Ok(Found::More);
            }
        }
    }

    /// `None`: the head is not whole, or a body follows it.
    fn read_head(&mut self) -> Result<Option<Found>, Fault> {
        loop {
            let start = b"HTTP/1.";
            let seen = self.heard.len().min(start.len());
            if self.heard[..seen] != start[..seen] {
                return Err(Fault::malformed(format!("no HTTP/1: \"{}\"", quoted(&self.heard))));
            }
            let Some(end) = memmem::find(&self.heard, b"\r\n\r\n") else {
                return match self.heads + self.heard.len() > HEAD_BYTES_MAX {
                    true => Err(Fault::malformed(format!("a head of more than {HEAD_BYTES_MAX} bytes"))),
                    false => Ok(None),
                };
            };
            let len = end + 4;
            self.heads += len;
            if self.heads > HEAD_BYTES_MAX {
                return Err(Fault::malformed(format!("a head of more than {HEAD_BYTES_MAX} bytes")));
            }
            // With the line end of its last line.
            let head = Head::parse(&self.heard[..end + 2])?;
            self.heard.drain(..len);
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            if !self.status.contains(head.status) {
                return Err(Fault::wrong(head.status.to_string()));
            }
            if self.test.is_none() {
                return Ok(Some(Found::Up));
            }
            self.state = match head.framing {
                _ if self.is_head || matches!(head.status, 204 | 304) => return Ok(Some(self.judge_body())),
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Chunk,
                Framing::UntilEnd => State::End,
            };
            return Ok(None);
        }
    }

    /// Takes up to `max` bytes into the body; how many.
    fn take(&mut self, max: u64) -> u64 {
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.heard.len());
        let room = (BODY_BYTES_MAX - self.body.len()).min(len);
        self.body.extend_from_slice(&self.heard[..room]);
        self.heard.drain(..len);
        len as u64
    }

    /// Length of the next chunk, where its line has come.
    fn chunk_line(&mut self) -> Result<Option<u64>, Fault> {
        let bad = || Fault::malformed("a chunk without its length");
        let window = self.heard.get(..CHUNK_LINE_MAX).unwrap_or(&self.heard);
        let Some(end) = memmem::find(window, b"\r\n") else {
            return if window.len() == CHUNK_LINE_MAX { Err(bad()) } else { Ok(None) };
        };
        let line = &self.heard[..end];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (number, extension) = line.split_at(digits);
        let is_extension = matches!(extension.first(), None | Some(b';' | b' ' | b'\t'));
        if !(1..=15).contains(&digits) || !is_extension || !extension.iter().all(is_plain) {
            return Err(bad());
        }
        let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
        let len = number.iter().fold(0, |len, byte| len << 4 | digit(byte));
        self.heard.drain(..end + 2);
        Ok(Some(len))
    }

    /// What more of the body cannot change: the text is there, or as much as is looked at.
    fn found_early(&mut self) -> Option<Found> {
        if let Some(BodyTest::Text(text)) = self.test {
            // It may have begun in what was looked through.
            let from = self.searched.saturating_sub(text.len() - 1);
            if memmem::find(&self.body[from..], text.as_bytes()).is_some() {
                return Some(Found::Up);
            }
            self.searched = self.body.len();
        }
        (self.body.len() == BODY_BYTES_MAX).then(|| self.judge_body())
    }

    fn judge_body(&self) -> Found {
        let is_right = match self.test {
            None => true,
            Some(BodyTest::Text(text)) => memmem::find(&self.body, text.as_bytes()).is_some(),
            Some(BodyTest::Pattern(pattern)) => pattern.matches(&self.body),
        };
        match is_right {
            true => Found::Up,
            false => Found::Down(Fault::wrong("the body is not as expected")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

struct Head {
    status: u16,
    framing: Framing,
}

impl Head {
    /// `head` has all of its lines, each with its line end.
    fn parse(head: &[u8]) -> Result<Self, Fault> {
        let line_end = memmem::find(head, b"\r\n").ok_or_else(|| Fault::malformed("no status line"))?;
        let (line, fields) = (&head[..line_end], &head[line_end + 2..]);
        let status = status(line)
            .ok_or_else(|| Fault::malformed(format!("a bad status line: \"{}\"", quoted(line))))?;
        let (mut length, mut is_chunked) = (None, false);
        for field in fields.split_inclusive(|byte| *byte == b'\n') {
            let bad = || Fault::malformed(format!("a bad field: \"{}\"", quoted(field)));
            let (name, value) = parse_field(field).ok_or_else(bad)?;
            if name.eq_ignore_ascii_case(b"content-length") {
                let parsed = decimal(value).ok_or_else(bad)?;
                if length.replace(parsed).is_some_and(|other| other != parsed) {
                    return Err(Fault::malformed("two lengths of the body"));
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::malformed("a transfer coding other than chunked"));
                }
                is_chunked = true;
            }
        }
        let framing = match (length, is_chunked) {
            (Some(_), true) => return Err(Fault::malformed("both a length and a transfer coding")),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::UntilEnd,
        };
        Ok(Self { status, framing })
    }
}

/// Neither a control character nor a line end.
fn is_plain(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

/// `HTTP/1.1 200 OK`, without its line end.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, phrase) = rest.split_at_checked(3)?;
    if !matches!(phrase.first(), None | Some(b' ')) || !phrase.iter().all(is_plain) {
        return None;
    }
    let status = decimal(digits)?;
    (100..=599).contains(&status).then_some(status as u16)
}

/// A line with its line end, as name and value (RFC 9112, 5; obsolete folding is refused).
fn parse_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b"\r\n")?;
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_good = !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_plain);
    is_good.then(|| (name, value.trim_ascii()))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
