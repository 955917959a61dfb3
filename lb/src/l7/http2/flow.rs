//! The two ways of one stream, as bytes of HTTP/1.1: whoever reads and writes them knows nothing of HTTP/2.

use std::{
    fmt,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::Response;

use super::{
    BodyForm,
    response::read_response,
    trailers::{read_trailers, write_trailers},
};
use crate::l7::http1::{Body, BodyReader, BodyWriter, Side, Step};

/// Of a body that nobody wants as much is thrown away.
const DRAINED_BYTES_MAX: usize = 64 << 10;

/// Fields behind a body.
const TRAILERS_MAX: usize = 128;

/// The stream was reset, or its connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What comes on a stream.
pub struct Inflow {
    stream: RecvStream,
    /// How it is written down.
    writer: BodyWriter,
    has_ended: bool,
}

impl fmt::Debug for Inflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflow").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Inflow {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self { stream, writer: BodyWriter::Raw, has_ended: false }
    }

    /// Whether nothing follows the head.
    pub fn is_empty(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Throws away what is here already.
    pub fn drain(&mut self) {
        let mut task = Context::from_waker(Waker::noop());
        let mut left = DRAINED_BYTES_MAX;
        loop {
            match self.stream.poll_data(&mut task) {
                Poll::Ready(Some(Ok(data))) if left > data.len() => {
                    left -= data.len();
                    let _ = self.stream.flow_control().release_capacity(data.len());
                }
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
    }

    /// How a body is written down whose head was written so.
    pub fn frame(&mut self, form: BodyForm) {
        self.writer = if form == BodyForm::Chunked { BodyWriter::Chunked } else { BodyWriter::Raw };
    }

    /// Puts what comes next behind `out`, and lets the peer send as much again. False: there is nothing more.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn poll_read(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<bool, Gone>> {
        while !self.has_ended {
            match ready!(self.stream.poll_data(task)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.writer.frame(out, &data);
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Ok(true));
                }
                Some(Err(_)) => return Poll::Ready(Err(Gone)),
                None => {
                    let fields = ready!(self.stream.poll_trailers(task)).map_err(|_| Gone)?;
                    self.has_ended = true;
                    if self.writer == BodyWriter::Chunked {
                        out.extend_from_slice(b"0\r\n");
                        if let Some(fields) = fields {
                            write_trailers(&fields, TRAILERS_MAX, out).map_err(|_| Gone)?;
                        }
                        out.extend_from_slice(b"\r\n");
                        return Poll::Ready(Ok(true));
                    }
                }
            }
        }
        Poll::Ready(Ok(false))
    }
}

/// What goes on a stream.
pub struct Outflow {
    state: Out,
    /// The request asks for a tunnel.
    is_tunnel: bool,
}

enum Out {
    /// Of the head as much as has come; interim ones may go before it.
    Head(SendResponse<Bytes>, Vec<u8>),
    Body(SendStream<Bytes>, BodyReader),
    /// Bytes as they are.
    Tunnel(SendStream<Bytes>),
    Ended(SendStream<Bytes>),
    Over,
}

impl fmt::Debug for Outflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            Out::Head(..) => "Outflow(head)",
            Out::Body(..) => "Outflow(body)",
            Out::Tunnel(..) => "Outflow(tunnel)",
            Out::Ended(_) | Out::Over => "Outflow(ended)",
        })
    }
}

impl Outflow {
    pub(super) const fn answer(respond: SendResponse<Bytes>) -> Self {
        Self { state: Out::Head(respond, Vec::new()), is_tunnel: false }
    }

    /// Takes bytes of an HTTP/1.1 response from `bytes[*taken..]`, and says how many by `taken`; ready once it has them all.
    /// `is_head`: it answers a HEAD request.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn poll_write(
        &mut self,
        task: &mut Context<'_>,
        bytes: &[u8],
        taken: &mut usize,
        is_head: bool,
    ) -> Poll<Result<(), Gone>> {
        while let Some(rest) = bytes.get(*taken..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                Out::Head(_, head) => {
                    let before = head.len();
                    head.extend_from_slice(rest);
                    match memchr::memmem::find(head, b"\r\n\r\n") {
                        None => *taken += rest.len(),
                        Some(end) => {
                            head.truncate(end + 4);
                            *taken += head.len() - before;
                            self.respond(is_head)?;
                        }
                    }
                }
                Out::Body(stream, reader) => {
                    let taking = poll_body(task, stream, reader, rest);
                    let (len, has_ended) = ready!(taking)?;
                    *taken += len;
                    if has_ended {
                        self.close();
                    }
                }
                Out::Tunnel(stream) => *taken += ready!(poll_raw(task, stream, rest))?,
                // Nothing belongs there.
                Out::Ended(_) | Out::Over => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What was asked for is a tunnel.
    pub const fn expect_tunnel(&mut self) {
        self.is_tunnel = true;
    }

    /// Whether that is so.
    pub const fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// Says the end of what goes through a tunnel; whether there is one, that has not ended.
    pub fn end_tunnel(&mut self) -> bool {
        let (after, has_ended) = match std::mem::replace(&mut self.state, Out::Over) {
            Out::Tunnel(mut stream) => {
                // Whoever has given the stream up hears nothing of it any more.
                let _ = stream.send_data(Bytes::new(), true);
                (Out::Ended(stream), true)
            }
            other => (other, false),
        };
        self.state = after;
        has_ended
    }

    fn close(&mut self) {
        if let Out::Body(stream, _) = std::mem::replace(&mut self.state, Out::Over) {
            self.state = Out::Ended(stream);
        }
    }

    /// The head is whole.
    fn respond(&mut self, is_head: bool) -> Result<(), Gone> {
        let Out::Head(mut respond, mut head) = std::mem::replace(&mut self.state, Out::Over) else {
            return Err(Gone);
        };
        let (response, length) = read_response(&head, self.is_tunnel).map_err(|_| Gone)?;
        if self.is_tunnel && response.status().is_success() {
            self.state = Out::Tunnel(respond.send_response(response, false).map_err(|_| Gone)?);
            return Ok(());
        }
        let body = body_of(&response, length, is_head, &head);
        if response.status().is_informational() {
            respond.send_informational(response).map_err(|_| Gone)?;
            head.clear();
            self.state = Out::Head(respond, head);
            return Ok(());
        }
        let reader = BodyReader::new(body, Side::Response).keeping_trailers();
        let stream = respond.send_response(response, reader.is_done()).map_err(|_| Gone)?;
        self.state = if reader.is_done() { Out::Ended(stream) } else { Out::Body(stream, reader) };
        Ok(())
    }

    /// Ready when the peer has given the stream up.
    pub fn poll_reset(&mut self, task: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            Out::Head(respond, _) => respond.poll_reset(task).map(drop),
            Out::Body(stream, _) | Out::Tunnel(stream) | Out::Ended(stream) => {
                stream.poll_reset(task).map(drop)
            }
            Out::Over => Poll::Ready(()),
        }
    }

    /// Gives the stream up.
    pub fn reset(&mut self, why: Break) {
        let reason = match why {
            Break::Internal => Reason::INTERNAL_ERROR,
            Break::Protocol => Reason::PROTOCOL_ERROR,
            Break::Refused => Reason::REFUSED_STREAM,
        };
        match &mut self.state {
            Out::Head(respond, _) => respond.send_reset(reason),
            Out::Body(stream, _) | Out::Tunnel(stream) | Out::Ended(stream) => stream.send_reset(reason),
            Out::Over => {}
        }
    }

    /// Whether the answer has gone whole.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, Out::Ended(_))
    }
}

/// What follows a head of ours (RFC 9112, 6.3).
fn body_of(response: &Response<()>, length: Option<u64>, is_head: bool, head: &[u8]) -> Body {
    let status = response.status();
    let has_none = is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    match length {
        _ if has_none => Body::None,
        Some(length) => Body::Length(length),
        None if says_chunked(head) => Body::Chunked,
        None => Body::None,
    }
}

/// Of a head of ours, which says it in one way.
pub(super) fn says_chunked(head: &[u8]) -> bool {
    memchr::memmem::find(head, b"\r\nTransfer-Encoding: chunked\r\n").is_some()
}

/// Why a stream is given up (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// What was begun cannot be finished.
    Internal,
    /// The request is malformed.
    Protocol,
    /// Nobody has looked at it: it may be sent again.
    Refused,
}

/// Bytes of `rest` that are done with, and whether that was the last of the body.
pub(super) fn poll_body(
    task: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    reader: &mut BodyReader,
    rest: &[u8],
) -> Poll<Result<(usize, bool), Gone>> {
    let mut looked = reader.clone();
    match looked.next(rest).map_err(|_| Gone)? {
        Step::More { consumed } => {
            *reader = looked;
            Poll::Ready(Ok((consumed, false)))
        }
        Step::Done { consumed } => {
            *reader = looked;
            finish(stream, reader.trailers())?;
            Poll::Ready(Ok((consumed, true)))
        }
        Step::Data { skip, len } => {
            let room = ready!(poll_room(task, stream, len))?;
            let mut ahead = looked.clone();
            let (sent, behind) = if room >= len {
                // With the last of it goes the end, where that is here already and has nothing to say.
                let behind = match ahead.next(&rest[skip + len..]) {
                    Ok(Step::Done { consumed }) if ahead.trailers().is_empty() => Some(consumed),
                    _ => None,
                };
                *reader = if behind.is_some() { ahead } else { looked };
                (len, behind)
            } else {
                // What does not fit is looked at again.
                reader.next(&rest[..skip + room]).map_err(|_| Gone)?;
                (room, None)
            };
            let data = Bytes::copy_from_slice(&rest[skip..skip + sent]);
            stream.send_data(data, behind.is_some()).map_err(|_| Gone)?;
            Poll::Ready(Ok((skip + sent + behind.unwrap_or(0), behind.is_some())))
        }
    }
}

/// Bytes of `rest`, of no message, that are done with.
pub(super) fn poll_raw(
    task: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    rest: &[u8],
) -> Poll<Result<usize, Gone>> {
    let room = ready!(poll_room(task, stream, rest.len()))?;
    let sent = stream.send_data(Bytes::copy_from_slice(&rest[..room]), false);
    Poll::Ready(sent.map(|()| room).map_err(|_| Gone))
}

/// Ends the body; `lines`: its trailers.
fn finish(stream: &mut SendStream<Bytes>, lines: &[u8]) -> Result<(), Gone> {
    match read_trailers(lines).map_err(|_| Gone)? {
        Some(fields) => stream.send_trailers(fields).map_err(|_| Gone),
        None => stream.send_data(Bytes::new(), true).map_err(|_| Gone),
    }
}

/// Waits until at least one of `len` bytes may go.
fn poll_room(
    task: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    len: usize,
) -> Poll<Result<usize, Gone>> {
    stream.reserve_capacity(len);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(task)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            },
            room => return Poll::Ready(Ok(room.min(len))),
        }
    }
}
