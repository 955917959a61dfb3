//! What one tick remembers for the next: what was refused, how long to wait before the records are looked through
//! again, and since when some may have ended that still stand.

use lb_abi::slot::{GRACE_TICKS, ticks};

/// From a look through the records that left strays to the next one.
const SCAN_PAUSE_TICKS: u32 = ticks(10);

/// Kept beside what the maps hold; `settle` works by it.
pub(super) struct Patience {
    /// Inserts that the programs had been refused for want of room at the last tick.
    pub(super) inserts_refused: u64,
    /// Tick of the last look through the records that left strays.
    pub(super) strays_seen_at: Option<u32>,
    /// Tick since which records may stand that no packet will read: of slots that settled, of VIPs that went.
    pub(super) ended_at: Option<u32>,
    /// Tick at which a VIP last went, or took flows of another.
    vips_changed_at: Option<u32>,
    /// What was adopted may have ended at any time before.
    is_adopted: bool,
}

impl Patience {
    pub(super) fn new(inserts_refused: u64) -> Self {
        Self {
            inserts_refused,
            strays_seen_at: None,
            ended_at: None,
            vips_changed_at: None,
            is_adopted: true,
        }
    }

    /// To be called first at every tick: what an earlier process did is taken for done just now.
    pub(super) fn arrive(&mut self, now: u32) {
        if std::mem::take(&mut self.is_adopted) {
            self.vips_change(now);
        }
    }

    /// Records of some flows are no VIP's any more, or another's than that of a program which runs yet.
    pub(super) fn vips_change(&mut self, now: u32) {
        self.ended_at = Some(now);
        self.vips_changed_at = Some(now);
    }

    /// Whether the last look left strays so short ago that another would find them still.
    pub(super) fn is_pausing(&self, now: u32) -> bool {
        self.strays_seen_at.is_some_and(|at| now.wrapping_sub(at) < SCAN_PAUSE_TICKS)
    }

    /// Whether ended records stand for so long that no program can hold one.
    pub(super) fn is_due(&self, now: u32) -> bool {
        self.ended_at.is_some_and(|at| now.wrapping_sub(at) > GRACE_TICKS)
    }

    /// Whether no program takes a flow for another VIP's any more than the map does.
    pub(super) fn vips_are_known(&self, now: u32) -> bool {
        self.vips_changed_at.is_none_or(|at| now.wrapping_sub(at) > GRACE_TICKS)
    }
}
