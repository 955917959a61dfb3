//! Echo for a VIP: the balancer answers itself, so that a ping says "the VIP is served here".
//!
//! Deliberately absent yet: ICMP errors that follow the flow they quote, and "too big" of our own making. Both
//! pass to the kernel, or are dropped by name, until then.

use lb_abi::{be::Be16, reason::Reason};

use crate::{
    checksum,
    encap::OUTER_TTL,
    numbers::{Family, IPV4_LEN, IPV6_LEN},
    packet::Packet,
    parse::{Ip, Link},
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
    replace(packet, ip.at + IPV4_LEN, [0, 0])
}

#[inline(always)]
fn answer_v6<P: Packet>(packet: &mut P, ip: &Ip) -> Option<()> {
    packet.store(ip.at + 8, ip.destination.words())?;
    packet.store(ip.at + 24, ip.source.words())?;
    packet.store(ip.at + 6, [u16::from_ne_bytes([ip.protocol, OUTER_TTL])])?;
    replace(packet, ip.at + IPV6_LEN, [129, 0])
}

/// Replaces the word at `at` and folds the change into the checksum that follows it.
#[inline(always)]
fn replace<P: Packet>(packet: &mut P, at: usize, new: [u8; 2]) -> Option<()> {
    let [old, check] = packet.load(at)?;
    let new = u16::from_ne_bytes(new);
    packet.store(at, [new, checksum::replace_word(Be16(check), Be16(old), Be16(new)).0])
}
