//! The backend of a packet, and what leads it there: the slot of its flow, or by the VIP's flags something else first.

use lb_abi::{
    backend::LOCAL,
    hash,
    reason::Reason,
    slot::Phase,
    source::OWN,
    vip::{FLOWS_NONE, HASH_PORT, HASH_SOURCE, LED, QUIC, SOURCES, VipEntry},
};

use crate::{
    address::Address,
    flow::Flow,
    packet::Packet,
    parse::Ip,
    quic,
    select::{Pick, Stage, Standing, standing},
    walk::Walk,
};

/// What leads a packet.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    /// What the packet says about what its VIP remembers.
    pub stage: Stage,
    /// What its slot is found by.
    pub hash: u32,
    /// Index of the first slot of the table that it goes by.
    pub table: u32,
    /// Id of the backend that it names itself; 0: none.
    pub backend: u16,
}

impl Lead {
    /// Of a packet that nothing leads but its flow.
    #[inline(always)]
    pub const fn of(vip: &VipEntry, stage: Stage, hash: u32) -> Self {
        Self { stage, hash, table: vip.table, backend: 0 }
    }
}

/// What leads a packet. `hash` is its whole flow's, whatever the VIP hashes by.
///
/// A group never begins nor ends by one segment: in a moving slot it stays where it was, SYN or not, until it was
/// silent for the flow idle time or that has passed since the change. So it is to the slot as datagrams are.
#[inline(always)]
pub fn lead<P: Packet, E: Walk>(
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

/// The backend of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Id.
    pub id: u16,
    /// Where it is.
    pub address: Address,
    /// Which backend of that id.
    pub generation: u32,
    /// It is this box itself.
    pub is_local: bool,
    /// Counted as a new flow.
    pub new_flow: bool,
}

/// Picks the backend of a packet. `stage` is what it says about its own flow. `activity`: see
/// [`crate::env::Env::touch`]; none where flows are counted otherwise.
#[inline(always)]
pub fn select<E: Walk>(
    env: &E,
    activity: Option<u32>,
    vip: &VipEntry,
    flow: &Flow,
    stage: Stage,
    lead: Lead,
) -> Result<Choice, Reason> {
    let index = lead.table.wrapping_add(hash::slot(lead.hash, vip.table_len));
    // The flow of a packet that names its backend counts, too, where it would go by hash.
    if let Some(activity) = activity {
        env.touch(activity, index);
    }
    let Pick { id, recorded } = if lead.backend != 0 {
        Pick::of(lead.backend)
    } else {
        let slot = env.slot(index).ok_or(Reason::NoBackend)?;
        let still = matches!(slot.phase(), Phase::Settled) || vip.flags & FLOWS_NONE != 0;
        if still {
            Pick::of(slot.owner())
        } else {
            env.pick_moving(&flow.subject(vip), vip.flow_idle_ticks, lead.stage, slot)
        }
    };
    let entry = env.backend(id);
    match (standing(entry), entry) {
        (Standing::Up, Some(entry)) => Ok(Choice {
            id,
            address: Address::new(entry.address),
            generation: entry.generation,
            is_local: entry.flags & LOCAL != 0,
            new_flow: matches!(stage, Stage::Opening) || (matches!(stage, Stage::Datagram) && recorded),
        }),
        (Standing::Down, _) => Err(Reason::BackendDown),
        _ => Err(Reason::NoBackend),
    }
}
