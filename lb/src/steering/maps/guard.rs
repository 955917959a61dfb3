//! `GATES` and `GUARD`: the deny and allow lists as packets look them up (see [`lb_abi::guard`]).
//!
//! A change is made in two steps, between which `META` is written: [`Guard::admit`] adds all that is new, and
//! [`Guard::expel`] takes away what is no longer listed. Allowed prefixes come before denied ones and go after them,
//! so that nobody is dropped in between whom neither the old lists nor the new ones deny.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;
use lb_abi::{
    bounds::{DENY_MAX, GUARD_BUCKETS},
    guard::{
        ALLOWED, BUCKET_LEN, GATE_BITS, GATE_V4_LEN, GATE_V6_LEN, GATE_WORDS, GuardBucket, SPILLED, buckets,
        fingerprint, gate_v6,
    },
    lengths::{Length, Lengths},
};

use super::{
    super::{
        error::{Error, Result},
        terms::{host_bits_of, mapped},
    },
    words::Words,
};

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Words of `GUARD`, ascending.
    words: Vec<u64>,
    /// Bits of `GATES`.
    gates: Vec<u64>,
    /// Of IPv4 and IPv6.
    lengths: [Lengths; 2],
}

impl Lists {
    /// Of these prefixes, whose host bits do not count. Where one is in both lists, it is allowed.
    pub fn of(key: [u64; 2], deny: &[IpNet], allow: &[IpNet]) -> Self {
        let mut words = Vec::with_capacity(deny.len() + allow.len());
        let mut gates = Gates(vec![0; GATE_WORDS as usize]);
        let mut host_bits = [BTreeSet::new(), BTreeSet::new()];
        for (net, verdict) in allow.iter().map(|net| (net, ALLOWED)).chain(deny.iter().map(|net| (net, 0))) {
            let length = Length::new(host_bits_of(net));
            let octets = mapped(net.network());
            let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| octets[8 * at + byte]));
            words.push(fingerprint(key, half(0), half(1), length.host_bits) | verdict);
            host_bits[usize::from(net.addr().is_ipv6())].insert(length.host_bits);
            gates.open(net);
        }
        // An allowed prefix's word follows the denied one's, and is the one that stays.
        words.sort_unstable_by_key(|word| std::cmp::Reverse(*word));
        words.dedup_by_key(|word| *word & !ALLOWED);
        words.reverse();
        Self { words, gates: gates.0, lengths: host_bits.map(Lengths::of) }
    }

    /// Words of `GUARD`, ascending.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Words of `GATES`.
    pub fn gates(&self) -> &[u64] {
        &self.gates
    }

    /// Values of `LENGTHS`, IPv4 and IPv6.
    pub fn lengths(&self) -> &[Lengths; 2] {
        &self.lengths
    }

    /// Values of `GUARD`, for who fills it otherwise than through a memory mapping.
    ///
    /// # Errors
    /// Too many prefixes.
    pub fn buckets(&self) -> Result<Vec<GuardBucket>> {
        let memory: Vec<AtomicU64> =
            std::iter::repeat_with(AtomicU64::default).take(GUARD_BUCKETS as usize * BUCKET_LEN).collect();
        self.words.iter().try_for_each(|word| Table(&memory).insert(*word))?;
        let bucket =
            |words: &[AtomicU64; BUCKET_LEN]| words.each_ref().map(|word| word.load(Ordering::Relaxed));
        Ok(memory.as_chunks().0.iter().map(bucket).collect())
    }

    fn holds(&self, word: u64) -> bool {
        self.words.binary_search(&word).is_ok()
    }
}

/// Bits of `GATES`, as they will be.
struct Gates(Vec<u64>);

impl Gates {
    fn open(&mut self, net: &IpNet) {
        // How many blocks a prefix covers, and which is its first.
        let blocks = |len: u8| 1u32 << len.saturating_sub(net.prefix_len()).min(GATE_BITS.ilog2() as u8);
        match net.network() {
            std::net::IpAddr::V4(v4) => {
                let first = v4.to_bits() >> (32 - GATE_V4_LEN);
                (0..blocks(GATE_V4_LEN)).for_each(|block| self.set(first + block));
            }
            // They are hashed: so many leave hardly one bit out.
            std::net::IpAddr::V6(_) if blocks(GATE_V6_LEN) > GATE_BITS / 4 => {
                self.0[GATE_WORDS as usize / 2..].fill(u64::MAX);
            }
            std::net::IpAddr::V6(v6) => {
                let first = (v6.to_bits() >> 96) as u32;
                for block in 0..blocks(GATE_V6_LEN) {
                    self.set(gate_v6((u64::from(first + block) << 32).to_be()));
                }
            }
        }
    }

    fn set(&mut self, bit: u32) {
        self.0[bit as usize / 64] |= 1 << (bit % 64);
    }
}

/// The maps.
pub struct Guard {
    gates: Words,
    table: Words,
}

impl Guard {
    pub(super) fn new(gates: Words, table: Words) -> Self {
        Self { gates, table }
    }

    /// Adds what is missing.
    pub(in super::super) fn admit(&mut self, lists: &Lists) -> Result<()> {
        for (gate, wanted) in self.gates.array().iter().zip(&lists.gates) {
            store(gate, gate.load(Ordering::Relaxed) | wanted);
        }
        let table = Table(self.table.array());
        let of = |verdict: u64| lists.words.iter().filter(move |word| *word & ALLOWED == verdict);
        of(ALLOWED).chain(of(0)).try_for_each(|word| table.insert(*word))
    }

    /// Takes away what is not listed.
    pub(in super::super) fn expel(&mut self, lists: &Lists) {
        Table(self.table.array()).retain(|word| lists.holds(word));
        for (gate, wanted) in self.gates.array().iter().zip(&lists.gates) {
            store(gate, *wanted);
        }
    }

    /// Prefixes in the table.
    pub fn len(&self) -> usize {
        Table(self.table.array()).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn store(place: &AtomicU64, word: u64) {
    if place.load(Ordering::Relaxed) != word {
        place.store(word, Ordering::Release);
    }
}

/// All buckets, one after the other.
#[derive(Clone, Copy)]
struct Table<'a>(&'a [AtomicU64]);

impl<'a> Table<'a> {
    fn bucket(self, bucket: u32) -> &'a [AtomicU64] {
        let first = bucket as usize * BUCKET_LEN;
        self.0.get(first..first + BUCKET_LEN).unwrap_or_default()
    }

    /// The places for prefixes in a bucket.
    fn ways(self, bucket: u32) -> &'a [AtomicU64] {
        self.bucket(bucket).get(1..).unwrap_or_default()
    }

    fn find(self, bucket: u32, is: impl Fn(u64) -> bool) -> Option<&'a AtomicU64> {
        self.ways(bucket).iter().find(|place| is(place.load(Ordering::Relaxed)))
    }

    fn spill(self, bucket: u32) {
        if let Some(mark) = self.bucket(bucket).first() {
            store(mark, SPILLED);
        }
    }

    /// Into its first bucket, else into its other one, else in place of a word that can go to its own other one.
    fn insert(self, word: u64) -> Result<()> {
        let [first, other] = buckets(word);
        let is_same = |found: u64| found & !ALLOWED == word & !ALLOWED;
        if let Some(place) = self.find(first, is_same).or_else(|| self.find(other, is_same)) {
            store(place, word);
            return Ok(());
        }
        let is_free = |found: u64| found == 0;
        if let Some(place) = self.find(first, is_free) {
            store(place, word);
            return Ok(());
        }
        // The mark first: a packet that misses the word here must look there.
        if let Some(place) = self.find(other, is_free).or_else(|| self.make_room(first, other)) {
            self.spill(first);
            store(place, word);
            return Ok(());
        }
        let max = DENY_MAX as usize;
        Err(Error::Bounds { what: "denied and allowed prefixes that fall into one bucket", is: max + 1, max })
    }

    /// A place in one of two full buckets, whose word was copied to its other bucket. Words that were moved before
    /// stay: a packet looks into the first bucket first, and would miss one that comes back there.
    fn make_room(self, first: u32, other: u32) -> Option<&'a AtomicU64> {
        for (bucket, place) in
            [first, other].into_iter().flat_map(|at| self.ways(at).iter().map(move |way| (at, way)))
        {
            let word = place.load(Ordering::Relaxed);
            let [home, away] = buckets(word);
            if home != bucket {
                continue;
            }
            if let Some(free) = self.find(away, |found| found == 0) {
                store(free, word);
                self.spill(home);
                return Some(place);
            }
        }
        None
    }

    /// Clears words that are not to stay, denied prefixes first, and marks that no word needs.
    fn retain(self, is_kept: impl Fn(u64) -> bool) {
        let buckets_len = (self.0.len() / BUCKET_LEN) as u32;
        for verdict in [0, ALLOWED] {
            for place in (0..buckets_len).flat_map(|bucket| self.ways(bucket)) {
                let word = place.load(Ordering::Relaxed);
                if word != 0 && word & ALLOWED == verdict && !is_kept(word) {
                    store(place, 0);
                }
            }
        }
        let mut is_spilled = vec![false; buckets_len as usize];
        for bucket in 0..buckets_len {
            for place in self.ways(bucket) {
                let word = place.load(Ordering::Relaxed);
                let home = buckets(word)[0];
                if word != 0 && home != bucket {
                    is_spilled[home as usize] = true;
                }
            }
        }
        for (bucket, is_spilled) in (0..).zip(is_spilled) {
            if let (false, Some(mark)) = (is_spilled, self.bucket(bucket).first()) {
                store(mark, 0);
            }
        }
    }

    fn len(self) -> usize {
        let is_word = |place: &&AtomicU64| place.load(Ordering::Relaxed) != 0;
        self.0
            .chunks(BUCKET_LEN)
            .flat_map(|bucket| bucket.get(1..).unwrap_or_default())
            .filter(is_word)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    fn memory(buckets: usize) -> Vec<AtomicU64> {
        (0..buckets * BUCKET_LEN).map(|_| AtomicU64::new(0)).collect()
    }

    /// As the program does it.
    fn find(table: Table<'_>, word: u64) -> Option<u64> {
        for bucket in buckets(word) {
            let found = table.find(bucket, |found| found & !ALLOWED == word & !ALLOWED);
            if let Some(place) = found {
                return Some(place.load(Ordering::Relaxed));
            }
            if table.bucket(bucket)[0].load(Ordering::Relaxed) & SPILLED == 0 {
                return None;
            }
        }
        None
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The longest prefix that covers an address, as the program finds it from `Lists` alone.
    fn denies(lists: &Lists, address: &str) -> bool {
        let address: std::net::IpAddr = address.parse().unwrap();
        let octets = mapped(address);
        let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| octets[8 * at + byte]));
        let gate = match address {
            std::net::IpAddr::V4(v4) => lb_abi::guard::gate_v4(v4.to_bits().to_be()),
            std::net::IpAddr::V6(_) => gate_v6(half(0)),
        };
        if lists.gates[gate as usize / 64] >> (gate % 64) & 1 == 0 {
            return false;
        }
        let lengths = &lists.lengths[usize::from(address.is_ipv6())];
        for length in &lengths.items[..lengths.count as usize] {
            let [high, low] = [half(0) & length.mask[0], half(1) & length.mask[1]];
            let word = fingerprint(KEY, high, low, length.host_bits);
            if lists.holds(word) || lists.holds(word | ALLOWED) {
                return lists.holds(word);
            }
        }
        false
    }

    #[test]
    fn the_longest_prefix_decides() {
        let lists = Lists::of(
            KEY,
            &nets(&["203.0.113.0/24", "198.51.100.7/32", "10.0.0.0/8", "2001:db8::/31", "2001:db8:f::1/128"]),
            &nets(&["203.0.113.8/29", "10.0.0.0/8", "2001:db8:f::/48"]),
        );
        let denied =
            ["203.0.113.7", "203.0.113.16", "198.51.100.7", "2001:db8::1", "2001:db9::", "2001:db8:f::1"];
        let let_in =
            ["203.0.113.8", "203.0.114.0", "198.51.100.6", "10.1.2.3", "2001:dba::", "2001:db8:f::2"];
        denied.iter().for_each(|address| assert!(denies(&lists, address), "{address}"));
        let_in.iter().for_each(|address| assert!(!denies(&lists, address), "{address}"));
        let all = Lists::of(KEY, &nets(&["0.0.0.0/0", "::/0"]), &nets(&["192.0.2.1/32"]));
        for (address, is_denied) in
            [("192.0.2.1", false), ("192.0.2.2", true), ("255.255.255.255", true), ("::1", true)]
        {
            assert_eq!(denies(&all, address), is_denied, "{address}");
        }
    }

    /// As many prefixes as there may be, all in the table at once and found there; and none of them after they went.
    #[test]
    fn a_full_list_fits() {
        let memory = memory(GUARD_BUCKETS as usize);
        let table = Table(&memory);
        let word =
            |n: u32| fingerprint(KEY, 0, u64::from(n.wrapping_mul(0x9e37_79b1)) << 32 | 0xffff_0000, 0);
        (0..DENY_MAX).for_each(|n| table.insert(word(n)).unwrap());
        assert_eq!(table.len(), DENY_MAX as usize);
        assert!((0..DENY_MAX).all(|n| find(table, word(n)) == Some(word(n))));
        assert!((DENY_MAX..2 * DENY_MAX).all(|n| find(table, word(n)).is_none()));
        table.retain(|_| false);
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0), "marks go, too");
    }

    proptest! {
        /// In few buckets, so that they fill and spill: after any change, what was put in and not taken out is found
        /// with its verdict, and nothing else is there.
        #[test]
        fn a_table_is_what_was_put_in(steps in proptest::collection::vec((0u64..60, 0u8..4), 1..300)) {
            let memory = memory(4);
            let table = Table(&memory);
            // At home in the first three buckets, each with the next one as its other.
            let word = |n: u64| (n % 3) << 40 | (n / 3 % 2) << 16 | n << 4 | 2;
            let mut model = BTreeMap::new();
            for (n, what) in steps {
                match what {
                    0..=2 => {
                        let word = word(n) | u64::from(what & 1);
                        // Full is full; what is there stays.
                        if table.insert(word).is_ok() {
                            model.insert(word & !ALLOWED, word);
                        }
                    }
                    _ => {
                        let kept = word(n);
                        table.retain(|other| other & !ALLOWED == kept || other.is_multiple_of(5));
                        model.retain(|key, other| *key == kept || other.is_multiple_of(5));
                    }
                }
                for n in 0..60 {
                    prop_assert_eq!(find(table, word(n)), model.get(&word(n)).copied());
                }
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
