//! `SLOTS`, mapped into our memory (see [`super::words`]).

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::Map;
use lb_abi::{names::MAP_SLOTS, slot::Slot};

use super::{super::error::Result, words::Words};

/// The map and its memory.
pub struct Slots(Words);

impl Slots {
    /// Maps the array, which must have been created with `BPF_F_MMAPABLE`.
    pub(super) fn map(map: Map) -> Result<Self> {
        Ok(Self(Words::map(map, MAP_SLOTS)?))
    }

    /// All slots of all tables.
    pub fn array(&self) -> SlotArray<'_> {
        SlotArray(self.0.array())
    }
}

/// Slots as control reads and stores them.
#[derive(Clone, Copy)]
pub struct SlotArray<'a>(&'a [AtomicU64]);

impl<'a> SlotArray<'a> {
    /// Slots that lie in `words`.
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Slots `first .. first + len`; none where they do not exist.
    pub fn range(self, first: usize, len: usize) -> Self {
        Self(self.0.get(first..first.saturating_add(len)).unwrap_or_default())
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The slot at `index`; settled on nobody beyond the end.
    pub fn load(self, index: usize) -> Slot {
        Slot(self.0.get(index).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    /// Stores a slot; everything written to the maps before is visible to whoever reads it.
    pub fn store(self, index: usize, slot: Slot) {
        if let Some(word) = self.0.get(index) {
            word.store(slot.0, Ordering::Release);
        }
    }

    /// All, in order.
    pub fn iter(self) -> impl Iterator<Item = Slot> + 'a {
        self.0.iter().map(|word| Slot(word.load(Ordering::Relaxed)))
    }
}
