//! `VIP_BUCKETS`, `VIP_ENTRIES` and `VIP_RANGES`: the directory by which packets find their VIP (see [`lb_abi::directory`]).
//!
//! It repeats what `VIPS` holds, and gathers the ranges of ports of each address in `VIP_RANGES`. A changed entry gets a new index, which one store of its bucket publishes; the old
//! index is given out again after a grace period. That is waited for only when no other index is left, which takes
//! some thousand changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::atomic::Ordering,
};

use aya::maps::{Array, MapData};
use lb_abi::{
    be::Be16,
    bounds::{VIP_INDEXES, VIP_RANGES},
    directory::{Bucket, OVERFLOWN, PortRange, PortRanges, RANGES_MAX, VipSlot, WAYS, bucket_of},
    names::{MAP_VIP_ENTRIES, MAP_VIP_RANGES},
    vip::{RANGE, VipEntry, VipKey},
};

use super::{
    super::error::{Error, Result},
    grace,
    words::Words,
};

/// What the directory is written to.
pub trait Shelf {
    /// Writes an entry whose index stands in no bucket.
    fn put(&mut self, index: u16, slot: &VipSlot) -> Result<()>;
    /// Writes ranges whose index stands in no entry.
    fn put_ranges(&mut self, index: u16, ranges: &PortRanges) -> Result<()>;
    /// Publishes a bucket, after all that was put before.
    fn publish(&mut self, bucket: u32, word: Bucket);
    /// Waits until every program has ended that runs now.
    fn wait(&mut self);
}

/// The maps themselves.
pub struct Mapped {
    buckets: Words,
    entries: Array<MapData, VipSlot>,
    ranges: Array<MapData, PortRanges>,
}

impl Shelf for Mapped {
    fn put(&mut self, index: u16, slot: &VipSlot) -> Result<()> {
        self.entries.set(u32::from(index), slot, 0).map_err(Error::map(MAP_VIP_ENTRIES))
    }

    fn put_ranges(&mut self, index: u16, ranges: &PortRanges) -> Result<()> {
        self.ranges.set(u32::from(index), ranges, 0).map_err(Error::map(MAP_VIP_RANGES))
    }

    fn publish(&mut self, bucket: u32, Bucket(word): Bucket) {
        if let Some(place) = self.buckets.array().get(bucket as usize) {
            place.store(word, Ordering::Release);
        }
    }

    fn wait(&mut self) {
        grace::wait();
    }
}

/// Indexes of one map; 0 is never given out.
struct Indexes {
    /// Those that no program can be reading.
    fresh: Vec<u16>,
    /// Those that one may be reading still.
    freed: Vec<u16>,
}

impl Indexes {
    /// Below `end`, but for those in use. An earlier process may have freed any of them just now.
    fn new(end: u16, used: &BTreeSet<u16>) -> Self {
        Self { fresh: Vec::new(), freed: (1..end).rev().filter(|index| !used.contains(index)).collect() }
    }

    fn take(&mut self, shelf: &mut impl Shelf, what: &'static str) -> Result<u16> {
        if self.fresh.is_empty() {
            shelf.wait();
            self.fresh = mem::take(&mut self.freed);
        }
        let max = VIP_INDEXES as usize;
        self.fresh.pop().ok_or(Error::Bounds { what, is: max, max })
    }
}

/// The directory and where it is written.
pub struct Directory<S = Mapped> {
    shelf: S,
    /// Keys with their indexes, by bucket; those beyond what the bucket shows have one, too.
    buckets: BTreeMap<u32, Vec<(VipKey, u16)>>,
    indexes: Indexes,
    /// Addresses with any port or ranges, by their key of any port.
    wide: BTreeMap<VipKey, Wide>,
    range_indexes: Indexes,
}

/// What an address has beside single ports, of one protocol.
#[derive(Default)]
struct Wide {
    /// Its VIP of any port.
    any: Option<VipEntry>,
    /// Its ranges, by first port.
    ranges: BTreeMap<u16, u16>,
    /// Where these stand in `VIP_RANGES`; 0 where there are none.
    index: u16,
}

impl Directory {
    /// Takes over what the maps hold, and mends what differs from `vips`: an earlier process may have ended between
    /// two writes.
    pub(super) fn adopt(
        buckets: Words,
        entries: Array<MapData, VipSlot>,
        ranges: Array<MapData, PortRanges>,
        vips: &BTreeMap<VipKey, VipEntry>,
    ) -> Result<Self> {
        let shelf = Mapped { buckets, entries, ranges };
        let words = shelf.buckets.array().iter().map(|word| Bucket(word.load(Ordering::Relaxed)));
        let words: Vec<(u32, Bucket)> = (0..).zip(words).filter(|(_, word)| word.0 != 0).collect();
        let mut slots = BTreeMap::new();
        for index in words.iter().flat_map(|(_, word)| indexes(*word)) {
            let slot = shelf.entries.get(&u32::from(index), 0).map_err(Error::map(MAP_VIP_ENTRIES))?;
            slots.insert(index, slot);
        }
        Self::new(shelf, vips, &words, &slots, VIP_INDEXES as u16)
    }
}

impl<S: Shelf> Directory<S> {
    /// From what lies on the shelf: buckets that are not empty, and the entries they name. Indexes end before `end`.
    fn new(
        shelf: S,
        vips: &BTreeMap<VipKey, VipEntry>,
        words: &[(u32, Bucket)],
        slots: &BTreeMap<u16, VipSlot>,
        end: u16,
    ) -> Result<Self> {
        let mut buckets: BTreeMap<u32, Vec<(VipKey, u16)>> = BTreeMap::new();
        let mut wide: BTreeMap<VipKey, Wide> = BTreeMap::new();
        for &(bucket, word) in words {
            for index in indexes(word) {
                let Some(VipSlot { key, entry, ranges }) = slots.get(&index) else { continue };
                if bucket_of(key) != bucket {
                    continue;
                }
                // Those of any port are written anew below; until then they stand.
                if is_any(key) {
                    wide.insert(*key, Wide { index: *ranges as u16, ..Wide::default() });
                } else if vips.get(key) != Some(entry) {
                    continue;
                }
                buckets.entry(bucket).or_default().push((*key, index));
            }
        }
        let used = |used: &mut dyn Iterator<Item = u16>| used.collect::<BTreeSet<u16>>();
        // Packets read what does not hold any more until its bucket is published below.
        let entries = used(&mut words.iter().flat_map(|(_, word)| indexes(*word)));
        let kept = used(&mut buckets.values().flatten().map(|(_, index)| *index));
        let ranges = used(&mut wide.values().map(|wide| wide.index));
        let known: BTreeSet<VipKey> = buckets.values().flatten().map(|(key, _)| *key).collect();
        let mut this = Self {
            shelf,
            buckets,
            indexes: Indexes::new(end, &entries),
            wide,
            range_indexes: Indexes::new(VIP_RANGES as u16, &ranges),
        };
        for (key, entry) in vips {
            if is_any(key) {
                this.wide.entry(*key).or_default().any = Some(*entry);
                continue;
            }
            if key.protocol & RANGE != 0 {
                this.wide.entry(any_of(key)).or_default().ranges.insert(key.port.host(), entry.last_port);
            }
            if !known.contains(key) {
                this.shelve(&VipSlot { key: *key, ranges: 0, entry: *entry })?;
            }
        }
        // Each bucket once, with all of its keys: with a part of them it might lack the mark by which the others are found.
        let words: BTreeMap<u32, Bucket> = words.iter().copied().collect();
        for bucket in words.keys().chain(this.buckets.keys()).copied().collect::<BTreeSet<u32>>() {
            if words.get(&bucket).copied().unwrap_or_default() != this.word(bucket) {
                this.publish(bucket);
            }
        }
        this.indexes.freed.extend(entries.difference(&kept));
        this.wide.keys().copied().collect::<Vec<_>>().iter().try_for_each(|key| this.place_wide(key))?;
        Ok(this)
    }

    /// Writes a key's entry, new or changed.
    pub(in super::super) fn put(&mut self, key: &VipKey, entry: &VipEntry) -> Result<()> {
        if is_any(key) {
            self.wide.entry(*key).or_default().any = Some(*entry);
            return self.place_wide(key);
        }
        self.place(&VipSlot { key: *key, ranges: 0, entry: *entry })?;
        if key.protocol & RANGE == 0 {
            return Ok(());
        }
        let any = any_of(key);
        self.wide.entry(any).or_default().ranges.insert(key.port.host(), entry.last_port);
        self.place_wide(&any)
    }

    /// Forgets a key.
    pub(in super::super) fn remove(&mut self, key: &VipKey) -> Result<()> {
        if is_any(key) {
            self.wide.entry(*key).or_default().any = None;
            return self.place_wide(key);
        }
        if key.protocol & RANGE != 0 {
            let any = any_of(key);
            self.wide.entry(any).or_default().ranges.remove(&key.port.host());
            self.place_wide(&any)?;
        }
        self.withdraw(key);
        Ok(())
    }

    /// Writes what an address has beside single ports; a packet sees all of it before or all of it after.
    fn place_wide(&mut self, key: &VipKey) -> Result<()> {
        let Some(wide) = self.wide.get(key) else { return Ok(()) };
        let (any, old) = (wide.any, wide.index);
        if any.is_none() && wide.ranges.is_empty() {
            self.withdraw(key);
            self.wide.remove(key);
        } else {
            let mut ranges = PortRanges::default();
            if wide.ranges.len() > RANGES_MAX {
                let is = wide.ranges.len();
                return Err(Error::Bounds { what: "port ranges of one address", is, max: RANGES_MAX });
            }
            for (range, (&first, &last)) in ranges.0.iter_mut().zip(&wide.ranges) {
                *range = PortRange { first, last };
            }
            let index = match wide.ranges.is_empty() {
                true => 0,
                false => self.range_indexes.take(&mut self.shelf, "addresses with port ranges")?,
            };
            if index != 0 {
                self.shelf.put_ranges(index, &ranges)?;
            }
            self.place(&VipSlot { key: *key, ranges: index.into(), entry: any.unwrap_or_default() })?;
            if let Some(wide) = self.wide.get_mut(key) {
                wide.index = index;
            }
        }
        if old != 0 {
            self.range_indexes.freed.push(old);
        }
        Ok(())
    }

    fn place(&mut self, slot: &VipSlot) -> Result<()> {
        let old = self.shelve(slot)?;
        self.publish(bucket_of(&slot.key));
        self.indexes.freed.extend(old);
        Ok(())
    }

    /// Writes a key's entry under a new index, for its bucket to show. Gives back the old index, which it shows yet.
    fn shelve(&mut self, slot: &VipSlot) -> Result<Option<u16>> {
        let key = slot.key;
        let index = self.indexes.take(&mut self.shelf, "vip addresses and ports")?;
        self.shelf.put(index, slot)?;
        let keys = self.buckets.entry(bucket_of(&key)).or_default();
        let old = match keys.iter_mut().find(|(other, _)| *other == key) {
            Some((_, old)) => Some(mem::replace(old, index)),
            None => {
                keys.push((key, index));
                None
            }
        };
        // Only those that a bucket shows are found with their ranges.
        keys.sort_by_key(|(key, _)| !is_any(key));
        let shown = if keys.len() > WAYS { WAYS - 1 } else { WAYS };
        let wide = keys.iter().filter(|(key, _)| is_any(key)).count();
        if wide > shown {
            let what = "addresses with any port or port ranges that fall into one bucket";
            return Err(Error::Bounds { what, is: wide, max: shown });
        }
        Ok(old)
    }

    fn withdraw(&mut self, key: &VipKey) {
        let bucket = bucket_of(key);
        let Some(keys) = self.buckets.get_mut(&bucket) else { return };
        let Some(at) = keys.iter().position(|(other, _)| other == key) else { return };
        let (_, index) = keys.remove(at);
        self.publish(bucket);
        self.indexes.freed.push(index);
    }

    fn word(&self, bucket: u32) -> Bucket {
        let keys = self.buckets.get(&bucket).map_or(&[][..], Vec::as_slice);
        Bucket::of(&keys.iter().map(|(_, index)| *index).collect::<Vec<_>>())
    }

    fn publish(&mut self, bucket: u32) {
        let word = self.word(bucket);
        self.shelf.publish(bucket, word);
    }
}

/// The indexes that stand in a bucket.
fn indexes(word: Bucket) -> impl Iterator<Item = u16> {
    (0..WAYS).map(move |way| word.way(way)).filter(|index| *index != 0 && *index != OVERFLOWN)
}

/// Whether a key stands for any port.
const fn is_any(key: &VipKey) -> bool {
    key.port.0 == 0 && matches!(key.protocol, 6 | 17)
}

/// The key of any port of a range's address.
const fn any_of(key: &VipKey) -> VipKey {
    VipKey { port: Be16(0), protocol: key.protocol & !RANGE, ..*key }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const END: u16 = 30;

    /// Maps as a packet sees them, which may hold an index from the moment it read a bucket until the next wait.
    #[derive(Clone, Default)]
    struct Fake {
        buckets: BTreeMap<u32, Bucket>,
        slots: BTreeMap<u16, VipSlot>,
        ranges: BTreeMap<u16, PortRanges>,
        /// Indexes of both that some program may hold.
        held: Vec<u16>,
        held_ranges: Vec<u16>,
        waits: usize,
        /// What is to be found at every moment.
        stays: BTreeMap<VipKey, VipEntry>,
    }

    impl Shelf for Fake {
        fn put(&mut self, index: u16, slot: &VipSlot) -> Result<()> {
            assert!((1..END).contains(&index));
            assert!(!self.held.contains(&index), "index {index} is being read");
            self.slots.insert(index, *slot);
            Ok(())
        }

        fn put_ranges(&mut self, index: u16, ranges: &PortRanges) -> Result<()> {
            assert!(index > 0 && !self.held_ranges.contains(&index), "ranges {index} are being read");
            self.ranges.insert(index, *ranges);
            Ok(())
        }

        fn publish(&mut self, bucket: u32, word: Bucket) {
            self.buckets.insert(bucket, word);
            self.hold(word);
            for (key, entry) in &self.stays {
                assert_eq!(self.find(&self.stays, key), Some(*entry), "{key:?} is lost");
            }
        }

        fn wait(&mut self) {
            (self.held, self.held_ranges) = (Vec::new(), Vec::new());
            self.buckets.clone().values().for_each(|word| self.hold(*word));
            self.waits += 1;
        }
    }

    impl Fake {
        fn hold(&mut self, word: Bucket) {
            for index in indexes(word) {
                self.held.push(index);
                self.held_ranges.push(self.slots[&index].ranges as u16);
            }
        }

        /// By the ranges and any port of an address, as the program does it.
        fn find_ports(&self, vips: &BTreeMap<VipKey, VipEntry>, any: &VipKey, port: u16) -> Option<VipEntry> {
            let word = self.buckets.get(&bucket_of(any)).copied().unwrap_or_default();
            let slot = indexes(word).map(|index| self.slots[&index]).find(|slot| slot.key == *any)?;
            let ranges = self.ranges.get(&(slot.ranges as u16)).filter(|_| slot.ranges != 0);
            if let Some(range) =
                ranges.and_then(|ranges| ranges.0.into_iter().find(|range| range.contains(port)))
            {
                return self.find(vips, &range_key(range.first));
            }
            Some(slot.entry).filter(|entry| entry.flags != 0)
        }

        /// By one key, as the program does it.
        fn find(&self, vips: &BTreeMap<VipKey, VipEntry>, key: &VipKey) -> Option<VipEntry> {
            let word = self.buckets.get(&bucket_of(key)).copied().unwrap_or_default();
            for index in (0..WAYS).map(|way| word.way(way)) {
                match index {
                    0 => return None,
                    OVERFLOWN => return vips.get(key).copied(),
                    index if self.slots[&index].key == *key => return Some(self.slots[&index].entry),
                    _ => {}
                }
            }
            None
        }
    }

    const ADDRESS: [u8; 16] = [7; 16];
    const ANY: VipKey = VipKey { address: ADDRESS, port: Be16(0), protocol: 6, host_bits: 0 };

    fn range_key(first: u16) -> VipKey {
        VipKey { port: Be16::new(first), protocol: 6 | RANGE, ..ANY }
    }

    /// Six keys of one bucket, and six others.
    static KEYS: LazyLock<Vec<VipKey>> = LazyLock::new(|| {
        let key = |number: u32| {
            let mut address = ADDRESS;
            address[12..].copy_from_slice(&number.to_be_bytes());
            VipKey { address, port: Be16::new(80), ..ANY }
        };
        let first = bucket_of(&key(0));
        let same = (0..).map(key).filter(|key| bucket_of(key) == first).take(6);
        same.chain((0..).map(key).filter(|key| bucket_of(key) != first).take(6)).collect()
    });

    fn of_empty() -> Directory<Fake> {
        Directory::new(Fake::default(), &BTreeMap::new(), &[], &BTreeMap::new(), END).unwrap()
    }

    /// What did not change is found all the time.
    fn readopt(shelf: Fake, vips: &BTreeMap<VipKey, VipEntry>) -> Directory<Fake> {
        let words: Vec<_> = shelf.buckets.iter().map(|(at, word)| (*at, *word)).collect();
        let slots = shelf.slots.clone();
        let stays = vips.iter().filter(|(key, entry)| shelf.find(vips, key) == Some(**entry));
        let stays = stays.map(|(key, entry)| (*key, *entry)).collect();
        let mut directory = Directory::new(Fake { stays, ..shelf }, vips, &words, &slots, END).unwrap();
        directory.shelf.stays.clear();
        directory
    }

    fn check(directory: &Directory<Fake>, vips: &BTreeMap<VipKey, VipEntry>) {
        for key in KEYS.iter() {
            assert_eq!(directory.shelf.find(vips, key), vips.get(key).copied(), "{key:?}");
        }
        for port in [1, 10, 15, 19, 20, 25, 29, 30, 65_535] {
            let is_in = |(key, entry): &(&VipKey, &VipEntry)| {
                key.protocol == 6 | RANGE && (key.port.host()..=entry.last_port).contains(&port)
            };
            let wanted = vips.iter().find(is_in).map(|(_, entry)| *entry).or(vips.get(&ANY).copied());
            assert_eq!(directory.shelf.find_ports(vips, &ANY, port), wanted, "port {port}");
        }
    }

    proptest! {
        /// Whatever changes in whatever order, packets find what `VIPS` holds, no index is written that a packet
        /// may hold, and a restart, also one between the writes of a change, mends everything.
        #[test]
        fn packets_find_what_the_map_holds(
            steps in proptest::collection::vec((0usize..15, 0u32..4, 0u8..8), 1..200),
        ) {
            // And two ranges, and any port.
            let keys = [&KEYS[..], &[range_key(10), range_key(20), ANY]].concat();
            let entry_of = |key: &VipKey, vip| {
                let last_port = if key.protocol & RANGE != 0 { key.port.host() + 9 - vip as u16 } else { 0 };
                VipEntry { vip, last_port, flags: 1, ..VipEntry::default() }
            };
            let (mut vips, mut directory) = (BTreeMap::new(), of_empty());
            for (key, vip, what) in steps {
                let key = keys[key];
                match what {
                    0..=3 => {
                        let entry = entry_of(&key, vip);
                        vips.insert(key, entry);
                        directory.put(&key, &entry).unwrap();
                    }
                    4 | 5 => {
                        directory.remove(&key).unwrap();
                        vips.remove(&key);
                    }
                    6 => directory = readopt(directory.shelf, &vips),
                    _ => {
                        // Killed after `VIPS` was written and before the directory was.
                        vips.insert(key, VipEntry { table: 7, ..entry_of(&key, vip) });
                        directory = readopt(directory.shelf, &vips);
                    }
                }
                check(&directory, &vips);
            }
        }
    }

    #[test]
    fn a_grace_period_is_waited_for_only_when_indexes_run_out() {
        let mut directory = of_empty();
        let key = KEYS[0];
        for vip in 0..100 {
            directory.put(&key, &VipEntry { vip, ..VipEntry::default() }).unwrap();
        }
        // The first index of all waits, too: an earlier process may have freed it just now.
        assert_eq!(directory.shelf.waits, 1 + 99 / (usize::from(END) - 2));
    }
}
