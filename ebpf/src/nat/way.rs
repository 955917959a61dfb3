//! The way out of a translated packet.

use lb_abi::{nat::NatEntry, reason::Reason};

use super::{NatEnv, Passage, rewrite::Ends};
use crate::{
    choose::Choice,
    encap::{self, Tags},
    packet::Packet,
    parse::{Ip, Link},
    route::{NextHop, Route, Unroutable},
    verdict::Verdict,
    way,
};

/// Finds the next hop for the ends that the packet leaves with; the answer is left in `passage`. Err(too-big): so is
/// the MTU that it exceeds.
#[inline(never)]
pub(super) fn find<P: Packet, E: NatEnv>(
    packet: &P,
    env: &E,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<(), Reason> {
    let ends = Ends::of(&passage.entry);
    let route = Route {
        family: ip.family,
        source: ends.source,
        destination: ends.destination,
        protocol: ip.protocol,
        length: ip.length,
        is_tunnel: true,
    };
    let hop = if passage.is_forward {
        let NatEntry { backend: id, generation, .. } = passage.entry;
        let (address, new_flow) = (ends.destination, passage.is_new);
        let choice = Choice { id, address, generation, is_local: false, new_flow };
        way::to_backend(env, packet.ingress(), &choice, &route)
    } else {
        way::to_anybody(env, packet.ingress(), &route)
    };
    // A next hop whose Ethernet address is not known is no reason to drop: the kernel forwards the translated packet,
    // and learns the address. XDP cannot ask for it, and nothing else of ours speaks to clients.
    (passage.is_known, passage.hop) = match hop {
        Ok(hop) => (true, hop),
        Err(Unroutable::NoNeighbour) => (false, NextHop::default()),
        Err(Unroutable::TooLong { mtu }) => {
            passage.hop.mtu = mtu;
            return Err(if ip.protocol == ip.family.icmp() { Reason::Mtu } else { Reason::TooBig });
        }
        Err(unroutable) => return Err(unroutable.reason()),
    };
    Ok(())
}

/// Makes the packet one hop older and gives it its new front; the verdict is left in `passage`. Without a next hop
/// all of that is the kernel's to do.
#[inline(never)]
pub(super) fn send<P: Packet>(
    packet: &mut P,
    link: &Link,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<(), Reason> {
    passage.verdict = Verdict::Pass;
    if !passage.is_known {
        return Ok(());
    }
    let hop = passage.hop;
    let (tags, verdict) = if hop.interface == packet.ingress() {
        (Tags::Keep, Verdict::Transmit)
    } else {
        (Tags::Strip, Verdict::Redirect { interface: hop.interface })
    };
    let tags = if hop.is_tagged() { Tags::Set } else { tags };
    encap::age(packet, ip).ok_or(Reason::MalformedIp)?;
    encap::rewrite(packet, link, ip, None, ip.length, &hop, tags)?;
    passage.verdict = verdict;
    Ok(())
}
