//! Receiving: into a buffer the kernel picks, or into memory of our own where it has none left.

use std::io;

use io_uring::{cqueue, opcode, squeue::Flags};

use super::{Finish, Kind, Op, outcome};
use crate::ring::{Group, Ring, RxBuf, Socket, slab::Held};

/// Output: `Some` bytes, or `None` at the end of the stream.
///
/// ENOBUFS: the group is empty; receive with [`RecvHeap`] instead.
#[derive(Debug)]
pub struct RecvPicked;

impl Kind for RecvPicked {
    type Output = io::Result<Option<RxBuf>>;
}

impl Finish for RecvPicked {
    fn finish(ring: &Ring, held: Held, result: i32, flags: u32) -> Self::Output {
        let picked = match (cqueue::buffer_select(flags), held.group()) {
            (Some(id), Some(group)) => Some(RxBuf::new(ring, group, id, result)),
            _ => None,
        };
        outcome(result).map(|len| picked.filter(|_| len > 0))
    }
}

/// Whether bytes are probably waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likely {
    /// Look at once.
    Waiting,
    /// Wait for readiness first: an attempt in vain costs 3 % of a small request.
    Later,
}

/// `IORING_RECVSEND_POLL_FIRST`, io_uring_enter(2), Linux 5.19.
const POLL_FIRST: u16 = 1;

impl Op<RecvPicked> {
    /// Waits for bytes; takes a buffer only when they come.
    pub fn recv(ring: &Ring, socket: &Socket, group: Group, likely: Likely) -> Self {
        let priority = if likely == Likely::Later { POLL_FIRST } else { 0 };
        Self::start(ring, Held::Picking(socket.clone(), group), move |held| match held {
            Held::Picking(socket, group) => opcode::Recv::new(socket.fd(), std::ptr::null_mut(), 0)
                .ioprio(priority)
                .buf_group(group.id())
                .build()
                .flags(Flags::BUFFER_SELECT),
            _ => opcode::Nop::new().build(),
        })
    }
}

/// Output: the bytes received, none at the end of the stream.
#[derive(Debug)]
pub struct RecvHeap;

impl Kind for RecvHeap {
    type Output = io::Result<Vec<u8>>;
}

impl Finish for RecvHeap {
    fn finish(_: &Ring, held: Held, result: i32, _: u32) -> Self::Output {
        let len = outcome(result)?;
        match held {
            Held::Receiving(_, mut bytes) => {
                bytes.truncate(len);
                Ok(bytes)
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Op<RecvHeap> {
    /// Receives at most `len` bytes into fresh memory.
    pub fn recv_heap(ring: &Ring, socket: &Socket, len: usize) -> Self {
        Self::start(ring, Held::Receiving(socket.clone(), vec![0; len]), |held| match held {
            Held::Receiving(socket, bytes) => {
                opcode::Recv::new(socket.fd(), bytes.as_mut_ptr(), bytes.len() as u32).build()
            }
            _ => opcode::Nop::new().build(),
        })
    }
}
