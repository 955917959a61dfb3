//! The walk of a packet through the balancer.
//!
//! What is ours is decided by the VIP map alone: (destination address, port, protocol). What cannot have a
//! port, because it is a fragment, carries options or is cut short, is ours if its address has an entry for
//! ICMP (port 0), which control writes for every VIP address. Everything else passes untouched, but for what
//! no receiver could read either (malformed Ethernet and IP headers) and for denied sources, which are
//! dropped whomever they are for.

use lb_abi::{
    ABI_VERSION,
    be::Be16,
    flow::FlowKey,
    hash,
    meta::{FLAG_DENY_V4, FLAG_DENY_V6, Meta},
    reason::Reason,
    vip::{ECHO, FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR, VipEntry, VipKey},
};

use crate::{
    address::Address,
    encap::{self, Outer, Tags, Tunnel},
    env::{Env, Route, Unroutable},
    gue, hop, icmp, listener,
    numbers::Family,
    packet::Packet,
    parse::{Ip, Link, Ports, Shape, Transport},
    select::{self, Stage},
    verdict::{Outcome, Verdict},
};

/// Decides about one packet, rewrites it if it is forwarded or answered, and counts it; or says who does.
#[inline(always)]
pub fn ingress<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let outcome = match walk(packet, env) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::stopped(reason),
    };
    if !outcome.is_open() {
        env.count(outcome.reason);
    }
    outcome.verdict
}

#[inline(always)]
fn walk<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Outcome, Reason> {
    let meta = env.meta().ok_or(Reason::Abi)?;
    if meta.abi != ABI_VERSION {
        return Err(Reason::Abi);
    }
    let link = Link::parse(packet)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    if link.to_group() {
        return Err(Reason::NotOurs);
    }
    let ip = Ip::parse(packet, link.len, family)?;
    if is_denied(env, meta, &ip) {
        return Err(Reason::Denied);
    }
    let transport = match ip.shape {
        Shape::Plain => Transport::parse(packet, &ip),
        Shape::Fragment => Err(Reason::Fragment),
        Shape::Options => Err(Reason::IpOptions),
    };
    let (vip, flow, stage) = match transport {
        Ok(Transport::Tcp(ports, flags)) => {
            let flow = flow(&ip, ports);
            let Ok(vip) = find(env, &flow) else { return Ok(listener::reach(env, meta, &flow, Some(flags))) };
            if !flags.possible() {
                return Err(Reason::MalformedTcp);
            }
            (vip, flow, Stage::of(flags))
        }
        Ok(Transport::Udp(ports)) => {
            let flow = flow(&ip, ports);
            let Ok(vip) = find(env, &flow) else { return Ok(listener::reach(env, meta, &flow, None)) };
            (vip, flow, Stage::Datagram)
        }
        Ok(Transport::EchoRequest) => {
            return match env.vip(&address_key(&ip)) {
                Some(vip) if vip.flags & ECHO != 0 => {
                    icmp::answer(packet, &link, &ip)?;
                    Ok(Outcome { reason: Reason::Echo, verdict: Verdict::Transmit })
                }
                _ => Err(Reason::NotOurs),
            };
        }
        Ok(Transport::IcmpError) => {
            env.vip(&address_key(&ip)).ok_or(Reason::NotOurs)?;
            let flow = icmp::quoted(packet, &ip)?;
            (find(env, &flow)?, flow, Stage::Reported)
        }
        Ok(Transport::Other) => return Err(Reason::NotOurs),
        Err(reason) => return Err(env.vip(&address_key(&ip)).map_or(Reason::NotOurs, |_| reason)),
    };
    forward(packet, env, meta, &link, &ip, vip, &flow, stage)
}

#[inline(always)]
fn is_denied<E: Env>(env: &E, meta: &Meta, ip: &Ip) -> bool {
    match ip.family {
        Family::V4 => meta.flags & FLAG_DENY_V4 != 0 && env.denied_v4(ip.source.last()),
        Family::V6 => meta.flags & FLAG_DENY_V6 != 0 && env.denied_v6(ip.source.bytes()),
    }
}

/// Under this key every VIP address is known, with or without echo.
#[inline(always)]
fn address_key(ip: &Ip) -> VipKey {
    VipKey { address: ip.destination.bytes(), port: Be16(0), protocol: ip.family.icmp(), pad: 0 }
}

/// The flow of a TCP or UDP packet.
#[inline(always)]
pub(crate) const fn flow(ip: &Ip, ports: Ports) -> FlowKey {
    FlowKey {
        source: ip.source.bytes(),
        destination: ip.destination.bytes(),
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: ip.protocol,
        pad: [0; 3],
    }
}

/// The forwarding entry of a flow.
#[inline(always)]
fn find<'e, E: Env>(env: &'e E, flow: &FlowKey) -> Result<&'e VipEntry, Reason> {
    let FlowKey { destination, destination_port, protocol, .. } = *flow;
    let key = VipKey { address: destination, port: destination_port, protocol, pad: 0 };
    match env.vip(&key) {
        Some(vip) if vip.flags & (FORWARD_IPIP | FORWARD_GUE | FORWARD_L2DSR) != 0 => Ok(vip),
        _ => Err(Reason::NotOurs),
    }
}

#[expect(clippy::too_many_arguments, reason = "inlined; a struct of these would only be taken apart again")]
#[inline(always)]
fn forward<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    meta: &Meta,
    link: &Link,
    ip: &Ip,
    vip: &VipEntry,
    flow: &FlowKey,
    stage: Stage,
) -> Result<Outcome, Reason> {
    if ip.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    let hash = hash::flow(vip.hash_key, flow);
    let choice = select::select(env, vip, flow, stage, hash)?;
    let bytes = packet.len_of(ip.at + ip.length as usize) as u64;

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
    let hop = match hop::to_backend(env, packet.ingress(), &choice, &route) {
        Ok(hop) => hop,
        Err(Unroutable::TooLong { mtu }) => {
            let fits = mtu.saturating_sub(length - ip.length);
            icmp::too_big(packet, env, link, ip, fits)?;
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
