//! A socket whose number is not reused while an operation names it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use io_uring::{opcode, types};

use super::{IGNORED, Ring};

/// A shared handle: each operation in flight holds a clone; the last drop closes through the ring.
#[derive(Clone)]
pub struct Socket(Rc<Inner>);

struct Inner {
    fd: RawFd,
    ring: Ring,
}

impl Socket {
    /// Takes over a descriptor.
    pub fn new(ring: &Ring, fd: OwnedFd) -> Self {
        Self(Rc::new(Inner { fd: fd.into_raw_fd(), ring: ring.clone() }))
    }

    pub(super) fn from_accepted(ring: &Ring, fd: RawFd) -> Self {
        // SAFETY: the kernel has just given this number to us and to nobody else.
        Self::new(ring, unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// A new TCP socket for dialling `family`: non-blocking, close-on-exec, without Nagle's delay.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS and the like of socket(2).
    pub fn tcp(ring: &Ring, to: std::net::SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(to),
            socket2::Type::STREAM.nonblocking().cloexec(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self::new(ring, socket.into()))
    }

    pub(super) fn fd(&self) -> types::Fd {
        types::Fd(self.0.fd)
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
        self.ring.push(&opcode::Close::new(types::Fd(self.fd)).build().user_data(IGNORED));
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.0.fd)
    }
}
