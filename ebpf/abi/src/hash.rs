//! The keyed flow hash: what XDP and the daemon must compute alike.
//!
//! SipHash-1-3 over whole 64-bit words. Keyed, so that nobody outside can aim flows at one backend.
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
    let last = ((N * 8) as u64) << 56;
    v3 ^= last;
    round!();
    v0 ^= last;
    v2 ^= 0xff;
    round!();
    round!();
    round!();
    v0 ^ v1 ^ v2 ^ v3
}

/// Hash of a flow under a VIP's key: 40 bytes of [`FlowKey`] as five words.
#[inline(always)]
pub fn flow(key: [u64; 2], flow: &FlowKey) -> u32 {
    let word = |bytes: &[u8; 16], at: usize| {
        u64::from_le_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
            bytes[at + 4],
            bytes[at + 5],
            bytes[at + 6],
            bytes[at + 7],
        ])
    };
    let tail =
        flow.source_port.0 as u64 | (flow.destination_port.0 as u64) << 16 | (flow.protocol as u64) << 32;
    let hash = sip13(
        key,
        [
            word(&flow.source, 0),
            word(&flow.source, 8),
            word(&flow.destination, 0),
            word(&flow.destination, 8),
            tail,
        ],
    );
    (hash ^ (hash >> 32)) as u32
}

/// Slot of a hash in a table of `table_len` slots, below `table_len`, without a division.
/// Source: Lemire, "Fast random integer generation in an interval", 2019.
#[inline(always)]
pub const fn slot(hash: u32, table_len: u32) -> u32 {
    ((hash as u64 * table_len as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes 00..07 under key 00..0f; the same input through the standard library's SipHasher13 where it is
    /// reachable is a property test of the daemon.
    #[test]
    fn depends_on_key_and_input() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let one = sip13(key, [0x0706_0504_0302_0100]);
        assert_ne!(one, sip13([key[0] ^ 1, key[1]], [0x0706_0504_0302_0100]));
        assert_ne!(one, sip13(key, [0x0706_0504_0302_0101]));
    }

    #[test]
    fn slot_stays_below_the_length() {
        assert_eq!(slot(u32::MAX, 65_537), 65_536);
        assert_eq!(slot(0, 65_537), 0);
    }
}
