//! A socket with what it has received and nobody has consumed yet.

use std::{
    future::poll_fn,
    io,
    ops::Range,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use rustix::io::Errno;

use super::{
    buffers::Buffers,
    mutant::{Mutant, is_planted},
    secure::Secure,
    sink::{Layer, Sink},
    stream_error::StreamError,
    timer::Deadline,
};
use crate::ring::{
    Group, RxBuf, SendBuf, Socket,
    op::{self, Likely, Op},
};

/// What a heap receive takes where the ring has no buffer left.
const HEAP_BYTES: usize = 16 << 10;
/// What an empty stream keeps of its own memory.
const CARRY_KEPT_MAX: usize = 4 << 10;

/// Received bytes stand either in one buffer of the ring, or, when a message is spread over several or had to be opened, in
/// `carry`.
#[derive(Debug)]
pub(super) struct Stream {
    sink: Sink,
    armed: Option<Op<op::RecvPicked>>,
    /// A receive into memory of our own; a pointer, as there is one only while the ring has no buffers.
    heap: Option<Box<Op<op::RecvHeap>>>,
    chunk: Option<RxBuf>,
    carry: Vec<u8>,
    /// Consumed bytes of `chunk`, or of `carry` where that is not empty.
    start: usize,
    group: Group,
    received: u64,
}

impl Stream {
    pub(super) fn new(sink: impl Into<Sink>) -> Self {
        Self {
            sink: sink.into(),
            armed: None,
            heap: None,
            chunk: None,
            carry: Vec::new(),
            start: 0,
            group: Group::Small,
            received: 0,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        self.sink.socket()
    }

    /// The other way.
    pub(super) const fn sink(&self) -> &Sink {
        &self.sink
    }

    /// What has come already.
    pub(super) fn begin_with(&mut self, bytes: Vec<u8>) {
        self.received = bytes.len() as u64;
        self.carry = bytes;
    }

    /// From here on what comes is opened, and what goes is sealed. `plain`: what has been opened already.
    pub(super) fn begin_secure(&mut self, secure: Secure, plain: Vec<u8>) {
        self.consume(self.data().len());
        self.sink.lay(Layer::Tls(Box::new(secure)));
        self.begin_with(plain);
    }

    /// Whether nothing has come yet.
    pub(super) const fn is_untouched(&self) -> bool {
        self.received == 0
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
            if self.carry.capacity() > if self.sink.layer().is_some() { 0 } else { CARRY_KEPT_MAX } {
                self.carry = Vec::new();
            }
        }
    }

    /// Starts a receive ahead of time, so that it travels with the next turn's submissions.
    pub(super) fn arm(&mut self) {
        self.receive(Likely::Later);
    }

    fn receive(&mut self, likely: Likely) {
        if self.armed.is_none() && !self.sink.is_message() {
            let socket = self.sink.socket();
            self.armed = Some(Op::recv(socket.ring(), socket, self.group, likely));
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
        if self.chunk.as_ref().is_some_and(|chunk| self.socket().ring().is_scarce(chunk.group())) {
            self.make_contiguous();
        }
    }

    /// Ready when the armed receive tells that the peer has reset the connection. The end of its stream is no
    /// reset: a client may end its side and wait for the answer (RFC 9112, 9.6 does not forbid it).
    pub(super) fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(Layer::Message(message)) = self.sink.layer().map(|layer| &**layer) {
            return message.poll_reset(context);
        }
        match self.armed.as_ref().map(|armed| armed.poll_error(context)) {
            Some(Poll::Ready(Some(error))) if !is_no_buffer(&error) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Whether the peer has said anything, or ended, since the last [`Stream::fill`]. Tickets are nothing that it says.
    pub(super) fn has_news(&mut self) -> bool {
        while self.data().is_empty() {
            let Some(armed) = self.armed.as_mut().filter(|armed| armed.is_complete()) else { return false };
            let Some(layer) = self.sink.layer().cloned() else { return true };
            let Layer::Tls(secure) = &*layer else { return true };
            let Poll::Ready(outcome) = Pin::new(armed).poll(&mut Context::from_waker(Waker::noop())) else {
                return false;
            };
            self.armed = None;
            let Ok(Some(buffer)) = outcome else { return true };
            if self.open(secure, Received::Picked(buffer)).is_err() || secure.has_ended() {
                return true;
            }
            self.arm();
        }
        true
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
        self.sink.into_descriptor()
    }

    /// Ready when [`Stream::fill`] will not wait. Takes no buffer of the ring's that it does not need: what came stays in
    /// the operation.
    pub(super) fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.receive(Likely::Later);
        self.armed.as_ref().map_or(Poll::Ready(()), |armed| armed.poll_error(context).map(drop))
    }

    /// Receives more behind what is there; the number of bytes, 0 at the end of the stream.
    pub(super) async fn fill(&mut self, deadline: &Deadline) -> Result<usize, StreamError> {
        deadline.guard(poll_fn(|task| self.poll_fill(task))).await?
    }

    /// As [`Stream::fill`].
    pub(super) fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let Some(layer) = self.sink.layer().cloned() else {
            return Poll::Ready(Ok(match ready!(self.poll_receive(task))? {
                Received::Nothing => 0,
                Received::Picked(buffer) => self.append(buffer),
                Received::Heap(bytes) => self.append_heap(bytes),
            }));
        };
        self.make_contiguous();
        let before = self.carry.len();
        match &*layer {
            Layer::Tls(secure) => {
                while self.carry.len() == before {
                    if secure.has_ended() {
                        return Poll::Ready(Ok(0));
                    }
                    // A stream that breaks off without a word may have been cut by anybody.
                    match ready!(self.poll_receive(task))? {
                        Received::Nothing => return Poll::Ready(Err(StreamError::Broken)),
                        received => self.open(secure, received)?,
                    }
                }
            }
            Layer::Message(message) => ready!(message.poll_read(task, &mut self.carry))?,
        }
        let len = self.carry.len() - before;
        self.received += len as u64;
        Poll::Ready(Ok(len))
    }

    /// Ready once hands are shaken; what comes meanwhile is received.
    pub(super) fn poll_settled(&mut self, task: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(layer) = self.sink.layer().cloned() else { return Poll::Ready(Ok(())) };
        let Layer::Tls(secure) = &*layer else { return Poll::Ready(Ok(())) };
        self.make_contiguous();
        while secure.is_early() {
            let before = self.carry.len();
            if secure.has_ended() {
                return Poll::Ready(Err(StreamError::Broken));
            }
            match ready!(self.poll_receive(task))? {
                Received::Nothing => return Poll::Ready(Err(StreamError::Broken)),
                received => self.open(secure, received)?,
            }
            self.received += (self.carry.len() - before) as u64;
        }
        Poll::Ready(Ok(()))
    }

    fn open(&mut self, secure: &Secure, received: Received) -> Result<(), StreamError> {
        let opened = match received {
            Received::Nothing => return Ok(()),
            Received::Picked(mut buffer) => {
                self.note_size(&buffer);
                secure.open(&mut buffer, &mut self.carry)
            }
            Received::Heap(mut bytes) => secure.open(&mut bytes, &mut self.carry),
        };
        opened.map_err(|_| StreamError::Broken)
    }

    /// What the socket has next, as it is.
    fn poll_receive(&mut self, task: &mut Context<'_>) -> Poll<Result<Received, StreamError>> {
        loop {
            if let Some(heap) = &mut self.heap {
                let outcome = ready!(Pin::new(&mut **heap).poll(task));
                self.heap = None;
                let bytes = outcome?;
                return Poll::Ready(Ok(if bytes.is_empty() {
                    Received::Nothing
                } else {
                    Received::Heap(bytes)
                }));
            }
            // Who filled a buffer before has probably sent more.
            self.receive(if self.is_bulky() { Likely::Waiting } else { Likely::Later });
            let Some(armed) = &mut self.armed else { return Poll::Ready(Ok(Received::Nothing)) };
            let outcome = ready!(Pin::new(armed).poll(task));
            self.armed = None;
            return Poll::Ready(match outcome {
                Ok(None) => Ok(Received::Nothing),
                Ok(Some(buffer)) => Ok(Received::Picked(buffer)),
                Err(error) if is_no_buffer(&error) && !is_planted(Mutant::NeedsBuffers) => {
                    let socket = self.sink.socket();
                    self.heap = Some(Box::new(Op::recv_heap(socket.ring(), socket, HEAP_BYTES)));
                    continue;
                }
                Err(error) => Err(error.into()),
            });
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
        self.note_size(&buffer);
        if self.data().is_empty() {
            self.chunk = Some(buffer);
            self.start = 0;
        } else {
            self.make_contiguous();
            self.carry.extend_from_slice(&buffer);
        }
        len
    }

    fn note_size(&mut self, buffer: &RxBuf) {
        self.group = match self.group {
            Group::Small if buffer.is_full() => Group::Large,
            Group::Large if buffer.len() < Group::Small.size() => Group::Small,
            group => group,
        };
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

    /// Sends `range` of `data` to another peer, without a copy where it stands in a buffer of the ring and goes as it is, and
    /// consumes up to its end.
    pub(super) async fn forward(
        &mut self,
        buffers: &Buffers,
        to: &Sink,
        range: Range<usize>,
        deadline: &Deadline,
    ) -> Result<(), StreamError> {
        let end = range.end;
        if !to.takes_as_is() {
            to.send_through(buffers, &self.data()[range], deadline).await?;
        } else if let Some(chunk) = self.chunk.take() {
            // Without the chunk there is no data: should this future be dropped here, all is as if consumed.
            let start = std::mem::take(&mut self.start);
            let absolute = start + range.start..start + range.end;
            let sent = to.send_raw(SendBuf::Received(chunk, absolute), deadline).await?;
            if let SendBuf::Received(chunk, _) = sent {
                self.chunk = Some(chunk);
                self.start = start;
            }
        } else {
            let bytes = self.data()[range].to_vec();
            to.send_raw(SendBuf::Bytes(bytes), deadline).await?;
        }
        self.consume(end);
        Ok(())
    }
}

/// What a socket gave.
enum Received {
    /// Its end.
    Nothing,
    Picked(RxBuf),
    Heap(Vec<u8>),
}

fn is_no_buffer(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::CANCELED.raw_os_error())
}
