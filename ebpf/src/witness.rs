//! An [`Env`] between the packet path and another one, which writes down what passes.
//!
//! It sees every question that the path asks and every answer it gets, so the path itself holds no line for it.
//! Kept [`Live`] it changes nothing of what happens; kept [`Dry`] the packet leaves no trace but the one in the
//! notes: no counter, no flow record, no next hop, and the routing table is asked anew.

use core::marker::PhantomData;

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{CLOSING, FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    lengths::Lengths,
    limit::{Allowance, Limits, Meter},
    link::LinkEntry,
    meta::Meta,
    quic::{QuicEntry, QuicEvent, Server},
    reason::Reason,
    slot::Slot,
    source::{SourceKey, SourceTree},
    spread::Spread,
    trace::{
        STEP_ALLOWED, STEP_BACKEND, STEP_CLOCK, STEP_COUNTED, STEP_DENY_ASKED, STEP_LIMIT_ASKED,
        STEP_NEW_FLOW, STEP_QUIC, STEP_RECORD_ASKED, STEP_RECORD_FOUND, STEP_RECORD_LEFT, STEP_ROUTE_ASKED,
        STEP_ROUTE_FOUND, STEP_SLOT, STEP_SOURCE_ASKED, STEP_SPREAD, STEP_TRAFFIC, STEP_VIP_ASKED,
        STEP_VIP_FOUND, Trace, VERDICT_COOKIE, VERDICT_DROP, VERDICT_MOVED, VERDICT_PASS, VERDICT_REDIRECT,
        VERDICT_TRANSLATE, VERDICT_TRANSMIT,
    },
    vip::{VipEntry, VipKey},
};

use crate::{
    address::Address,
    directory::{Place, VipFlags, Wanted},
    env::{AllowanceCell, Env, FlowCell, NextHop, Route, Unroutable, Words},
    flow::Flow,
    guard, hop, icmp, limit, listener,
    packet::Packet,
    quic::Named,
    select::{self, Pick, Stage},
    verdict::{Outcome, Verdict},
};

/// Where notes are kept, and what is called apart from the path before the same witness: in the kernel functions of
/// their own, as for [`Env::locate`].
pub trait Notes {
    /// Changes them. `edit` never calls this.
    fn change<R>(&self, edit: impl FnOnce(&mut Trace) -> R) -> R;
    /// As [`Env::pick_moving`].
    #[inline(always)]
    fn pick_moving<E: Env>(&self, witness: &E, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        select::pick_moving(witness, &flow.key(), idle, stage, slot)
    }
    /// As [`Env::find_hop`].
    #[inline(always)]
    fn find_hop<E: Env>(
        &self,
        witness: &E,
        backend: u16,
        wanted: HopEntry,
        route: &Route,
    ) -> Result<(), Unroutable> {
        hop::find(witness, backend, wanted, route)
    }
    /// As [`Env::exceeds`].
    #[inline(always)]
    fn exceeds<E: Env>(&self, witness: &E, source: Address) -> bool {
        limit::exceeds(witness, source)
    }
    /// As [`Env::tell_too_big`].
    #[inline(always)]
    fn tell_too_big<P: Packet, E: Env>(&self, witness: &E, packet: &mut P, fits: u16) -> Result<(), Reason> {
        icmp::too_big(packet, witness, fits)
    }
    /// As [`Env::listener`].
    #[inline(always)]
    fn listener<E: Env>(&self, witness: &E, flow: &Flow, stage: Option<Stage>) -> Outcome {
        listener::arrive(witness, flow, stage)
    }
}

/// Whether what happens before a witness counts.
pub trait Kind {
    /// It does: counters, records and next hops are written.
    const LIVE: bool;
}

/// It counts.
#[derive(Clone, Copy, Debug)]
pub struct Live;

/// It is only asked for.
#[derive(Clone, Copy, Debug)]
pub struct Dry;

impl Kind for Live {
    const LIVE: bool = true;
}

impl Kind for Dry {
    const LIVE: bool = false;
}

/// Writes down how it ended, for a packet that came in by `ingress`.
#[inline(always)]
pub const fn end(trace: &mut Trace, verdict: Verdict, ingress: u32) {
    (trace.verdict, trace.interface) = match verdict {
        Verdict::Pass => (VERDICT_PASS, 0),
        Verdict::Drop => (VERDICT_DROP, 0),
        Verdict::Transmit => (VERDICT_TRANSMIT, ingress),
        Verdict::Redirect { interface } => (VERDICT_REDIRECT, interface),
        Verdict::Moved => (VERDICT_MOVED, 0),
        Verdict::Translate => {
            trace.reason = Reason::NotOurs as u32;
            (VERDICT_TRANSLATE, 0)
        }
        Verdict::Cookie => {
            trace.reason = Reason::NotOurs as u32;
            (VERDICT_COOKIE, 0)
        }
    };
}

/// Stands before an [`Env`] and writes down what passes.
#[derive(Debug)]
pub struct Witness<'a, E, N, K> {
    env: &'a E,
    notes: &'a N,
    kind: PhantomData<K>,
}

impl<'a, E: Env, N: Notes, K: Kind> Witness<'a, E, N, K> {
    /// Before `env`, with empty `notes`.
    #[inline(always)]
    pub const fn new(env: &'a E, notes: &'a N) -> Self {
        Self { env, notes, kind: PhantomData }
    }

    #[inline(always)]
    fn asked_vip(&self, wanted: &Wanted) {
        let Wanted { address, port, protocol, host_bits } = *wanted;
        self.notes.change(|trace| {
            trace.steps |= STEP_VIP_ASKED;
            trace.vip_key = VipKey { address: address.bytes(), port, protocol, host_bits };
        });
    }

    #[inline(always)]
    fn left(&self, record: FlowRecord) {
        self.notes.change(|trace| {
            trace.steps |= STEP_RECORD_LEFT;
            trace.record_left = record;
        });
    }
}

impl<E: Env, N: Notes, K: Kind> Env for Witness<'_, E, N, K> {
    #[inline(always)]
    fn meta(&self) -> Option<&Meta> {
        self.env.meta()
    }

    #[inline(always)]
    fn gates(&self, word: u32) -> u64 {
        self.notes.change(|trace| trace.steps |= STEP_DENY_ASKED);
        self.env.gates(word)
    }

    #[inline(always)]
    fn guard(&self, bucket: u32) -> Option<impl Words> {
        self.env.guard(bucket)
    }

    #[inline(always)]
    fn lengths(&self, index: u32) -> Option<&Lengths> {
        self.env.lengths(index)
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
    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        self.env.vip(key)
    }

    #[inline(always)]
    fn vip_bucket(&self, bucket: u32) -> Bucket {
        self.env.vip_bucket(bucket)
    }

    #[inline(always)]
    fn vip_ranges(&self, index: u32) -> Option<&PortRanges> {
        self.env.vip_ranges(index)
    }

    #[inline(always)]
    fn vip_slot(&self, index: u16) -> Option<&VipSlot> {
        self.env.vip_slot(index)
    }

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
    fn slot(&self, index: u32) -> Option<Slot> {
        let slot = self.env.slot(index)?;
        self.notes.change(|trace| {
            trace.steps |= STEP_SLOT;
            trace.slot = slot.0;
            trace.slot_index = index;
        });
        Some(slot)
    }

    #[inline(always)]
    fn touch(&self, word: u32, index: u32) {
        if K::LIVE {
            self.env.touch(word, index);
        }
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        let entry = self.env.backend(id);
        self.notes.change(|trace| {
            trace.steps |= STEP_BACKEND;
            trace.backend = id as u32;
            // Not as an option, which would go over the stack.
            match entry {
                Some(entry) => trace.backend_entry = *entry,
                None => trace.backend_entry = BackendEntry::default(),
            }
        });
        entry
    }

    #[inline(always)]
    fn quic(&self, vip: u32) -> Option<&QuicEntry> {
        self.env.quic(vip)
    }

    #[inline(always)]
    fn server(&self, id: u16) -> Option<Server> {
        self.env.server(id)
    }

    #[inline(always)]
    fn count_quic(&self, event: QuicEvent) {
        self.notes.change(|trace| {
            trace.steps |= STEP_QUIC;
            trace.quic_event = event as u32;
        });
        if K::LIVE {
            self.env.count_quic(event);
        }
    }

    #[inline(always)]
    fn quic_server<P: Packet>(&self, packet: &P, at: usize, vip: u32) -> Named {
        self.env.quic_server(packet, at, vip)
    }

    #[inline(always)]
    fn limits(&self) -> Option<&Limits> {
        self.env.limits()
    }

    #[inline(always)]
    fn meter(&self) -> Meter {
        self.env.meter()
    }

    #[inline(always)]
    fn keep_meter(&self, meter: Meter) {
        if K::LIVE {
            self.env.keep_meter(meter);
        }
    }

    #[inline(always)]
    fn allowance(&self, source: &[u8; 16]) -> Option<impl AllowanceCell> {
        Some(Left::<_, K> { cell: self.env.allowance(source)?, kind: PhantomData })
    }

    #[inline(always)]
    fn keep_allowance(&self, source: &[u8; 16], allowance: Allowance) {
        if K::LIVE {
            self.env.keep_allowance(source, allowance);
        }
    }

    #[inline(always)]
    fn exceeds(&self, source: Address) -> bool {
        self.notes.change(|trace| trace.steps |= STEP_LIMIT_ASKED);
        self.notes.exceeds(self, source)
    }

    #[inline(always)]
    fn source_set(&self, vip: u32) -> Option<u32> {
        self.env.source_set(vip)
    }

    #[inline(always)]
    fn source_tree(&self, set: u32) -> Option<&SourceTree> {
        self.env.source_tree(set)
    }

    #[inline(always)]
    fn source(&self, key: &SourceKey) -> Option<u32> {
        self.env.source(key)
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
    fn flow(&self, key: &FlowKey) -> Option<impl FlowCell> {
        self.notes.change(|trace| trace.steps |= STEP_RECORD_ASKED);
        let cell = self.env.flow(key)?;
        let record = cell.load();
        self.notes.change(|trace| {
            trace.steps |= STEP_RECORD_FOUND;
            trace.record_found = record;
        });
        Some(Seen { cell, witness: self })
    }

    #[inline(always)]
    fn record(&self, key: &FlowKey, record: FlowRecord) -> Option<()> {
        // Asked only, it is not known whether there is room: the answer is that of a table with some.
        if K::LIVE {
            self.env.record(key, record)?;
        }
        self.left(record);
        Some(())
    }

    #[inline(always)]
    fn inserts(&self) -> Inserts {
        self.env.inserts()
    }

    #[inline(always)]
    fn keep_inserts(&self, inserts: Inserts) {
        if K::LIVE {
            self.env.keep_inserts(inserts);
        }
    }

    #[inline(always)]
    fn refused_at(&self) -> u32 {
        self.env.refused_at()
    }

    #[inline(always)]
    fn keep_refused_at(&self, tick: u32) {
        if K::LIVE {
            self.env.keep_refused_at(tick);
        }
    }

    #[inline(always)]
    fn link(&self, interface: u32) -> Option<&LinkEntry> {
        self.env.link(interface)
    }

    #[inline(always)]
    fn tell_too_big<P: Packet>(&self, packet: &mut P, fits: u16) -> Result<(), Reason> {
        self.notes.tell_too_big(self, packet, fits)
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        // Asked only, the answer is that of a core with some left.
        !K::LIVE || self.env.may_answer()
    }

    #[inline(always)]
    fn listener(&self, flow: &Flow, stage: Option<Stage>) -> Outcome {
        self.notes.listener(self, flow, stage)
    }

    #[inline(always)]
    fn count_syn(&self) -> bool {
        if K::LIVE { self.env.count_syn() } else { self.env.is_flooded() }
    }

    #[inline(always)]
    fn is_flooded(&self) -> bool {
        self.env.is_flooded()
    }

    #[inline(always)]
    fn spread(&self) -> Option<&Spread> {
        self.env.spread()
    }

    #[inline(always)]
    fn is_spread(&self, port: Be16) -> bool {
        self.env.is_spread(port)
    }

    #[inline(always)]
    fn core_of(&self, worker: u32) -> Option<u32> {
        let core = self.env.core_of(worker)?;
        self.notes.change(|trace| {
            trace.steps |= STEP_SPREAD;
            // Below `bounds::CORES_MAX`.
            trace.core = core as u16;
        });
        Some(core)
    }

    #[inline(always)]
    fn own_core(&self) -> u32 {
        self.env.own_core()
    }

    #[inline(always)]
    fn move_to(&self, core: u32) -> bool {
        // Asked only, the answer is that of a core that control has given a place.
        !K::LIVE || self.env.move_to(core)
    }

    #[inline(always)]
    fn now_ticks(&self) -> u32 {
        let now = self.env.now_ticks();
        self.notes.change(|trace| {
            trace.steps |= STEP_CLOCK;
            trace.now_ticks = now;
        });
        now
    }

    #[inline(always)]
    fn hop_ticks(&self) -> u32 {
        self.env.hop_ticks()
    }

    #[inline(always)]
    fn hop(&self, backend: u16) -> Option<HopEntry> {
        if K::LIVE {
            return self.env.hop(backend);
        }
        // What is kept here alone: an answer of a moment ago would not say why it is what it is.
        self.notes.change(|trace| if trace.steps & STEP_ROUTE_FOUND != 0 { Some(trace.hop) } else { None })
    }

    #[inline(always)]
    fn keep_hop(&self, backend: u16, entry: HopEntry) {
        self.notes.change(|trace| {
            trace.steps |= STEP_ROUTE_FOUND;
            trace.hop = entry;
        });
        if K::LIVE {
            self.env.keep_hop(backend, entry);
        }
    }

    #[inline(always)]
    fn find_hop(&self, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
        self.notes.find_hop(self, backend, wanted, route)
    }

    #[inline(always)]
    fn route(&self, ingress: u32, route: &Route) -> Result<NextHop, Unroutable> {
        self.notes.change(|trace| {
            trace.steps |= STEP_ROUTE_ASKED;
            trace.route_source = route.source.bytes();
            trace.route_destination = route.destination.bytes();
            trace.length = route.length;
        });
        self.env.route(ingress, route)
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        self.notes.change(|trace| {
            trace.steps |= STEP_COUNTED;
            trace.reason = reason as u32;
        });
        if K::LIVE {
            self.env.count(reason);
        }
    }

    #[inline(always)]
    fn count_flow(&self, event: FlowEvent) {
        self.notes.change(|trace| trace.events |= 1 << event as u32);
        if K::LIVE {
            self.env.count_flow(event);
        }
    }

    #[inline(always)]
    fn count_traffic(&self, vip: u32, backend: u16, bytes: u64, new_flow: bool) {
        let new_flow_step = if new_flow { STEP_NEW_FLOW } else { 0 };
        self.notes.change(|trace| trace.steps |= STEP_TRAFFIC | new_flow_step);
        if K::LIVE {
            self.env.count_traffic(vip, backend, bytes, new_flow);
        }
    }
}

/// A record that is read as it is, and written only before a live witness.
struct Seen<'a, 'b, C, E, N, K> {
    cell: C,
    witness: &'a Witness<'b, E, N, K>,
}

impl<C: FlowCell, E: Env, N: Notes, K: Kind> Seen<'_, '_, C, E, N, K> {
    /// The record as it would be by now: before a dry witness it was never written.
    #[inline(always)]
    fn as_left(&self) -> FlowRecord {
        if K::LIVE {
            return self.cell.load();
        }
        let notes = self.witness.notes;
        notes.change(
            |trace| {
                if trace.steps & STEP_RECORD_LEFT != 0 { trace.record_left } else { trace.record_found }
            },
        )
    }
}

impl<C: FlowCell, E: Env, N: Notes, K: Kind> FlowCell for Seen<'_, '_, C, E, N, K> {
    #[inline(always)]
    fn load(&self) -> FlowRecord {
        self.cell.load()
    }

    #[inline(always)]
    fn store(&self, record: FlowRecord) {
        if K::LIVE {
            self.cell.store(record);
        }
        self.witness.left(record);
    }

    #[inline(always)]
    fn touch(&self, seen: u32) {
        if K::LIVE {
            self.cell.touch(seen);
        }
        self.witness.left(FlowRecord { seen, ..self.as_left() });
    }

    #[inline(always)]
    fn close(&self) {
        if K::LIVE {
            self.cell.close();
        }
        self.witness.left(FlowRecord { state: CLOSING, ..self.as_left() });
    }
}

/// An allowance that is read as it is, and written only before a live witness.
struct Left<C, K> {
    cell: C,
    kind: PhantomData<K>,
}

impl<C: AllowanceCell, K: Kind> AllowanceCell for Left<C, K> {
    #[inline(always)]
    fn load(&self) -> Allowance {
        self.cell.load()
    }

    #[inline(always)]
    fn store(&self, allowance: Allowance) {
        if K::LIVE {
            self.cell.store(allowance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_where_the_packet_leaves() {
        let ended = |verdict| {
            let mut trace = Trace::default();
            end(&mut trace, verdict, 7);
            (trace.verdict, trace.interface)
        };
        assert_eq!(ended(Verdict::Transmit), (VERDICT_TRANSMIT, 7));
        assert_eq!(ended(Verdict::Redirect { interface: 9 }), (VERDICT_REDIRECT, 9));
        assert_eq!(ended(Verdict::Pass), (VERDICT_PASS, 0));
        assert_eq!(ended(Verdict::Drop), (VERDICT_DROP, 0));
        assert_eq!(ended(Verdict::Moved), (VERDICT_MOVED, 0));
        assert_eq!(ended(Verdict::Translate), (VERDICT_TRANSLATE, 0));
        assert_eq!(ended(Verdict::Cookie), (VERDICT_COOKIE, 0));
    }
}
