//! One message body from a stream to a socket, framed anew, with back-pressure: nothing is read while bytes
//! wait to be sent.

use std::time::Duration;

use super::{
    access::Entry,
    local::Local,
    stream::{Stream, StreamError, send},
    timer::Deadline,
};
use crate::{
    l7::http1::{BodyReader, BodyWriter, Step},
    model::reason::CloseReason,
    ring::Socket,
};

/// Payload of at least this many bytes goes from the receive buffer straight to the socket; less is copied
/// behind what waits to be sent.
const FORWARD_MIN: usize = 4 << 10;
/// Copied bytes that are sent without waiting for more.
const SEND_AT: usize = 64 << 10;

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
    pub(super) to: &'a Socket,
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
            self.deadline.set(self.local.after(self.patience));
            let received = self.from.fill(self.deadline).await.map_err(|error| match error {
                StreamError::Expired if self.local.is_overdue() => PumpError::Source(CloseReason::Draining),
                StreamError::Expired => PumpError::Source(self.silent),
                StreamError::Broken => PumpError::Source(self.broken),
            })?;
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
                    if !out.is_empty() {
                        *sent += self.count(out.len());
                        *out = self.flush(std::mem::take(out)).await?;
                    }
                    self.deadline.set(self.local.after(self.patience));
                    self.from
                        .forward(self.to, skip..skip + len, self.deadline)
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
                    writer.finish(out);
                    return Ok(true);
                }
            }
        }
    }

    /// Notes bytes that are given to the sink now.
    fn count(&self, len: usize) -> u64 {
        self.entry.iter().for_each(|entry| entry.sent(len as u64));
        len as u64
    }

    async fn flush(&self, out: Vec<u8>) -> Result<Vec<u8>, PumpError> {
        self.deadline.set(self.local.after(self.patience));
        let mut out =
            send(&self.local.ring, self.to, out, self.deadline).await.map_err(|_| PumpError::Sink)?;
        out.clear();
        Ok(out)
    }
}
