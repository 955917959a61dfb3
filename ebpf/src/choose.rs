//! What leads a packet to its backend: the slot of its flow, or by the VIP's flags something else first.

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
    select::{self, Choice, Stage},
};

/// Picks the backend of a packet. `hash` is its whole flow's, whatever the VIP hashes by.
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
    if vip.flags & QUIC != 0
        && let Some(choice) = quic::server(packet, env, ip, vip)
    {
        return Ok(choice);
    }
    let other;
    let vip = if vip.flags & SOURCES != 0 {
        let table = env.source_table(ip.source, vip.vip);
        other = VipEntry { table: if table == OWN { vip.table } else { table }, ..*vip };
        &other
    } else {
        vip
    };
    if vip.flags & GROUPS == 0 {
        return select::select(env, vip, flow, stage, hash);
    }
    group(env, vip, flow, stage)
}

/// By the group that the flow belongs to.
///
/// A group never begins nor ends by one segment: in a moving slot it stays where it was, SYN or not, until it was
/// silent for the flow idle time or that has passed since the change. So it is to the slot as datagrams are.
#[inline(always)]
fn group<E: Env>(env: &E, vip: &VipEntry, flow: &FlowKey, stage: Stage) -> Result<Choice, Reason> {
    let subject = subject::of(vip, flow);
    let hash = subject::hash(vip.hash_key, &subject);
    let choice = select::select(env, vip, &subject, Stage::Datagram, hash)?;
    let new_flow = match stage {
        Stage::Datagram => choice.new_flow,
        Stage::Opening => true,
        Stage::Answering | Stage::Closing | Stage::Running => false,
    };
    Ok(Choice { new_flow, ..choice })
}
