//! One POST over plain HTTP/1.1 on a connection that ends with its answer. Blocks, for a thread that has nothing else to do.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::l7::http1::{BodyReader, HeadLimits, Parsed, ResponseHead, Side, Step};

/// Longest answer, with its head.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is sent.
pub(super) struct Post<'p> {
    pub(super) authority: &'p str,
    pub(super) path: &'p str,
    pub(super) content_type: &'p str,
    pub(super) body: &'p [u8],
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is there, or goes silent.
    Io(io::Error),
    /// It is none that is of use.
    Http(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Post<'_> {
    /// The body of an answer with status 200.
    ///
    /// # Errors
    /// There is none until `deadline`.
    pub(super) fn send(&self, address: SocketAddr, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        stream.set_write_timeout(Some(left(deadline)?))?;
        let Self { authority, path, content_type, body } = self;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: lb\r\nConnection: close\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            stream.set_read_timeout(Some(left(deadline)?))?;
            let len = stream.read(&mut chunk)?;
            bytes.extend_from_slice(&chunk[..len]);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Http(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
            }
            if let Some(body) = read(&bytes, len == 0)? {
                return Ok(body);
            }
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The body, once it is whole; `has_ended`: nothing more comes.
fn read(mut bytes: &[u8], has_ended: bool) -> Result<Option<Vec<u8>>, Failure> {
    let broken = || Failure::Http("the answer is no HTTP".to_owned());
    let early =
        || if has_ended { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(None) };
    let mut head = ResponseHead::default();
    loop {
        match head.parse(bytes, &HeadLimits::default(), false).map_err(|_| broken())? {
            Parsed::Partial => return early(),
            Parsed::Complete => bytes = bytes.get(head.len()..).unwrap_or_default(),
        }
        if !head.is_interim() {
            break;
        }
    }
    if head.status() != 200 {
        return Err(Failure::Http(format!("status {}", head.status())));
    }
    let ends_with_connection = head.body() == crate::l7::http1::Body::UntilClose;
    let (mut reader, mut body) = (BodyReader::new(head.body(), Side::Response), Vec::new());
    loop {
        match reader.next(bytes).map_err(|_| broken())? {
            Step::Data { skip, len } => {
                let (payload, rest) = bytes.get(skip..).unwrap_or_default().split_at(len);
                body.extend_from_slice(payload);
                bytes = rest;
            }
            Step::Done { .. } => return Ok(Some(body)),
            Step::More { .. } if has_ended && ends_with_connection => return Ok(Some(body)),
            Step::More { .. } => return early(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_it_is_none() {
        let said = |text: &str, has_ended| match read(text.as_bytes(), has_ended) {
            Ok(body) => body.map_or_else(|| "more".to_owned(), |body| String::from_utf8(body).unwrap()),
            Err(Failure::Http(text)) => text,
            Err(Failure::Io(error)) => error.kind().to_string(),
        };
        for (text, has_ended, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, "abc"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, "more"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", true, "unexpected end of file"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                false,
                "abc",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nab", false, "more"),
            ("HTTP/1.0 200 OK\r\n\r\nab", true, "ab"),
            ("HTTP/1.1 200", true, "unexpected end of file"),
            ("", false, "more"),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false, "status 503"),
            ("SSH-2.0\r\n", false, "the answer is no HTTP"),
        ] {
            assert_eq!(said(text, has_ended), expected, "{text:?} {has_ended}");
        }
    }
}
