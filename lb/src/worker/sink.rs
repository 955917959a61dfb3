//! Where bytes for a peer go: its socket, through TLS where it speaks that.

use std::{net::Shutdown, os::fd::OwnedFd, rc::Rc};

use super::{local::Local, secure::Secure, stream::StreamError, timer::Deadline};
use crate::ring::{Op, SendBuf, Socket};

/// A shared handle, as [`Socket`] is.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    socket: Socket,
    secure: Option<Rc<Secure>>,
}

impl From<Socket> for Sink {
    fn from(socket: Socket) -> Self {
        Self { socket, secure: None }
    }
}

impl Sink {
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// `None`: bytes go as they are.
    pub(super) const fn secure(&self) -> Option<&Rc<Secure>> {
        self.secure.as_ref()
    }

    /// From here on bytes are sealed.
    pub(super) fn begin_secure(&mut self, secure: Rc<Secure>) {
        self.secure = Some(secure);
    }

    /// Whether bytes may come and go without being seen.
    pub(super) const fn takes_pipes(&self) -> bool {
        self.secure.is_none()
    }

    /// Sends all of `bytes`; the buffer comes back for reuse.
    pub(super) async fn send(
        &self,
        local: &Local,
        bytes: Vec<u8>,
        deadline: &Deadline,
    ) -> Result<Vec<u8>, StreamError> {
        if self.secure.is_some() {
            self.send_sealed(local, &bytes, deadline).await?;
            return Ok(bytes);
        }
        match self.send_raw(local, SendBuf::Bytes(bytes), deadline).await? {
            SendBuf::Bytes(bytes) => Ok(bytes),
            SendBuf::Front(..) | SendBuf::Received(..) => Ok(Vec::new()),
        }
    }

    /// Seals `plain`, and sends that.
    pub(super) fn send_sealed(
        &self,
        local: &Local,
        plain: &[u8],
        deadline: &Deadline,
    ) -> impl Future<Output = Result<(), StreamError>> {
        // Before the first poll: whatever is sealed next goes behind it.
        let sealed = self.secure.as_ref().map(|secure| secure.seal(local, plain));
        async move {
            let Some(Ok(sealed)) = sealed else { return Err(StreamError::Broken) };
            let buffer = self.send_raw(local, sealed, deadline).await?;
            local.sealed.recycle(buffer);
            Ok(())
        }
    }

    /// Sends what goes over the wire as it is.
    pub(super) async fn send_raw(
        &self,
        local: &Local,
        buffer: SendBuf,
        deadline: &Deadline,
    ) -> Result<SendBuf, StreamError> {
        let (sent, buffer) = deadline.guard(Op::send(&local.ring, &self.socket, buffer)).await?;
        sent?;
        Ok(buffer)
    }

    /// Nothing more is said. Whoever speaks TLS is told so within it, as long as the deadline lets it be.
    pub(super) async fn end(&self, local: &Local, deadline: &Deadline) {
        if let Some(end) = self.secure.as_ref().and_then(|secure| secure.seal_end()) {
            let _ = self.send_raw(local, end, deadline).await;
        }
        self.socket.shutdown(Shutdown::Write);
    }

    /// As [`Socket::into_descriptor`]; `None`, too, where bytes are sealed: keys stay here.
    pub(super) fn into_descriptor(self) -> Option<OwnedFd> {
        if self.secure.is_some() { None } else { self.socket.into_descriptor() }
    }

    /// Makes its close a reset: what is cut off must not look complete.
    pub(super) fn close_by_reset(&self) {
        self.socket.close_by_reset();
    }
}
