//! Pipes for splicing, leased while bytes are in flight.

use std::cell::{Cell, RefCell};

use crate::sys::pipe::Pipe;

/// Pipes of one worker, leased and spare: 128 MiB of nominal pipe memory at most.
const PIPES_MAX: usize = 256;

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
