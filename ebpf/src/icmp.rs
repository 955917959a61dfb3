//! ICMP for a VIP.
//!
//! - Echo: the balancer answers itself, so that a ping says "the VIP is served here".
//! - Errors (unreachable, too big, time exceeded, parameter problem) go to the backend of the flow that they quote:
//!   it sent the packet that they are about, and nobody else can do anything with them. They follow flow records and
//!   never leave any.

use lb_abi::{be::Be16, flow::FlowKey, reason::Reason};

use crate::{
    address::Address,
    checksum,
    encap::OUTER_TTL,
    numbers::{Family, IPV4_LEN, IPV6_LEN, protocol},
    packet::Packet,
    parse::{Ip, Link, Shape},
};

/// Turns an echo request into its reply and sends it back the way it came.
///
/// Swapping addresses changes no checksum, so only type and TTL are folded in; a request whose checksum was
/// wrong gets a reply whose checksum is wrong.
#[inline(always)]
pub fn answer<P: Packet>(packet: &mut P, link: &Link, ip: &Ip) -> Result<(), Reason> {
    let [a, b, c, d, e, f] = link.addresses;
    packet.store(0, [d, e, f, a, b, c]).ok_or(Reason::MalformedEthernet)?;
    match ip.family {
        Family::V4 => answer_v4(packet, ip),
        Family::V6 => answer_v6(packet, ip),
    }
    .ok_or(Reason::MalformedIp)
}

#[inline(always)]
fn answer_v4<P: Packet>(packet: &mut P, ip: &Ip) -> Option<()> {
    let [a, b, c, d] = packet.load(ip.at + 12)?;
    packet.store(ip.at + 12, [c, d, a, b])?;
    replace(packet, ip.at + 8, [OUTER_TTL, ip.protocol])?;
    replace(packet, ip.at + IPV4_LEN, [0, 0])
}

#[inline(always)]
fn answer_v6<P: Packet>(packet: &mut P, ip: &Ip) -> Option<()> {
    packet.store(ip.at + 8, ip.destination.words())?;
    packet.store(ip.at + 24, ip.source.words())?;
    packet.store(ip.at + 6, [u16::from_ne_bytes([ip.protocol, OUTER_TTL])])?;
    replace(packet, ip.at + IPV6_LEN, [129, 0])
}

/// Bytes of an ICMP or ICMPv6 error before the packet that it quotes.
const ERROR_LEN: usize = 8;
/// Bytes behind its IP header that every error quotes at least (RFC 792).
const QUOTED_LEN: usize = 8;

/// The flow that an error is about, as its packets come in here: the quoted packet went the other way.
///
/// Err: the quote is no packet of the VIP (malformed-icmp), has no ports (fragment, ip-options), or is neither TCP
/// nor UDP (not-ours). Neither the error's checksum nor the quote's is looked at: the backend does.
#[inline(always)]
pub fn quoted<P: Packet>(packet: &P, ip: &Ip) -> Result<FlowKey, Reason> {
    let before = ip.family.header_len() + ERROR_LEN;
    let header_len = ip.family.header_len();
    if (ip.length as usize) < before + header_len + QUOTED_LEN {
        return Err(Reason::MalformedIcmp);
    }
    let at = ip.at + before;
    let (source, destination, protocol) = match ip.family {
        Family::V4 => quoted_v4(packet, at)?,
        Family::V6 => quoted_v6(packet, at)?,
    };
    if source != ip.destination {
        return Err(Reason::MalformedIcmp);
    }
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Err(Reason::NotOurs);
    }
    let [near, far] = packet.load(at + header_len).ok_or(Reason::MalformedIcmp)?;
    Ok(FlowKey {
        source: destination.bytes(),
        destination: source.bytes(),
        source_port: Be16(far),
        destination_port: Be16(near),
        protocol,
        pad: [0; 3],
    })
}

/// Source, destination and protocol of the quoted header. Its length field is not looked at: the quote is cut.
#[inline(always)]
fn quoted_v4<P: Packet>(packet: &P, at: usize) -> Result<(Address, Address, u8), Reason> {
    let [first, _, _, fragment, ttl, _, s0, s1, d0, d1] = packet.load(at).ok_or(Reason::MalformedIcmp)?;
    let [version, _] = first.to_ne_bytes();
    let [_, protocol] = ttl.to_ne_bytes();
    if version != 0x45 {
        return Err(if (0x46..=0x4f).contains(&version) { Reason::IpOptions } else { Reason::MalformedIcmp });
    }
    // The first fragment has the ports.
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Err(Reason::Fragment);
    }
    Ok((Address::v4([s0, s1]), Address::v4([d0, d1]), protocol))
}

#[inline(always)]
fn quoted_v6<P: Packet>(packet: &P, at: usize) -> Result<(Address, Address, u8), Reason> {
    let [first, _, _, next] = packet.load(at).ok_or(Reason::MalformedIcmp)?;
    if u16::from_be(first) >> 12 != 6 {
        return Err(Reason::MalformedIcmp);
    }
    let source = Address::v6(packet.load(at + 8).ok_or(Reason::MalformedIcmp)?);
    let destination = Address::v6(packet.load(at + 24).ok_or(Reason::MalformedIcmp)?);
    let [protocol, _] = next.to_ne_bytes();
    match Shape::of_next_header(protocol) {
        Shape::Plain => Ok((source, destination, protocol)),
        Shape::Options => Err(Reason::IpOptions),
        Shape::Fragment => Err(Reason::Fragment),
    }
}

/// Replaces the word at `at` and folds the change into the checksum that follows it.
#[inline(always)]
fn replace<P: Packet>(packet: &mut P, at: usize, new: [u8; 2]) -> Option<()> {
    let [old, check] = packet.load(at)?;
    let new = u16::from_ne_bytes(new);
    packet.store(at, [new, checksum::replace_word(Be16(check), Be16(old), Be16(new)).0])
}
