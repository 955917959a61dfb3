//! Addresses as words.

use crate::numbers::Family;

/// An IP address as two words as they lie in memory; IPv4 as `::ffff:a.b.c.d`, the contract's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    high: u64,
    low: u64,
}

/// The first half of the low word of every mapped address: `00 00 ff ff`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// From bytes as in map keys and values.
    #[inline(always)]
    pub const fn new(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// From two words as they lie in memory.
    #[inline(always)]
    pub const fn of_halves(high: u64, low: u64) -> Self {
        Self { high, low }
    }

    /// From an IPv4 header's double word.
    #[inline(always)]
    pub const fn of_v4(address: u32) -> Self {
        let low = if cfg!(target_endian = "little") {
            (address as u64) << 32 | MAPPED as u64
        } else {
            (MAPPED as u64) << 32 | address as u64
        };
        Self { high: 0, low }
    }

    /// From the eight words of an IPv6 header.
    #[inline(always)]
    pub const fn v6(words: [u16; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = words;
        Self { high: quad(a, b, c, d), low: quad(e, f, g, h) }
    }

    /// From the two words of an IPv4 header.
    #[inline(always)]
    pub const fn v4(words: [u16; 2]) -> Self {
        let [a, b] = words;
        Self { high: 0, low: quad(0, 0xffff, a, b) }
    }

    /// Which IP it belongs to.
    #[inline(always)]
    pub const fn family(self) -> Family {
        if self.high == 0 && first(self.low) == MAPPED { Family::V4 } else { Family::V6 }
    }

    /// As in map keys and values.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.low.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// As two words as they lie in memory.
    #[inline(always)]
    pub const fn halves(self) -> (u64, u64) {
        (self.high, self.low)
    }

    /// The first half, and zero: of an IPv6 address its network.
    #[inline(always)]
    pub const fn network(self) -> Self {
        Self { high: self.high, low: 0 }
    }

    /// With so many bits at its end, at most 128, cleared.
    #[inline(always)]
    pub const fn without(self, host_bits: u8) -> Self {
        let bits = host_bits as u32;
        // Of one half, however many are of the other.
        let mask = (u64::MAX << (bits & 63)).to_be();
        if bits == 0 {
            self
        } else if bits < 64 {
            Self { low: self.low & mask, ..self }
        } else if bits < 128 {
            Self { high: self.high & mask, low: 0 }
        } else {
            Self { high: 0, low: 0 }
        }
    }

    /// The last four bytes: the IPv4 address, if it is one.
    #[inline(always)]
    pub const fn last(self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.low.to_ne_bytes();
        [a, b, c, d]
    }

    /// The last four bytes as a double word: an IPv4 header's, if it is such an address.
    #[inline(always)]
    pub const fn last_double(self) -> u32 {
        if cfg!(target_endian = "little") { (self.low >> 32) as u32 } else { self.low as u32 }
    }

    /// With bits of its last four bytes set, given in network order.
    #[inline(always)]
    pub const fn with_last(self, bits: u32) -> Self {
        let bits = if cfg!(target_endian = "little") { (bits as u64) << 32 } else { bits as u64 };
        Self { high: self.high, low: self.low | bits }
    }

    /// As the words of an IPv6 header.
    #[inline(always)]
    pub const fn words(self) -> [u16; 8] {
        let [a, b, c, d] = split(self.high);
        let [e, f, g, h] = split(self.low);
        [a, b, c, d, e, f, g, h]
    }

    /// The last two words: an IPv4 header's, if it is such an address.
    #[inline(always)]
    pub const fn last_words(self) -> [u16; 2] {
        let [_, _, a, b] = split(self.low);
        [a, b]
    }
}

/// Four words that follow one another in memory, as one.
#[inline(always)]
const fn quad(a: u16, b: u16, c: u16, d: u16) -> u64 {
    if cfg!(target_endian = "little") {
        a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48
    } else {
        (a as u64) << 48 | (b as u64) << 32 | (c as u64) << 16 | d as u64
    }
}

#[inline(always)]
const fn split(quad: u64) -> [u16; 4] {
    if cfg!(target_endian = "little") {
        [quad as u16, (quad >> 16) as u16, (quad >> 32) as u16, (quad >> 48) as u16]
    } else {
        [(quad >> 48) as u16, (quad >> 32) as u16, (quad >> 16) as u16, quad as u16]
    }
}

/// The half of a word that lies first in memory.
#[inline(always)]
const fn first(quad: u64) -> u32 {
    if cfg!(target_endian = "little") { quad as u32 } else { (quad >> 32) as u32 }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        let address = |text: &str| Address::new(text.parse::<Ipv6Addr>().unwrap().octets());
        let whole = address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(whole.without(0), whole);
        assert_eq!(whole.without(8), address("2001:db8:ffff:ffff:ffff:ffff:ffff:ff00"));
        assert_eq!(whole.without(64), address("2001:db8:ffff:ffff::"));
        assert_eq!(whole.without(84), address("2001:db8:fff0::"));
        assert_eq!(whole.without(128), address("::"));
    }

    #[test]
    fn forms_agree() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        let address = Address::new(v4.to_ipv6_mapped().octets());
        assert_eq!(address.family(), Family::V4);
        assert_eq!(address.last(), v4.octets());
        assert_eq!(Address::v4(address.last_words()), address);
        assert_eq!(address.with_last(6u32.to_be()).last(), [192, 0, 2, 7]);
        let v6: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let address = Address::new(v6.octets());
        assert_eq!(address.family(), Family::V6);
        assert_eq!(address.bytes(), v6.octets());
        assert_eq!(address.words(), v6.segments().map(u16::to_be));
        assert_eq!(Address::v6(address.words()), address);
        let varied: Ipv6Addr = "2001:db8:1:2:3:4:5:ff".parse().unwrap();
        assert_eq!(address.with_last(0xf9u32.to_be()).bytes(), varied.octets());
    }
}
