//! A socket with what it has received and nobody has consumed yet.

use std::{
    io,
    ops::Range,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

use rustix::io::Errno;

use super::{
    mutant::{Mutant, is_planted},
    timer::{Deadline, Expired},
};
use crate::ring::{
    Group, Ring, RxBuf, SendBuf, Socket,
    op::{self, Likely, Op},
};

/// What a heap receive takes where the ring has no buffer left.
const HEAP_BYTES: usize = 16 << 10;
/// What an empty stream keeps of its own memory.
const CARRY_KEPT_MAX: usize = 4 << 10;

/// Why a stream operation ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamError {
    /// The deadline passed.
    Expired,
    /// The socket failed: reset, or closed where bytes were to go.
    Broken,
}

impl From<Expired> for StreamError {
    fn from(_: Expired) -> Self {
        Self::Expired
    }
}

impl From<io::Error> for StreamError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Received bytes stand either in one buffer of the ring, or, when a message is spread over several, in `carry`.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    armed: Option<Op<op::RecvPicked>>,
    chunk: Option<RxBuf>,
    carry: Vec<u8>,
    /// Consumed bytes of `chunk`, or of `carry` where that is not empty.
    start: usize,
    group: Group,
    received: u64,
}

impl Stream {
    pub(super) const fn new(socket: Socket) -> Self {
        Self {
            socket,
            armed: None,
            chunk: None,
            carry: Vec::new(),
            start: 0,
            group: Group::Small,
            received: 0,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Bytes received since the last call.
    pub(super) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Received and not consumed.
    pub(super) fn data(&self) -> &[u8] {
        match &self.chunk {
            _ if !self.carry.is_empty() => &self.carry[self.start..],
            Some(chunk) => &chunk[self.start..],
            None => &[],
        }
    }

    /// The first `len` bytes of `data` are done with.
    pub(super) fn consume(&mut self, len: usize) {
        assert!(len <= self.data().len(), "only received bytes are consumed");
        self.start += len;
        if self.data().is_empty() {
            self.chunk = None;
            self.start = 0;
            self.carry.clear();
            // An idle connection keeps no memory that one large head, or one receive into the heap, has cost.
            if self.carry.capacity() > CARRY_KEPT_MAX {
                self.carry = Vec::new();
            }
        }
    }

    /// Starts a receive ahead of time, so that it travels with the next turn's submissions.
    pub(super) fn arm(&mut self) {
        self.receive(Likely::Later);
    }

    fn receive(&mut self, likely: Likely) {
        if self.armed.is_none() {
            self.armed = Some(Op::recv(self.socket.ring(), &self.socket, self.group, likely));
        }
    }

    /// Puts `bytes` before `data`, where there is room that consumed bytes have left; whether there was.
    pub(super) fn put_before(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        let buffer: &mut [u8] = match &mut self.chunk {
            _ if !self.carry.is_empty() => &mut self.carry,
            Some(chunk) => chunk,
            None => return false,
        };
        buffer[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Whether a receive is under way.
    pub(super) const fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Whether what came last filled a buffer: more of it is probably on its way.
    pub(super) fn is_bulky(&self) -> bool {
        self.group == Group::Large
    }

    /// `len` bytes were received without us. What comes next is probably small: the rest, or another head.
    pub(super) fn passed(&mut self, len: usize) {
        self.received += len as u64;
        self.group = Group::Small;
    }

    /// Gives the buffer of the ring back where those are scarce: who only waits need not sit on one.
    pub(super) fn yield_buffer(&mut self) {
        if self.chunk.as_ref().is_some_and(|chunk| self.socket.ring().is_scarce(chunk.group())) {
            self.make_contiguous();
        }
    }

    /// Ready when the armed receive tells that the peer has reset the connection. The end of its stream is no
    /// reset: a client may end its side and wait for the answer (RFC 9112, 9.6 does not forbid it).
    pub(super) fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.armed.as_ref().map(|armed| armed.poll_error(context)) {
            Some(Poll::Ready(Some(error))) if !is_no_buffer(&error) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Whether the peer has said anything, or ended, since the last [`Stream::fill`].
    pub(super) fn has_news(&self) -> bool {
        !self.data().is_empty() || self.armed.as_ref().is_some_and(Op::is_complete)
    }

    /// Asks for the end of the receive that is under way.
    pub(super) fn call_off(&self) {
        self.armed.iter().for_each(Op::cancel);
    }

    /// The socket's descriptor, once nothing of this ring's is under way on it; [`Stream::call_off`] makes that soon.
    /// `None`: the peer has said something, which is gone now, or ended.
    pub(super) async fn into_descriptor(self) -> Option<OwnedFd> {
        if !self.data().is_empty() {
            return None;
        }
        if let Some(armed) = self.armed
            && !armed.await.is_err_and(|error| is_cancelled(&error))
        {
            return None;
        }
        self.socket.into_descriptor()
    }

    /// Ready when [`Stream::fill`] will not wait. Takes no buffer of the ring's that it does not need: what came stays in
    /// the operation.
    pub(super) fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.receive(Likely::Later);
        self.armed.as_ref().map_or(Poll::Ready(()), |armed| armed.poll_error(context).map(drop))
    }

    /// Receives more behind what is there; the number of bytes, 0 at the end of the stream.
    pub(super) async fn fill(&mut self, deadline: &Deadline) -> Result<usize, StreamError> {
        // Who filled a buffer before has probably sent more.
        self.receive(if self.is_bulky() { Likely::Waiting } else { Likely::Later });
        let Some(armed) = &mut self.armed else { return Ok(0) };
        let outcome = deadline.guard(armed).await?;
        self.armed = None;
        match outcome {
            Ok(None) => Ok(0),
            Ok(Some(buffer)) => Ok(self.append(buffer)),
            Err(error) if is_no_buffer(&error) && !is_planted(Mutant::NeedsBuffers) => {
                let bytes =
                    deadline.guard(Op::recv_heap(self.socket.ring(), &self.socket, HEAP_BYTES)).await??;
                Ok(self.append_heap(bytes))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn append_heap(&mut self, bytes: Vec<u8>) -> usize {
        let len = bytes.len();
        self.received += len as u64;
        if self.data().is_empty() {
            self.carry = bytes;
        } else {
            self.make_contiguous();
            self.carry.extend_from_slice(&bytes);
        }
        len
    }

    fn append(&mut self, buffer: RxBuf) -> usize {
        let len = buffer.len();
        self.received += len as u64;
        self.group = match self.group {
            Group::Small if buffer.is_full() => Group::Large,
            Group::Large if len < Group::Small.size() => Group::Small,
            group => group,
        };
        if self.data().is_empty() {
            self.chunk = Some(buffer);
            self.start = 0;
        } else {
            self.make_contiguous();
            self.carry.extend_from_slice(&buffer);
        }
        len
    }

    /// Moves what is left of a ring buffer into `carry`.
    fn make_contiguous(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.carry.clear();
            self.carry.extend_from_slice(&chunk[self.start..]);
            self.start = 0;
        } else if self.start > 0 {
            self.carry.drain(..self.start);
            self.start = 0;
        }
    }

    /// Sends `range` of `data` to another socket, without a copy where it stands in a buffer of the ring, and
    /// consumes up to its end.
    pub(super) async fn forward(
        &mut self,
        to: &Socket,
        range: Range<usize>,
        deadline: &Deadline,
    ) -> Result<(), StreamError> {
        let end = range.end;
        if let Some(chunk) = self.chunk.take() {
            // Without the chunk there is no data: should this future be dropped here, all is as if consumed.
            let start = std::mem::take(&mut self.start);
            let absolute = start + range.start..start + range.end;
            let send = Op::send(self.socket.ring(), to, SendBuf::Received(chunk, absolute));
            let (sent, buffer) = deadline.guard(send).await?;
            if let SendBuf::Received(chunk, _) = buffer {
                self.chunk = Some(chunk);
                self.start = start;
            }
            sent?;
        } else {
            let bytes = self.data()[range].to_vec();
            deadline.guard(Op::send(self.socket.ring(), to, SendBuf::Bytes(bytes))).await?.0?;
        }
        self.consume(end);
        Ok(())
    }
}

fn is_no_buffer(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::CANCELED.raw_os_error())
}

/// Sends all of `bytes`; the buffer comes back for reuse.
pub(super) async fn send(
    ring: &Ring,
    to: &Socket,
    bytes: Vec<u8>,
    deadline: &Deadline,
) -> Result<Vec<u8>, StreamError> {
    let (sent, buffer) = deadline.guard(Op::send(ring, to, SendBuf::Bytes(bytes))).await?;
    sent?;
    match buffer {
        SendBuf::Bytes(bytes) => Ok(bytes),
        SendBuf::Received(..) => Ok(Vec::new()),
    }
}
