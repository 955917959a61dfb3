//! Generic UDP Encapsulation, variant 1: an IP packet directly in UDP (draft-ietf-intarea-gue-09, 4).
//!
//! The source port varies with the flow, so that routers and the backend's NIC spread flows without knowing GUE.
//! Rules of the UDP checksum:
//! - over IPv4 it is 0, none (RFC 768): the packet inside has its own, and the outer header is covered by IPv4's;
//! - over IPv6 it is there (RFC 8200, 8.1), because nothing else covers the outer addresses. It costs no look at
//!   the payload: a valid checksum inside says what the bytes that it covers sum to. A packet that came broken
//!   stays broken, and is dropped at the far end of the tunnel;
//! - over IPv6 it is 0 where the headers do not say what the packet sums to: it is UDP without a checksum or
//!   shorter than its packet, a fragment, or has options. RFC 6935 lets tunnels do so; `lb_decap` and Linux's fou take
//!   it.

use lb_abi::{be::Be16, reason::Reason};

use crate::{
    address::Address,
    checksum::{Sum, pseudo},
    numbers::{Family, GUE_PORT, UDP_LEN, protocol},
    outer::Outer,
    packet::Packet,
    parse::{Ip, Shape},
};

/// Lowest source port: the high two bits are the dynamic range's (RFC 6335, 6), the rest is the flow's.
const SOURCE_PORT_MIN: u16 = 0xc000;

/// The source port of a flow.
#[inline(always)]
pub const fn source_port(hash: u32) -> Be16 {
    Be16::new(SOURCE_PORT_MIN | hash as u16)
}

/// The UDP header before an IP packet that is as it will leave. `length` is from the outer IP header on.
#[inline(always)]
pub fn header<P: Packet>(packet: &P, ip: &Ip, outer: &Outer, source_port: Be16, length: u16) -> [u16; 4] {
    let length = (length - outer.family.header_len() as u16).to_be();
    let header = [source_port.0, GUE_PORT.to_be(), length, 0];
    match (outer.family, sum_of(packet, ip)) {
        (Family::V6, Some(inner)) => {
            let check = !whole(header, outer.source, outer.destination, inner).folded();
            // 0 would say that there is none (RFC 768).
            [header[0], header[1], length, if check == 0 { 0xffff } else { check }]
        }
        _ => header,
    }
}

/// The family of the packet that a UDP header at `at` is around, by the first four bits behind it: in variant 1 they
/// are its version. Err: it is not for us.
#[inline(always)]
pub fn inside<P: Packet>(packet: &P, at: usize) -> Result<Family, Reason> {
    let [_, to, _, _, first] = packet.load(at).ok_or(Reason::NotOurs)?;
    if to != GUE_PORT.to_be() {
        return Err(Reason::NotOurs);
    }
    match u16::from_be(first) >> 12 {
        4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        _ => Err(Reason::NotOurs),
    }
}

/// Whether the UDP header of a packet that came in agrees with the IP packet inside, as far as headers can say.
#[inline(always)]
pub fn agrees<P: Packet>(packet: &P, inner: &Ip, outer: &Ip, header: [u16; 4]) -> bool {
    let length = outer.length - outer.family.header_len() as u16;
    // The datagram ends where the outer packet does.
    if header[2] != length.to_be() {
        return false;
    }
    match sum_of(packet, inner) {
        Some(sum) if header[3] != 0 && inner.length == length - UDP_LEN as u16 => {
            whole(header, outer.source, outer.destination, sum).folded() == 0xffff
        }
        _ => true,
    }
}

/// Sum of pseudo header, UDP header and what is inside.
#[inline(always)]
const fn whole(header: [u16; 4], source: Address, destination: Address, inner: Sum) -> Sum {
    let [from, to, length, check] = header;
    pseudo(source, destination, protocol::UDP, length)
        .word(from)
        .word(to)
        .word(length)
        .word(check)
        .plus(inner)
}

/// What an IP packet sums to if its checksums are right; none if its headers do not say.
#[inline(always)]
pub fn sum_of<P: Packet>(packet: &P, ip: &Ip) -> Option<Sum> {
    if !matches!(ip.shape, Shape::Plain) {
        return None;
    }
    let at = ip.at + ip.family.header_len();
    let length = ip.length - ip.family.header_len() as u16;
    match ip.protocol {
        protocol::TCP => {}
        protocol::UDP => {
            let [claimed, check] = packet.load(at + 4)?;
            if check == 0 || claimed != length.to_be() {
                return None;
            }
        }
        other if other == ip.family.icmp() => {}
        _ => return None,
    }
    match ip.family {
        // The header sums to zero, and so does ICMP, which has no pseudo header. The rest sums to zero together
        // with its pseudo header.
        Family::V4 if ip.protocol == protocol::ICMP => Some(Sum::ZERO),
        Family::V4 => {
            let pseudo = pseudo(ip.source, ip.destination, ip.protocol, length.to_be());
            Some(Sum::ZERO.less(pseudo))
        }
        // Addresses and length stand in the header as in the pseudo header, so they cancel.
        Family::V6 => {
            let [class, label, _, next] = packet.load(ip.at)?;
            let protocol = Sum::ZERO.word((ip.protocol as u16).to_be());
            Some(Sum::ZERO.word(class).word(label).word(next).less(protocol))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{outer::Tunnel, packet::Frame};

    /// RFC 1071, read literally.
    fn sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn put(bytes: &mut [u8], at: usize, word: u16) {
        bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }

    /// A pseudo header and what it is for.
    fn with_pseudo(source: &[u8], destination: &[u8], protocol: u8, rest: &[u8]) -> Vec<u8> {
        [source, destination, &(rest.len() as u32).to_be_bytes(), &[0, 0, 0, protocol], rest].concat()
    }

    /// A packet of noise whose lengths and checksums are right.
    fn packet(family: Family, protocol: u8, noise: &[u8; 40], rest: &[u8]) -> Vec<u8> {
        let header_len = family.header_len();
        let mut packet = [&noise[..header_len], rest].concat();
        let ends = match family {
            Family::V4 => {
                packet[0] = 0x45;
                put(&mut packet, 2, (header_len + rest.len()) as u16);
                packet[6..8].fill(0);
                packet[9] = protocol;
                12
            }
            Family::V6 => {
                packet[0] = 0x60 | packet[0] & 0x0f;
                put(&mut packet, 4, rest.len() as u16);
                packet[6] = protocol;
                8
            }
        };
        let (source, destination) = packet[ends..header_len].split_at((header_len - ends) / 2);
        let check_at = match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
        let mut body = rest.to_vec();
        if protocol == 17 {
            put(&mut body, 4, rest.len() as u16);
        }
        put(&mut body, check_at, 0);
        let check = match protocol {
            1 => !sum(&body),
            _ => !sum(&with_pseudo(source, destination, protocol, &body)),
        };
        put(&mut body, check_at, if check == 0 { 0xffff } else { check });
        packet[header_len..].copy_from_slice(&body);
        if matches!(family, Family::V4) {
            put(&mut packet, 10, 0);
            let check = !sum(&packet[..header_len]);
            put(&mut packet, 10, check);
        }
        packet
    }

    fn parse(bytes: &mut [u8], family: Family) -> (Frame<'_>, Ip) {
        let frame = Frame::new(bytes, 0, 1);
        let ip = Ip::parse(&frame, 0, family).unwrap();
        (frame, ip)
    }

    fn outer(family: Family, ends: [u8; 32]) -> Outer {
        let [source, destination] = [0, 16].map(|at| {
            let mut end: [u8; 16] = ends[at..at + 16].try_into().unwrap();
            match family {
                Family::V4 => end[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                Family::V6 => end[0] = 0xfd,
            }
            Address::new(end)
        });
        let tunnel = Tunnel::Udp { source_port: source_port(7) };
        Outer { family, source, destination, label: 0, tunnel }
    }

    fn inner() -> impl Strategy<Value = (Family, u8)> {
        prop_oneof![
            Just((Family::V4, 6)),
            Just((Family::V4, 17)),
            Just((Family::V4, 1)),
            Just((Family::V6, 6)),
            Just((Family::V6, 17)),
            Just((Family::V6, 58)),
        ]
    }

    proptest! {
        /// The O(1) sum is what a look at every byte gives.
        #[test]
        fn the_checksum_is_the_whole_packets(
            (family, protocol) in inner(),
            mut noise: [u8; 40],
            rest in proptest::collection::vec(any::<u8>(), 20..80),
            ends: [u8; 32],
            hash: u32,
        ) {
            noise[8] |= 1;
            let mut bytes = packet(family, protocol, &noise, &rest);
            let whole = bytes.clone();
            let (frame, ip) = parse(&mut bytes, family);
            let outer = outer(Family::V6, ends);
            let length = (40 + UDP_LEN + whole.len()) as u16;
            let header = header(&frame, &ip, &outer, source_port(hash), length).map(u16::to_ne_bytes).concat();
            prop_assert!(header[6..8] != [0, 0]);
            let [from, to] = [0, 2].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
            prop_assert!(from >= SOURCE_PORT_MIN && from as u32 & 0x3fff == hash & 0x3fff);
            prop_assert_eq!(to, 6080);
            let datagram = [&header[..], &whole].concat();
            prop_assert_eq!(usize::from(u16::from_be_bytes([header[4], header[5]])), datagram.len());
            let covered = with_pseudo(&ends_of(&outer)[..16], &ends_of(&outer)[16..], 17, &datagram);
            prop_assert_eq!(sum(&covered), 0xffff);
        }

        /// Whatever one bit of the outer addresses, the UDP header or the packet's IP header changes is seen.
        #[test]
        fn a_changed_bit_disagrees(
            (family, protocol) in inner(),
            mut noise: [u8; 40],
            rest in proptest::collection::vec(any::<u8>(), 20..80),
            ends: [u8; 32],
            bit in 0u32..16,
            word in 0usize..4,
        ) {
            noise[8] |= 1;
            let mut bytes = packet(family, protocol, &noise, &rest);
            let length = (40 + UDP_LEN + bytes.len()) as u16;
            let (frame, ip) = parse(&mut bytes, family);
            let outer = outer(Family::V6, ends);
            let header = header(&frame, &ip, &outer, source_port(1), length);
            let Outer { source, destination, .. } = outer;
            let around = Ip { source, destination, length, family: Family::V6, ..ip };
            prop_assert!(agrees(&frame, &ip, &around, header));
            let mut bent = header;
            bent[word] ^= 1 << bit;
            prop_assert_eq!(agrees(&frame, &ip, &around, bent), bent[3] == 0);
            let mut end = destination.bytes();
            end[2] ^= 1 << (bit % 8);
            let bent = Ip { destination: Address::new(end), ..around };
            prop_assert!(!agrees(&frame, &ip, &bent, header));
        }
    }

    fn ends_of(outer: &Outer) -> Vec<u8> {
        [outer.source.bytes(), outer.destination.bytes()].concat()
    }

    #[test]
    fn what_headers_do_not_say() {
        let noise = core::array::from_fn(|at| at as u8 + 1);
        let none = |family, protocol, edit: fn(&mut Vec<u8>)| {
            let mut bytes = packet(family, protocol, &noise, &[7; 32]);
            edit(&mut bytes);
            let (frame, ip) = parse(&mut bytes, family);
            assert!(sum_of(&frame, &ip).is_none(), "{family:?} {protocol}");
            let header = header(&frame, &ip, &outer(Family::V6, [9; 32]), source_port(0), 200);
            assert_eq!(header[3], 0);
        };
        none(Family::V4, 17, |bytes| bytes[26..28].fill(0));
        none(Family::V6, 17, |bytes| bytes[46..48].fill(0));
        none(Family::V4, 17, |bytes| bytes[25] -= 1);
        none(Family::V4, 6, |bytes| bytes[6] = 0x20);
        none(Family::V4, 6, |bytes| bytes[0] = 0x46);
        none(Family::V4, 58, |_| {});
        none(Family::V6, 1, |_| {});
        none(Family::V6, 44, |_| {});
        let mut bytes = packet(Family::V6, 6, &noise, &[7; 32]);
        let (frame, ip) = parse(&mut bytes, Family::V6);
        assert_eq!(header(&frame, &ip, &outer(Family::V4, [9; 32]), source_port(0), 200)[3], 0);
    }
}
