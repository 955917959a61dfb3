//! A table by number that shares with the one it was made of whatever is the same.

use std::{ops::Index, sync::Arc};

/// Entries that are copied together.
const CHUNK: usize = 64;

type Chunk<T> = [Option<Arc<T>>; CHUNK];

/// Things by number. A clone costs a pointer per 64 of them, and so does what is changed in it.
#[derive(Clone, Debug)]
pub struct Slots<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    /// Numbers from here on were never used.
    end: usize,
    /// Numbers below that are free.
    holes: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), end: 0, holes: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// What has this number.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)?.as_deref()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.end - self.holes.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten()).map(|entry| &**entry)
    }

    /// Puts in what is made for a number that was free.
    pub fn insert(&mut self, make: impl FnOnce(usize) -> T) -> usize {
        let at = self.holes.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        });
        self.set(at, Some(Arc::new(make(at))));
        at
    }

    /// Takes out what has this number, which is free then.
    pub fn remove(&mut self, at: usize) {
        if self.get(at).is_some() {
            self.set(at, None);
            self.holes.push(at);
        }
    }

    /// The same numbers with other things.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> Slots<U> {
        let chunk = |chunk: &Arc<Chunk<T>>| {
            Arc::new(std::array::from_fn(|at| chunk[at].as_deref().map(|entry| Arc::new(make(entry)))))
        };
        Slots { chunks: self.chunks.iter().map(chunk).collect(), end: self.end, holes: self.holes.clone() }
    }

    /// Brings `made`, which was [mapped](Self::map) from `before`, to where this is now.
    pub fn carry_on<U>(&self, before: &Self, made: &Slots<U>, make: impl Fn(&T) -> U) -> Slots<U> {
        let mut next = Slots { chunks: made.chunks.clone(), end: self.end, holes: self.holes.clone() };
        for (at, _, now) in before.changes(self) {
            next.set(at, now.map(|now| Arc::new(make(now))));
        }
        next
    }

    /// What is not the same entry in `after`: number, what it was, what it is. Parts that both share are not looked at.
    pub fn changes<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (usize, Option<&'a Arc<T>>, Option<&'a Arc<T>>)> {
        let differ = |at: &usize| match (self.chunks.get(*at), after.chunks.get(*at)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (old, new) => old.is_some() || new.is_some(),
        };
        let chunks = (0..self.chunks.len().max(after.chunks.len())).filter(differ);
        let entry = |slots: &'a Self, at: usize| slots.chunks.get(at / CHUNK)?[at % CHUNK].as_ref();
        let entries = chunks.flat_map(|chunk| chunk * CHUNK..(chunk + 1) * CHUNK);
        entries.map(move |at| (at, entry(self, at), entry(after, at))).filter(|(_, old, new)| {
            match (old, new) {
                (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
                (old, new) => old.is_some() || new.is_some(),
            }
        })
    }

    fn set(&mut self, at: usize, entry: Option<Arc<T>>) {
        while self.chunks.len() <= at / CHUNK {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        if let Some(chunk) = self.chunks.get_mut(at / CHUNK) {
            Arc::make_mut(chunk)[at % CHUNK] = entry;
        }
    }
}

impl<T> From<Vec<T>> for Slots<T> {
    fn from(entries: Vec<T>) -> Self {
        let mut slots = Self::default();
        for entry in entries {
            slots.insert(|_| entry);
        }
        slots
    }
}

/// Panics where nothing has the number.
impl<T> Index<usize> for Slots<T> {
    type Output = T;

    #[expect(
        clippy::expect_used,
        reason = "an index that is out of range is its caller's mistake, as of a slice"
    )]
    fn index(&self, at: usize) -> &T {
        self.get(at).expect("nothing has this number")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain map; and what changed is exactly what was touched.
        #[test]
        fn is_a_table(steps in prop::collection::vec((any::<bool>(), 0..200_usize), 0..400)) {
            let mut slots = Slots::default();
            let mut plain = BTreeMap::new();
            for at in 0..150 {
                plain.insert(slots.insert(|_| at), at);
            }
            let before = slots.clone();
            let doubled = before.map(|entry| entry * 2);
            for (step, (inserts, at)) in steps.into_iter().enumerate() {
                match inserts {
                    true => _ = plain.insert(slots.insert(|_| 1000 + step), 1000 + step),
                    false => {
                        slots.remove(at);
                        plain.remove(&at);
                    }
                }
            }
            prop_assert_eq!(slots.len(), plain.len());
            prop_assert!(slots.iter().eq(plain.values()));
            prop_assert!((0..800).all(|at| slots.get(at) == plain.get(&at)));
            let differing: Vec<_> = before.changes(&slots).map(|(at, ..)| at).collect();
            let expected: Vec<_> = (0..800).filter(|at| before.get(*at) != slots.get(*at)).collect();
            prop_assert_eq!(differing, expected);
            let carried = slots.carry_on(&before, &doubled, |entry| entry * 2);
            prop_assert!((0..800).all(|at| carried.get(at).copied() == plain.get(&at).map(|entry| entry * 2)));
        }
    }
}
