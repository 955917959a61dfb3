//! Where bytes for a peer go: its socket, through what lies over that.

use std::{future::poll_fn, net::Shutdown, os::fd::OwnedFd, rc::Rc};

use super::{buffers::Buffers, message::Message, secure::Secure, stream_error::StreamError, timer::Deadline};
use crate::{
    l7::http2::Fate,
    ring::{Op, SendBuf, Socket},
};

/// A shared handle, as [`Socket`] is.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    socket: Socket,
    layer: Option<Rc<Layer>>,
}

/// What lies over a socket.
#[derive(Debug)]
pub(super) enum Layer {
    /// All that goes is sealed, all that comes is opened.
    Tls(Secure),
    /// One message and its answer, of several that share the socket.
    Message(Message),
}

impl From<Socket> for Sink {
    fn from(socket: Socket) -> Self {
        Self { socket, layer: None }
    }
}

impl Sink {
    /// For one message of a connection.
    pub(super) fn message(socket: Socket, message: Message) -> Self {
        Self { socket, layer: Some(Rc::new(Layer::Message(message))) }
    }

    /// The connection's own.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) const fn layer(&self) -> Option<&Rc<Layer>> {
        self.layer.as_ref()
    }

    /// `None`: bytes go as they are, or in a message.
    pub(super) fn secure(&self) -> Option<&Secure> {
        match self.layer.as_deref()? {
            Layer::Tls(secure) => Some(secure),
            Layer::Message(_) => None,
        }
    }

    pub(super) fn is_message(&self) -> bool {
        matches!(self.layer.as_deref(), Some(Layer::Message(_)))
    }

    /// Whether it is a message that asks for a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        matches!(self.layer.as_deref(), Some(Layer::Message(message)) if message.is_tunnel())
    }

    /// Of a message to a backend, what is known of it once it is gone.
    pub(super) fn fate(&self) -> Fate {
        match self.layer.as_deref() {
            Some(Layer::Message(message)) => message.fate(),
            Some(Layer::Tls(_)) | None => Fate::Unknown,
        }
    }

    pub(super) fn lay(&mut self, layer: Layer) {
        self.layer = Some(Rc::new(layer));
    }

    /// Whether bytes may come and go without being seen.
    pub(super) const fn takes_pipes(&self) -> bool {
        self.layer.is_none()
    }

    /// Sends all of `bytes`; the buffer comes back for reuse.
    pub(super) async fn send(
        &self,
        buffers: &Buffers,
        bytes: Vec<u8>,
        deadline: &Deadline,
    ) -> Result<Vec<u8>, StreamError> {
        if self.layer.is_some() {
            self.send_through(buffers, &bytes, deadline).await?;
            return Ok(bytes);
        }
        match self.send_raw(SendBuf::Bytes(bytes), deadline).await? {
            SendBuf::Bytes(bytes) => Ok(bytes),
            SendBuf::Front(..) | SendBuf::Received(..) => Ok(Vec::new()),
        }
    }

    /// Sends `plain` through what lies over the socket.
    pub(super) async fn send_through(
        &self,
        buffers: &Buffers,
        plain: &[u8],
        deadline: &Deadline,
    ) -> Result<(), StreamError> {
        match self.layer.as_deref() {
            Some(Layer::Tls(secure)) => {
                let sealed = secure.seal(buffers, plain).map_err(|_| StreamError::Broken)?;
                let buffer = self.send_raw(sealed, deadline).await?;
                buffers.recycle_sent(buffer);
                Ok(())
            }
            Some(Layer::Message(message)) => {
                let mut sent = 0;
                Ok(deadline.guard(poll_fn(|task| message.poll_write(task, plain, &mut sent))).await??)
            }
            None => self.send_raw(SendBuf::Bytes(plain.to_vec()), deadline).await.map(drop),
        }
    }

    /// Sends what goes over the wire as it is.
    pub(super) async fn send_raw(
        &self,
        buffer: SendBuf,
        deadline: &Deadline,
    ) -> Result<SendBuf, StreamError> {
        let (sent, buffer) = deadline.guard(Op::send(self.socket.ring(), &self.socket, buffer)).await?;
        sent?;
        Ok(buffer)
    }

    /// Nothing more is said. Whoever speaks TLS is told so within it, as long as the deadline lets it be.
    pub(super) async fn end(&self, deadline: &Deadline) {
        match self.layer.as_deref() {
            Some(Layer::Message(message)) => return message.end(),
            Some(Layer::Tls(secure)) => {
                if let Some(end) = secure.seal_end() {
                    let _ = self.send_raw(end, deadline).await;
                }
            }
            None => {}
        }
        self.socket.shutdown(Shutdown::Write);
    }

    /// As [`Socket::into_descriptor`]; `None`, too, where something lies over it, which stays here.
    pub(super) fn into_descriptor(self) -> Option<OwnedFd> {
        if self.layer.is_some() { None } else { self.socket.into_descriptor() }
    }

    /// Makes its close a reset: what is cut off must not look complete.
    pub(super) fn close_by_reset(&self) {
        match self.layer.as_deref() {
            Some(Layer::Message(message)) => message.reset(),
            Some(Layer::Tls(_)) | None => self.socket.close_by_reset(),
        }
    }
}
