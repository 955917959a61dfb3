//! An estimate of the flows that are alive, by VIP and by backend: those of which a packet came within the last
//! [`WINDOW_TICKS`] to twice that (15 to 30 seconds). How it is told from slots stands in [`lb_abi::activity`].
//!
//! Translated flows have entries: those are counted (see [`super::nat`]), and their packets read no slots.
//!
//! Within some percent where there are thousands, near exact for a few; blind beyond some ten flows per slot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aya::maps::{Array, MapData};
use lb_abi::{
    activity::{PAGE_CELLS, Page, WINDOW_TICKS, mask, window, word},
    bounds::TABLE_LEN,
    meta::Meta,
    names,
    vip::VipEntry,
};

use super::{
    Plane,
    error::{Error, Result},
    maps::Maps,
    regions::Region,
    sync::{Sync, slots_of},
};
use crate::model::BackendId;

/// Flows of one table above which one slot in eight is looked at.
const MANY: f64 = 4096.0;
/// What stands in a cell that no packet ever wrote, and in the word before the first window: no window has this number.
const UNWRITTEN: u16 = 0;
/// Bits of an index that then have to be zero.
const FEW_SLOTS: u16 = 7;

/// What the plane keeps for it.
pub(super) struct Activity {
    cells: Array<MapData, Page>,
    /// Mask of the window before this one.
    mask_before: u16,
}

/// Flows that are alive, about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveFlows {
    /// By VIP, over all pools that it leads to; those that share a pool's table with another are absent, as their flows
    /// cannot be told apart.
    pub vips: BTreeMap<Arc<str>, u64>,
    /// By backend.
    pub backends: BTreeMap<BackendId, u64>,
}

/// Some slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slots {
    all: u32,
    looked_at: u32,
    /// Those that were looked at and that a packet read lately.
    read: u32,
}

impl Slots {
    /// Flows that read these slots, all of them.
    fn flows(self) -> f64 {
        let [all, looked_at, read] = [self.all, self.looked_at, self.read].map(f64::from);
        if self.looked_at == 0 {
            return 0.0;
        }
        // Where every slot was read there is no upper end; the least that is likely is said.
        let unread = (looked_at - read).max(0.5) / looked_at;
        -all * unread.ln()
    }

    fn add(&mut self, is_looked_at: bool, is_read: bool) {
        self.all += 1;
        self.looked_at += u32::from(is_looked_at);
        self.read += u32::from(is_looked_at && is_read);
    }
}

impl Activity {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self> {
        let name = names::MAP_ACTIVITY;
        let map = object.take_map(name).ok_or(Error::Missing { kind: "map", name })?;
        Ok(Self { cells: Array::try_from(map).map_err(Error::map(name))?, mask_before: 0 })
    }

    /// Slots of a region by owner.
    fn slots(&self, sync: &Sync, maps: &Maps, region: Region) -> Result<BTreeMap<BackendId, Slots>> {
        let now = sync.meta.activity;
        let mask = u32::from(mask(now) | self.mask_before);
        let first = region.first_slot();
        let mut slots = slots_of(maps, region).iter().zip(first..).peekable();
        let mut by_owner: BTreeMap<BackendId, Slots> = BTreeMap::new();
        for page in first / PAGE_CELLS..=(first + TABLE_LEN - 1) / PAGE_CELLS {
            let cells = self.cells.get(&page, 0).map_err(Error::map(names::MAP_ACTIVITY))?;
            while let Some((slot, index)) = slots.next_if(|(_, index)| index / PAGE_CELLS == page) {
                let cell = cells[(index % PAGE_CELLS) as usize];
                by_owner
                    .entry(BackendId(slot.owner()))
                    .or_default()
                    .add(index & mask == 0, is_fresh(now, cell));
            }
        }
        Ok(by_owner)
    }
}

/// Whether a cell was written in this window or the one before.
fn is_fresh(now: u32, cell: u16) -> bool {
    cell != UNWRITTEN && window(now).wrapping_sub(cell) <= 1
}

/// The word for a moment, and the mask to remember: a new window begins with as many slots as flows want.
fn next_word(now: u32, now_ticks: u32, flows: impl FnOnce() -> Result<f64>) -> Result<Option<u32>> {
    // Wraps with the number's 16 bits, and so once in eleven days; the first window of a round lasts twice as long.
    let number = ((now_ticks / WINDOW_TICKS) as u16).max(UNWRITTEN + 1);
    if number == window(now) {
        return Ok(None);
    }
    Ok(Some(word(number, if flows()? > MANY { FEW_SLOTS } else { 0 })))
}

impl Plane {
    /// Begins a new window when it is time for one.
    pub(super) fn turn_window(&mut self, now_ticks: u32) -> Result<()> {
        let now = self.sync.meta.activity;
        let most = || {
            let mut most = 0.0f64;
            for region in self.sync.regions.keys() {
                let slots = self.activity.slots(&self.sync, &self.maps, *region)?;
                most = most.max(slots.values().map(|slots| slots.flows()).sum());
            }
            Ok(most)
        };
        let Some(next) = next_word(now, now_ticks, most)? else { return Ok(()) };
        self.activity.mask_before = mask(now);
        self.sync.put_meta(&mut self.maps, Meta { activity: next, ..self.sync.meta })
    }

    /// Flows that are alive, about. Reads every slot in use.
    ///
    /// # Errors
    /// The map that refused.
    pub fn active_flows(&self) -> Result<ActiveFlows> {
        let mut vips: BTreeMap<Region, BTreeSet<u32>> = BTreeMap::new();
        // What holds a table for some clients' pool has no name: the VIPs that lead them there count instead.
        let is_vip = |entry: &&VipEntry| entry.table_len > 0 && self.sync.vip_names.contains_key(&entry.vip);
        for entry in self.sync.vips.values().filter(is_vip) {
            for table in self.sync.sources.tables(entry.vip).into_iter().chain([entry.table]) {
                vips.entry(Region::of_slot(table)).or_default().insert(entry.vip);
            }
        }
        let shared: BTreeSet<u32> = vips.values().filter(|vips| vips.len() > 1).flatten().copied().collect();
        let mut active = ActiveFlows::default();
        let mut by_backend: BTreeMap<BackendId, f64> = BTreeMap::new();
        for region in self.sync.regions.keys() {
            let slots = self.activity.slots(&self.sync, &self.maps, *region)?;
            let mut sum = 0.0;
            for (id, slots) in slots.into_iter().filter(|(id, _)| id.0 != 0) {
                let flows = slots.flows();
                sum += flows;
                *by_backend.entry(id).or_default() += flows;
            }
            for vip in vips.get(region).into_iter().flatten().filter(|vip| !shared.contains(vip)) {
                if let Some(name) = self.sync.vip_names.get(vip) {
                    // A VIP that takes its table along to another pool has two for a while.
                    *active.vips.entry(name.clone()).or_default() += sum.round() as u64;
                }
            }
        }
        for (vip, backend, flows) in self.sync.nat_active() {
            *by_backend.entry(backend).or_default() += flows as f64;
            if let Some(name) = self.sync.vip_names.get(&vip) {
                *active.vips.entry(name.clone()).or_default() += flows;
            }
        }
        active.backends = by_backend.into_iter().map(|(id, flows)| (id, flows.round() as u64)).collect();
        Ok(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flows into slots as a hash would put them (splitmix64), and what is told of them.
    fn told(flows: u64, mask: u32) -> f64 {
        let mut read = vec![false; TABLE_LEN as usize];
        for flow in 1..=flows {
            let mut z = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            read[((z ^ (z >> 31)) % u64::from(TABLE_LEN)) as usize] = true;
        }
        let mut slots = Slots::default();
        (0..TABLE_LEN).for_each(|index| slots.add(index & mask == 0, read[index as usize]));
        slots.flows()
    }

    #[test]
    fn few_flows_are_counted_and_many_estimated() {
        for (flows, mask, percent) in [
            (0, 0, 0.0),
            (1, 0, 1.0),
            (30, 0, 1.0),
            (1000, 0, 1.0),
            (16_000, 0, 2.0),
            (5000, 7, 10.0),
            (100_000, 0, 2.0),
            (100_000, 7, 4.0),
            (300_000, 7, 8.0),
        ] {
            let told = told(flows, mask);
            let off = (told - flows as f64).abs();
            assert!(off <= flows as f64 * percent / 100.0, "{flows} flows, mask {mask}: {told}");
        }
    }

    #[test]
    fn nothing_is_told_of_slots_that_nobody_looks_at() {
        assert_eq!(Slots { all: 5, looked_at: 0, read: 0 }.flows(), 0.0);
        let full = Slots { all: 100, looked_at: 100, read: 100 }.flows();
        assert!(full.is_finite() && full > 100.0, "{full}");
    }

    #[test]
    fn what_was_read_two_windows_ago_is_over() {
        let fresh = |cells: [u16; 4]| cells.map(|cell| is_fresh(word(5, 7), cell));
        assert_eq!(fresh([5, 4, 3, 6]), [true, true, false, false]);
        assert!(![0, 1].iter().any(|now| is_fresh(word(*now, 0), 0)), "nobody wrote there");
    }

    #[test]
    fn a_window_begins_with_its_time_and_looks_at_fewer_slots_of_many_flows() {
        let first = next_word(0, WINDOW_TICKS, || Ok(3.0)).unwrap().unwrap();
        assert_eq!((window(first), mask(first)), (1, 0));
        assert_eq!(next_word(0, 0, || Ok(0.0)).unwrap(), Some(word(1, 0)), "at once, whatever the time");
        let same = next_word(first, 2 * WINDOW_TICKS - 1, || panic!("not asked"));
        assert_eq!(same.unwrap(), None);
        let many = next_word(first, 2 * WINDOW_TICKS, || Ok(1e6)).unwrap().unwrap();
        assert_eq!((window(many), mask(many)), (2, 7));
    }
}
