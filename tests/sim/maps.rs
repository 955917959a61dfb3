//! The maps as the kernel has them, cell by cell: an array's word is read and stored whole, a hash map's entry is
//! replaced whole, a flow's place is taken before its record is written, and the place of a deleted record is the next
//! flow's at once, while a program may still hold it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::AtomicU64,
};

use lb::model::BackendId;
use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    bounds::TABLE_LEN,
    flow::{FlowKey, FlowRecord, Inserts},
    hash,
    meta::Meta,
    slot::{Phase, Slot},
    vip::{VipEntry, VipKey},
};

/// Cores.
pub(crate) const CORES: usize = 4;
/// Tables that there is room for.
const REGIONS: usize = 6;
/// Backend ids.
pub(crate) const IDS: usize = 24;

/// Place of a record in [`Flows`].
pub(crate) type Place = usize;

/// `FLOWS`, preallocated.
pub(crate) struct Flows {
    places: Vec<Cell<u64>>,
    free: RefCell<Vec<Place>>,
    by_key: RefCell<HashMap<FlowKey, Place>>,
}

impl Flows {
    fn new(len: usize) -> Self {
        let free = RefCell::new((0..len).collect());
        Self { places: vec![Cell::new(0); len], free, by_key: RefCell::default() }
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<Place> {
        self.by_key.borrow().get(key).copied()
    }

    pub(crate) fn at(&self, place: Place) -> &Cell<u64> {
        &self.places[place]
    }

    /// A place for a flow that has none. Its record is none until it is written.
    pub(crate) fn take(&self, key: &FlowKey) -> Option<Place> {
        let mut by_key = self.by_key.borrow_mut();
        if by_key.contains_key(key) {
            return None;
        }
        let place = self.free.borrow_mut().pop()?;
        by_key.insert(*key, place);
        Some(place)
    }

    pub(crate) fn remove(&self, key: &FlowKey) {
        if let Some(place) = self.by_key.borrow_mut().remove(key) {
            self.places[place].set(0);
            self.free.borrow_mut().push(place);
        }
    }

    pub(crate) fn keys(&self) -> Vec<FlowKey> {
        let mut keys: Vec<_> = self.by_key.borrow().keys().copied().collect();
        keys.sort_by_key(|key| {
            (key.source, key.source_port, key.destination, key.destination_port, key.protocol)
        });
        keys
    }

    pub(crate) fn capacity(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.borrow().len()
    }
}

/// All that cores and control share.
pub(crate) struct Maps {
    pub(crate) meta: Cell<Meta>,
    pub(crate) vips: RefCell<BTreeMap<VipKey, &'static VipEntry>>,
    pub(crate) slots: Vec<AtomicU64>,
    pub(crate) backends: Vec<Cell<&'static BackendEntry>>,
    pub(crate) flows: Flows,
    pub(crate) refused_at: Cell<u32>,
    pub(crate) inserts: [Cell<Inserts>; CORES],
    /// By event.
    pub(crate) events: RefCell<[u64; lb_abi::counter::FlowEvent::ALL.len()]>,
}

impl Maps {
    pub(crate) fn new(flows: usize) -> Self {
        const NOBODY: &BackendEntry =
            &BackendEntry { address: [0; 16], flags: 0, generation: 0, port: Be16(0), pad: 0 };
        Self {
            meta: Cell::default(),
            vips: RefCell::default(),
            slots: (0..REGIONS * TABLE_LEN as usize).map(|_| AtomicU64::new(0)).collect(),
            backends: (0..IDS).map(|_| Cell::new(NOBODY)).collect(),
            flows: Flows::new(flows),
            refused_at: Cell::new(0),
            inserts: std::array::from_fn(|_| Cell::default()),
            events: RefCell::default(),
        }
    }

    pub(crate) fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).map(|word| Slot(word.load(std::sync::atomic::Ordering::Relaxed)))
    }

    /// The slot that a flow's next packet will read.
    pub(crate) fn slot_of(&self, key: &FlowKey) -> Option<(Slot, &'static VipEntry)> {
        let entry = self.vip_of(key)?;
        let at = entry.table + hash::slot(hash::flow(entry.hash_key, key), entry.table_len);
        Some((self.slot(at)?, entry))
    }

    pub(crate) fn vip_of(&self, key: &FlowKey) -> Option<&'static VipEntry> {
        let key = VipKey {
            address: key.destination,
            port: key.destination_port,
            protocol: key.protocol,
            host_bits: 0,
        };
        self.vips.borrow().get(&key).copied().filter(|entry| entry.table_len > 0)
    }

    /// The record that a flow's next packet will follow.
    pub(crate) fn live(&self, key: &FlowKey, now: u32) -> Option<FlowRecord> {
        let (slot, vip) = self.slot_of(key)?;
        let record = FlowRecord::from_word(self.flows.at(self.flows.find(key)?).get());
        let is_live = record.backend != 0
            && slot.phase() != Phase::Settled
            && record.epoch == slot.epoch()
            && now.wrapping_sub(record.seen) as i32 <= vip.flow_idle_ticks as i32;
        is_live.then_some(record)
    }

    /// Slots of the tables that VIPs point at.
    pub(crate) fn slots_in_use(&self) -> impl Iterator<Item = Slot> + '_ {
        let tables: BTreeSet<u32> = self
            .vips
            .borrow()
            .values()
            .filter(|entry| entry.table_len > 0)
            .map(|entry| entry.table)
            .collect();
        tables.into_iter().flat_map(|table| (table..table + TABLE_LEN).filter_map(|at| self.slot(at)))
    }

    /// What names an id, if anything does.
    pub(crate) fn named_by(&self, id: BackendId, now: u32) -> Option<String> {
        let by_slot = self.slots_in_use().find(|slot| [slot.owner(), slot.previous()].contains(&id.0));
        if let Some(slot) = by_slot {
            return Some(format!("{slot:?} {:?}", slot.phase()));
        }
        let keys = self.flows.keys();
        let mut live = keys.iter().filter_map(|key| self.live(key, now));
        live.find(|record| record.backend == id.0).map(|record| format!("{record:?}"))
    }
}
