//! The new front of a packet on its way out: Ethernet, tags, and for IPIP and GUE an outer header.
//!
//! Rules of the outer header, for any pair of families:
//! - traffic class: copied whole, so DSCP shows outside and ECN works (RFC 6040, 4.1 normal mode; RFC 2983);
//! - IPv4: don't-fragment always set, identification 0 (RFC 6864, 4.1), as the MTU was checked before;
//! - time to live or hop limit 64;
//! - source: of IPIP one of a prefix of ours, by the flow hash, so that the backend's NIC spreads its queues by
//!   addresses alone; of GUE, whose source port does that, always the prefix's first;
//! - IPv6: flow label from the flow hash (RFC 6438), so that routers and NICs spread flows.
//!
//! Tags stay on a frame that leaves by the interface it came in by, and go when it leaves by another: they
//! belong to the link, not to the packet. A way out by a VLAN device sets that device's instead.

use crate::{
    checksum, gue,
    numbers::{ETHERNET_LEN, Family, IPV6_LEN, TAG_LEN},
    outer::{Outer, Tunnel},
    packet::Packet,
    parse::{Ip, Link},
    route::NextHop,
};
use lb_abi::{be::Be16, reason::Reason};

/// Time to live and hop limit of what we send ourselves.
pub const OUTER_TTL: u8 = 64;

/// Don't-fragment, in IPv4's word of flags and offset.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// What happens to the tags that a frame came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// They stay.
    Keep,
    /// They go.
    Strip,
    /// They become those of the next hop.
    Set,
}

/// Length of the packet with its outer header, from there on; none if no IP packet can be that long.
#[inline(always)]
pub fn length(ip: &Ip, outer: Option<&Outer>) -> Option<u16> {
    ip.length.checked_add(outer.map_or(0, Outer::overhead) as u16)
}

/// One hop for the packet itself, whichever way it is forwarded: its TTL or hop limit goes down by one.
///
/// As in IPVS and RFC 2003, 3.1 (Katran leaves it alone): two balancers that forward to each other by layer 2
/// then lose a packet after 255 rounds and not never. The caller has dropped what came with 1 or 0.
#[inline(always)]
pub fn age<P: Packet>(packet: &mut P, ip: &Ip) -> Option<()> {
    let ttl = ip.ttl - 1;
    match ip.family {
        Family::V4 => {
            let [old, check] = packet.load(ip.at + 8)?;
            let new = u16::from_ne_bytes([ttl, ip.protocol]);
            packet.store(ip.at + 8, [new, checksum::replace_word(Be16(check), Be16(old), Be16(new)).0])
        }
        Family::V6 => packet.store(ip.at + 6, [u16::from_ne_bytes([ip.protocol, ttl])]),
    }
}

/// Puts the new front before the packet, which is as it will leave. `length` is [`length`]'s answer.
///
/// Err: no room in front; the packet may have been moved and is only fit to be dropped.
#[inline(always)]
pub fn rewrite<P: Packet>(
    packet: &mut P,
    link: &Link,
    ip: &Ip,
    outer: Option<&Outer>,
    length: u16,
    hop: &NextHop,
    tags: Tags,
) -> Result<(), Reason> {
    let (link_len, tags) = match tags {
        Tags::Keep => (link.len, &link.tags),
        Tags::Strip => (ETHERNET_LEN, &link.tags),
        Tags::Set if hop.tags[1] == 0 => (ETHERNET_LEN + TAG_LEN, &hop.tags),
        Tags::Set => (ETHERNET_LEN + 2 * TAG_LEN, &hop.tags),
    };
    let delta = link.len as i32 - link_len as i32 - outer.map_or(0, Outer::overhead) as i32;
    let udp = match outer {
        Some(outer @ Outer { tunnel: Tunnel::Udp { source_port }, .. }) => {
            Some(gue::header(packet, ip, outer, *source_port, length))
        }
        _ => None,
    };
    if delta != 0 {
        packet.move_head(delta).ok_or(Reason::EncapHeadroom)?;
    }
    let family = outer.map_or(ip.family, |outer| outer.family);
    write_link(packet, &hop.addresses, tags, link_len, family.ethertype()).ok_or(Reason::EncapHeadroom)?;
    if let Some(outer) = outer {
        let protocol = outer.protocol(ip.family);
        write_ip(packet, link_len, outer, ip.class, protocol, length).ok_or(Reason::EncapHeadroom)?;
        if let Some(udp) = udp {
            packet.store(link_len + outer.family.header_len(), udp).ok_or(Reason::EncapHeadroom)?;
        }
    }
    Ok(())
}

/// Writes an Ethernet header of `link_len` bytes, with as many of the tags as that holds.
#[inline(always)]
pub fn write_link<P: Packet>(
    packet: &mut P,
    addresses: &[u16; 6],
    tags: &[u32; 2],
    link_len: usize,
    ethertype: u16,
) -> Option<()> {
    let ethertype = [ethertype.to_be()];
    packet.store(0, *addresses)?;
    if link_len == ETHERNET_LEN {
        packet.store(12, ethertype)
    } else if link_len == ETHERNET_LEN + TAG_LEN {
        packet.store(12, words(tags[0]))?;
        packet.store(16, ethertype)
    } else {
        packet.store(12, words(tags[0]))?;
        packet.store(16, words(tags[1]))?;
        packet.store(20, ethertype)
    }
}

#[inline(always)]
const fn words(tag: u32) -> [u16; 2] {
    let [a, b, c, d] = tag.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// Writes an IP header for `length` bytes, itself included.
#[inline(always)]
pub fn write_ip<P: Packet>(
    packet: &mut P,
    at: usize,
    outer: &Outer,
    class: u8,
    protocol: u8,
    length: u16,
) -> Option<()> {
    match outer.family {
        Family::V4 => packet.store_doubles(at, ipv4(outer, class, protocol, length)),
        Family::V6 => {
            let first = 6 << 28 | (class as u32) << 20 | outer.label & 0xf_ffff;
            let [l0, l1] = (length - IPV6_LEN as u16).to_be_bytes();
            packet.store_doubles(at, [first.to_be(), u32::from_ne_bytes([l0, l1, protocol, OUTER_TTL])])?;
            let ((s0, s1), (d0, d1)) = (outer.source.halves(), outer.destination.halves());
            packet.store_quads(at + 8, [s0, s1, d0, d1])
        }
    }
}

#[inline(always)]
const fn ipv4(outer: &Outer, class: u8, protocol: u8, length: u16) -> [u32; 5] {
    let [l0, l1] = length.to_be_bytes();
    let [f0, f1] = DONT_FRAGMENT.to_be_bytes();
    let first = u32::from_ne_bytes([0x45, class, l0, l1]);
    let fragment = u32::from_ne_bytes([0, 0, f0, f1]);
    let life = u32::from_ne_bytes([OUTER_TTL, protocol, 0, 0]);
    let (source, destination) = (outer.source.last_double(), outer.destination.last_double());
    let header = [first, fragment, life, source, destination];
    let [c0, c1] = checksum::ipv4_header(&header).0.to_ne_bytes();
    let life = u32::from_ne_bytes([OUTER_TTL, protocol, c0, c1]);
    [first, fragment, life, source, destination]
}
