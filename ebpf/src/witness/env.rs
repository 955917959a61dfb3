//! What the path asks of its surroundings, before a witness.

use core::marker::PhantomData;

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
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
    tag::{FlowTag, TagKeys},
    trace::{
        STEP_BACKEND, STEP_CLOCK, STEP_COUNTED, STEP_DENY_ASKED, STEP_NEW_FLOW, STEP_QUIC, STEP_RECORD_ASKED,
        STEP_RECORD_FOUND, STEP_ROUTE_ASKED, STEP_ROUTE_FOUND, STEP_SLOT, STEP_SPREAD, STEP_TRAFFIC,
    },
    vip::{VipEntry, VipKey},
};

use super::{
    Kind, Notes, Witness,
    cells::{Left, Seen},
};
use crate::{
    env::{AllowanceCell, Env, FlowCell, Words},
    route::{NextHop, Route, Unroutable},
};

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
    fn tag_keys(&self) -> TagKeys {
        self.env.tag_keys()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey, tag: FlowTag) -> Option<impl FlowCell> {
        self.notes.change(|trace| trace.steps |= STEP_RECORD_ASKED);
        let cell = self.env.flow(key, tag)?;
        let record = cell.load();
        // A place that another core takes at this moment has no record yet.
        if record.backend != 0 {
            self.notes.change(|trace| {
                trace.steps |= STEP_RECORD_FOUND;
                trace.record_found = record;
            });
        }
        Some(Seen { cell, witness: self })
    }

    #[inline(always)]
    fn record(&self, key: &FlowKey, tag: FlowTag, record: FlowRecord) -> Option<()> {
        // Asked only, it is not known whether there is room: the answer is that of a table with some.
        if K::LIVE {
            self.env.record(key, tag, record)?;
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
    fn may_answer(&self) -> bool {
        // Asked only, the answer is that of a core with some left.
        !K::LIVE || self.env.may_answer()
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
