//! One message body from a stream to a socket, framed anew, with back-pressure: nothing is read while bytes
//! wait to be sent.
//!
//! What has been received goes out of the buffer it lies in; what is large and still to come goes by a pipe
//! (splice(2)) and never enters user space. Where one pays off: `bench http1-sizes`.

use std::time::Duration;

use super::{
    access::Entry, lease::Lease, local::Local, sink::Sink, stream::Stream, stream_error::StreamError,
    timer::Deadline,
};
use crate::{
    l7::http1::{BodyReader, BodyWriter, Step},
    model::reason::CloseReason,
    ring::{
        Op, executor,
        op::{self, Readiness},
    },
    sys::pipe::{CAPACITY, Spliced},
};

/// Payload of at least this many bytes goes from the receive buffer straight to the socket; less is copied
/// behind what waits to be sent.
const FORWARD_MIN: usize = 4 << 10;
/// Payload of at most this many bytes is copied behind a head, which saves it a send of its own, where the head cannot
/// be put before it.
const COPY_MAX: usize = 16 << 10;
/// Copied bytes that are sent without waiting for more.
const SEND_AT: usize = 64 << 10;
/// Payload without framing that is worth a pipe.
const SPLICE_MIN: u64 = 64 << 10;
/// Splices of one body before others get their turn.
const SPLICES_PER_STEP: u32 = 8;

/// Why a body did not get through.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The source failed, fell silent or broke the framing.
    Source(CloseReason),
    /// The sink failed or took nothing for too long.
    Sink,
}

/// Where a body comes from, where it goes and how it is framed on either side.
pub(super) struct Pump<'a> {
    pub(super) local: &'a Local,
    pub(super) from: &'a mut Stream,
    pub(super) to: &'a Sink,
    /// Told of the bytes that were given to it.
    pub(super) entry: Option<&'a Entry>,
    pub(super) deadline: &'a Deadline,
    /// Longest silence of either side.
    pub(super) patience: Duration,
    /// Reason when the source is silent for too long.
    pub(super) silent: CloseReason,
    /// Reason when the source's socket fails.
    pub(super) broken: CloseReason,
}

impl Pump<'_> {
    /// Sends `out` (a head, or nothing) and behind it the whole body; bytes sent, with the buffer for reuse.
    pub(super) async fn run(
        &mut self,
        mut out: Vec<u8>,
        reader: &mut BodyReader,
        writer: BodyWriter,
    ) -> Result<(u64, Vec<u8>), PumpError> {
        let mut sent = 0;
        loop {
            let done = self.take(&mut out, &mut sent, reader, writer).await?;
            if !out.is_empty() {
                sent += self.count(out.len());
                out = self.flush(out).await?;
            }
            if done {
                return Ok((sent, out));
            }
            if matches!(writer, BodyWriter::Raw) && self.is_worth_a_pipe(reader) {
                sent += self.splice(reader).await?;
                if reader.is_done() {
                    return Ok((sent, out));
                }
            }
            self.deadline.set(self.local.after(self.patience));
            let received = self.from.fill(self.deadline).await.map_err(|error| self.source(error))?;
            if received == 0 {
                reader.at_eof().map_err(PumpError::Source)?;
                writer.finish(&mut out);
                if !out.is_empty() {
                    sent += self.count(out.len());
                    out = self.flush(out).await?;
                }
                return Ok((sent, out));
            }
        }
    }

    /// Waits for more from the source.
    pub(super) async fn wait(&mut self) -> Result<(), PumpError> {
        self.deadline.set(self.local.after(self.patience));
        match self.from.fill(self.deadline).await {
            Ok(0) => Err(PumpError::Source(self.broken)),
            Ok(_) => Ok(()),
            Err(error) => Err(self.source(error)),
        }
    }

    /// Moves what has been received: large pieces at once, small ones into `out`. True: the body is complete.
    async fn take(
        &mut self,
        out: &mut Vec<u8>,
        sent: &mut u64,
        reader: &mut BodyReader,
        writer: BodyWriter,
    ) -> Result<bool, PumpError> {
        loop {
            match reader.next(self.from.data()).map_err(PumpError::Source)? {
                Step::Data { skip, len } if len >= FORWARD_MIN && matches!(writer, BodyWriter::Raw) => {
                    let (skip, len) = match out.len() {
                        0 => (skip, len),
                        head if skip == 0 && self.from.put_before(out) => {
                            out.clear();
                            (0, head + len)
                        }
                        _ if len <= COPY_MAX => {
                            out.extend_from_slice(&self.from.data()[skip..skip + len]);
                            self.from.consume(skip + len);
                            continue;
                        }
                        head => {
                            *sent += self.count(head);
                            *out = self.flush(std::mem::take(out)).await?;
                            (skip, len)
                        }
                    };
                    self.deadline.set(self.local.after(self.patience));
                    self.from
                        .forward(&self.local.buffers, self.to, skip..skip + len, self.deadline)
                        .await
                        .map_err(|_| PumpError::Sink)?;
                    *sent += self.count(len);
                }
                Step::Data { skip, len } => {
                    writer.frame(out, &self.from.data()[skip..skip + len]);
                    self.from.consume(skip + len);
                    if out.len() >= SEND_AT {
                        *sent += self.count(out.len());
                        *out = self.flush(std::mem::take(out)).await?;
                    }
                }
                Step::More { consumed } => {
                    self.from.consume(consumed);
                    return Ok(false);
                }
                Step::Done { consumed } => {
                    self.from.consume(consumed);
                    writer.finish_with(out, reader.trailers());
                    return Ok(true);
                }
            }
        }
    }

    /// Whether enough of the body follows in one piece. One without an end is known by its beginning: a stream of
    /// events is not worth it.
    fn is_worth_a_pipe(&self, reader: &BodyReader) -> bool {
        let follows = reader.contiguous();
        // A receive that was begun ahead of time takes what comes next, and would overtake the pipe.
        let may = self.from.sink().gives_pipes() && !self.from.is_armed();
        let is_worth = follows >= SPLICE_MIN && (follows < u64::MAX || self.from.is_bulky());
        may && is_worth && self.local.lets_pass(self.to)
    }

    /// Moves what follows in one piece past user space; bytes moved. Fewer than there are: the source has ended, or no
    /// pipe is to be had.
    async fn splice(&mut self, reader: &mut BodyReader) -> Result<u64, PumpError> {
        let mut lease = Lease::none(self.local);
        if !lease.take() {
            return Ok(0);
        }
        self.local.metrics.splices_started.add(1);
        let (mut moved, mut splices) = (0, 0);
        while let Some(pipe) = lease.pipe() {
            let most = usize::try_from(reader.contiguous()).map_or(CAPACITY, |left| left.min(CAPACITY));
            if most == 0 {
                break;
            }
            match pipe.fill(self.from.socket(), most).map_err(|error| self.source(error.into()))? {
                Spliced::Bytes(len) => {
                    lease.note(false);
                    self.drain(&lease, len).await?;
                    lease.note(true);
                    reader.advance(len as u64);
                    self.from.passed(len);
                    moved += self.count(len);
                }
                Spliced::Eof => break,
                Spliced::Blocked => {
                    // The pipe is empty: while the source is silent, others may have it.
                    lease.give_back();
                    let ready = Op::ready(&self.local.ring, self.from.socket(), Readiness::Readable);
                    self.until(ready).await.map_err(|error| self.source(error))?;
                    lease.take();
                }
            }
            splices += 1;
            if splices == SPLICES_PER_STEP {
                splices = 0;
                executor::yield_now().await;
            }
        }
        Ok(moved)
    }

    /// Empties the pipe, in which `left` bytes are.
    async fn drain(&self, lease: &Lease<'_>, mut left: usize) -> Result<(), PumpError> {
        let Some(pipe) = lease.pipe() else { return Ok(()) };
        while left > 0 {
            match pipe.drain(self.to.socket(), left).map_err(|_| PumpError::Sink)? {
                Spliced::Bytes(len) => {
                    left = left.saturating_sub(len);
                    self.local.metrics.spliced_bytes.add(len as u64);
                    self.to.passed(len).map_err(|_| PumpError::Sink)?;
                }
                Spliced::Eof => return Err(PumpError::Sink),
                Spliced::Blocked => {
                    let ready = Op::ready(&self.local.ring, self.to.socket(), Readiness::Writable);
                    self.until(ready).await.map_err(|_| PumpError::Sink)?;
                }
            }
        }
        Ok(())
    }

    async fn until(&self, ready: Op<op::Ready>) -> Result<(), StreamError> {
        self.deadline.set(self.local.after(self.patience));
        Ok(self.deadline.guard(ready).await??)
    }

    fn source(&self, error: StreamError) -> PumpError {
        PumpError::Source(match error {
            StreamError::Expired if self.local.is_overdue() => CloseReason::Draining,
            StreamError::Expired if self.deadline.is_cut() => CloseReason::BackendRemoved,
            StreamError::Expired => self.silent,
            StreamError::Broken => self.broken,
        })
    }

    /// Notes bytes that are given to the sink now.
    fn count(&self, len: usize) -> u64 {
        self.entry.iter().for_each(|entry| entry.sent(len as u64));
        len as u64
    }

    /// Sends what waits to be sent; its buffer.
    pub(super) async fn flush(&self, out: Vec<u8>) -> Result<Vec<u8>, PumpError> {
        self.deadline.set(self.local.after(self.patience));
        let mut out =
            self.to.send(&self.local.buffers, out, self.deadline).await.map_err(|_| PumpError::Sink)?;
        out.clear();
        Ok(out)
    }
}
