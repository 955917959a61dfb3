//! Which prefix lengths a list has, so that a look-up tries these and no others.

/// Most lengths of one list: all that IPv4 has.
pub const LENGTHS_MAX: usize = 33;

/// Most lengths of a list of VIP prefixes: each costs every packet for no VIP a look-up or two.
pub const VIP_LENGTHS_MAX: usize = 4;

/// Lists with lengths, by number; for each map `LENGTHS` has two entries (see [`index`]).
pub const DENY_V4: usize = 0;
/// The deny and allow list of IPv6.
pub const DENY_V6: usize = 1;
/// Prefixes of VIP addresses, IPv4.
pub const VIP_V4: usize = 2;
/// Prefixes of VIP addresses, IPv6.
pub const VIP_V6: usize = 3;
/// How many lists there are.
pub const LISTS: usize = 4;

/// One length, as a mask over an address in the maps' form: IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// The mask's two words, as they lie in memory.
    pub mask: [u64; 2],
    /// Bits that it leaves out: 0 for a host, 32 or 128 for everything.
    pub host_bits: u32,
    /// Zero.
    pub pad: u32,
}

/// Value of map `LENGTHS`: longest first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// How many there are.
    pub count: u32,
    /// Zero.
    pub pad: u32,
    /// They, and then anything.
    pub items: [Length; LENGTHS_MAX],
}

impl Default for Lengths {
    fn default() -> Self {
        Self { count: 0, pad: 0, items: [Length::default(); LENGTHS_MAX] }
    }
}

impl Length {
    /// The length that leaves out that many bits, at most 128.
    pub const fn new(host_bits: u32) -> Self {
        let mask = if host_bits >= 128 { 0 } else { u128::MAX << host_bits };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = mask.to_be_bytes();
        let mask =
            [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])];
        Self { mask, host_bits, pad: 0 }
    }
}

impl Lengths {
    /// Of these, each once and fewest host bits first; those beyond [`LENGTHS_MAX`] are left out.
    pub fn of(host_bits: impl IntoIterator<Item = u32>) -> Self {
        let mut lengths = Self::default();
        for (item, host_bits) in lengths.items.iter_mut().zip(host_bits) {
            *item = Length::new(host_bits);
            lengths.count += 1;
        }
        lengths
    }
}

/// Entry of map `LENGTHS` for a list, of which [`crate::meta::Meta::lengths`] says which copy counts.
#[inline(always)]
pub const fn index(list: usize, copy: u8) -> u32 {
    (2 * list) as u32 + (copy & 1) as u32
}

const _: () = assert!(size_of::<Length>() == 24);
const _: () = assert!(size_of::<Lengths>() == 8 + 24 * LENGTHS_MAX);

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn masked(address: [u8; 16], host_bits: u32) -> [u8; 16] {
        let mask = Length::new(host_bits).mask;
        core::array::from_fn(|at| address[at] & mask[at / 8].to_ne_bytes()[at % 8])
    }

    #[test]
    fn masks_cut_host_bits_off() {
        let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(masked(v4("203.0.113.255"), 8), v4("203.0.113.0"));
        assert_eq!(masked(v4("203.0.113.255"), 32), v4("0.0.0.0"));
        assert_eq!(masked(v4("203.0.113.255"), 0), v4("203.0.113.255"));
        assert_eq!(masked(v6("2001:db8:ffff:ffff::1"), 84), v6("2001:db8:fff0::"));
        assert_eq!(masked(v6("2001:db8::1"), 128), v6("::"));
    }

    #[test]
    fn a_list_is_counted() {
        let lengths = Lengths::of([0, 8, 32]);
        assert_eq!((lengths.count, lengths.items[2]), (3, Length::new(32)));
        assert_eq!(Lengths::of(0..100).count as usize, LENGTHS_MAX);
    }
}
