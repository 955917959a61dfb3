//! Connections that were used once and wait.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::pin;
use crate::netns::Namespace;

const SILENCE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 8192;

/// Keepalive connections, each after one answered request; closed when dropped.
#[derive(Debug)]
pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// Makes `count` of them, one after the other.
    ///
    /// # Errors
    /// One is refused or its request is not answered by 200.
    pub(crate) fn open(client: (&Namespace, &[usize]), address: SocketAddr, count: usize) -> Result<Self> {
        client.0.run(|| {
            pin(client.1)?;
            let open = |index| exchange(address).with_context(|| format!("connection {index} of {count}"));
            (0..count).map(open).collect::<Result<_>>().map(Self)
        })?
    }

    /// How many the subject has not closed.
    ///
    /// # Errors
    /// A connection cannot be looked at.
    pub(crate) fn alive(&self) -> Result<usize> {
        let mut alive = 0;
        for stream in &self.0 {
            stream.set_nonblocking(true)?;
            // Nothing to read: it waits. An end, an error or unasked bytes: it does not.
            alive += usize::from(
                stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            );
        }
        Ok(alive)
    }
}

fn exchange(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "closed in the middle of an answer");
        answer.extend_from_slice(&piece[..read]);
        if is_complete(&answer)? {
            return Ok(stream);
        }
        ensure!(answer.len() < HEAD_MAX, "a long answer");
    }
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
}
