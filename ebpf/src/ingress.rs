//! The walk of a packet through the balancer.
//!
//! What is ours is decided by the VIPs alone: destination address, port, protocol (see [`crate::directory`]). What
//! cannot have a port, because it is a fragment, carries options or is cut short, is ours if its address has an
//! entry for ICMP (port 0), which control writes for every VIP address. (Of fragments see [`crate::fragment`].)
//! Everything else passes untouched, but
//! for what no receiver could read either (malformed Ethernet and IP headers) and for denied sources, which are
//! dropped whomever they are for, and for what [`crate::listener`] does in a flood of SYNs.
//!
//! A settled packet reads plain arrays only, calls no helper but the one that makes room in front of it, and makes
//! no key on the stack: what the config does not use and what its slot does not need is not looked at.

use lb_abi::{
    ABI_VERSION,
    meta::{FLAG_LIMITED, FLAG_NAT, Meta},
    reason::Reason,
    vip::{ECHO, FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR, HASH_SOURCE, VipEntry},
};

use crate::{
    address::Address,
    choose,
    directory::Wanted,
    encap::{self, Tags},
    flow::Flow,
    fragment, gue, icmp, nat,
    numbers::Family,
    outer::{Outer, Tunnel},
    packet::Packet,
    parse::{Ip, Link, Shape, Transport},
    route::{Route, Unroutable},
    select::Stage,
    verdict::{Outcome, Verdict},
    walk::{self, Walk},
    way,
};

/// Decides about one packet, rewrites it if it is forwarded or answered, and counts it; or says who does. Where
/// addresses are translated, what is not ours here is [`nat::nat`]'s to decide about and to count, also if it may be a
/// listener's: a reply is known by its flow alone.
#[inline(always)]
pub fn ingress<P: Packet, E: Walk>(packet: &mut P, env: &E) -> Verdict {
    let outcome = match walk(packet, env) {
        Ok(outcome) => outcome,
        Err(Reason::NotOurs) if nat::is_on(env) => return Verdict::Translate,
        Err(reason) => Outcome::stopped(reason),
    };
    outcome.count(env);
    outcome.verdict
}

#[inline(always)]
fn walk<P: Packet, E: Walk>(packet: &mut P, env: &E) -> Result<Outcome, Reason> {
    let meta = env.meta().ok_or(Reason::Abi)?;
    if meta.abi != ABI_VERSION {
        return Err(Reason::Abi);
    }
    let link = Link::parse(packet)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    if link.to_group {
        return Err(Reason::NotOurs);
    }
    let ip = Ip::parse(packet, link.len, family)?;
    if walk::denies(env, meta, &ip) {
        return Err(Reason::Denied);
    }
    let (flow, stage) = match Transport::parse(packet, &ip) {
        Ok(Transport::Tcp(ports, flags)) => (Flow::new(&ip, ports), Stage::of(flags)),
        Ok(Transport::Udp(ports)) => (Flow::new(&ip, ports), Some(Stage::Datagram)),
        Ok(Transport::EchoRequest) => return echo(packet, env, &ip),
        Ok(Transport::IcmpError) => {
            env.vip_flags(ip.destination).ok_or(Reason::NotOurs)?;
            (icmp::quoted(packet, &ip)?, Some(Stage::Reported))
        }
        Ok(Transport::Other) => return Err(Reason::NotOurs),
        Err(Reason::Fragment) => (fragment::flow(packet, &ip), Some(fragment::STAGE)),
        Err(reason) => return Err(unreadable(env, &ip, reason)),
    };
    let wanted = match ip.shape {
        Shape::Fragment => fragment::wanted(&flow),
        _ => Wanted::new(flow.destination, flow.ports.destination, flow.protocol),
    };
    let vip = env.find_vip(meta, wanted);
    if matches!(ip.shape, Shape::Fragment) && vip.is_none_or(|vip| vip.flags & HASH_SOURCE == 0) {
        return Err(unreadable(env, &ip, Reason::Fragment));
    }
    let vip = match vip {
        Some(vip) if vip.flags & (FORWARD_IPIP | FORWARD_GUE | FORWARD_L2DSR) != 0 => vip,
        _ if meta.flags & FLAG_NAT != 0 => return Err(Reason::NotOurs),
        _ => return Ok(walk::reach(env, meta, &flow, stage)),
    };
    let stage = stage.ok_or(Reason::MalformedTcp)?;
    forward(packet, env, meta, &link, &ip, vip, &flow, stage)
}

/// What is cut short, a fragment or has options is ours to judge if its address is.
#[inline(always)]
fn unreadable<E: Walk>(env: &E, ip: &Ip, reason: Reason) -> Reason {
    env.vip_flags(ip.destination).map_or(Reason::NotOurs, |_| reason)
}

/// An echo request is answered if it is for a VIP that does so.
#[inline(always)]
fn echo<P: Packet, E: Walk>(packet: &mut P, env: &E, ip: &Ip) -> Result<Outcome, Reason> {
    let vip = env.vip_flags(ip.destination).ok_or(Reason::NotOurs)?;
    if vip.flags & ECHO == 0 {
        return Err(Reason::NotOurs);
    }
    icmp::answer(packet, ip)?;
    Ok(Outcome { reason: Reason::Echo, verdict: Verdict::Transmit })
}

#[expect(clippy::too_many_arguments, reason = "inlined; a struct of these would only be taken apart again")]
#[inline(always)]
fn forward<P: Packet, E: Walk>(
    packet: &mut P,
    env: &E,
    meta: &Meta,
    link: &Link,
    ip: &Ip,
    vip: &VipEntry,
    flow: &Flow,
    stage: Stage,
) -> Result<Outcome, Reason> {
    if meta.flags & FLAG_LIMITED != 0 && matches!(stage, Stage::Opening) && env.exceeds(flow.source) {
        return Err(Reason::RateLimited);
    }
    let hash = flow.hash(vip.hash_key);
    let lead = choose::lead(packet, env, ip, vip, flow, stage, hash);
    let choice = choose::select(env, Some(meta.activity), vip, flow, stage, lead)?;
    let bytes = packet.len_of(ip.at + ip.length as usize) as u64;
    if choice.is_local {
        env.count_traffic(vip.vip, choice.id, bytes, choice.new_flow);
        return Ok(Outcome { reason: Reason::Local, verdict: Verdict::Pass });
    }
    if ip.ttl <= 1 {
        return Err(Reason::Ttl);
    }

    let tunnel = if vip.flags & FORWARD_IPIP != 0 {
        Some(Tunnel::Ip)
    } else if vip.flags & FORWARD_GUE != 0 {
        Some(Tunnel::Udp { source_port: gue::source_port(hash) })
    } else {
        None
    };
    let outer = match tunnel {
        Some(tunnel) => Some(outer(meta, choice.address, hash, tunnel).ok_or(Reason::NoRoute)?),
        None => None,
    };
    let length = encap::length(ip, outer.as_ref()).ok_or(Reason::Mtu)?;
    let family = choice.address.family();
    // By layer 2 the packet keeps its addresses, and the backend is only asked for as a neighbour.
    let (source, protocol) = match &outer {
        Some(outer) => (outer.source, outer.protocol(ip.family)),
        None => (Address::default(), ip.protocol),
    };
    let is_tunnel = outer.is_some();
    let route = Route { family, source, destination: choice.address, protocol, length, is_tunnel };
    let hop = match way::to_backend(env, packet.ingress(), &choice, &route) {
        Ok(hop) => hop,
        Err(Unroutable::TooLong { mtu }) => {
            let fits = mtu.saturating_sub(length - ip.length);
            env.tell_too_big(packet, fits)?;
            return Ok(Outcome { reason: Reason::TooBig, verdict: Verdict::Transmit });
        }
        Err(unroutable) => return Err(unroutable.reason()),
    };

    let (tags, verdict) = if hop.interface == packet.ingress() {
        (Tags::Keep, Verdict::Transmit)
    } else {
        (Tags::Strip, Verdict::Redirect { interface: hop.interface })
    };
    let tags = if hop.is_tagged() { Tags::Set } else { tags };
    encap::age(packet, ip).ok_or(Reason::MalformedIp)?;
    encap::rewrite(packet, link, ip, outer.as_ref(), length, &hop, tags)?;
    env.count_traffic(vip.vip, choice.id, bytes, choice.new_flow);
    Ok(Outcome { reason: Reason::Forwarded, verdict })
}

/// The outer header toward a backend; none without a source address of its family.
#[inline(always)]
fn outer(meta: &Meta, destination: Address, hash: u32, tunnel: Tunnel) -> Option<Outer> {
    let family = destination.family();
    let (first, mask) = match family {
        Family::V4 if meta.outer_v4 != [0; 4] => (Address::v4(words(meta.outer_v4)), meta.outer_v4_mask),
        Family::V6 if meta.outer_v6 != [0; 16] => (Address::new(meta.outer_v6), meta.outer_v6_mask),
        Family::V4 | Family::V6 => return None,
    };
    let source = match tunnel {
        Tunnel::Ip => first.with_last(hash.to_be() & u32::from_ne_bytes(mask)),
        Tunnel::Udp { .. } => first,
    };
    Some(Outer { family, source, destination, label: hash, tunnel })
}

#[inline(always)]
const fn words(v4: [u8; 4]) -> [u16; 2] {
    let [a, b, c, d] = v4;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
