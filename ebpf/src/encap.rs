//! The new front of a packet on its way out: Ethernet, tags, and for IPIP an outer header.
//!
//! Rules of the outer header, for any pair of families:
//! - traffic class: copied whole, so DSCP shows outside and ECN works (RFC 6040, 4.1 normal mode; RFC 2983);
//! - IPv4: don't-fragment always set, identification 0 (RFC 6864, 4.1), as the MTU was checked before;
//! - time to live or hop limit 64;
//! - IPv6: flow label from the flow hash (RFC 6438), so that routers and NICs spread flows.
//!
//! Tags stay on a frame that leaves by the interface it came in by, and go when it leaves by another: they
//! belong to the link, not to the packet. A way out that is itself a VLAN device is not served: XDP cannot
//! send through one, and no map names its lower interface and tag yet.

use crate::{
    address::Address,
    checksum,
    env::NextHop,
    numbers::{ETHERNET_LEN, Family, IPV6_LEN, TAG_LEN},
    packet::Packet,
    parse::{Ip, Link},
};
use lb_abi::{be::Be16, reason::Reason};

/// Time to live and hop limit of what we send ourselves.
pub const OUTER_TTL: u8 = 64;

const DONT_FRAGMENT: u16 = 0x4000;

/// The outer header of an encapsulated packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Its version.
    pub family: Family,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: Address,
    /// Destination address, the same.
    pub destination: Address,
    /// Flow label of IPv6, low 20 bits.
    pub label: u32,
}

/// What happens to the tags that a frame came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// They stay.
    Keep,
    /// They go.
    Strip,
}

/// Length of the packet with its outer header, from there on; none if no IP packet can be that long.
#[inline(always)]
pub fn length(ip: &Ip, outer: Option<&Outer>) -> Option<u16> {
    let header_len = outer.map_or(0, |outer| outer.family.header_len());
    ip.length.checked_add(header_len as u16)
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

/// Puts the new front before the packet. `length` is [`length`]'s answer.
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
    let link_len = match tags {
        Tags::Keep => link.len,
        Tags::Strip => ETHERNET_LEN,
    };
    let outer_len = outer.map_or(0, |outer| outer.family.header_len());
    let delta = link.len as i32 - link_len as i32 - outer_len as i32;
    if delta != 0 {
        packet.move_head(delta).ok_or(Reason::EncapHeadroom)?;
    }
    let family = outer.map_or(ip.family, |outer| outer.family);
    write_link(packet, &hop.addresses, link, link_len, family.ethertype()).ok_or(Reason::EncapHeadroom)?;
    match outer {
        Some(outer) => write_outer(packet, link_len, outer, ip, length).ok_or(Reason::EncapHeadroom),
        None => Ok(()),
    }
}

/// Writes an Ethernet header of `link_len` bytes, with as many of the link's tags as that holds.
#[inline(always)]
pub fn write_link<P: Packet>(
    packet: &mut P,
    addresses: &[u16; 6],
    link: &Link,
    link_len: usize,
    ethertype: u16,
) -> Option<()> {
    let ethertype = [ethertype.to_be()];
    packet.store(0, *addresses)?;
    if link_len == ETHERNET_LEN {
        packet.store(12, ethertype)
    } else if link_len == ETHERNET_LEN + TAG_LEN {
        packet.store(12, link.tags[0])?;
        packet.store(16, ethertype)
    } else {
        packet.store(12, link.tags[0])?;
        packet.store(16, link.tags[1])?;
        packet.store(20, ethertype)
    }
}

#[inline(always)]
fn write_outer<P: Packet>(packet: &mut P, at: usize, outer: &Outer, inner: &Ip, length: u16) -> Option<()> {
    let protocol = inner.family.protocol();
    match outer.family {
        Family::V4 => packet.store_doubles(at, ipv4(outer, inner.class, protocol, length)),
        Family::V6 => {
            let first = 6 << 28 | (inner.class as u32) << 20 | outer.label & 0xf_ffff;
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
