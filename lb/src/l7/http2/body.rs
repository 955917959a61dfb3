//! What goes on a stream, whichever way: a body, read as HTTP/1.1 has it.

use std::task::{Context, Poll};

use lb_http2::{Connection, Stream};

use super::{link::Handle, lost::Gone, trailers::read_trailers};
use crate::l7::http1::{BodyReader, Step};

/// What goes behind a head.
#[derive(Debug)]
pub(super) enum Body {
    Framed(Box<BodyReader>),
    /// Bytes as they are.
    Tunnel,
    Ended,
}

impl Body {
    pub(super) fn new(reader: BodyReader) -> Self {
        if reader.is_done() { Self::Ended } else { Self::Framed(Box::new(reader)) }
    }

    /// Sends what there is room for; how much of `rest` is done with, at least one byte.
    ///
    /// # Errors
    /// The stream is gone, or nothing belongs there.
    pub(super) fn poll_write(
        &mut self,
        handle: &Handle,
        task: &mut Context<'_>,
        rest: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        let sent = handle.with(|engine, stream, flow| {
            let (len, is_whole) = match self {
                Self::Framed(reader) => {
                    let sent = send_body(engine, stream, reader, rest)?;
                    if sent.has_ended {
                        *self = Self::Ended;
                        flow.has_answered = true;
                    }
                    (sent.taken, sent.is_whole)
                }
                Self::Tunnel => {
                    let len = engine.send_data(stream, rest, false)?;
                    (len, len == rest.len())
                }
                Self::Ended => return Err(Gone),
            };
            if !is_whole {
                flow.sender = Some(task.waker().clone());
            }
            Ok(len)
        });
        match sent {
            Ok(0) => Poll::Pending,
            other => Poll::Ready(other),
        }
    }

    /// Says the end of what goes through a tunnel; whether there is one, that has not ended.
    pub(super) fn end_tunnel(&mut self, handle: &Handle) -> bool {
        if !matches!(self, Self::Tunnel) {
            return false;
        }
        *self = Self::Ended;
        // Whoever has given the stream up hears nothing of it any more.
        let _ = handle.with(|engine, stream, flow| {
            flow.has_answered = true;
            engine.send_data(stream, b"", true).map_err(Gone::from)
        });
        true
    }
}

/// What came of a piece of a body.
struct Sent {
    /// Bytes of it that are done with.
    taken: usize,
    /// All data in it was taken.
    is_whole: bool,
    /// That was the last of the body.
    has_ended: bool,
}

fn send_body(
    engine: &mut Connection,
    stream: Stream,
    reader: &mut BodyReader,
    rest: &[u8],
) -> Result<Sent, Gone> {
    let mut looked = reader.clone();
    match looked.next(rest).map_err(|_| Gone)? {
        Step::More { consumed } => {
            *reader = looked;
            Ok(Sent { taken: consumed, is_whole: true, has_ended: false })
        }
        Step::Done { consumed } => {
            *reader = looked;
            finish(engine, stream, reader.trailers())?;
            Ok(Sent { taken: consumed, is_whole: true, has_ended: true })
        }
        Step::Data { skip, len } => {
            let (data, behind) = rest.get(skip..).and_then(|rest| rest.split_at_checked(len)).ok_or(Gone)?;
            // With the last of it goes the end, where that is here already and has nothing to say.
            let mut ahead = looked.clone();
            let end = match ahead.next(behind) {
                Ok(Step::Done { consumed }) if ahead.trailers().is_empty() => Some(consumed),
                _ => None,
            };
            let sent = engine.send_data(stream, data, end.is_some())?;
            if sent == len {
                *reader = if end.is_some() { ahead } else { looked };
                let taken = skip + len + end.unwrap_or(0);
                return Ok(Sent { taken, is_whole: true, has_ended: end.is_some() });
            }
            if sent == 0 {
                return Ok(Sent { taken: 0, is_whole: false, has_ended: false });
            }
            // What does not fit is looked at again.
            reader.next(rest.get(..skip + sent).unwrap_or_default()).map_err(|_| Gone)?;
            Ok(Sent { taken: skip + sent, is_whole: false, has_ended: false })
        }
    }
}

/// Ends the body; `lines`: its trailers.
fn finish(engine: &mut Connection, stream: Stream, lines: &[u8]) -> Result<(), Gone> {
    if lines.is_empty() {
        return engine.send_data(stream, b"", true).map(drop).map_err(Gone::from);
    }
    let mut written = Ok(());
    engine.send_trailers(stream, |writer| written = read_trailers(lines, writer))?;
    written.map_err(|_| Gone)
}
