//! Tables whose clones share what is not changed in them.

use std::{hash::BuildHasher as _, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::{HashTable, hash_table::Entry};

/// Entries of a shard that a table grows at: what one change copies.
const SHARD_LEN: usize = 48;
/// How many more shards a table gets then.
const GROWTH: usize = 4;

/// Bytes to something. A clone costs a pointer per shard, and a change of it the shard that it falls into.
///
/// The keys are the config's, not a client's, so a fixed hash seed is no weakness.
#[derive(Clone, Debug)]
pub(super) struct Table<V> {
    /// None, or a power of two of them.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

type Shard<V> = HashTable<(Box<[u8]>, V)>;

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { shards: Vec::new(), len: 0 }
    }
}

fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

impl<V> Table<V> {
    #[inline]
    fn shard(&self, hash: u64) -> Option<usize> {
        // A shard itself goes by the other bits.
        Some((hash >> 32) as usize & self.shards.len().checked_sub(1)?)
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = hash(key);
        let shard = self.shards.get(self.shard(hash)?)?;
        shard.find(hash, |(known, _)| **known == *key).map(|(_, value)| value)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(_, value)| value)
    }
}

impl<V: Clone + Default> Table<V> {
    /// What stands there, made where nothing does; and whether it was made.
    pub(super) fn entry(&mut self, key: &[u8]) -> (&mut V, bool) {
        if self.len >= self.shards.len() * SHARD_LEN {
            self.grow();
        }
        let hash = hash(key);
        let at = self.shard(hash).unwrap_or_default();
        let shard = Arc::make_mut(&mut self.shards[at]);
        let entry = shard.entry(hash, |(known, _)| **known == *key, |(known, _)| self::hash(known));
        match entry {
            Entry::Occupied(entry) => (&mut entry.into_mut().1, false),
            Entry::Vacant(entry) => {
                self.len += 1;
                (&mut entry.insert((key.into(), V::default())).into_mut().1, true)
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let hash = hash(key);
        let at = self.shard(hash)?;
        let shard = Arc::make_mut(self.shards.get_mut(at)?);
        shard.find_mut(hash, |(known, _)| **known == *key).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let hash = hash(key);
        let Some(at) = self.shard(hash) else { return };
        let Some(shard) = self.shards.get_mut(at) else { return };
        if let Ok(entry) = Arc::make_mut(shard).find_entry(hash, |(known, _)| **known == *key) {
            entry.remove();
            self.len -= 1;
        }
    }

    fn grow(&mut self) {
        let shards = (self.shards.len() * GROWTH).max(1);
        let mut next = vec![Shard::new(); shards];
        for (key, value) in self.shards.drain(..).flat_map(Arc::unwrap_or_clone) {
            let hash = hash(&key);
            next[(hash >> 32) as usize & (shards - 1)]
                .insert_unique(hash, (key, value), |(known, _)| self::hash(known));
        }
        self.shards = next.into_iter().map(Arc::new).collect();
    }
}

/// Keys of few different lengths, tried from long to short: one hash per length that the config uses, so a
/// client cannot make a look-up dearer by its input.
#[derive(Clone, Debug)]
pub(super) struct Longest<V> {
    pub(super) by_key: Table<V>,
    /// Distinct, descending; how many keys have each.
    lens: Vec<(usize, usize)>,
}

impl<V> Default for Longest<V> {
    fn default() -> Self {
        Self { by_key: Table::default(), lens: Vec::new() }
    }
}

impl<V> Longest<V> {
    /// Lengths of keys, from long to short.
    pub(super) fn lens(&self) -> impl Iterator<Item = usize> {
        self.lens.iter().map(|(len, _)| *len)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<V: Clone + Default> Longest<V> {
    pub(super) fn entry(&mut self, key: &[u8]) -> &mut V {
        let (value, is_new) = self.by_key.entry(key);
        if is_new {
            match self.lens.binary_search_by(|(len, _)| key.len().cmp(len)) {
                Ok(at) => self.lens[at].1 += 1,
                Err(at) => self.lens.insert(at, (key.len(), 1)),
            }
        }
        value
    }

    /// Something that is there.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.by_key.remove(key);
        if let Ok(at) = self.lens.binary_search_by(|(len, _)| key.len().cmp(len)) {
            self.lens[at].1 -= 1;
            self.lens.retain(|(_, keys)| *keys > 0);
        }
    }
}
