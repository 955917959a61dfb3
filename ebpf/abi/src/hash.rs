//! The keyed flow hash: what XDP and the daemon must compute alike.
//!
//! SipHash-1-3 over whole 64-bit words. Keyed, so that nobody outside can aim flows at one backend.
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, section 2.

use crate::flow::FlowKey;

/// SipHash-1-3 of `words`, read as little-endian bytes; `N * 8` bytes long.
#[inline(always)]
pub fn sip13<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    sip13_with_rest(key, words, 0, N * 8)
}

/// SipHash-1-3 of `words` and then the last one to seven bytes of an input of `len` bytes, in the low end of
/// `rest`: with the length they fill its last word.
#[inline(always)]
pub(crate) fn sip13_with_rest<const N: usize>(key: [u64; 2], words: [u64; N], rest: u64, len: usize) -> u64 {
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
    let last = rest | (len as u64) << 56;
    v3 ^= last;
    round!();
    v0 ^= last;
    v2 ^= 0xff;
    round!();
    round!();
    round!();
    v0 ^ v1 ^ v2 ^ v3
}

/// Hash of a flow under a VIP's key: of source and destination address, both ports and the protocol, as they
/// stand in the packet. That is 13 bytes for IPv4 and 37 for IPv6, so that the length tells them apart.
#[inline(always)]
pub fn flow(key: [u64; 2], flow: &FlowKey) -> u32 {
    let FlowKey { source, destination, source_port, destination_port, protocol, .. } = flow;
    let rest = source_port.0 as u64 | (destination_port.0 as u64) << 16 | (*protocol as u64) << 32;
    let (source, destination) = (halves(source), halves(destination));
    let hash = if is_mapped(source) && is_mapped(destination) {
        let addresses = source[1] >> 32 | destination[1] & !0xffff_ffff;
        sip13_with_rest(key, [addresses], rest, 13)
    } else {
        sip13_with_rest(key, [source[0], source[1], destination[0], destination[1]], rest, 37)
    };
    fold(hash)
}

/// Both halves of a hash in one.
#[inline(always)]
pub(crate) const fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

/// An address as two little-endian words.
#[inline(always)]
pub(crate) const fn halves(address: &[u8; 16]) -> [u64; 2] {
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

    use core::net::Ipv4Addr;
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

    fn key(source: [u8; 16], destination: [u8; 16]) -> FlowKey {
        let [source_port, destination_port] = [Be16::new(0xc001), Be16::new(443)];
        FlowKey { source, destination, source_port, destination_port, protocol: 6, pad: [0; 3] }
    }

    #[test]
    fn a_flow_is_hashed_by_the_bytes_of_its_packet() {
        const REST: [u8; 5] = [0xc0, 0x01, 0x01, 0xbb, 6];
        let folded = |hash: u64| (hash ^ (hash >> 32)) as u32;
        let v6 = |first: u8| core::array::from_fn(|at| first + at as u8);
        let bytes = [&v6(1)[..], &v6(0x81), &REST].concat();
        assert_eq!(flow([0; 2], &key(v6(1), v6(0x81))), folded(oracle(&bytes)));
        let v4 = |last: [u8; 4]| Ipv4Addr::from(last).to_ipv6_mapped().octets();
        let bytes = [&[198, 51, 100, 7, 192, 0, 2, 1], &REST[..]].concat();
        assert_eq!(flow([0; 2], &key(v4([198, 51, 100, 7]), v4([192, 0, 2, 1]))), folded(oracle(&bytes)));
        assert_eq!(sip13([0; 2], [0x0706_0504_0302_0100]), oracle(&[0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn slot_stays_below_the_length() {
        assert_eq!(slot(u32::MAX, 65_537), 65_536);
        assert_eq!(slot(0, 65_537), 0);
    }
}
