//! ICMP for a VIP.
//!
//! - Echo: the balancer answers itself, so that a ping says "the VIP is served here".
//! - Errors (unreachable, too big, time exceeded, parameter problem) go to the backend of the flow that they quote:
//!   it sent the packet that they are about, and nobody else can do anything with them. They follow flow records and
//!   never leave any.
//! - Too big: who sends what does not fit the way to its backend is told what would, in the VIP's name. IPv4 without
//!   don't-fragment is dropped: XDP cannot take packets apart, and such a sender does not listen. So are ICMP itself
//!   and what exceeds the budget of its core. What runs out of hops is dropped, too: no error of ours says so.

use lb_abi::{be::Be16, reason::Reason};

use crate::{
    address::Address,
    checksum::{self, Sum},
    encap::{self, OUTER_TTL},
    env::Env,
    flow::Flow,
    numbers::{Family, IPV4_LEN, IPV6_LEN, protocol},
    outer::{Outer, Tunnel},
    packet::Packet,
    parse::{Ip, Link, Ports, Shape},
};

/// Turns an echo request into its reply and sends it back the way it came.
///
/// Swapping addresses changes no checksum, so only type and TTL are folded in; a request whose checksum was
/// wrong gets a reply whose checksum is wrong.
#[inline(always)]
pub fn answer<P: Packet>(packet: &mut P, ip: &Ip) -> Result<(), Reason> {
    let [a, b, c, d, e, f] = Link::addresses(packet)?;
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
    let at = ip.at + IPV4_LEN;
    replace(packet, at, [0, 0])?;
    // What is summed may be nothing but zeros now, and that takes 0xffff; anywhere else it means the same as 0.
    if let [0] = packet.load(at + 2)? {
        packet.store(at + 2, [0xffff])?;
    }
    Some(())
}

#[inline(always)]
fn answer_v6<P: Packet>(packet: &mut P, ip: &Ip) -> Option<()> {
    packet.store(ip.at + 8, ip.destination.words())?;
    packet.store(ip.at + 24, ip.source.words())?;
    packet.store(ip.at + 6, [u16::from_ne_bytes([ip.protocol, OUTER_TTL])])?;
    replace(packet, ip.at + IPV6_LEN, [129, 0])
}

/// Bytes of an ICMP or ICMPv6 error before the packet that it quotes.
pub const ERROR_LEN: usize = 8;
/// Bytes behind its IP header that every error quotes at least (RFC 792).
const QUOTED_LEN: usize = 8;

/// The flow that an error is about, as its packets come in here: the quoted packet went the other way.
///
/// Err: the quote is no packet of the VIP (malformed-icmp), has no ports (fragment, ip-options), or is neither TCP
/// nor UDP (not-ours). Neither the error's checksum nor the quote's is looked at: the backend does.
#[inline(always)]
pub fn quoted<P: Packet>(packet: &P, ip: &Ip) -> Result<Flow, Reason> {
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
    let ports = Ports { source: Be16(far), destination: Be16(near) };
    Ok(Flow { source: destination, destination: source, ports, protocol })
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

/// Bytes of a packet that an error of ours quotes: with its headers, as much as 576 bytes hold (RFC 1812, 4.3.2.3).
const QUOTE_V4_LEN: usize = 548;
/// The same for 1280 bytes (RFC 4443, 2.4 (c)).
const QUOTE_V6_LEN: usize = 1232;
/// The least MTU of IPv4 (RFC 791, 3.2).
const MTU_V4_MIN: u16 = 68;
/// The least MTU of IPv6 (RFC 8200, 5): no sender goes below.
const MTU_V6_MIN: u16 = 1280;
/// Class of IPv4's errors: internetwork control (RFC 1812, 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// Turns a packet into the error that says that `fits` bytes of it would have got through, and sends it back the way
/// it came.
///
/// Err: it is only fit to be dropped.
#[inline(always)]
pub fn too_big<P: Packet, E: Env>(packet: &mut P, env: &E, fits: u16) -> Result<(), Reason> {
    let link = Link::parse(packet)?;
    let ip = Ip::parse(packet, link.len, link.family().ok_or(Reason::Mtu)?)?;
    // No error about an error, nor to what is no sender (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)).
    if ip.protocol == ip.family.icmp() || !is_host(ip.source) {
        return Err(Reason::Mtu);
    }
    let (sum, fits) = match ip.family {
        Family::V4 => {
            let [fragment] = packet.load(ip.at + 6).ok_or(Reason::Mtu)?;
            if u16::from_be(fragment) & encap::DONT_FRAGMENT == 0 || fits < MTU_V4_MIN {
                return Err(Reason::Mtu);
            }
            (quote::<P, QUOTE_V4_LEN>(packet, &ip)?, fits)
        }
        Family::V6 => (quote::<P, QUOTE_V6_LEN>(packet, &ip)?, fits.max(MTU_V6_MIN)),
    };
    if ip.length <= fits || !env.may_answer() {
        return Err(Reason::Mtu);
    }
    let before = (ip.family.header_len() + ERROR_LEN) as i32;
    let addresses = Link::addresses(packet)?;
    packet.move_head(-before).ok_or(Reason::EncapHeadroom)?;
    write_error(packet, &link, addresses, &ip, sum, fits).ok_or(Reason::EncapHeadroom)
}

/// Sum of what is quoted. Err: the packet is shorter, which only a way out of less than 600 bytes brings about.
#[inline(always)]
fn quote<P: Packet, const LEN: usize>(packet: &P, ip: &Ip) -> Result<Sum, Reason> {
    if (ip.length as usize) < LEN {
        return Err(Reason::Mtu);
    }
    packet.sum::<LEN>(ip.at).ok_or(Reason::Mtu)
}

/// Writes the headers before the quote, and cuts off what is not quoted.
#[inline(always)]
fn write_error<P: Packet>(
    packet: &mut P,
    link: &Link,
    [a, b, c, d, e, f]: [u16; 6],
    ip: &Ip,
    quote: Sum,
    fits: u16,
) -> Option<()> {
    let (kind, quote_len, class) = match ip.family {
        Family::V4 => ([3, 4], QUOTE_V4_LEN, CONTROL),
        Family::V6 => ([2, 0], QUOTE_V6_LEN, 0),
    };
    let header_len = ip.family.header_len();
    let length = (header_len + ERROR_LEN + quote_len) as u16;
    let (family, source, destination, protocol) = (ip.family, ip.destination, ip.source, ip.family.icmp());
    packet.cut(link.len + length as usize)?;
    encap::write_link(packet, &[d, e, f, a, b, c], &link.tags, link.len, family.ethertype())?;
    let ends = Outer { family, source, destination, label: 0, tunnel: Tunnel::Ip };
    encap::write_ip(packet, link.len, &ends, class, protocol, length)?;
    let [kind, fits] = [u16::from_ne_bytes(kind), fits.to_be()];
    let sum = quote.word(kind).word(fits);
    let sum = match family {
        Family::V4 => sum,
        Family::V6 => {
            let length = (length - header_len as u16).to_be();
            sum.plus(checksum::pseudo(source, destination, protocol, length))
        }
    };
    packet.store(link.len + header_len, [kind, !sum.folded(), 0, fits])
}

/// Whether an address may be the destination of an answer of ours: neither a group's, nor unspecified, nor a loopback's.
#[inline(always)]
pub const fn is_host(address: Address) -> bool {
    match address.family() {
        Family::V4 => !matches!(address.last()[0], 0 | 127 | 224..=255),
        Family::V6 => address.bytes()[0] != 0xff && address.halves().0 != 0,
    }
}

/// Replaces the word at `at` and folds the change into the checksum that follows it.
#[inline(always)]
fn replace<P: Packet>(packet: &mut P, at: usize, new: [u8; 2]) -> Option<()> {
    let [old, check] = packet.load(at)?;
    let new = u16::from_ne_bytes(new);
    packet.store(at, [new, checksum::replace_word(Be16(check), Be16(old), Be16(new)).0])
}
