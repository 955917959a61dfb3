//! The only source of chance: a seed gives one run, again and again.

use std::cell::Cell;

/// SplitMix64. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
pub(crate) struct Rng(Cell<u64>);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(crate) fn word(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `from..to`.
    pub(crate) fn within(&self, from: u64, to: u64) -> u64 {
        from + self.word() % (to - from)
    }

    /// Once in `n`.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.word().is_multiple_of(n)
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.within(0, of.len() as u64) as usize]
    }
}
