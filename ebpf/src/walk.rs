//! What is called apart from the path of a packet, and what only sometimes calls it.

use lb_abi::{
    hop::HopEntry,
    meta::{FLAG_WIDE_VIPS, Meta},
    reason::Reason,
    slot::Slot,
    vip::VipEntry,
};

use crate::{
    address::Address,
    directory::{self, Place, VipFlags, Wanted},
    env::Env,
    flow::Flow,
    guard, hop, icmp, limit, listener,
    packet::Packet,
    parse::Ip,
    quic::{self, Named},
    route::{Route, Unroutable},
    select::{self, Pick, Stage},
    source,
    verdict::{Outcome, Verdict},
};

/// Parts of the path that few packets need, asked of the surroundings like [`Env`]: in the kernel all but one are
/// functions of their own, which the verifier looks at once and not for each way that leads there.
///
/// None of them calls another, but for two small ones that look after the table of flows: frames of functions that call
/// each other add up. So what stands behind them knows [`Env`] alone.
pub trait Walk: Env + Sized {
    /// As [`directory::locate`].
    #[inline(always)]
    fn locate(&self, wanted: Wanted) -> Place {
        directory::locate(self, wanted)
    }
    /// The entry of the VIP that a packet is for: of the key that is exactly this one, and where the config has
    /// others, of the most specific of them. No function of its own; most packets need no other.
    #[inline(always)]
    fn find_vip(&self, meta: &Meta, wanted: Wanted) -> Option<&VipEntry> {
        match directory::find_key(self, wanted) {
            Some(entry) => Some(entry),
            None if meta.flags & FLAG_WIDE_VIPS != 0 => {
                directory::find_key(self, self.locate(wanted).key(wanted.address)?)
            }
            None => None,
        }
    }
    /// As [`directory::flags_of`].
    #[inline(always)]
    fn vip_flags(&self, address: Address) -> Option<VipFlags> {
        directory::flags_of(self, address)
    }
    /// As [`guard::verdict`].
    #[inline(always)]
    fn listed(&self, list: usize, source: Address) -> guard::Verdict {
        guard::verdict(self, list, source)
    }
    /// As [`quic::server`].
    #[inline(always)]
    fn quic_server<P: Packet>(&self, packet: &P, at: usize, vip: u32) -> Named {
        quic::server(packet, self, at, vip)
    }
    /// As [`limit::exceeds`].
    #[inline(always)]
    fn exceeds(&self, source: Address) -> bool {
        limit::exceeds(self, source)
    }
    /// As [`source::table`].
    #[inline(always)]
    fn source_table(&self, source: Address, vip: u32) -> u32 {
        source::table(self, source, vip)
    }
    /// As [`select::pick_moving`].
    #[inline(always)]
    fn pick_moving(&self, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        select::pick_moving(self, &flow.key(), flow.tag(&self.tag_keys()), idle, stage, slot)
    }
    /// As [`hop::find`].
    #[inline(always)]
    fn find_hop(&self, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
        hop::find(self, backend, wanted, route)
    }
    /// As [`icmp::too_big`].
    #[inline(always)]
    fn tell_too_big<P: Packet>(&self, packet: &mut P, fits: u16) -> Result<(), Reason> {
        icmp::too_big(packet, self, fits)
    }
    /// As [`listener::arrive`].
    #[inline(always)]
    fn listener(&self, flow: &Flow, stage: Option<Stage>) -> Outcome {
        listener::arrive(self, flow, stage)
    }
}

/// Whether the longest listed prefix that covers a packet's source denies it.
#[inline(always)]
pub fn denies<E: Walk>(env: &E, meta: &Meta, ip: &Ip) -> bool {
    match guard::gate(env, meta, ip) {
        Some(list) => matches!(env.listed(list, ip.source), guard::Verdict::Deny),
        None => false,
    }
}

/// What becomes of a packet that no VIP wants; an impossible one has no stage. What is called counts it.
#[inline(always)]
pub fn reach<E: Walk>(env: &E, meta: &Meta, flow: &Flow, stage: Option<Stage>) -> Outcome {
    if listener::is_asked(meta, flow, stage) {
        return env.listener(flow, stage);
    }
    Outcome { reason: Reason::NotOurs, verdict: Verdict::Pass }
}
