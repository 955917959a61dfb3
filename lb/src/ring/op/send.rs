//! Sending all of a buffer.

use std::{io, ops::Range};

use io_uring::opcode;

use super::{Finish, Kind, Op, outcome};
use crate::ring::{Ring, RxBuf, Socket, slab::Held};

/// What is sent; comes back with the result.
#[derive(Debug)]
pub enum SendBuf {
    /// All of these bytes.
    Bytes(Vec<u8>),
    /// So many bytes at the front of these.
    Front(Vec<u8>, usize),
    /// A part of received bytes, forwarded without a copy.
    Received(RxBuf, Range<usize>),
}

impl SendBuf {
    fn slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Front(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Self::Received(buffer, range) => buffer.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// Output: bytes sent (all of them, unless the peer went away in the middle) and the buffer.
#[derive(Debug)]
pub struct Send;

impl Kind for Send {
    type Output = (io::Result<usize>, SendBuf);
}

impl Finish for Send {
    fn finish(_: &Ring, held: Held, result: i32, _: u32) -> Self::Output {
        match held {
            Held::Sending(_, buffer) => {
                let sent = outcome(result).and_then(|sent| {
                    // MSG_WAITALL ends short only when the connection broke.
                    if sent == buffer.slice().len() {
                        Ok(sent)
                    } else {
                        Err(io::ErrorKind::BrokenPipe.into())
                    }
                });
                (sent, buffer)
            }
            _ => (outcome(result), SendBuf::Bytes(Vec::new())),
        }
    }
}

impl Op<Send> {
    /// Sends everything; the kernel goes on after short writes by itself (MSG_WAITALL).
    pub fn send(ring: &Ring, socket: &Socket, buffer: SendBuf) -> Self {
        Self::start(ring, Held::Sending(socket.clone(), buffer), |held| match held {
            Held::Sending(socket, buffer) => {
                let bytes = buffer.slice();
                opcode::Send::new(socket.fd(), bytes.as_ptr(), bytes.len() as u32)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            _ => opcode::Nop::new().build(),
        })
    }
}
