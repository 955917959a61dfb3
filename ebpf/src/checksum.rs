//! The Internet checksum: whole, and by what changed.

use lb_abi::be::Be16;

use crate::address::Address;

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

/// An IPv4 header's words as [`ipv4_header`] wants them.
#[inline(always)]
pub const fn doubles(words: &[u16; 10]) -> [u32; 5] {
    let mut doubles = [0; 5];
    let mut at = 0;
    while at < 5 {
        let ([a, b], [c, d]) = (words[2 * at].to_ne_bytes(), words[2 * at + 1].to_ne_bytes());
        doubles[at] = u32::from_ne_bytes([a, b, c, d]);
        at += 1;
    }
    doubles
}

/// A ones' complement sum in the making, of words as they lie on the wire (RFC 1071, 2 (B): their order of bytes
/// does not matter).
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self(0);

    /// Of four bytes at a time (RFC 1071, 2 (C)).
    #[inline(always)]
    pub const fn of_doubles(sum: u32) -> Self {
        Self(sum as u64)
    }

    /// And a word.
    #[inline(always)]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// And an address. What an IPv4 address is mapped by sums to zero, so that both families are alike.
    #[inline(always)]
    pub const fn address(self, address: Address) -> Self {
        let (high, low) = address.halves();
        Self(self.0 + (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff))
    }

    /// And another sum.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.folded() as u64)
    }

    /// Without another sum.
    #[inline(always)]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0 + !other.folded() as u64)
    }

    /// As 16 bits; of a sum of more than nothing, zero is always `0xffff`.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

/// Sum of a pseudo header (RFC 768; RFC 9293, 3.1; RFC 8200, 8.1, whose wider fields sum to the same). `length` is as on
/// the wire.
#[inline(always)]
pub const fn pseudo(source: Address, destination: Address, protocol: u8, length: u16) -> Sum {
    Sum::ZERO.address(source).address(destination).word((protocol as u16).to_be()).word(length)
}

/// Changes of words under one or more checksums, summed up once and folded into each.
///
/// Source: RFC 1624, eqn. 3, for any number of words; as words of more bits give the same sum (RFC 1071, 2 (D)), larger
/// ones are taken as they are. Holds thousands of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// One word changes.
    #[inline(always)]
    pub const fn replace(&mut self, old: u16, new: u16) {
        self.0 += !old as u64 + new as u64;
    }

    /// Four words change.
    #[inline(always)]
    pub const fn replace_quad(&mut self, old: u64, new: u64) {
        self.0 += (!old & 0xffff_ffff) + (!old >> 32) + (new & 0xffff_ffff) + (new >> 32);
    }

    /// The checksum over what has changed.
    #[inline(always)]
    pub const fn apply(self, check: u16) -> u16 {
        let sum = self.0 + !check as u64;
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        !fold(((sum & 0xffff) + (sum >> 16)) as u32)
    }

    /// The same for UDP, where 0 means that there is none (RFC 768; RFC 8200, 8.1).
    #[inline(always)]
    pub const fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }
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

    fn words(header: &[u8; 20]) -> [u16; 10] {
        core::array::from_fn(|at| u16::from_ne_bytes([header[2 * at], header[2 * at + 1]]))
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
        assert_eq!(ipv4_header(&doubles(&words(&header))).host(), 0xb861);
    }

    #[test]
    fn udp_without_a_checksum_gets_none_and_with_one_keeps_one() {
        let mut delta = Delta::default();
        delta.replace(1, 7);
        assert_eq!(delta.apply_udp(0), 0);
        // A sum of 0xffff, that is a checksum of 0, is sent as 0xffff.
        let mut delta = Delta::default();
        delta.replace(0x1234, 0x1235);
        assert_eq!((delta.apply(1), delta.apply_udp(1)), (0, 0xffff));
    }

    proptest! {
        #[test]
        fn a_sum_of_parts_is_the_sum_of_the_whole(header: [u8; 20], source: [u8; 16], much: u32) {
            let source = Address::new(source);
            let words = |sum: Sum, words: &[u16]| words.iter().fold(sum, |sum, word| sum.word(*word));
            let header = self::words(&header);
            let whole = words(words(Sum::ZERO, &header), &source.words()).word(much as u16);
            let parts = Sum::ZERO.address(source).plus(words(Sum::ZERO, &header)).word(much as u16);
            prop_assert_eq!(whole.folded() % 0xffff, parts.folded() % 0xffff);
            let rest = whole.less(Sum::ZERO.address(source)).less(words(Sum::ZERO, &header));
            prop_assert_eq!(rest.folded() % 0xffff, much as u16 % 0xffff);
            let v4 = Address::v4([header[0], header[1]]);
            let mapped = Sum::ZERO.address(v4).folded();
            prop_assert_eq!(mapped % 0xffff, words(Sum::ZERO, &header[..2]).folded() % 0xffff);
        }

        #[test]
        fn whole_is_by_the_book(mut header: [u8; 20]) {
            header[10..12].fill(0);
            prop_assert_eq!(ipv4_header(&doubles(&words(&header))).host(), by_the_book(&header));
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
            let mut delta = Delta::default();
            delta.replace(old.0, new.0);
            prop_assert_eq!(delta.apply(check.0), replace_word(check, old, new).0);
        }

        #[test]
        fn many_words_equal_whole(before: [u8; 20], after: [u8; 20]) {
            let (mut before, mut after) = (before, after);
            (before[0], after[0]) = (0x45, 0x45);
            let (before, after) = (seal(before), seal(after));
            let (before, after) = (words(&before), words(&after));
            let mut delta = Delta::default();
            for at in (0..10).filter(|at| *at != 5) {
                delta.replace(before[at], after[at]);
            }
            prop_assert_eq!(delta.apply(before[5]), after[5]);
            // The same in larger words: bytes 0 to 8, and 12 to 20.
            let quad = |words: &[u16]| words.iter().rev().fold(0, |quad, word| quad << 16 | u64::from(*word));
            let mut delta = Delta::default();
            delta.replace_quad(quad(&before[0..4]), quad(&after[0..4]));
            delta.replace(before[4], after[4]);
            delta.replace_quad(quad(&before[6..10]), quad(&after[6..10]));
            prop_assert_eq!(delta.apply(before[5]), after[5]);
        }
    }
}
