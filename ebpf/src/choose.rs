//! What leads a packet to its backend: the slot of its flow, or by the VIP's flags something else first.
//!
//! All ways meet in one call of [`select::by_lead`]: the kernel's verifier walks what follows once for every way
//! that comes there by itself.

use lb_abi::{
    flow::FlowKey,
    reason::Reason,
    source::OWN,
    subject::{self, GROUPS},
    vip::{QUIC, SOURCES, VipEntry},
};

use crate::{
    env::Env,
    packet::Packet,
    parse::Ip,
    quic,
    select::{self, Choice, Lead, Stage},
};

/// Picks the backend of a packet. `hash` is its whole flow's, whatever the VIP hashes by.
///
/// A group never begins nor ends by one segment: in a moving slot it stays where it was, SYN or not, until it was
/// silent for the flow idle time or that has passed since the change. So it is to the slot as datagrams are.
#[inline(always)]
pub fn choose<P: Packet, E: Env>(
    packet: &P,
    env: &E,
    ip: &Ip,
    vip: &VipEntry,
    flow: &FlowKey,
    stage: Stage,
    hash: u32,
) -> Result<Choice, Reason> {
    let (mut subject, mut as_stage, mut as_hash) = (*flow, stage, hash);
    let mut lead = Lead { table: vip.table, backend: 0 };
    if vip.flags & (QUIC | SOURCES | GROUPS) != 0 {
        if vip.flags & QUIC != 0 {
            lead.backend = packet.quic_server(env, quic::payload_at(ip), vip.vip);
        }
        if vip.flags & SOURCES != 0 {
            let table = env.source_table(ip.source, vip.vip);
            lead.table = if table == OWN { vip.table } else { table };
        }
        if vip.flags & GROUPS != 0 {
            subject = subject::of(vip, flow);
            as_hash = subject::hash(vip.hash_key, &subject);
            as_stage = Stage::Datagram;
        }
    }
    let choice = select::by_lead(env, vip, lead, &subject, as_stage, as_hash)?;
    let is_new = match stage {
        Stage::Datagram => choice.new_flow,
        Stage::Opening => lead.backend == 0,
        Stage::Answering | Stage::Closing | Stage::Running => false,
    };
    Ok(Choice { new_flow: is_new, ..choice })
}
