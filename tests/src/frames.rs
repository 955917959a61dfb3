//! A client of HTTP/2 that writes its own frames, sound or not, and names what it gets for them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{netns::Namespace, peer};

/// Kinds of frames. Source: RFC 9113, 6.
pub mod kind {
    #![allow(missing_docs, reason = "the RFC's words")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    pub const UNKNOWN: u8 = 0xfa;
}

/// Error codes. Source: RFC 9113, 7.
pub mod code {
    #![allow(missing_docs, reason = "the RFC's words")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// A head that is all of its request.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// What a connection of HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A number as HPACK has it, behind the bits that are set in `first`. Source: RFC 7541, 5.1.
fn push_number(out: &mut Vec<u8>, first: u8, bits: u32, mut number: usize) {
    let most = (1usize << bits) - 1;
    if number < most {
        return out.push(first | number as u8);
    }
    out.push(first | most as u8);
    number -= most;
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A field, never indexed nor compressed.
pub fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name.as_ref(), value.as_ref()] {
        push_number(&mut out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
    out
}

/// A header block.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A request's pseudo header fields.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)])
}

/// What a peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Which stream.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// What an input comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stream is reset with this code; the connection goes on.
    Reset(u32),
    /// The connection ends with this code.
    GoAway(u32),
    /// A response of this status.
    Status(u16),
    /// Nothing; the connection goes on.
    Nothing,
}

/// A connection whose preface was exchanged.
#[derive(Debug)]
pub struct Hostile {
    stream: TcpStream,
    pings: u8,
}

impl Hostile {
    /// Connects, says the preface and these settings.
    ///
    /// # Errors
    /// No connection, or no settings of the server's.
    pub fn connect(netns: &Namespace, address: IpAddr, port: u16, settings: &[u8]) -> Result<Self> {
        let mut this = Self { stream: peer::connect(netns, address, port)?, pings: 0 };
        this.send(&[PREFACE, &frame(kind::SETTINGS, 0, 0, settings)].concat());
        let first = this.receive()?.context("closed at the preface")?;
        ensure!(first.kind == kind::SETTINGS && first.flags == 0, "begins with {first:?}");
        this.send(&frame(kind::SETTINGS, ACK, 0, &[]));
        Ok(this)
    }

    /// Sends bytes. Whoever was sent away cannot write any more, and finds out when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        _ = self.stream.write_all(bytes);
    }

    /// The next frame; `None`: closed.
    ///
    /// # Errors
    /// Nothing comes for long, or half a frame.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("waiting for a frame"),
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).context("half a frame")?;
        Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }))
    }

    /// What comes for what was sent on a stream, all that it is: a PING behind it was answered, and so was whatever
    /// comes of the stream later, where something is to come.
    ///
    /// # Errors
    /// It does not go on as the answer means it to.
    pub fn answer(&mut self, stream: u32, expects_something: bool) -> Result<Answer> {
        let mut answer = Answer::Nothing;
        // Twice: what is said of a stream may come behind the answer to a PING that came behind it.
        for _ in 0..2 {
            self.pings += 1;
            let mark = [self.pings; 8];
            self.send(&frame(kind::PING, 0, 0, &mark));
            let mut is_marked = false;
            while !is_marked || (expects_something && answer == Answer::Nothing) {
                let Some(next) = self.receive()? else { bail!("closed without GOAWAY, behind {answer:?}") };
                match next.kind {
                    kind::PING if next.flags == ACK => is_marked |= next.payload == mark,
                    kind::GOAWAY => return self.farewell(&next),
                    kind::RST_STREAM if next.stream == stream => {
                        answer = Answer::Reset(number(&next.payload, 0)?)
                    }
                    kind::HEADERS if next.stream == stream => answer = Answer::Status(status(&next.payload)?),
                    kind::SETTINGS | kind::WINDOW_UPDATE | kind::DATA => {}
                    _ if next.stream != stream => {}
                    _ => bail!("{next:?}"),
                }
            }
        }
        Ok(answer)
    }

    /// GOAWAY has come: nothing but the end comes behind it.
    fn farewell(&mut self, goaway: &Frame) -> Result<Answer> {
        let code = number(&goaway.payload, 4)?;
        while let Some(next) = self.receive()? {
            let is_last_word = matches!(
                next.kind,
                kind::GOAWAY | kind::RST_STREAM | kind::PING | kind::DATA | kind::HEADERS | kind::SETTINGS
            );
            ensure!(is_last_word, "behind GOAWAY: {next:?}");
        }
        Ok(Answer::GoAway(code))
    }

    /// Whether a sound request is answered.
    ///
    /// # Errors
    /// It is not, with 200.
    pub fn is_sound(&mut self, stream: u32, path: &str) -> Result<()> {
        self.send(&frame(kind::HEADERS, WHOLE, stream, &request("GET", path)));
        let answer = self.answer(stream, true)?;
        ensure!(answer == Answer::Status(200), "a sound request gets {answer:?}");
        Ok(())
    }
}

fn number(payload: &[u8], at: usize) -> Result<u32> {
    let bytes = payload.get(at..at + 4).with_context(|| format!("too short: {payload:?}"))?;
    Ok(u32::from_be_bytes(bytes.try_into()?))
}

/// `:status` of a header block that begins with it. Source: RFC 7541, 6 and appendices A and B.
fn status(block: &[u8]) -> Result<u16> {
    let mut block = block;
    // Sizes of the table come first: in five bits, or in bytes behind them, of which the last has no upper bit.
    while let [byte @ 0x20..0x40, rest @ ..] = block {
        let more = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |last| last + 1);
        block = rest.get(if *byte == 0x3f { more } else { 0 }..).unwrap_or_default();
    }
    match *block {
        [byte @ 0x88..=0x8e, ..] => Ok([200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)]),
        [0x08 | 0x18 | 0x48, length @ 0x01..0x80, ref rest @ ..] => {
            let digits = rest.get(..usize::from(length)).context("half a status")?;
            Ok(std::str::from_utf8(digits)?.parse()?)
        }
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] => {
            let bytes = rest.get(..usize::from(length & 0x7f)).context("half a status")?;
            let bits =
                bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * bytes.len());
            Ok(huffman_digits(bits))
        }
        _ => bail!("no status: {block:?}"),
    }
}

/// Three digits: of five bits up to 2, of six from 3.
fn huffman_digits(mut bits: u32) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let short = bits >> 27;
        let (digit, length) = if short <= 2 { (short, 5) } else { ((bits >> 26) - 0x16, 6) };
        number = number * 10 + digit as u16;
        bits <<= length;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (block, expected) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8c, 1], 400),
            (&[0x08, 3, b'4', b'3', b'1'], 431),
            // RFC 7541, C.6.1 and C.6.2.
            (&[0x48, 0x82, 0x64, 0x02], 302),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
        ] {
            assert_eq!(status(block).unwrap(), expected, "{block:?}");
        }
        assert!(status(&[0x40]).is_err());
    }

    #[test]
    fn numbers_of_hpack() {
        let mut out = Vec::new();
        push_number(&mut out, 0, 5, 1337);
        push_number(&mut out, 0xe0, 5, 10);
        assert_eq!(out, [31, 154, 10, 0xea]);
    }
}
