//! Where bytes for a peer go: its socket, through what lies over that.

use std::{future::poll_fn, net::Shutdown, os::fd::OwnedFd, rc::Rc};

use super::{
    buffers::Buffers,
    message::Message,
    secure::{Parting, Secure},
    stream_error::StreamError,
    timer::Deadline,
};
use crate::{
    l7::http2::Fate,
    ring::{Op, SendBuf, Socket, op::Readiness},
    sys::ktls,
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
    Tls(Box<Secure>),
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

    /// Whether what comes may be passed on unseen.
    pub(super) const fn gives_pipes(&self) -> bool {
        self.layer.is_none()
    }

    /// Whether bytes are written as they are: nothing lies over the socket, or the kernel seals them.
    pub(super) fn takes_as_is(&self) -> bool {
        self.layer.is_none() || self.handed_over().is_some()
    }

    fn handed_over(&self) -> Option<&Secure> {
        self.secure().filter(|secure| secure.is_handed_over())
    }

    /// Bytes have gone in as they are. An error: the kernel has sealed as many as it may.
    pub(super) fn passed(&self, len: usize) -> Result<(), StreamError> {
        match self.secure() {
            Some(secure) if !secure.may_seal(len) => Err(StreamError::Broken),
            _ => Ok(()),
        }
    }

    /// Sends all of `bytes`; the buffer comes back for reuse.
    pub(super) async fn send(
        &self,
        buffers: &Buffers,
        bytes: Vec<u8>,
        deadline: &Deadline,
    ) -> Result<Vec<u8>, StreamError> {
        if !self.takes_as_is() {
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
        if self.handed_over().is_some() {
            return self.send_by_kernel(buffer, deadline).await;
        }
        let (sent, buffer) = deadline.guard(Op::send(self.socket.ring(), &self.socket, buffer)).await?;
        sent?;
        Ok(buffer)
    }

    /// Sends what the kernel seals.
    async fn send_by_kernel(&self, buffer: SendBuf, deadline: &Deadline) -> Result<SendBuf, StreamError> {
        let (ring, len) = (self.socket.ring(), buffer.slice().len());
        self.passed(len)?;
        let (done, buffer) = deadline.guard(Op::send_some(ring, &self.socket, buffer)).await?;
        let mut sent = done?;
        while sent < len {
            let rest = SendBuf::Bytes(buffer.slice()[sent..].to_vec());
            match deadline.guard(Op::send_some(ring, &self.socket, rest)).await?.0? {
                0 => return Err(StreamError::Broken),
                more => sent += more,
            }
        }
        Ok(buffer)
    }

    /// Waits until there is so much room that what the kernel has sealed and keeps goes with the next that is said. Of a record
    /// that a full buffer has cut, it keeps the rest; the socket's end would overtake that, and a close throw it away.
    pub(super) async fn settle(&self, deadline: &Deadline) -> Result<(), StreamError> {
        if self.handed_over().is_some() {
            let ready = Op::ready(self.socket.ring(), &self.socket, Readiness::Writable);
            deadline.guard(ready).await??;
        }
        Ok(())
    }

    /// Nothing more is said. Whoever speaks TLS is told so within it, as long as the deadline lets it be.
    pub(super) async fn end(&self, deadline: &Deadline) {
        match self.layer.as_deref() {
            Some(Layer::Message(message)) => return message.end(),
            Some(Layer::Tls(secure)) => match secure.seal_end() {
                Some(Parting::Sealed(end)) => _ = self.send_raw(end, deadline).await,
                Some(Parting::Alert(alert)) => {
                    _ = self.settle(deadline).await.map(|()| ktls::alert(&self.socket, alert));
                }
                None => {}
            },
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
