//! Connections that were used once and wait.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::frames::{END_STREAM, PREFACE, WHOLE, block, frame, kind};
use rustls::{ClientConfig, ClientConnection, Stream};

use super::{
    pin,
    tls::{self, SERVER},
};
use crate::{backend::SMALL, netns::Namespace};

const SILENCE_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 8192;

/// What connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// HTTP/1.1 in the clear.
    Http1,
    /// The same over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

/// Connections, each after one answered request; closed when dropped.
#[derive(Debug)]
pub(crate) struct Idle {
    streams: Vec<TcpStream>,
    waits: Waits,
}

impl Idle {
    /// Makes `count` of them, one after the other.
    ///
    /// # Errors
    /// One is refused or its request is not answered by 200.
    pub(crate) fn open(
        client: (&Namespace, &[usize]),
        address: SocketAddr,
        waits: Waits,
        count: usize,
    ) -> Result<Self> {
        let config = match waits {
            Waits::Http1 => None,
            Waits::Tls => Some(Arc::new(tls::client(b"http/1.1")?)),
            Waits::Http2 => Some(Arc::new(tls::client(b"h2")?)),
        };
        client.0.run(|| {
            pin(client.1)?;
            let open = |index| {
                let opened = begin(address, waits, config.as_ref());
                opened.with_context(|| format!("connection {index} of {count}"))
            };
            let streams = (0..count).map(open).collect::<Result<_>>()?;
            Ok(Self { streams, waits })
        })?
    }

    /// How many the subject has not closed.
    ///
    /// # Errors
    /// A connection cannot be looked at.
    pub(crate) fn alive(&self) -> Result<usize> {
        let mut alive = 0;
        for stream in &self.streams {
            stream.set_nonblocking(true)?;
            alive += usize::from(self.waits_still(stream));
        }
        Ok(alive)
    }

    /// An end, an error, or unasked bytes: it does not. Within TLS some may have come behind the answer, as tickets do.
    fn waits_still(&self, mut stream: &TcpStream) -> bool {
        let mut piece = [0; 1024];
        loop {
            match stream.read(&mut piece) {
                Ok(1..) if self.waits != Waits::Http1 => {}
                Ok(_) => return false,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn begin(address: SocketAddr, waits: Waits, config: Option<&Arc<ClientConfig>>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let ask = match waits {
        Waits::Http1 => format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", SMALL.path).into_bytes(),
        // As its certificate has it.
        Waits::Tls => format!("GET {} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n", SMALL.path).into_bytes(),
        Waits::Http2 => {
            let fields =
                [(":method", "GET"), (":scheme", "https"), (":authority", SERVER), (":path", SMALL.path)];
            let settings = frame(kind::SETTINGS, 0, 0, &[]);
            [PREFACE, &settings, &frame(kind::HEADERS, WHOLE, 1, &block(&fields))].concat()
        }
    };
    let is_whole = if waits == Waits::Http2 { has_ended } else { is_complete };
    match config {
        None => exchange(&mut stream, &ask, is_whole)?,
        Some(config) => {
            let mut session = ClientConnection::new(Arc::clone(config), SERVER.try_into()?)?;
            exchange(&mut Stream::new(&mut session, &mut stream), &ask, is_whole)?;
        }
    }
    Ok(stream)
}

fn exchange(
    stream: &mut (impl Read + Write),
    ask: &[u8],
    is_whole: impl Fn(&[u8]) -> Result<bool>,
) -> Result<()> {
    stream.write_all(ask)?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !is_whole(&answer)? {
        ensure!(answer.len() < ANSWER_MAX, "a long answer");
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "closed in the middle of an answer");
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

/// Whether the only stream has ended, by a body that is the one asked for.
fn has_ended(mut frames: &[u8]) -> Result<bool> {
    let mut body = 0;
    while let Some(&[a, b, c, kind, flags, ..]) = frames.first_chunk::<9>() {
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some(rest) = frames.get(9 + len..) else { return Ok(false) };
        frames = rest;
        ensure!(kind != kind::RST_STREAM && kind != kind::GOAWAY, "refused by a frame of kind {kind}");
        if kind == kind::DATA {
            body += len as u64;
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && flags & END_STREAM != 0 {
            ensure!(body == SMALL.len, "a body of {body} bytes");
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether head and body are there.
fn is_complete(answer: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered {head}");
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { bail!("no field: {line}") };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(body.len() >= value.trim().parse::<usize>()?);
        }
    }
    bail!("no length: {head}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-Length: 3\r\n\r\nabc";
        for cut in 0..answer.len() {
            assert!(!is_complete(&answer[..cut]).unwrap(), "{cut}");
        }
        assert!(is_complete(answer).unwrap());
        assert!(is_complete(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(is_complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_stream_has_ended_with_its_last_frame() {
        let body = [b'x'; SMALL.len as usize];
        let answer = [
            frame(kind::SETTINGS, 0, 0, &[]),
            frame(kind::HEADERS, 4, 1, &[0x88]),
            frame(kind::DATA, 0, 1, &body[..50]),
            frame(kind::DATA, END_STREAM, 1, &body[50..]),
        ]
        .concat();
        for cut in 0..answer.len() {
            assert!(!has_ended(&answer[..cut]).unwrap(), "{cut}");
        }
        assert!(has_ended(&answer).unwrap());
        assert!(has_ended(&frame(kind::DATA, END_STREAM, 1, &body[50..])).is_err());
        assert!(has_ended(&frame(kind::GOAWAY, 0, 0, &[0; 8])).is_err());
    }
}
