//! How short memory is, as one worker sees it.

use std::cell::Cell;

use crate::limits::Pressure;

/// Looked at per request, so it is the worker's own.
#[derive(Default)]
pub(super) struct PressureGauge {
    now: Cell<Pressure>,
    /// Of our pipes, as told.
    pipes: Cell<u64>,
}

impl PressureGauge {
    pub(super) fn now(&self) -> Pressure {
        self.now.get()
    }

    /// Reads it anew; what it was before.
    pub(super) fn replace(&self, now: Pressure) -> Pressure {
        self.now.replace(now)
    }

    /// Bytes of pipes, where they are others than before; and those.
    pub(super) fn pipes_moved(&self, bytes: u64) -> Option<u64> {
        let before = self.pipes.replace(bytes);
        (before != bytes).then_some(before)
    }
}
