//! The table of verdicts that control writes and workers read.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::model::BackendId;

const UP: u8 = 0;
const DOWN: u8 = 1;

/// One byte per backend id. Not part of a snapshot: health is no generation.
#[derive(Debug)]
pub struct HealthTable(Box<[AtomicU8]>);

impl HealthTable {
    /// Everybody up, for ids below `len`.
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU8::new(UP)).collect())
    }

    /// Whether new work may go there. An id beyond the table is down.
    #[inline]
    pub fn is_up(&self, id: BackendId) -> bool {
        self.0.get(id.index()).is_some_and(|state| state.load(Ordering::Relaxed) == UP)
    }

    /// Writes a verdict; only control calls this.
    pub fn set(&self, id: BackendId, up: bool) {
        if let Some(state) = self.0.get(id.index()) {
            state.store(if up { UP } else { DOWN }, Ordering::Relaxed);
        }
    }
}
