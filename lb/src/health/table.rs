//! The table of verdicts that control writes and workers read.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::model::BackendId;

/// Up since before anybody looked.
const UP: u64 = 0;
const DOWN: u64 = u64::MAX;

/// One word per backend id: down, or up since when, in milliseconds since the first that came up. Not part of a
/// snapshot: health is no generation.
#[derive(Debug)]
pub struct HealthTable {
    states: Box<[AtomicU64]>,
    epoch: OnceLock<Instant>,
}

impl HealthTable {
    /// Everybody up, for ids below `len`.
    pub fn new(len: usize) -> Self {
        Self { states: (0..len).map(|_| AtomicU64::new(UP)).collect(), epoch: OnceLock::new() }
    }

    /// Whether new work may go there. An id beyond the table is down.
    #[inline]
    pub fn is_up(&self, id: BackendId) -> bool {
        self.state(id) != DOWN
    }

    /// How long new work may go there by now: [`Duration::MAX`] where that was so before anybody looked, `None` while
    /// it may not.
    #[inline]
    pub fn up_for(&self, id: BackendId, now: Instant) -> Option<Duration> {
        match (self.state(id), self.epoch.get()) {
            (DOWN, _) => None,
            (UP, _) | (_, None) => Some(Duration::MAX),
            (since_ms, Some(epoch)) => {
                Some(now.saturating_duration_since(*epoch + Duration::from_millis(since_ms)))
            }
        }
    }

    /// Writes a verdict, up as if it had always been; only control calls this.
    pub fn set(&self, id: BackendId, up: bool) {
        self.store(id, if up { UP } else { DOWN });
    }

    /// One that was down came up; only control calls this.
    pub fn rise(&self, id: BackendId, now: Instant) {
        let epoch = *self.epoch.get_or_init(|| now);
        let since_ms = now.saturating_duration_since(epoch).as_millis() as u64;
        self.store(id, since_ms.max(UP + 1));
    }

    fn state(&self, id: BackendId) -> u64 {
        self.states.get(id.index()).map_or(DOWN, |state| state.load(Ordering::Relaxed))
    }

    fn store(&self, id: BackendId, state: u64) {
        if let Some(place) = self.states.get(id.index()) {
            place.store(state, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_since_it_rose_and_not_before() {
        let (table, now) = (HealthTable::new(3), Instant::now());
        let (a, b, beyond) = (BackendId(1), BackendId(2), BackendId(3));
        let second = Duration::from_secs(1);
        assert_eq!((table.up_for(a, now), table.up_for(beyond, now)), (Some(Duration::MAX), None));
        table.set(a, false);
        assert_eq!((table.is_up(a), table.up_for(a, now)), (false, None));
        table.rise(a, now);
        table.rise(b, now + second);
        assert!(table.is_up(a));
        assert!(table.up_for(a, now + second).unwrap().abs_diff(second) <= Duration::from_millis(1));
        assert_eq!(table.up_for(b, now), Some(Duration::ZERO), "a clock that lags is no harm");
        table.set(a, true);
        assert_eq!(table.up_for(a, now), Some(Duration::MAX));
    }
}
