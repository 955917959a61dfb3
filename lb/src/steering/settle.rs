//! Time passes for slots: open ones close, closed ones settle, and what nobody needs any more goes.
//!
//! A closed slot settles when no live record leads a flow to another backend than its owner (a *stray*):
//! close it, wait until no program that saw it open can still be running, look through the records, settle
//! what has none. While strays live on, the records are looked through seldom.
//!
//! A record is taken away when it can neither be followed nor written over: its slot is settled, or it has ended (an
//! older epoch, silent for longer than the idle time) in a slot where nothing is recorded; each for longer than a
//! grace. In open slots packets write over ended records themselves. Only when the table is full, open slots are
//! swept: nothing is recorded there for a grace, then what has ended goes. Without that a full table would refuse for
//! ever, since slots do not close while it refuses.
//!
//! `FLAG_MOVING` stands as long as there may be a record.

use std::collections::{BTreeMap, BTreeSet};

use lb_abi::{
    backend::{BackendEntry, PRESENT},
    be::Be16,
    flow::{FlowKey, FlowRecord},
    meta::{FLAG_MOVING, Meta},
    slot::{GRACE_TICKS, Phase, Slot},
    subject,
    vip::{FLOWS_NONE, VipEntry, VipKey},
};

use super::{
    causes::Move,
    error::Result,
    places::{Place, Places, has_groups},
    regions::Region,
    store::Store,
    sync::{Sync, slots_of},
    transition::{close, is_still, looked_through, sweep},
    wide::Finder,
};
use crate::model::BackendId;

/// What a look through the records found.
#[derive(Default)]
struct Findings {
    /// Slots with strays.
    strays: BTreeSet<(Region, usize)>,
    /// Records that no program reads or writes any more.
    dead: Vec<FlowKey>,
    /// Whether some of those are left for the next look.
    is_early: bool,
}

/// Slots by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Phases {
    /// Not moving.
    pub settled: usize,
    /// Just changed; those that are swept, too.
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
                Phase::Open | Phase::Sweeping => phases.open += 1,
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
    ///
    /// # Errors
    /// The map that refused.
    pub fn tick(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
        self.expire_nat(store, now)?;
        self.sources.empty_retired(store)?;
        if self.meta.flags & FLAG_MOVING == 0 {
            return self.remove_lingering(store);
        }
        self.patience.arrive(now);
        self.close_open(store, now)?;
        self.sweep_open(store, now)?;
        self.look_through(store, now)?;
        let mut moving = 0;
        for region in self.regions_in_use() {
            let here = self.phases(store, region).moving();
            if here == 0 {
                self.causes.forget(region);
            }
            moving += here;
        }
        if moving > 0 || self.patience.ended_at.is_some() {
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

    /// Why slots of a region move.
    pub(super) fn moves(&self, store: &impl Store, region: Region) -> Vec<Move> {
        self.causes.report(region, slots_of(store, region).iter())
    }

    /// Regions that a VIP points at, adopted ones included.
    pub(super) fn regions_in_use(&self) -> BTreeSet<Region> {
        let forwards = self.vips.values().filter(|entry| entry.table_len > 0);
        forwards.map(|entry| Region::of_slot(entry.table)).collect()
    }

    /// How long flows through a region's slots may be silent, by VIP.
    fn idle_ticks(&self, region: Region) -> impl Iterator<Item = u32> + '_ {
        let here = self.vips.values().filter(move |entry| {
            entry.table_len > 0 && Region::of_slot(entry.table) == region && entry.flags & FLOWS_NONE == 0
        });
        here.map(|entry| entry.flow_idle_ticks)
    }

    /// Closes open slots whose window is over. A flow that could not be recorded in this very moment went to
    /// `previous`: then nothing closes yet.
    fn close_open(&self, store: &impl Store, now: u32) -> Result<()> {
        let refused_at = store.refused_at()?;
        let quiet = i32::try_from(now.wrapping_sub(refused_at)).map_or(0, i32::unsigned_abs);
        let mut before = Vec::new();
        for region in self.regions_in_use() {
            let memory = self.idle_ticks(region).max().unwrap_or(0);
            let slots = slots_of(store, region);
            for (at, slot) in slots.iter().enumerate() {
                let next = close(slot, memory, quiet, now);
                if next != slot {
                    slots.store(at, next);
                    before.push((region, at, slot));
                }
            }
        }
        if !before.is_empty() && store.refused_at()? != refused_at {
            before.into_iter().for_each(|(region, at, slot)| slots_of(store, region).store(at, slot));
        }
        Ok(())
    }

    /// Sweeps open slots where the table was full since the last tick.
    fn sweep_open(&mut self, store: &impl Store, now: u32) -> Result<()> {
        let refused = store.inserts_refused()?;
        let was_full = std::mem::replace(&mut self.patience.inserts_refused, refused) != refused;
        if !was_full {
            return Ok(());
        }
        for region in self.regions_in_use() {
            let shortest = self.idle_ticks(region).min().unwrap_or(0);
            let slots = slots_of(store, region);
            for (at, slot) in slots.iter().enumerate() {
                let next = sweep(slot, shortest, now);
                if next != slot {
                    slots.store(at, next);
                }
            }
        }
        Ok(())
    }

    /// Looks through the records, where that may settle a slot or make room, and does so.
    fn look_through(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
        let (mut ready, mut is_sweeping) = (BTreeMap::new(), false);
        for region in self.regions_in_use() {
            let moving = slots_of(store, region).iter().enumerate().filter(|(_, slot)| {
                matches!(slot.phase(), Phase::Closed | Phase::Sweeping) && is_still(*slot, now)
            });
            let moving: Vec<(usize, Slot)> = moving.collect();
            is_sweeping |= moving.iter().any(|(_, slot)| slot.phase() == Phase::Sweeping);
            ready.insert(region, moving);
        }
        let is_due = self.patience.is_due(now) || ready.values().any(|slots| !slots.is_empty());
        if !is_due || (self.patience.is_pausing(now) && !is_sweeping) {
            return Ok(());
        }
        let Findings { strays, dead, is_early } = self.find(store, now)?;
        // Before anything settles: a record of an older epoch must be gone before that epoch can come again.
        dead.iter().try_for_each(|key| store.remove_flow(key))?;
        self.patience.strays_seen_at = (!strays.is_empty()).then_some(now);
        let mut has_settled = false;
        for (region, moving) in ready {
            let slots = slots_of(store, region);
            for (at, slot) in moving.into_iter().filter(|(at, _)| !strays.contains(&(region, *at))) {
                has_settled |= slot.phase() == Phase::Closed;
                slots.store(at, looked_through(slot, now));
            }
        }
        self.patience.ended_at = (has_settled || is_early).then_some(now);
        Ok(())
    }

    /// Looks at every record once.
    fn find(&self, store: &impl Store, now: u32) -> Result<Findings> {
        let vips_are_known = self.patience.vips_are_known(now);
        let mut found = Findings { is_early: !vips_are_known, ..Findings::default() };
        let places = Places::new(&self.vips, &self.sources);
        store.for_each_flow(&mut |key, record| {
            let Some(Place { entry, region, at }) = places.of(key) else {
                if vips_are_known {
                    found.dead.push(*key);
                }
                return;
            };
            let slot = slots_of(store, region).load(at);
            let has_ended = slot.phase() == Phase::Settled
                || record.epoch != slot.epoch()
                || now.wrapping_sub(record.seen) as i32 > (entry.flow_idle_ticks + GRACE_TICKS) as i32;
            if has_ended && is_still(slot, now) {
                found.dead.push(*key);
            } else if slot.phase() == Phase::Settled {
                found.is_early = true;
            } else if slot.phase() == Phase::Closed && self.is_stray(record, slot) {
                found.strays.insert((region, at));
            }
        })?;
        Ok(found)
    }

    fn is_stray(&self, record: &FlowRecord, slot: Slot) -> bool {
        let backend = BackendId(record.backend);
        record.epoch == slot.epoch() && record.backend != slot.owner() && self.serves(backend)
    }

    /// Removes every record that another table than the one it was made by would be read for: of flows to VIPs that are
    /// new, and of flows that go from one VIP to another, since it names them more exactly or since the other goes.
    pub(super) fn forget_flows(
        &self,
        store: &mut impl Store,
        wanted: &BTreeMap<VipKey, VipEntry>,
    ) -> Result<()> {
        let (before, after) = (Finder::new(&self.vips), Finder::new(wanted));
        let groups = |vips: &BTreeMap<VipKey, VipEntry>| -> BTreeSet<u32> {
            vips.values().filter(|entry| has_groups(entry)).map(|entry| entry.vip).collect()
        };
        let new_groups = &groups(wanted) - &groups(&self.vips);
        let is_strange = |flow: &FlowKey| {
            if let Some(index) = subject::vip_of_group(flow) {
                return new_groups.contains(&index);
            }
            let Some((key, entry)) = after.key_of(flow) else { return false };
            // A key's own table changes only for a copy, in which its records hold.
            before.key_of(flow).is_none_or(|(old_key, old)| {
                old_key != key && (old.table, old.hash_key) != (entry.table, entry.hash_key)
            })
        };
        let mut strange = Vec::new();
        store.for_each_flow(&mut |key, _| {
            if is_strange(key) {
                strange.push(*key);
            }
        })?;
        strange.iter().try_for_each(|key| store.remove_flow(key))
    }

    /// Backends that left the config, once no slot and no record can name them.
    fn remove_lingering(&mut self, store: &mut impl Store) -> Result<()> {
        let lingering = self
            .backends
            .iter()
            .filter(|(id, entry)| entry.flags & PRESENT != 0 && !self.wanted.contains(id));
        for (id, entry) in lingering.map(|(id, entry)| (*id, *entry)).collect::<Vec<_>>() {
            // The generation stays, so that the id's next backend has another one.
            self.put_backend(store, id, BackendEntry { address: [0; 16], flags: 0, port: Be16(0), ..entry })?;
        }
        Ok(())
    }
}
