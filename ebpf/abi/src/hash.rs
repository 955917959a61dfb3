//! The keyed hashes: what XDP and the daemon must compute alike. Keyed, so that nobody outside can aim flows at
//! one backend.
//!
//! [`flow`] is what every packet pays for. [`sip13`] makes tables and keys: SipHash-1-3 over whole 64-bit words.
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, section 2.

use crate::flow::FlowKey;

/// SipHash-1-3 of `words`, read as little-endian bytes; `N * 8` bytes long.
#[inline(always)]
pub fn sip13<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let mut v0 = key[0] ^ 0x736f_6d65_7073_6575;
    let mut v1 = key[1] ^ 0x646f_7261_6e64_6f6d;
    let mut v2 = key[0] ^ 0x6c79_6765_6e65_7261;
    let mut v3 = key[1] ^ 0x7465_6462_7974_6573;
    macro_rules! round {
        () => {
            v0 = v0.wrapping_add(v1);
            v1 = v1.rotate_left(13) ^ v0;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v3);
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.wrapping_add(v3);
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.wrapping_add(v1);
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        };
    }
    for word in words {
        v3 ^= word;
        round!();
        v0 ^= word;
    }
    let last = (N as u64 * 8) << 56;
    v3 ^= last;
    round!();
    v0 ^= last;
    v2 ^= 0xff;
    round!();
    round!();
    round!();
    v0 ^ v1 ^ v2 ^ v3
}

/// Hash of a flow under a VIP's key: of source and destination address, both ports and the protocol.
#[inline(always)]
pub fn flow(key: [u64; 2], flow: &FlowKey) -> u32 {
    let FlowKey { source, destination, source_port, destination_port, protocol, .. } = flow;
    let ports = source_port.0 as u32 | (destination_port.0 as u32) << 16;
    spread(key, halves(source), halves(destination), ports, *protocol)
}

/// [`flow`] of a packet whose addresses are at hand as two words each, as they lie in memory; `ports` are source
/// and destination port as they lie in the packet, source in the low half.
///
/// Two stages:
/// 1. A sum of products of the 32-bit words of the flow with 64-bit words of the key, modulo 2^64. Two flows that
///    were chosen without the key agree in the sum's upper half by chance alone (multilinear hashing: Lemire and
///    Kaser, "Strongly universal string hashing is fast", 2014; here with key words made from two).
/// 2. Two rounds of shift and multiplication, by the key again. A sum of products alone is linear: who sees which
///    flows fall together could solve it for the key. What can be seen from outside is only which backend answers
///    a flow, that is, some 8 bits of a slot number that went through a keyed table, too.
///
/// What it has to withstand: someone who has watched where his own flows go must not know where a flow from an
/// address that is not his would go, or he could aim a flood from forged sources at one backend. (From his own
/// addresses anybody can find flows for a backend by trying, under any hash.) It is no pseudo-random function with
/// a proof: SipHash-1-3 is closer to one, at a price that every packet would pay.
#[inline(always)]
pub fn spread(key: [u64; 2], source: [u64; 2], destination: [u64; 2], ports: u32, protocol: u8) -> u32 {
    let [first, second] = key;
    let third = first ^ second.swap_bytes();
    let rest = (ports as u64 | (protocol as u64) << 32).wrapping_mul(third);
    let sum = if is_mapped(source) {
        // One word each; the mapping prefix below it says nothing.
        (source[1] >> 32).wrapping_mul(first).wrapping_add((destination[1] >> 32).wrapping_mul(second))
    } else {
        let fold = |address: [u64; 2], [low, high]: [u64; 2]| {
            let [one, two] = address.map(|word| {
                (word & 0xffff_ffff).wrapping_mul(low).wrapping_add((word >> 32).wrapping_mul(high))
            });
            // Between the halves of an address a round keeps them apart.
            (one ^ one >> 32).wrapping_mul(third | 1).wrapping_add(two)
        };
        fold(source, key).wrapping_add(fold(destination, [second, first]))
    };
    let mixed = sum.wrapping_add(rest);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(first | 1);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(second | 1);
    (mixed >> 32) as u32
}

#[inline(always)]
const fn halves(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])]
}

/// Whether it is `::ffff:a.b.c.d`, an IPv4 address in the contract's form.
#[inline(always)]
const fn is_mapped(halves: [u64; 2]) -> bool {
    halves[0] == 0 && halves[1] as u32 == 0xffff_0000
}

/// Slot of a hash in a table of `table_len` slots, below `table_len`, without a division.
/// Source: Lemire, "Fast random integer generation in an interval", 2019.
#[inline(always)]
pub const fn slot(hash: u32, table_len: u32) -> u32 {
    ((hash as u64 * table_len as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::hash::Hasher as _;

    use super::*;
    use crate::be::Be16;

    #[test]
    fn depends_on_key_and_input() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let one = sip13(key, [0x0706_0504_0302_0100]);
        assert_ne!(one, sip13([key[0] ^ 1, key[1]], [0x0706_0504_0302_0100]));
        assert_ne!(one, sip13(key, [0x0706_0504_0302_0101]));
    }

    /// The standard library's hasher is SipHash-1-3 under key 0.
    fn oracle(bytes: &[u8]) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(bytes);
        hasher.finish()
    }

    #[test]
    fn sip_is_as_published() {
        assert_eq!(sip13([0; 2], [0x0706_0504_0302_0100]), oracle(&[0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(sip13([0; 2], [u64::MAX, 1]), oracle(&[&[0xff; 8][..], &1u64.to_le_bytes()].concat()));
    }

    /// Numbers that are as good as random, the same at every run.
    fn noise(seed: u64, at: u64) -> u64 {
        sip13([seed, 0x5eed], [at])
    }

    fn key(seed: u64) -> [u64; 2] {
        [noise(seed, 0), noise(seed, 1)]
    }

    fn v4(address: u32) -> [u8; 16] {
        Ipv4Addr::from_bits(address).to_ipv6_mapped().octets()
    }

    fn v6(low: u64) -> [u8; 16] {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)).octets()
    }

    fn tcp(source: [u8; 16], port: u16) -> FlowKey {
        let destination = if source.starts_with(&[0x20]) { v6(0x35) } else { v4(0xc000_0235) };
        let [source_port, destination_port] = [Be16::new(port), Be16::new(443)];
        FlowKey { source, destination, source_port, destination_port, protocol: 6, pad: [0; 3] }
    }

    /// Chi-squared of how flows that differ as real ones do fall into 256 slots.
    fn unevenness(key: [u64; 2], flows: impl Iterator<Item = FlowKey>) -> f64 {
        let (mut counts, mut all) = ([0f64; 256], 0f64);
        for flow in flows {
            counts[slot(super::flow(key, &flow), 256) as usize] += 1.0;
            all += 1.0;
        }
        let due = all / 256.0;
        counts.iter().map(|count| (count - due) * (count - due) / due).sum()
    }

    /// Whatever part of a flow counts up, its flows spread as thrown dice do: 255 degrees of freedom, so that one
    /// key in ten thousand exceeds 350 by chance.
    #[test]
    fn flows_spread_over_the_slots() {
        const FLOWS: u32 = 20_000;
        for seed in 0..20 {
            let key = key(seed);
            let by_source = (0..FLOWS).map(|n| tcp(v4(0xc633_6400 + n), 40_000));
            let by_subnet = (0..FLOWS).map(|n| tcp(v4(n << 12), 40_000));
            let by_port = (0..FLOWS).map(|n| tcp(v4(0xc633_6407), n as u16 + 1024));
            let by_both = (0..FLOWS).map(|n| tcp(v4(0xc633_6400 + n / 200), 32_768 + n as u16 % 200));
            let by_host = (0..FLOWS).map(|n| tcp(v6(u64::from(n)), 40_000));
            let by_prefix = (0..FLOWS).map(|n| tcp(v6(u64::from(n) << 40), 40_000));
            let all = [
                unevenness(key, by_source),
                unevenness(key, by_subnet),
                unevenness(key, by_port),
                unevenness(key, by_both),
                unevenness(key, by_host),
                unevenness(key, by_prefix),
            ];
            assert!(all.iter().all(|uneven| (150.0..380.0).contains(uneven)), "{seed}: {all:?}");
        }
    }

    /// Under another key a flow is in the same slot by chance alone.
    #[test]
    fn keys_have_nothing_to_do_with_one_another() {
        let flows = || (0..20_000u32).map(|n| tcp(v4(n.wrapping_mul(0x9e37_79b1)), n as u16));
        for bit in 0..64 {
            let (one, two) = (key(1), [key(1)[0] ^ 1 << bit, key(1)[1] ^ 1 << (63 - bit)]);
            let same =
                |flow: &FlowKey| slot(super::flow(one, flow), 256) == slot(super::flow(two, flow), 256);
            let count = flows().filter(same).count();
            assert!((30..140).contains(&count), "bit {bit}: {count} of 20000, where 78 are due");
        }
    }

    /// A change of any one bit of a flow changes each bit of a slot number in half of all cases.
    #[test]
    fn every_bit_of_a_flow_counts() {
        const ROUNDS: u64 = 400;
        let flips = |change: &dyn Fn(&mut FlowKey, usize), bits: usize, is_v6: bool| {
            for bit in 0..bits {
                let mut changed = [0u64; 16];
                for round in 0..ROUNDS {
                    let random = |at| noise(0xf10e + round, at);
                    let source = if is_v6 { v6(random(2)) } else { v4(random(2) as u32) };
                    let (mut flow, key) = (tcp(source, random(3) as u16), key(round));
                    let before = super::flow(key, &flow) >> 16;
                    change(&mut flow, bit);
                    let after = super::flow(key, &flow) >> 16;
                    (0..16).for_each(|out| changed[out] += u64::from((before ^ after) >> out & 1));
                }
                let is_fair = |count: &u64| (ROUNDS * 35 / 100..ROUNDS * 65 / 100).contains(count);
                assert!(changed.iter().all(is_fair), "bit {bit}, IPv6 {is_v6}: {changed:?} of {ROUNDS}");
            }
        };
        let source = |from: usize| {
            move |flow: &mut FlowKey, bit: usize| {
                flow.source[from + bit / 8] ^= 1 << (bit % 8);
            }
        };
        flips(&source(12), 32, false);
        flips(&source(0), 128, true);
        flips(&|flow, bit| flow.destination[bit / 8] ^= 1 << (bit % 8), 128, true);
        flips(&|flow, bit| flow.destination[12 + bit / 8] ^= 1 << (bit % 8), 32, false);
        for is_v6 in [false, true] {
            flips(&|flow, bit| flow.source_port.0 ^= 1 << bit, 16, is_v6);
            flips(&|flow, bit| flow.destination_port.0 ^= 1 << bit, 16, is_v6);
            flips(&|flow, bit| flow.protocol ^= 1 << bit, 8, is_v6);
        }
    }

    #[test]
    fn slot_stays_below_the_length() {
        assert_eq!(slot(u32::MAX, 65_537), 65_536);
        assert_eq!(slot(0, 65_537), 0);
    }
}
