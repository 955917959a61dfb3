//! The Internet checksum: whole, and by what changed.

use lb_abi::be::Be16;

/// Ones' complement sum of 16-bit words, folded to 16 bits.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Folds a change of one 16-bit word into an Internet checksum without re-reading the packet.
///
/// All three are as on the wire (network order). Callers skip an absent UDP checksum (0) themselves.
/// Source: RFC 1624, eqn. 3.
#[inline(always)]
pub const fn replace_word(check: Be16, old: Be16, new: Be16) -> Be16 {
    // The sum is the same in either byte order (RFC 1071, 2 (B)), so nothing is swapped.
    let sum = !check.0 as u32 + !old.0 as u32 + new.0 as u32;
    Be16(!fold(sum))
}

/// Checksum of an IPv4 header without options, as double words, whose checksum field is zero. Source: RFC 1071, 1
/// and 2 (C): words may be added as wide as one likes.
#[inline(always)]
pub const fn ipv4_header(header: &[u32; 5]) -> Be16 {
    let [a, b, c, d, e] = *header;
    let sum = a as u64 + b as u64 + c as u64 + d as u64 + e as u64;
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    Be16(!fold(sum as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 read literally: big-endian words, end-around carry.
    fn by_the_book(header: &[u8; 20]) -> u16 {
        let mut sum = 0u32;
        for pair in header.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
            if sum > 0xffff {
                sum = (sum & 0xffff) + 1;
            }
        }
        !(sum as u16)
    }

    fn doubles(header: &[u8; 20]) -> [u32; 5] {
        core::array::from_fn(|at| u32::from_ne_bytes(core::array::from_fn(|byte| header[4 * at + byte])))
    }

    fn seal(mut header: [u8; 20]) -> [u8; 20] {
        header[10..12].fill(0);
        let check = by_the_book(&header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        header
    }

    #[test]
    fn known_header() {
        // The example of RFC 1071's usual companion: 45 00 00 73 ... c0 a8 00 c7, checksum b861.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
            0xa8, 0x00, 0xc7,
        ];
        assert_eq!(ipv4_header(&doubles(&header)).host(), 0xb861);
    }

    proptest! {
        #[test]
        fn whole_is_by_the_book(mut header: [u8; 20]) {
            header[10..12].fill(0);
            prop_assert_eq!(ipv4_header(&doubles(&header)).host(), by_the_book(&header));
        }

        #[test]
        fn incremental_equals_whole(header: [u8; 20], word in 1usize..10, new: u16) {
            // A real header has a version: a sum over zeros alone has two representations of zero (RFC 1624,
            // 3).
            let mut header = header;
            header[0] = 0x45;
            prop_assume!(word != 5); // the checksum itself
            let before = seal(header);
            let at = word * 2;
            let old = Be16(u16::from_ne_bytes([before[at], before[at + 1]]));
            let new = Be16::new(new);
            let mut after = before;
            after[at..at + 2].copy_from_slice(&new.0.to_ne_bytes());
            let after = seal(after);
            let check = Be16(u16::from_ne_bytes([before[10], before[11]]));
            prop_assert_eq!(replace_word(check, old, new), Be16(u16::from_ne_bytes([after[10], after[11]])));
        }
    }
}
