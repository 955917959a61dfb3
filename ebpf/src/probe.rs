//! What `lb_probe_out` and `lb_probe_in` write: see [`lb_abi::probe`].
//!
//! The packets are the kernel's own, so their headers are plain: no options, no extension headers, no tags.

use lb_abi::be::Be16;

use crate::{
    address::Address,
    checksum,
    encap::OUTER_TTL,
    numbers::{Family, IPV4_LEN, IPV6_LEN, protocol},
};

/// What an address that changes adds to a ones' complement sum, as `bpf_l4_csum_replace` takes it.
#[inline(always)]
pub const fn difference(old: [u16; 8], new: [u16; 8]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < 8 {
        sum += !old[at] as u32 + new[at] as u32;
        at += 1;
    }
    sum
}

/// What follows an IPv4 header, if that is a plain one: no options, no fragment.
#[inline(always)]
pub const fn plain_v4(head: &[u16; 10]) -> Option<Transport> {
    let [version, _] = head[0].to_ne_bytes();
    let [_, next] = head[4].to_ne_bytes();
    if version != 0x45 || Be16(head[3]).host() & 0x3fff != 0 {
        return None;
    }
    Transport::of(next)
}

/// What follows an IPv6 header right away.
#[inline(always)]
pub const fn plain_v6(head: &[u16; 20]) -> Option<Transport> {
    let [version, _] = head[0].to_ne_bytes();
    let [next, _] = head[3].to_ne_bytes();
    if version >> 4 == 6 { Transport::of(next) } else { None }
}

/// What a probe is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Segments.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    #[inline(always)]
    const fn of(next: u8) -> Option<Self> {
        match next {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }

    /// Where the checksum stands in its header.
    #[inline(always)]
    pub const fn check(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The header before an IPv4 packet with header `inner`.
#[inline(always)]
pub const fn outer_v4(inner: &[u16; 10], source: Address, destination: Address) -> [u16; 10] {
    let length = Be16(inner[1]).host().wrapping_add(IPV4_LEN as u16);
    let life = u16::from_ne_bytes([OUTER_TTL, Family::V4.protocol()]);
    let ([s0, s1], [d0, d1]) = (source.last_words(), destination.last_words());
    // The first word is the inner one: version, length and class are the same.
    let mut header = [inner[0], length.to_be(), 0, 0x4000_u16.to_be(), life, 0, s0, s1, d0, d1];
    header[5] = checksum::ipv4_header(&checksum::doubles(&header)).0;
    header
}

/// The header before an IPv6 packet with header `inner`.
#[inline(always)]
pub const fn outer_v6(inner: &[u16; 20], source: Address, destination: Address) -> [u16; 20] {
    let payload = Be16(inner[2]).host().wrapping_add(IPV6_LEN as u16);
    let next = u16::from_ne_bytes([Family::V6.protocol(), OUTER_TTL]);
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (source.words(), destination.words());
    let [w0, w1] = [inner[0], inner[1]];
    [w0, w1, payload.to_be(), next, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(mut sum: u32) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn the_difference_brings_one_sum_to_the_other(old: [u16; 8], new: [u16; 8], rest in 1u16..) {
            let sum = |words: [u16; 8]| folded(words.iter().map(|word| u32::from(*word)).sum::<u32>() + u32::from(rest));
            let moved = folded(u32::from(sum(old)) + u32::from(folded(difference(old, new))));
            // Zero has two forms.
            prop_assert!(moved == sum(new) || moved % 0xffff == sum(new) % 0xffff, "{moved} {}", sum(new));
        }
    }

    #[test]
    fn only_plain_headers_before_tcp_or_udp_are_plain() {
        let v4 = |first: [u8; 2], fragment: u16, protocol: u8| {
            let mut head = [0; 10];
            head[0] = u16::from_ne_bytes(first);
            head[3] = fragment.to_be();
            head[4] = u16::from_ne_bytes([64, protocol]);
            plain_v4(&head)
        };
        let (tcp, udp) = (Some(Transport::Tcp), Some(Transport::Udp));
        assert_eq!((v4([0x45, 8], 0x4000, 6), v4([0x45, 0], 0, 17)), (tcp, udp));
        let others =
            [v4([0x46, 0], 0, 6), v4([0x45, 0], 0x2000, 6), v4([0x45, 0], 1, 6), v4([0x45, 0], 0, 1)];
        assert_eq!(others, [None; 4]);
        let v6 = |first: [u8; 2], next: u8| {
            let mut head = [0; 20];
            head[0] = u16::from_ne_bytes(first);
            head[3] = u16::from_ne_bytes([next, 64]);
            plain_v6(&head)
        };
        assert_eq!((v6([0x60, 0], 6), v6([0x6b, 0xff], 6), v6([0x60, 0], 17)), (tcp, tcp, udp));
        assert_eq!([v6([0x45, 0], 6), v6([0x60, 0], 58), v6([0x60, 0], 0)], [None; 3]);
    }

    #[test]
    fn outer_headers_are_those_of_the_packet_path() {
        let address = |last: u8| {
            let mut bytes = [0; 16];
            bytes[10..12].fill(0xff);
            bytes[12..].copy_from_slice(&[10, 0, 0, last]);
            Address::new(bytes)
        };
        let inner = [0x45b8_u16.to_be(), 60_u16.to_be(), 0, 0, 0, 0, 0, 0, 0, 0];
        let outer = outer_v4(&inner, address(1), address(2));
        let bytes: std::vec::Vec<u8> = outer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes[..10], [0x45, 0xb8, 0, 80, 0, 0, 0x40, 0, 64, 4]);
        assert_eq!(bytes[12..], [10, 0, 0, 1, 10, 0, 0, 2]);
        let mut unsealed = outer;
        unsealed[5] = 0;
        assert_eq!(checksum::ipv4_header(&checksum::doubles(&unsealed)).0, outer[5]);

        let (one, two) = (Address::v6([1; 8]), Address::v6([2; 8]));
        let mut inner = [0; 20];
        inner[0] = 0x6b80_u16.to_be();
        inner[2] = 20_u16.to_be();
        let outer = outer_v6(&inner, one, two);
        assert_eq!(outer[..4], [0x6b80_u16.to_be(), 0, 60_u16.to_be(), u16::from_ne_bytes([41, 64])]);
        assert_eq!((&outer[4..12], &outer[12..]), (&[1; 8][..], &[2; 8][..]));
    }
}
