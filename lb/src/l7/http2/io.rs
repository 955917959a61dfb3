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

/// Bytes that may be read until whoever drives the connection has looked at what came of them: h2 reads on as long as there
/// is something, and keeps every head until it is asked for.
pub(super) type Allowance = Rc<Cell<usize>>;

/// How much that is at a time.
pub(super) const READ_BYTES_MAX: usize = 16 << 10;

/// A wire as h2 wants it.
pub(super) struct Metered<W> {
    wire: W,
    meter: Meter,
    found: Found,
    allowance: Allowance,
    /// The peer takes nothing more.
    is_over: Rc<Cell<bool>>,
}

impl<W> Metered<W> {
    pub(super) fn new(wire: W, meter: Meter) -> Self {
        let allowance = Rc::new(Cell::new(READ_BYTES_MAX));
        Self { wire, meter, found: Found::default(), allowance, is_over: Rc::default() }
    }

    pub(super) fn found(&self) -> Found {
        self.found.clone()
    }

    pub(super) fn is_over(&self) -> Rc<Cell<bool>> {
        self.is_over.clone()
    }

    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
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
        let allowed = self.allowance.get();
        if allowed == 0 {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buffer.initialize_unfilled();
        let most = room.len().min(allowed);
        let len = ready!(self.wire.poll_read(task, &mut room[..most]))?;
        self.allowance.set(allowed - len);
        let now = self.wire.now();
        if let Err(abuse) = self.meter.see(&room[..len], now) {
            self.found.set(Some(abuse));
            // Whoever drives it looks.
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.meter.has_goaway() {
            self.is_over.set(true);
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
