//! A connection's bytes for who multiplexes them: read as they come, gathered while they are sent.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{local::Local, secure::Secure, stream::Stream};
use crate::{
    l7::http2::Wire,
    ring::{Op, SendBuf, op},
};

/// Bytes that may wait while others are sent.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Transport {
    local: Rc<Local>,
    stream: Stream,
    waiting: Vec<u8>,
    sending: Option<Op<op::Send>>,
    /// Something came before hands were shaken.
    was_early: bool,
}

impl Transport {
    pub(super) fn new(local: Rc<Local>, stream: Stream) -> Self {
        let was_early = stream.sink().secure().is_some_and(Secure::is_early);
        Self { local, stream, waiting: Vec::new(), sending: None, was_early }
    }

    /// Sends what waits, if nothing is under way.
    fn start(&mut self) -> io::Result<()> {
        if self.sending.is_some() || self.waiting.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.waiting);
        let buffer = match self.stream.sink().secure() {
            Some(secure) => {
                let sealed = secure.seal(&self.local.buffers, &bytes);
                self.local.buffers.recycle(bytes);
                sealed.map_err(io::Error::other)?
            }
            None => SendBuf::Bytes(bytes),
        };
        self.sending = Some(Op::send(&self.local.ring, self.stream.socket(), buffer));
        Ok(())
    }

    /// Where hands were shaken behind what came early, tickets wait for no answer. `was_early` is so as long as they may come.
    fn send_owed(&mut self) {
        let Some(secure) = self.stream.sink().secure().filter(|_| self.was_early) else { return };
        if secure.is_early() || self.sending.is_some() {
            return;
        }
        let owed = secure.take_unsent();
        self.was_early = false;
        if !owed.is_empty() {
            self.sending = Some(Op::send(&self.local.ring, self.stream.socket(), SendBuf::Bytes(owed)));
        }
    }

    /// Ready once what is under way is sent.
    fn poll_sent(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sending) = &mut self.sending {
            let (sent, buffer) = ready!(Pin::new(sending).poll(task));
            self.sending = None;
            self.local.buffers.recycle_sent(buffer);
            sent?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire for Transport {
    fn poll_read(&mut self, task: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.stream.data().is_empty() {
            let filled = self.stream.poll_fill(task);
            self.send_owed();
            match ready!(filled) {
                Ok(0) => return Poll::Ready(Ok(0)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let data = self.stream.data();
        let len = data.len().min(room.len());
        room[..len].copy_from_slice(&data[..len]);
        self.stream.consume(len);
        Poll::Ready(Ok(len))
    }

    fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= WAITING_BYTES_MAX {
            ready!(self.poll_sent(task))?;
            self.start()?;
        }
        if self.waiting.capacity() == 0 {
            self.waiting = self.local.buffers.take();
        }
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_sent(task))?;
            if self.waiting.is_empty() {
                self.send_owed();
                return Poll::Ready(Ok(()));
            }
            self.start()?;
        }
    }

    fn now(&self) -> Instant {
        self.local.now()
    }
}
