//! Dialling.

use std::{io, net::SocketAddr};

use io_uring::opcode;

use super::{Finish, Kind, Op, outcome};
use crate::ring::{Ring, Socket, slab::Held};

/// Output: the socket is connected, or why not (ECONNREFUSED, ETIMEDOUT, ENETUNREACH, ...).
#[derive(Debug)]
pub struct Connect;

impl Kind for Connect {
    type Output = io::Result<()>;
}

impl Finish for Connect {
    fn finish(_: &Ring, _: Held, result: i32, _: u32) -> io::Result<()> {
        outcome(result).map(|_| ())
    }
}

impl Op<Connect> {
    /// Connects `socket` to `to`.
    pub fn connect(ring: &Ring, socket: &Socket, to: SocketAddr) -> Self {
        let held = Held::Connecting(socket.clone(), Box::new(to.into()));
        Self::start(ring, held, |held| match held {
            Held::Connecting(socket, address) => {
                opcode::Connect::new(socket.fd(), address.as_ptr().cast(), address.len()).build()
            }
            _ => opcode::Nop::new().build(),
        })
    }
}
