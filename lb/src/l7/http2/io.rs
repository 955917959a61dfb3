//! The way between a connection's bytes and the h2 crate, with the meter on it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Abuse, Meter};

/// What carries a connection. Errors are ends: nothing more comes, nothing more goes.
pub trait Wire {
    /// Moves received bytes to the front of `room`; 0: the peer has ended.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_read(&mut self, task: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes bytes to send, as many as there is room for.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready once all that was taken is sent.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The time.
    fn now(&self) -> Instant;
}

/// What the meter has found, for who drives the connection.
pub(super) type Found = Rc<Cell<Option<Abuse>>>;

/// A wire as h2 wants it.
pub(super) struct Metered<W> {
    wire: W,
    meter: Meter,
    found: Found,
}

impl<W> Metered<W> {
    pub(super) fn new(wire: W, meter: Meter) -> Self {
        Self { wire, meter, found: Found::default() }
    }

    pub(super) fn found(&self) -> Found {
        self.found.clone()
    }
}

impl<W: Wire + Unpin> AsyncRead for Metered<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Who has gone too far is not listened to any more.
        if self.found.get().is_some() {
            return Poll::Pending;
        }
        let room = buffer.initialize_unfilled();
        let len = ready!(self.wire.poll_read(task, room))?;
        let now = self.wire.now();
        if let Err(abuse) = self.meter.see(&room[..len], now) {
            self.found.set(Some(abuse));
            // Whoever drives it looks.
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        buffer.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire + Unpin> AsyncWrite for Metered<W> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = ready!(self.wire.poll_write(task, bytes))?;
        let now = self.wire.now();
        if let Err(abuse) = self.meter.emitted(&bytes[..len], now)
            && self.found.get().is_none()
        {
            self.found.set(Some(abuse));
            task.waker().wake_by_ref();
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(task)
    }
}
