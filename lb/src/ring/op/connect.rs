//! Dialling.

use std::io;

use io_uring::opcode;

use super::{Finish, Kind, Op, outcome};
use crate::{
    model::BackendAddress,
    ring::{Ring, Socket, slab::Held},
};

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
    ///
    /// # Errors
    /// The path of a unix socket is longer than the kernel takes, which [`crate::model::UnixAddress`] rules out.
    pub fn connect(ring: &Ring, socket: &Socket, to: &BackendAddress) -> io::Result<Self> {
        let address = match to {
            BackendAddress::Ip(to) => (*to).into(),
            // An abstract name begins with NUL, and then its length counts.
            BackendAddress::Unix(to) => socket2::SockAddr::unix(to.sun_path())?,
        };
        let held = Held::Connecting(socket.clone(), Box::new(address));
        Ok(Self::start(ring, held, |held| match held {
            Held::Connecting(socket, address) => {
                opcode::Connect::new(socket.fd(), address.as_ptr().cast(), address.len()).build()
            }
            _ => opcode::Nop::new().build(),
        }))
    }
}
