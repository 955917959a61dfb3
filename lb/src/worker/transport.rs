//! A connection's bytes for who multiplexes them: read as they come, sent while others are gathered.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{local::Local, stream::Stream};
use crate::{
    l7::http2::Wire,
    ring::{Op, SendBuf, op},
};

/// See the module.
pub(super) struct Transport {
    local: Rc<Local>,
    stream: Stream,
    sending: Option<Op<op::Send>>,
}

impl Transport {
    pub(super) const fn new(local: Rc<Local>, stream: Stream) -> Self {
        Self { local, stream, sending: None }
    }
}

impl Wire for Transport {
    fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.stream.data().is_empty() && ready!(self.stream.poll_fill(task)).is_err() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(self.stream.data()))
    }

    fn consume(&mut self, len: usize) {
        self.stream.consume(len);
    }

    fn poll_sent(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sending) = &mut self.sending {
            let (sent, buffer) = ready!(Pin::new(sending).poll(task));
            self.sending = None;
            self.local.buffers.recycle_sent(buffer);
            sent?;
        }
        Poll::Ready(Ok(()))
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.local.buffers.take()
    }

    fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
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

    fn now(&self) -> Instant {
        self.local.now()
    }
}
