//! The directory of VIPs: how a packet finds its VIP without a hash-map look-up, which costs more than all the
//! rest of a settled packet's walk.
//!
//! ```text
//!  (address, port, protocol) --hash--> VIP_BUCKETS[bucket]: four indexes in one word
//!                                          |  |  |  |
//!                                          v
//!                                      VIP_ENTRIES[index]: key and entry
//! ```
//! Both maps are plain arrays, whose look-ups are a few instructions in the program itself. A packet for no VIP
//! is mostly decided by one empty bucket. Map `VIPS` holds every key as well: it is what a restarted daemon
//! reads, and where the few keys are found that do not fit into a bucket of four.
//!
//! A changed entry is never written in place: it gets a new index, which one 64-bit store of the bucket
//! publishes, so that a packet sees the old entry or the new one. The old index is given out again only after
//! every program that may have read it has ended (an RCU grace period).
//!
//! The hash has no key: what lies in a bucket is the operator's choice alone, and a sender who aims at a full
//! bucket costs himself four comparisons.

use crate::{
    be::Be16,
    bounds::VIP_BUCKETS,
    vip::{VipEntry, VipKey},
};

/// Indexes in one bucket.
pub const WAYS: usize = 4;

/// An index that is none: the bucket has more keys, which are found in map `VIPS` alone.
pub const OVERFLOWN: u16 = u16::MAX;

/// Value of map `VIP_ENTRIES`: what is compared and what is found, in one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipSlot {
    /// Its key.
    pub key: VipKey,
    /// Under a key of any port (port 0 of TCP or UDP): index into `VIP_RANGES` of the address's ranges of ports; 0: it
    /// has none. Where the address has ranges, but no VIP of any port, the entry is all zero.
    pub ranges: u32,
    /// What it stands for.
    pub entry: VipEntry,
}

/// Ranges of ports in one value of `VIP_RANGES`.
pub const RANGES_MAX: usize = 16;

/// Value of map `VIP_RANGES`: the ranges of one address and protocol, which do not overlap. Unused ones are empty.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRanges(pub [PortRange; RANGES_MAX]);

impl Default for PortRanges {
    fn default() -> Self {
        Self([PortRange::EMPTY; RANGES_MAX])
    }
}

/// Ports, host order, both ends included.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first; its VIP stands in the directory under it, with [`crate::vip::RANGE`].
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// No port.
    pub const EMPTY: Self = Self { first: 1, last: 0 };

    /// Whether a port is one of it.
    #[inline(always)]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A value of map `VIP_BUCKETS`: indexes into `VIP_ENTRIES` from the low end on, then zeros. Index 0 is never
/// given out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub u64);

impl Bucket {
    /// Nothing known here: whatever it is, it may be in map `VIPS`.
    pub const UNKNOWN: Self = Self(OVERFLOWN as u64);

    /// The bucket of these indexes: the first four, or three and the mark where there are more.
    pub const fn of(indexes: &[u16]) -> Self {
        let mut word = 0;
        let mut way = 0;
        while way < WAYS && way < indexes.len() {
            let index = if way == WAYS - 1 && indexes.len() > WAYS { OVERFLOWN } else { indexes[way] };
            word |= (index as u64) << (16 * way);
            way += 1;
        }
        Self(word)
    }

    /// What stands in a way: an index, 0, or [`OVERFLOWN`].
    #[inline(always)]
    pub const fn way(self, way: usize) -> u16 {
        (self.0 >> (16 * way)) as u16
    }
}

/// The bucket of a key, by its address as two words as they lie in memory.
///
/// Multiplied by odd constants (2^64 / golden ratio, and two of xxHash's primes), so that neighbours are spread.
#[inline(always)]
pub const fn bucket(high: u64, low: u64, port: Be16, protocol: u8, host_bits: u8) -> u32 {
    let rest = (port.0 as u64) | (protocol as u64) << 16 | (host_bits as u64) << 24;
    let sum = high.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).wrapping_add(low);
    let sum = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(rest.wrapping_mul(0x1656_67b1_9e37_79f9));
    (sum.wrapping_mul(0x9e37_79b1) >> (64 - BUCKET_BITS)) as u32
}

/// The bucket of a key.
pub const fn bucket_of(key: &VipKey) -> u32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.address;
    let (high, low) =
        (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
    bucket(high, low, key.port, key.protocol, key.host_bits)
}

const BUCKET_BITS: u32 = VIP_BUCKETS.ilog2();

const _: () = assert!(size_of::<PortRanges>() == 64);
const _: () = assert!(VIP_BUCKETS.is_power_of_two());
const _: () = assert!(size_of::<VipSlot>() == size_of::<VipEntry>() + 24);

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::{vec, vec::Vec};

    use super::*;
    use crate::bounds::{VIP_INDEXES, VIP_KEYS_MAX};

    #[test]
    fn a_bucket_holds_four_or_three_and_the_mark() {
        assert_eq!(Bucket::of(&[]), Bucket(0));
        assert_eq!(Bucket::of(&[7, 1]), Bucket(0x0001_0007));
        let ways = |bucket: Bucket| [0, 1, 2, 3].map(|way| bucket.way(way));
        assert_eq!(ways(Bucket::of(&[1, 2, 3, 4])), [1, 2, 3, 4]);
        assert_eq!(ways(Bucket::of(&[1, 2, 3, 4, 5])), [1, 2, 3, OVERFLOWN]);
        assert_eq!(ways(Bucket::UNKNOWN), [OVERFLOWN, 0, 0, 0]);
        assert!(VIP_INDEXES <= OVERFLOWN.into() && VIP_INDEXES >= 2 * VIP_KEYS_MAX);
    }

    fn full(of: impl Fn(u32) -> (IpAddr, u16, u8)) -> usize {
        let mut lens = vec![0u32; VIP_BUCKETS as usize];
        let keys: Vec<VipKey> = (0..VIP_KEYS_MAX)
            .map(|n| {
                let (address, port, protocol) = of(n);
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                VipKey { address, port: Be16::new(port), protocol, host_bits: 0 }
            })
            .collect();
        keys.iter().for_each(|key| lens[bucket_of(key) as usize] += 1);
        lens.iter().filter(|len| **len as usize > WAYS).count()
    }

    /// As many keys as there may be, in the shapes that operators give them: a handful of buckets overflow, if any.
    #[test]
    fn keys_are_spread() {
        let v4 = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0xc000_0200 + n));
        let v6 = |high: u128| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | high));
        assert!(full(|n| (v4(n), 443, 6)) <= 2);
        assert!(full(|n| (v4(n / 4), [80, 443, 53, 0][n as usize % 4], [6, 6, 17, 1][n as usize % 4])) <= 8);
        assert!(full(|n| (v4(0), n as u16 + 8000, 6)) <= 2);
        assert!(full(|n| (v6(u128::from(n)), 443, 6)) <= 2);
        assert!(full(|n| (v6(u128::from(n) << 64 | 1), 443, 17)) <= 2);
        assert!(full(|n| (v6(u128::from(n / 2) << 48), 80 + n as u16 % 2, 6)) <= 8);
    }
}
