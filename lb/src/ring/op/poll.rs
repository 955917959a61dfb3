//! Readiness, for the syscalls that a ring does badly: splice(2).

use std::io;

use io_uring::opcode;

use super::{Finish, Kind, Op, outcome};
use crate::ring::{Ring, Socket, slab::Held};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes, or the end of the stream.
    Readable,
    /// Room to send.
    Writable,
    /// The peer has ended its side, or the connection is broken.
    Ended,
}

/// Output: the socket is ready, or in an error state that the next syscall on it will name.
#[derive(Debug)]
pub struct Ready;

impl Kind for Ready {
    type Output = io::Result<()>;
}

impl Finish for Ready {
    fn finish(_: &Ring, _: Held, result: i32, _: u32) -> io::Result<()> {
        outcome(result).map(|_| ())
    }
}

impl Op<Ready> {
    /// One-shot poll.
    pub fn ready(ring: &Ring, socket: &Socket, readiness: Readiness) -> Self {
        let events = match readiness {
            Readiness::Readable => libc::POLLIN | libc::POLLRDHUP,
            Readiness::Writable => libc::POLLOUT,
            Readiness::Ended => libc::POLLRDHUP,
        };
        Self::start(ring, Held::Socket(socket.clone()), |held| match held {
            Held::Socket(socket) => opcode::PollAdd::new(socket.fd(), events as u32).build(),
            _ => opcode::Nop::new().build(),
        })
    }
}
