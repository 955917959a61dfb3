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

    /// The last four bytes: the IPv4 address, if it is one.
    #[inline(always)]
    pub const fn last(self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.low.to_ne_bytes();
        [a, b, c, d]
    }

    /// As two words, as they lie in memory.
    #[inline(always)]
    pub const fn halves(self) -> [u64; 2] {
        [self.high, self.low]
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
