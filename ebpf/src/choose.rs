//! What leads a packet to its backend: the slot of its flow, or by the VIP's flags something else first.

use lb_abi::{
    source::OWN,
    vip::{HASH_PORT, HASH_SOURCE, LED, QUIC, SOURCES, VipEntry},
};

use crate::{
    env::Env,
    flow::Flow,
    packet::Packet,
    parse::Ip,
    quic,
    select::{Lead, Stage},
};

/// What leads a packet. `hash` is its whole flow's, whatever the VIP hashes by.
///
/// A group never begins nor ends by one segment: in a moving slot it stays where it was, SYN or not, until it was
/// silent for the flow idle time or that has passed since the change. So it is to the slot as datagrams are.
#[inline(always)]
pub fn lead<P: Packet, E: Env>(
    packet: &P,
    env: &E,
    ip: &Ip,
    vip: &VipEntry,
    flow: &Flow,
    stage: Stage,
    hash: u32,
) -> Lead {
    let mut lead = Lead::of(vip, stage, hash);
    if vip.flags & LED == 0 {
        return lead;
    }
    if vip.flags & (HASH_SOURCE | HASH_PORT) != 0 {
        lead.hash = flow.group_hash(vip);
        if !matches!(stage, Stage::Reported) {
            lead.stage = Stage::Datagram;
        }
    }
    // An ICMP error quotes the answer, whose id is the client's.
    if vip.flags & QUIC != 0 && matches!(stage, Stage::Datagram) {
        let named = env.quic_server(packet, quic::payload_at(ip), vip.vip);
        env.count_quic(named.event);
        lead.backend = named.backend;
    }
    if vip.flags & SOURCES != 0 {
        let table = env.source_table(flow.source, vip.vip);
        if table != OWN {
            lead.table = table;
        }
    }
    lead
}
