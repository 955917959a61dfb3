//! A socket whose number is not reused while an operation names it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use io_uring::{opcode, types};

use super::{IGNORED, Ring};
use crate::model::BackendAddress;

/// A shared handle: each operation in flight holds a clone; the last drop closes through the ring.
#[derive(Clone)]
pub struct Socket(Rc<Inner>);

struct Inner {
    /// [`TAKEN`] once somebody else closes it.
    fd: RawFd,
    ring: Ring,
}

/// No descriptor.
const TAKEN: RawFd = -1;

impl Socket {
    /// Takes over a descriptor.
    pub fn new(ring: &Ring, fd: OwnedFd) -> Self {
        Self(Rc::new(Inner { fd: fd.into_raw_fd(), ring: ring.clone() }))
    }

    pub(super) fn from_accepted(ring: &Ring, fd: RawFd) -> Self {
        // SAFETY: the kernel has just given this number to us and to nobody else.
        Self::new(ring, unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// A new stream socket for dialling `to`: non-blocking, close-on-exec, without Nagle's delay where it is TCP's.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS and the like of socket(2).
    pub fn stream(ring: &Ring, to: &BackendAddress) -> io::Result<Self> {
        let kind = socket2::Type::STREAM.nonblocking().cloexec();
        let socket = match to {
            BackendAddress::Ip(to) => {
                let domain = socket2::Domain::for_address(*to);
                let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::TCP))?;
                socket.set_tcp_nodelay(true)?;
                socket
            }
            BackendAddress::Unix(_) => socket2::Socket::new(socket2::Domain::UNIX, kind, None)?,
        };
        Ok(Self::new(ring, socket.into()))
    }

    /// A new UDP socket that is connected to `to`: non-blocking, close-on-exec. Connecting sends nothing.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS and the like of socket(2); ENETUNREACH, EADDRNOTAVAIL and the like of connect(2).
    pub fn udp(ring: &Ring, to: std::net::SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(to),
            socket2::Type::DGRAM.nonblocking().cloexec(),
            Some(socket2::Protocol::UDP),
        )?;
        socket.connect(&to.into())?;
        Ok(Self::new(ring, socket.into()))
    }

    /// The ring that its operations go to.
    pub fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// The descriptor, for another ring. `None`, and one handle less: an operation or somebody else has another one.
    pub fn into_descriptor(self) -> Option<OwnedFd> {
        let fd = std::mem::replace(&mut Rc::into_inner(self.0)?.fd, TAKEN);
        // SAFETY: it is open, and from the last handle, which does not close it any more.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(super) fn fd(&self) -> types::Fd {
        types::Fd(self.0.fd)
    }

    /// Who is at the other end; `None`: nobody any more, or nobody with such an address.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        #[cfg(test)]
        if let Some(client) = self.0.ring.simulated_client(self.0.fd) {
            return Some(client);
        }
        socket2::SockRef::from(self).peer_addr().ok().and_then(|address| address.as_socket())
    }

    /// Makes its close a reset: what is cut off must not look complete.
    pub fn close_by_reset(&self) {
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Ends one direction or both; an error means that the peer did so first.
    pub fn shutdown(&self, how: std::net::Shutdown) {
        let _ = socket2::SockRef::from(self).shutdown(how);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as any handle lives.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.fd != TAKEN {
            self.ring.push(&opcode::Close::new(types::Fd(self.fd)).build().user_data(IGNORED));
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.0.fd)
    }
}
