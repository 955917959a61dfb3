//! Sending all of a buffer, or what goes of it.

use std::{io, ops::Range};

use io_uring::{opcode, squeue};

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
    /// The bytes.
    pub fn slice(&self) -> &[u8] {
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
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        Self::start(ring, Held::Sending(socket.clone(), buffer), |held| entry(held, flags))
    }
}

/// Output: bytes sent, of which there may be more, and the buffer.
#[derive(Debug)]
pub struct SendSome;

impl Kind for SendSome {
    type Output = (io::Result<usize>, SendBuf);
}

impl Finish for SendSome {
    fn finish(_: &Ring, held: Held, result: i32, _: u32) -> Self::Output {
        match held {
            Held::Sending(_, buffer) => (outcome(result), buffer),
            _ => (outcome(result), SendBuf::Bytes(Vec::new())),
        }
    }
}

impl Op<SendSome> {
    /// Sends what there is room for, at least a byte. For sockets that take no MSG_WAITALL, as the kernel's TLS (6.1, 6.12).
    pub fn send_some(ring: &Ring, socket: &Socket, buffer: SendBuf) -> Self {
        Self::start(ring, Held::Sending(socket.clone(), buffer), |held| entry(held, libc::MSG_NOSIGNAL))
    }
}

fn entry(held: &Held, flags: libc::c_int) -> squeue::Entry {
    match held {
        Held::Sending(socket, buffer) => {
            let bytes = buffer.slice();
            opcode::Send::new(socket.fd(), bytes.as_ptr(), bytes.len() as u32).flags(flags).build()
        }
        _ => opcode::Nop::new().build(),
    }
}
