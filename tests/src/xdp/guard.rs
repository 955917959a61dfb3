//! The deny and allow lists of a world, as the maps have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_abi::{
    guard::{self, ALLOWED, GATE_BITS, GATE_V4_LEN, GATE_V6_LEN, GuardBucket, SPILLED, WAYS, fingerprint},
    lengths::{DENY_V4, DENY_V6, Length, Lengths, index},
    meta::Meta,
};

/// The three maps, where they are not zero.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// `GATES`.
    pub gates: BTreeMap<u32, u64>,
    /// `GUARD`.
    pub buckets: BTreeMap<u32, GuardBucket>,
    /// `LENGTHS`.
    pub lengths: Vec<(u32, Lengths)>,
}

impl Guard {
    /// Of these prefixes, under the key and with the copies that `meta` names. Nothing is as large as to need more
    /// than a prefix's two buckets.
    pub fn of(meta: &Meta, deny: &[(IpAddr, u32)], allow: &[(IpAddr, u32)]) -> Self {
        let mut this = Self::default();
        let mut host_bits = [BTreeSet::new(), BTreeSet::new()];
        let allowed = allow.iter().map(|prefix| (prefix, ALLOWED));
        for (&(address, bits), verdict) in deny.iter().map(|prefix| (prefix, 0)).chain(allowed) {
            let (octets, whole) = match address {
                IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 32),
                IpAddr::V6(v6) => (v6.octets(), 128),
            };
            let length = Length::new(whole - bits);
            host_bits[usize::from(whole == 128)].insert(length.host_bits);
            let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| octets[8 * at + byte]));
            let [high, low] = [half(0) & length.mask[0], half(1) & length.mask[1]];
            this.open(address, bits);
            this.put(fingerprint(meta.guard_key, high, low, length.host_bits) | verdict);
        }
        let [v4, v6] = host_bits.map(Lengths::of);
        let place = |list: usize| index(list, meta.lengths[list]);
        this.lengths = vec![(place(DENY_V4), v4), (place(DENY_V6), v6)];
        this
    }

    /// Sets the bits of a prefix.
    fn open(&mut self, address: IpAddr, bits: u32) {
        let (first, len, bit): (u32, u8, fn(u32) -> u32) = match address {
            IpAddr::V4(v4) => (v4.to_bits(), GATE_V4_LEN, |block| guard::gate_v4(block.to_be())),
            IpAddr::V6(v6) => {
                let bit = |block: u32| guard::gate_v6((u64::from(block) << 32).to_be());
                ((v6.to_bits() >> 96) as u32, GATE_V6_LEN, bit)
            }
        };
        let shift = 32 - u32::from(len);
        let blocks = 1u64 << u32::from(len).saturating_sub(bits);
        assert!(blocks <= u64::from(GATE_BITS), "rows have no prefix as short as {bits}");
        for block in 0..blocks as u32 {
            let bit = bit(first.wrapping_add(block << shift));
            *self.gates.entry(bit / 64).or_default() |= 1 << (bit % 64);
        }
    }

    fn put(&mut self, word: u64) {
        let places = guard::buckets(word);
        for place in places {
            let bucket = self.buckets.entry(place).or_default();
            if let Some(free) = bucket.iter_mut().skip(1).find(|word| **word == 0) {
                *free = word;
                return;
            }
            bucket[0] = SPILLED;
        }
        panic!("{WAYS} prefixes in each of the buckets {places:?}");
    }
}
