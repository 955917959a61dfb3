//! Probes over TLS: a stream around another one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::tls::{Refusal, Session};

/// What is read at once.
const CHUNK: usize = 4096;
/// Most bytes that are sealed at once.
const SEALED_AT_ONCE: usize = 16 << 10;

/// A stream of TLS over another one. Reading goes on with the handshake, and sends what that wants sent.
#[derive(Debug)]
pub(super) struct Secured<S> {
    stream: S,
    session: Session,
    /// Records that are to be sent, from `sent` on.
    records: Vec<u8>,
    sent: usize,
    chunk: Box<[u8; CHUNK]>,
    /// What the peer says, from `heard` on.
    plain: Vec<u8>,
    heard: usize,
    has_said_end: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    pub(super) fn new(stream: S, session: Session) -> Self {
        Self {
            stream,
            session,
            records: Vec::new(),
            sent: 0,
            chunk: Box::new([0; CHUNK]),
            plain: Vec::new(),
            heard: 0,
            has_said_end: false,
        }
    }

    /// Comes to the end of the handshake.
    ///
    /// # Errors
    /// The stream's, or a [`Refusal`] within [`io::ErrorKind::InvalidData`].
    pub(super) async fn shake_hands(&mut self) -> io::Result<()> {
        // Of nothing: what is said first.
        self.open(0).map_err(over)?;
        std::future::poll_fn(|cx| {
            while self.session.is_handshaking() {
                if ready!(self.poll_receive(cx))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            self.poll_send(cx)
        })
        .await
    }

    /// The session gets so many bytes of the chunk.
    fn open(&mut self, len: usize) -> Result<(), Refusal> {
        let opened = self.session.open(&mut self.chunk[..len], &mut self.plain);
        self.records.append(&mut self.session.take_unsent());
        opened
    }

    /// Sends every record.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.records.get(self.sent..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.sent += len,
            }
        }
        self.records.clear();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Some bytes for the session, how many; before that, what it has to send.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let len = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut self.chunk[..]))?;
        if let Err(mut refusal) = self.open(len) {
            // The peer is told why, where that goes out at once.
            self.records.append(&mut refusal.alert);
            _ = self.poll_send(cx)?;
            return Poll::Ready(Err(over(refusal)));
        }
        Poll::Ready(Ok(len))
    }
}

/// Why there is no TLS, where that is what an error of [`Secured`] is.
pub(super) fn refusal(error: &io::Error) -> Option<&Refusal> {
    error.get_ref()?.downcast_ref()
}

/// There is no TLS, or no more of it.
fn over(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refusal)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.heard == self.plain.len() {
            self.plain.clear();
            self.heard = 0;
            // One that ends without saying so ends all the same: the answer says by itself whether it is whole.
            if self.session.has_ended() || ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let waiting = &self.plain[self.heard..];
        let len = waiting.len().min(buffer.len());
        buffer[..len].copy_from_slice(&waiting[..len]);
        self.heard += len;
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let bytes = &bytes[..bytes.len().min(SEALED_AT_ONCE)];
        let mut sealed = Vec::new();
        let len = self.session.seal(bytes, &mut sealed).map_err(over)?;
        self.records.extend_from_slice(&sealed[..len]);
        // What does not go out now goes with the next flush or read.
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_said_end {
            self.has_said_end = true;
            let mut sealed = Vec::new();
            let len = self.session.seal_end(&mut sealed).map_err(over)?;
            self.records.extend_from_slice(&sealed[..len]);
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
