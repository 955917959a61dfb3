//! Time passes for slots: open ones close, closed ones settle, and what nobody needs any more goes.
//!
//! A closed slot settles when no live record leads a flow to another backend than its owner (a *stray*):
//! close it, wait until no program that saw it open can still be running, look through the records, settle
//! what has none. While strays live on, the records are looked through seldom.

use std::collections::{BTreeMap, BTreeSet};

use lb_abi::{
    backend::{BackendEntry, PRESENT},
    flow::{FlowKey, FlowRecord},
    meta::{FLAG_MOVING, Meta},
    slot::{Phase, Slot},
    vip::FLOWS_NONE,
};

use super::{
    error::Result,
    places::{Place, Places},
    regions::Region,
    store::Store,
    sync::{Sync, slots_of},
    transition::{close, may_settle},
};
use crate::model::BackendId;

/// What a look through the records found.
struct Findings {
    /// Slots with strays.
    strays: BTreeSet<(Region, usize)>,
    /// Records that no packet will follow any more.
    dead: Vec<FlowKey>,
}

/// Slots by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Phases {
    /// Not moving.
    pub settled: usize,
    /// Just changed.
    pub open: usize,
    /// Waiting for strays.
    pub closed: usize,
}

impl Phases {
    pub(super) fn count(slots: impl Iterator<Item = Slot>) -> Self {
        let mut phases = Self::default();
        for slot in slots {
            match slot.phase() {
                Phase::Settled => phases.settled += 1,
                Phase::Open => phases.open += 1,
                Phase::Closed => phases.closed += 1,
            }
        }
        phases
    }

    pub(super) fn add(&mut self, other: Self) {
        self.settled += other.settled;
        self.open += other.open;
        self.closed += other.closed;
    }

    fn moving(self) -> usize {
        self.open + self.closed
    }
}

impl Sync {
    /// Lets time pass. Cheap while nothing moves; call it about once a second.
    pub(super) fn tick(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
        self.sources.empty_retired(store)?;
        let is_moving = self.meta.flags & FLAG_MOVING != 0;
        let refused = store.inserts_refused()?;
        let refusing = refused != self.patience.inserts_refused;
        self.patience.inserts_refused = refused;
        if !is_moving {
            return self.remove_lingering(store);
        }
        self.close_open(store, refusing, now);
        if !self.patience.is_pausing(now) {
            self.settle_closed(store, now)?;
        }
        let moving: usize =
            self.regions_in_use().into_iter().map(|region| self.phases(store, region).moving()).sum();
        if moving > 0 {
            return Ok(());
        }
        self.put_meta(store, Meta { flags: self.meta.flags & !FLAG_MOVING, ..self.meta })?;
        self.patience.strays_seen_at = None;
        self.remove_lingering(store)
    }

    /// Slots by phase of one region.
    pub(super) fn phases(&self, store: &impl Store, region: Region) -> Phases {
        Phases::count(slots_of(store, region).iter())
    }

    /// Regions that a VIP points at, adopted ones included.
    pub(super) fn regions_in_use(&self) -> BTreeSet<Region> {
        let forwards = self.vips.values().filter(|entry| entry.table_len > 0);
        forwards.map(|entry| Region::of_slot(entry.table)).collect()
    }

    /// How long flows through a region's slots may be silent: the longest of its VIPs.
    fn flow_memory_ticks(&self, region: Region) -> u32 {
        let here = self.vips.values().filter(|entry| {
            entry.table_len > 0 && Region::of_slot(entry.table) == region && entry.flags & FLOWS_NONE == 0
        });
        here.map(|entry| entry.flow_idle_ticks).max().unwrap_or(0)
    }

    fn close_open(&self, store: &impl Store, refusing: bool, now: u32) {
        for region in self.regions_in_use() {
            let memory = self.flow_memory_ticks(region);
            let slots = slots_of(store, region);
            for (at, slot) in slots.iter().enumerate() {
                let next = close(slot, memory, refusing, now);
                if next != slot {
                    slots.store(at, next);
                }
            }
        }
    }

    fn settle_closed(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
        let mut ready: BTreeMap<Region, Vec<usize>> = BTreeMap::new();
        for region in self.regions_in_use() {
            let slots = slots_of(store, region).iter().enumerate();
            let closed: Vec<usize> =
                slots.filter(|(_, slot)| may_settle(*slot, now)).map(|(at, _)| at).collect();
            if !closed.is_empty() {
                ready.insert(region, closed);
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let Findings { strays, dead } = self.look_through_flows(store, now)?;
        self.patience.strays_seen_at = (!strays.is_empty()).then_some(now);
        for (region, places) in ready {
            let slots = slots_of(store, region);
            for at in places.into_iter().filter(|at| !strays.contains(&(region, *at))) {
                let slot = slots.load(at);
                slots.store(at, Slot::settled(slot.owner(), slot.epoch(), now));
            }
        }
        dead.iter().try_for_each(|key| store.remove_flow(key))
    }

    /// Looks at every record once.
    fn look_through_flows(&self, store: &impl Store, now: u32) -> Result<Findings> {
        let mut strays = BTreeSet::new();
        let mut dead = Vec::new();
        let places = Places::new(&self.vips, &self.sources);
        store.for_each_flow(&mut |key, record| {
            let Some(Place { entry, region, at }) = places.of(key) else { return dead.push(*key) };
            let slot = slots_of(store, region).load(at);
            let is_expired = now.wrapping_sub(record.seen) as i32 > entry.flow_idle_ticks as i32;
            if is_expired || slot.phase() == Phase::Settled {
                // No packet reads records of a settled slot, and only we open it.
                dead.push(*key);
            } else if self.is_stray(record, slot) {
                strays.insert((region, at));
            }
        })?;
        Ok(Findings { strays, dead })
    }

    fn is_stray(&self, record: &FlowRecord, slot: Slot) -> bool {
        let backend = BackendId(record.backend);
        record.epoch == slot.epoch() && record.backend != slot.owner() && self.serves(backend)
    }

    /// Backends that left the config, once no slot and no record can name them.
    fn remove_lingering(&mut self, store: &mut impl Store) -> Result<()> {
        let lingering = self
            .backends
            .iter()
            .filter(|(id, entry)| entry.flags & PRESENT != 0 && !self.wanted.contains(id));
        for (id, entry) in lingering.map(|(id, entry)| (*id, *entry)).collect::<Vec<_>>() {
            // The generation stays, so that the id's next backend has another one.
            self.put_backend(store, id, BackendEntry { address: [0; 16], flags: 0, ..entry })?;
        }
        Ok(())
    }
}
