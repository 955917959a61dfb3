//! Taking an outer IP header off, for a backend that has no tunnel device.
//!
//! Which outer destinations are handled:
//! - maps that nobody wrote (`META` is zero): every one. So a backend that runs `lb_decap` alone has nothing to configure;
//! - else only keys of map `VIPS` with the flag `DECAP`: (outer destination, port 0, protocol 4 or 41 as the inner
//!   packet is).
//!
//! Whoever may send to a handled address may inject packets with any inner address, as with any unauthenticated
//! tunnel, so it should be reachable from the balancers only.

use lb_abi::{
    ABI_VERSION,
    be::Be16,
    reason::Reason,
    vip::{DECAP, VipKey},
};

use crate::{
    checksum, encap,
    env::Env,
    packet::Packet,
    parse::{Family, Ip, Link, Shape, protocol},
    verdict::{Outcome, Verdict},
};

const ECN: u8 = 0b11;
const CONGESTION: u8 = 0b11;

/// Decides about one packet, takes the outer header off if it is handled, and counts it.
#[inline(always)]
pub fn decap<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let reason = match walk(packet, env) {
        Ok(()) => Reason::Decapsulated,
        Err(reason) => reason,
    };
    env.count(reason);
    Outcome::stopped(reason).verdict
}

#[inline(always)]
fn walk<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<(), Reason> {
    let any = match env.meta().ok_or(Reason::Abi)?.abi {
        0 => true,
        ABI_VERSION => false,
        _ => return Err(Reason::Abi),
    };
    // What is not plainly a tunnel of ours is the kernel's to judge: a backend's other traffic runs here, too.
    let link = Link::parse(packet).map_err(|_| Reason::NotOurs)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    let outer = Ip::parse(packet, link.len, family).map_err(|_| Reason::NotOurs)?;
    let inner = match outer.protocol {
        protocol::IPV4 => Family::V4,
        protocol::IPV6 => Family::V6,
        _ => return Err(Reason::NotOurs),
    };
    let key = VipKey { address: outer.destination.bytes(), port: Be16(0), protocol: outer.protocol, pad: 0 };
    let handled = any || env.vip(&key).is_some_and(|entry| entry.flags & DECAP != 0);
    if !handled || !matches!(outer.shape, Shape::Plain) || link.to_group() {
        return Err(Reason::NotOurs);
    }
    let at = link.len + family.header_len();
    let [first] = packet.load(at).ok_or(Reason::MalformedIp)?;
    let version = match inner {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    if u16::from_be(first) >> 12 != version
        || (outer.length as usize) < family.header_len() + inner.header_len()
    {
        return Err(Reason::MalformedIp);
    }
    carry_congestion(packet, at, inner, first, outer.class)?;
    packet.move_head(family.header_len() as i32).ok_or(Reason::MalformedIp)?;
    encap::write_link(packet, &link.addresses, &link, link.len, inner.ethertype()).ok_or(Reason::MalformedIp)
}

/// A mark set on the way stays on the packet; a marked packet that cannot carry it is dropped (RFC 6040, 4.2).
#[inline(always)]
fn carry_congestion<P: Packet>(
    packet: &mut P,
    at: usize,
    inner: Family,
    first: u16,
    outer_class: u8,
) -> Result<(), Reason> {
    if outer_class & ECN != CONGESTION {
        return Ok(());
    }
    // Where the field lies in the header's first word.
    let shift = match inner {
        Family::V4 => 0,
        Family::V6 => 4,
    };
    match (u16::from_be(first) >> shift) as u8 & ECN {
        0 => return Err(Reason::MalformedIp),
        CONGESTION => return Ok(()),
        _ => {}
    }
    let marked = first | ((CONGESTION as u16) << shift).to_be();
    packet.store(at, [marked]).ok_or(Reason::MalformedIp)?;
    if matches!(inner, Family::V4) {
        let [check] = packet.load(at + 10).ok_or(Reason::MalformedIp)?;
        let check = checksum::replace_word(Be16(check), Be16(first), Be16(marked));
        packet.store(at + 10, [check.0]).ok_or(Reason::MalformedIp)?;
    }
    Ok(())
}
