//! Pipes for splicing, leased while bytes are in flight.

use std::cell::{Cell, RefCell};

use crate::sys::pipe::Pipe;

/// Pipes of one worker, leased and spare: 128 MiB of nominal pipe memory at most.
const PIPES_MAX: usize = 256;

/// Nominal bytes of one pipe.
pub(super) const CAPACITY_IN_ALL: u64 = crate::sys::pipe::CAPACITY as u64;

#[derive(Default)]
pub(super) struct Pipes {
    spare: RefCell<Vec<Pipe>>,
    made: Cell<usize>,
}

impl Pipes {
    /// An empty pipe; `None` when the bound or the kernel's memory for pipes is reached.
    pub(super) fn lease(&self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.made.get() >= PIPES_MAX {
            return None;
        }
        let pipe = Pipe::new().ok()?;
        self.made.set(self.made.get() + 1);
        Some(pipe)
    }

    /// Pipes that there are, leased and spare.
    pub(super) fn made(&self) -> u64 {
        self.made.get() as u64
    }

    /// Pipes that somebody has.
    #[cfg(test)]
    pub(super) fn leased(&self) -> usize {
        self.made.get() - self.spare.borrow().len()
    }

    /// Lets go of those that nobody uses.
    pub(super) fn drop_spare(&self) {
        let spare = self.spare.take();
        self.made.set(self.made.get() - spare.len());
    }

    /// Takes a pipe back that is empty.
    pub(super) fn give_back(&self, pipe: Pipe) {
        self.spare.borrow_mut().push(pipe);
    }

    /// Lets go of a pipe that still holds bytes.
    pub(super) fn discard(&self, pipe: Pipe) {
        drop(pipe);
        self.made.set(self.made.get() - 1);
    }
}
