//! What is called apart, before a witness.

use lb_abi::{
    hop::HopEntry,
    meta::Meta,
    reason::Reason,
    slot::Slot,
    trace::{STEP_ALLOWED, STEP_LIMIT_ASKED, STEP_SOURCE_ASKED, STEP_VIP_FOUND},
    vip::VipEntry,
};

use super::{Kind, Notes, Witness};
use crate::{
    address::Address,
    directory::{Place, VipFlags, Wanted},
    flow::Flow,
    guard,
    packet::Packet,
    quic::Named,
    route::{Route, Unroutable},
    select::{Pick, Stage},
    verdict::Outcome,
    walk::Walk,
};

impl<E: Walk, N: Notes, K: Kind> Walk for Witness<'_, E, N, K> {
    #[inline(always)]
    fn locate(&self, wanted: Wanted) -> Place {
        self.env.locate(wanted)
    }

    #[inline(always)]
    fn find_vip(&self, meta: &Meta, wanted: Wanted) -> Option<&VipEntry> {
        self.asked_vip(&wanted);
        let found = self.env.find_vip(meta, wanted)?;
        self.notes.change(|trace| {
            trace.steps |= STEP_VIP_FOUND;
            trace.vip = *found;
        });
        Some(found)
    }

    #[inline(always)]
    fn vip_flags(&self, address: Address) -> Option<VipFlags> {
        self.asked_vip(&Wanted::any(address));
        let found = self.env.vip_flags(address)?;
        self.notes.change(|trace| {
            trace.steps |= STEP_VIP_FOUND;
            (trace.vip.vip, trace.vip.flags) = (found.vip, found.flags);
        });
        Some(found)
    }

    #[inline(always)]
    fn listed(&self, list: usize, source: Address) -> guard::Verdict {
        let verdict = self.env.listed(list, source);
        if matches!(verdict, guard::Verdict::Allow) {
            self.notes.change(|trace| trace.steps |= STEP_ALLOWED);
        }
        verdict
    }

    #[inline(always)]
    fn quic_server<P: Packet>(&self, packet: &P, at: usize, vip: u32) -> Named {
        self.env.quic_server(packet, at, vip)
    }

    #[inline(always)]
    fn exceeds(&self, source: Address) -> bool {
        self.notes.change(|trace| trace.steps |= STEP_LIMIT_ASKED);
        self.notes.exceeds(self, source)
    }

    #[inline(always)]
    fn source_table(&self, source: Address, vip: u32) -> u32 {
        let table = self.env.source_table(source, vip);
        self.notes.change(|trace| {
            trace.steps |= STEP_SOURCE_ASKED;
            trace.source_table = table;
        });
        table
    }

    #[inline(always)]
    fn pick_moving(&self, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        self.notes.pick_moving(self, flow, idle, stage, slot)
    }

    #[inline(always)]
    fn find_hop(&self, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
        self.notes.find_hop(self, backend, wanted, route)
    }

    #[inline(always)]
    fn tell_too_big<P: Packet>(&self, packet: &mut P, fits: u16) -> Result<(), Reason> {
        self.notes.tell_too_big(self, packet, fits)
    }

    #[inline(always)]
    fn listener(&self, flow: &Flow, stage: Option<Stage>) -> Outcome {
        self.notes.listener(self, flow, stage)
    }
}
