//! Deny and allow lists: a source that the longest listed prefix denies is dropped before anything else looks.
//!
//! ```text
//!  source --> GATES: one bit per block (IPv4: /24, IPv6: /32, hashed): is anything listed in or above it?
//!               | no: let in           | yes
//!                                      v
//!             LENGTHS: the prefix lengths that are listed, longest first
//!                                      v   for each
//!             GUARD[bucket]: seven words, each a listed prefix's fingerprint with its verdict
//! ```
//! The cost does not grow with the lists: most sources are let in by one bit of 4 MiB, and one from a block where
//! something is listed costs one bucket (a cache line) per listed length until the first that covers it. All maps
//! are plain arrays that control stores to through a memory mapping, word by word, while packets read them.
//!
//! A fingerprint is 62 bits, keyed, so that nobody finds an address that shares one with a listed prefix. By chance
//! one does in less than one of 10^17 look-ups.

use crate::bounds::GUARD_BUCKETS;

/// Prefixes in one bucket.
pub const WAYS: usize = 7;
/// Words of one bucket: first [`SPILLED`] or 0, then the prefixes, 0 where there is none.
pub const BUCKET_LEN: usize = WAYS + 1;
/// The bucket was full: prefixes that belong here may lie in their other bucket.
pub const SPILLED: u64 = 1;
/// In the word of a prefix: its sources are let in. Without it they are dropped.
pub const ALLOWED: u64 = 1;

/// Value of map `GUARD`.
pub type GuardBucket = [u64; BUCKET_LEN];

/// Bits of map `GATES` per family.
pub const GATE_BITS: u32 = 1 << 24;
/// Words of map `GATES`: those of IPv4, then those of IPv6.
pub const GATE_WORDS: u32 = 2 * GATE_BITS / 64;
/// Bits of an IPv4 address that choose its bit, from the first on.
pub const GATE_V4_LEN: u8 = 24;
/// The same of IPv6; they are hashed.
pub const GATE_V6_LEN: u8 = 32;

/// Number of the bit of an IPv4 address, given as in memory.
#[inline(always)]
pub const fn gate_v4(address: u32) -> u32 {
    u32::from_be(address) >> 8
}

/// Number of the bit of an IPv6 address, given the first half as in memory.
#[inline(always)]
pub const fn gate_v6(high: u64) -> u32 {
    let block = (u64::from_be(high) >> 32) as u32;
    GATE_BITS + (block.wrapping_mul(0x9e37_79b1) >> 8)
}

/// The word of a listed prefix, verdict left out: never 0. The address is given as two words as they lie in memory,
/// with `host_bits` zeros at its end.
#[inline(always)]
pub const fn fingerprint(key: [u64; 2], high: u64, low: u64, host_bits: u32) -> u64 {
    let [first, second] = key;
    let mixed = (high ^ first).wrapping_mul(second | 1);
    // Both halves of a product count: the upper one, which all bits reach, goes below.
    let mixed = (mixed ^ mixed >> 32 ^ low).wrapping_mul(first | 1);
    let mixed = mixed ^ mixed >> 32 ^ (host_bits as u64).wrapping_mul(second);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(second | 1);
    (mixed ^ mixed >> 32) & !ALLOWED | 2
}

/// The two buckets where a word may lie; the second only if the first is [`SPILLED`].
#[inline(always)]
pub const fn buckets(word: u64) -> [u32; 2] {
    const MASK: u64 = GUARD_BUCKETS as u64 - 1;
    let first = (word >> 40 & MASK) as u32;
    // Never the same: what is added is odd.
    let other = (first as u64 + (word >> 16 | 1)) & MASK;
    [first, other as u32]
}

const _: () = assert!(GUARD_BUCKETS.is_power_of_two() && GUARD_BUCKETS.ilog2() <= 24);
