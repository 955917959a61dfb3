//! Waiting for an eventfd: how other threads wake a worker.

use std::{io, os::fd::AsRawFd, os::fd::OwnedFd, rc::Rc};

use io_uring::{opcode, types};

use super::{Finish, Kind, Op, outcome};
use crate::ring::{Ring, slab::Held};

/// Output: the eventfd was written and is zero again.
#[derive(Debug)]
pub struct Event;

impl Kind for Event {
    type Output = io::Result<()>;
}

impl Finish for Event {
    fn finish(_: &Ring, _: Held, result: i32, _: u32) -> io::Result<()> {
        outcome(result).map(|_| ())
    }
}

impl Op<Event> {
    /// Reads the eventfd.
    pub fn event(ring: &Ring, eventfd: &Rc<OwnedFd>) -> Self {
        Self::start(ring, Held::Event(eventfd.clone(), Box::new([0; 8])), |held| match held {
            Held::Event(eventfd, word) => {
                opcode::Read::new(types::Fd(eventfd.as_raw_fd()), word.as_mut_ptr(), 8).build()
            }
            _ => opcode::Nop::new().build(),
        })
    }
}
