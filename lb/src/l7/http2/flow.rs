//! The two ways of one stream of a client, as bytes of HTTP/1.1: whoever reads and writes them knows nothing of HTTP/2.

use std::{
    fmt,
    task::{Context, Poll},
};

use lb_http2::Code;

use super::{
    body::Body,
    fields::{framing, room},
    link::Handle,
    lost::Gone,
    response::read_response,
};
use crate::l7::http1::{self, BodyReader, Side};

/// What comes on a stream.
pub struct Inflow(Handle);

impl fmt::Debug for Inflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inflow").field(&self.0.key()).finish()
    }
}

impl Inflow {
    pub(super) const fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// Takes what has come already: the head, and maybe more.
    pub(super) fn take(&self, out: &mut Vec<u8>) {
        let _ = self.0.poll_read(&mut Context::from_waker(std::task::Waker::noop()), out);
    }

    /// Throws away what is here already.
    pub fn drain(&mut self) {
        self.0.drain();
    }

    /// Puts what comes next behind `out`, and lets the peer send as much again. False: there is nothing more.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn poll_read(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<bool, Gone>> {
        self.0.poll_read(task, out)
    }
}

/// What goes on a stream.
pub struct Outflow {
    handle: Handle,
    state: Out,
    /// The request asks for a tunnel.
    is_tunnel: bool,
}

enum Out {
    /// Of the head as much as has come; interim ones may go before it.
    Head(Vec<u8>),
    Body(Body),
    Over,
}

impl fmt::Debug for Outflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            Out::Head(_) => "Outflow(head)",
            Out::Body(Body::Framed(_)) => "Outflow(body)",
            Out::Body(Body::Tunnel) => "Outflow(tunnel)",
            Out::Body(Body::Ended) | Out::Over => "Outflow(ended)",
        })
    }
}

impl Outflow {
    pub(super) const fn new(handle: Handle, is_tunnel: bool) -> Self {
        Self { handle, state: Out::Head(Vec::new()), is_tunnel }
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
                Out::Head(begun) => {
                    let mut begun = std::mem::take(begun);
                    let head = whole_head(&mut begun, rest, taken);
                    match head {
                        None => self.state = Out::Head(begun),
                        Some(head) => self.respond(head, is_head)?,
                    }
                }
                Out::Body(body) => match body.poll_write(&self.handle, task, rest) {
                    Poll::Ready(sent) => *taken += sent?,
                    Poll::Pending => return Poll::Pending,
                },
                // Nothing belongs there.
                Out::Over => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the request asks for a tunnel.
    pub const fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// Says the end of what goes through a tunnel; whether there is one, that has not ended.
    pub fn end_tunnel(&mut self) -> bool {
        match &mut self.state {
            Out::Body(body) => body.end_tunnel(&self.handle),
            Out::Head(_) | Out::Over => false,
        }
    }

    /// The head is whole.
    fn respond(&mut self, head: &[u8], is_head: bool) -> Result<(), Gone> {
        let before = std::mem::replace(&mut self.state, Out::Over);
        let mut room = room();
        let said = read_response(head, self.is_tunnel, &mut room).map_err(|_| Gone)?;
        let status = said.status;
        let is_tunnel = self.is_tunnel && (200..300).contains(&status);
        let body = if is_tunnel {
            Body::Tunnel
        } else {
            let has_none = is_head || status < 200 || matches!(status, 204 | 304);
            let body = match framing(said.fields) {
                _ if has_none => http1::Body::None,
                (Some(0), _) | (None, false) => http1::Body::None,
                (Some(length), _) => http1::Body::Length(length),
                (None, true) => http1::Body::Chunked,
            };
            Body::new(BodyReader::new(body, Side::Response).keeping_trailers())
        };
        let has_ended = status >= 200 && matches!(body, Body::Ended);
        let is_sound = self.handle.with(|engine, stream, flow| {
            let mut is_sound = true;
            engine.send_response(stream, status, has_ended, |writer| is_sound = said.write(writer))?;
            flow.has_answered |= has_ended;
            Ok(is_sound)
        })?;
        if !is_sound {
            return Err(Gone);
        }
        self.state = if status < 200 { before } else { Out::Body(body) };
        Ok(())
    }

    /// Ready when the peer has given the stream up.
    pub fn poll_reset(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let polled = self.handle.flow(|flow| {
            if flow.is_gone {
                return Poll::Ready(());
            }
            flow.watcher = Some(task.waker().clone());
            Poll::Pending
        });
        polled.unwrap_or(Poll::Ready(()))
    }

    /// Gives the stream up.
    pub fn reset(&mut self, why: Break) {
        self.handle.reset(match why {
            Break::Internal => Code::INTERNAL_ERROR,
            Break::Protocol => Code::PROTOCOL_ERROR,
            Break::Refused => Code::REFUSED_STREAM,
        });
    }

    /// Whether the answer has gone whole.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, Out::Body(Body::Ended))
    }
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

/// The head that `rest` ends, of which `begun` has come before; what is taken of `rest` is counted. `None`: more is to come,
/// and stands in `begun`.
pub(super) fn whole_head<'b>(begun: &'b mut Vec<u8>, rest: &'b [u8], taken: &mut usize) -> Option<&'b [u8]> {
    const END: &[u8] = b"\r\n\r\n";
    if begun.is_empty()
        && let Some(end) = memchr::memmem::find(rest, END)
    {
        *taken += end + END.len();
        return rest.get(..end + END.len());
    }
    let before = begun.len();
    begun.extend_from_slice(rest);
    // The end may have been cut.
    let from = before.saturating_sub(END.len() - 1);
    match memchr::memmem::find(begun.get(from..).unwrap_or_default(), END) {
        None => {
            *taken += rest.len();
            None
        }
        Some(end) => {
            begun.truncate(from + end + END.len());
            *taken += begun.len() - before;
            Some(begun)
        }
    }
}
