//! How much may go on with one backend over all workers.
//!
//! One counter per backend says how many permits are taken. A worker takes several at once while the limit is far,
//! and keeps what it does not need for the next time, so that ordinary work touches no shared line but to read it; near
//! the limit it takes and gives back one by one. So the limit is never exceeded, and met but for what workers keep: at
//! most [`BATCH_MAX`] each, and at most a quarter of the limit over all of them.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::gate::Gate;
use crate::model::BackendId;

/// Most permits that a worker takes at once, or keeps.
pub const BATCH_MAX: u32 = 16;

/// Shared by all workers.
#[derive(Debug)]
pub struct Permits {
    taken: Box<[Taken]>,
    /// How many there may be.
    most: usize,
    /// How many there are.
    workers: AtomicU32,
    /// By name of the pool. Touched when a worker takes over a config.
    gates: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
}

/// A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Taken(AtomicU32);

impl Permits {
    /// For ids below `len` and so many workers at most; nothing is taken.
    pub fn new(len: usize, workers: usize) -> Arc<Self> {
        let taken = (0..len).map(|_| Taken::default()).collect();
        let most = workers.max(1);
        Arc::new(Self { taken, most, workers: AtomicU32::new(most as u32), gates: Mutex::default() })
    }

    /// So many workers take permits from now on.
    pub fn set_workers(&self, workers: usize) {
        self.workers.store(workers.clamp(1, self.most) as u32, Ordering::Relaxed);
    }

    /// Permits of a backend that are taken, kept ones too.
    pub fn taken(&self, id: BackendId) -> u32 {
        self.taken.get(id.index()).map_or(0, |taken| taken.0.load(Ordering::SeqCst))
    }

    /// Who waits for a backend of the pool with this name.
    pub fn gate(&self, pool: &Arc<str>) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(pool.clone()).or_insert_with(|| Arc::new(Gate::new(self.most))).clone()
    }

    /// How many a worker may take at once, or keep.
    fn batch(&self, limit: u32, taken: u32) -> u32 {
        (limit.saturating_sub(taken) / (4 * self.workers.load(Ordering::Relaxed))).clamp(1, BATCH_MAX)
    }

    /// Takes some, at least one; 0: none is left.
    fn take(&self, id: BackendId, limit: u32) -> u32 {
        let Some(Taken(counter)) = self.taken.get(id.index()) else { return 0 };
        let mut taken = counter.load(Ordering::SeqCst);
        while taken < limit {
            let batch = self.batch(limit, taken);
            match counter.compare_exchange_weak(taken, taken + batch, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return batch,
                Err(now) => taken = now,
            }
        }
        0
    }

    fn give_back(&self, id: BackendId, count: u32) {
        if let Some(Taken(counter)) = self.taken.get(id.index()) {
            counter.fetch_sub(count, Ordering::SeqCst);
        }
    }
}

/// One worker's permits that nobody uses now.
#[derive(Debug)]
pub struct Purse {
    permits: Arc<Permits>,
    kept: Box<[Cell<u32>]>,
}

impl Purse {
    /// An empty one.
    pub fn new(permits: Arc<Permits>) -> Self {
        let kept = permits.taken.iter().map(|_| Cell::new(0)).collect();
        Self { permits, kept }
    }

    /// Whether [`Self::take`] would succeed now.
    #[inline]
    pub fn has(&self, id: BackendId, limit: u32) -> bool {
        self.kept.get(id.index()).is_some_and(|kept| kept.get() > 0) || self.permits.taken(id) < limit
    }

    /// Takes a permit of a backend, of which there are `limit`. False: all are taken, or kept by others.
    #[must_use]
    pub fn take(&self, id: BackendId, limit: u32) -> bool {
        let Some(kept) = self.kept.get(id.index()) else { return false };
        let have = match kept.get() {
            0 => self.permits.take(id, limit),
            have => have,
        };
        kept.set(have.saturating_sub(1));
        have > 0
    }

    /// Gives one back. `is_wanted`: somebody waits, so that nothing is kept. True: others may have it now.
    pub fn give_back(&self, id: BackendId, limit: u32, is_wanted: bool) -> bool {
        let Some(kept) = self.kept.get(id.index()) else { return false };
        let have = kept.get() + 1;
        let batch = self.permits.batch(limit, self.permits.taken(id));
        let keep = if is_wanted || batch == 1 { 0 } else { have.min(batch) };
        kept.set(keep);
        if have > keep {
            self.permits.give_back(id, have - keep);
        }
        have > keep
    }

    /// Gives back whatever is kept.
    pub fn empty(&self) {
        for (at, kept) in self.kept.iter().enumerate().filter(|(_, kept)| kept.get() > 0) {
            self.permits.give_back(BackendId(at as u16), kept.take());
        }
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.empty();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: BackendId = BackendId(1);

    proptest! {
        /// Whatever workers do, the limit holds, and is missed by no more than what is kept.
        #[test]
        fn the_limit_holds_and_is_met(
            limit in 1u32..300,
            workers in 1usize..5,
            steps in proptest::collection::vec((0usize..5, any::<bool>(), any::<bool>()), 0..900),
        ) {
            let permits = Permits::new(2, workers);
            let purses: Vec<_> = (0..workers).map(|_| Purse::new(permits.clone())).collect();
            let mut using = vec![0; workers];
            for (worker, takes, is_wanted) in steps {
                let worker = worker % workers;
                if takes {
                    let total: u32 = using.iter().sum();
                    prop_assert_eq!(purses[worker].has(ID, limit), {
                        let got = purses[worker].take(ID, limit);
                        using[worker] += u32::from(got);
                        if !got {
                            let kept = (BATCH_MAX * workers as u32).min(limit / 4);
                            prop_assert!(total + kept >= limit, "{} of {} and refused", total, limit);
                        }
                        got
                    });
                } else if using[worker] > 0 {
                    using[worker] -= 1;
                    purses[worker].give_back(ID, limit, is_wanted);
                }
                prop_assert!(using.iter().sum::<u32>() <= limit);
                prop_assert!(permits.taken(ID) <= limit);
            }
            for (purse, using) in purses.iter().zip(using) {
                (0..using).for_each(|_| _ = purse.give_back(ID, limit, false));
            }
            drop(purses);
            prop_assert_eq!(permits.taken(ID), 0);
        }
    }

    #[test]
    fn small_limits_are_exact_and_large_ones_touch_the_counter_rarely() {
        let permits = Permits::new(2, 2);
        let purses = [Purse::new(permits.clone()), Purse::new(permits.clone())];
        for at in 0..7 {
            assert!(purses[at % 2].take(ID, 7));
        }
        assert!(!purses[0].take(ID, 7) && !purses[1].take(ID, 7));
        assert!(purses[0].give_back(ID, 7, false), "near the limit nothing is kept");
        assert!(purses[1].take(ID, 7));
        for at in 0..7 {
            purses[at % 2].give_back(ID, 7, false);
        }
        assert_eq!(permits.taken(ID), 0);
        assert!(purses[0].take(ID, 1000));
        assert_eq!(permits.taken(ID), BATCH_MAX);
        for _ in 0..100 {
            assert!(!purses[0].give_back(ID, 1000, false));
            assert!(purses[0].take(ID, 1000));
        }
        assert_eq!(permits.taken(ID), BATCH_MAX, "kept ones were used");
        assert!(purses[0].give_back(ID, 1000, true), "who waits gets what is kept");
        assert_eq!(permits.taken(ID), 0);
    }

    #[test]
    fn a_lower_limit_is_met_as_work_ends() {
        let purse = Purse::new(Permits::new(2, 1));
        assert!((0..10).all(|_| purse.take(ID, 10)));
        assert!(!purse.take(ID, 4));
        assert!((0..7).all(|_| purse.give_back(ID, 4, false)));
        assert!(purse.take(ID, 4) && !purse.take(ID, 4));
    }

    #[test]
    fn threads_never_exceed_it() {
        let permits = Permits::new(2, 3);
        let (limit, using) = (40, AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let purse = Purse::new(permits.clone());
                    let mut mine = 0;
                    for turn in 0..60_000_u32 {
                        if turn.wrapping_mul(2_654_435_761) >> 30 != 0 && purse.take(ID, limit) {
                            mine += 1;
                            assert!(using.fetch_add(1, Ordering::SeqCst) < limit);
                        } else if mine > 0 {
                            mine -= 1;
                            using.fetch_sub(1, Ordering::SeqCst);
                            purse.give_back(ID, limit, turn % 7 == 0);
                        }
                    }
                    using.fetch_sub(mine, Ordering::SeqCst);
                    (0..mine).for_each(|_| _ = purse.give_back(ID, limit, false));
                });
            }
        });
        assert_eq!(permits.taken(ID), 0);
    }
}
