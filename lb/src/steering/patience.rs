//! What one tick remembers for the next: how long to wait before the records are looked through again.

use lb_abi::slot::ticks;

/// From a look through the records that left strays to the next one.
const SCAN_PAUSE_TICKS: u32 = ticks(10);

/// Kept beside what the maps hold; `settle` works by it.
pub(super) struct Patience {
    /// Inserts that the programs had been refused at the last tick.
    pub(super) inserts_refused: u64,
    /// Tick of the last look through the records that left strays.
    pub(super) strays_seen_at: Option<u32>,
}

impl Patience {
    pub(super) fn new(inserts_refused: u64) -> Self {
        Self { inserts_refused, strays_seen_at: None }
    }

    /// Whether the last look left strays so short ago that another would find them still.
    pub(super) fn is_pausing(&self, now: u32) -> bool {
        self.strays_seen_at.is_some_and(|at| now.wrapping_sub(at) < SCAN_PAUSE_TICKS)
    }
}
