//! Maps in memory.

use std::sync::atomic::AtomicU64;

use lb_abi::{
    flow::{FlowKey, FlowRecord},
    limit::Limits,
    quic::{QuicEntry, Server},
    source::{SourceKey, SourceTree},
};

use super::*;

/// Maps in memory, that check at every write what a packet could meet.
pub(super) struct Fake {
    pub(super) vips: BTreeMap<VipKey, VipEntry>,
    pub(super) backends: BTreeMap<BackendId, BackendEntry>,
    pub(super) slots: Vec<AtomicU64>,
    pub(super) meta: Meta,
    /// Words of the deny and allow lists.
    pub(super) listed: BTreeSet<u64>,
    pub(super) lengths: [[Lengths; 2]; LISTS],
    pub(super) flows: BTreeMap<Vec<u8>, (FlowKey, FlowRecord)>,
    pub(super) limits: Limits,
    pub(super) sources: BTreeMap<SourceKey, u32>,
    pub(super) trees: BTreeMap<u32, SourceTree>,
    pub(super) sets: BTreeMap<u32, u32>,
    pub(super) quic: BTreeMap<u32, QuicEntry>,
    pub(super) servers: BTreeMap<u16, Server>,
    pub(super) refused: u64,
    pub(super) refused_at: u32,
    pub(super) resets: Vec<u32>,
    pub(super) nat: nat::Maps,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            vips: BTreeMap::new(),
            backends: BTreeMap::new(),
            slots: (0..4 * LEN).map(|_| AtomicU64::new(0)).collect(),
            meta: Meta::default(),
            listed: BTreeSet::new(),
            lengths: <_>::default(),
            flows: BTreeMap::new(),
            limits: Limits::default(),
            sources: BTreeMap::new(),
            trees: BTreeMap::new(),
            sets: BTreeMap::new(),
            quic: BTreeMap::new(),
            servers: BTreeMap::new(),
            refused: 0,
            refused_at: 0,
            resets: Vec::new(),
            nat: nat::Maps::default(),
        }
    }
}

impl Fake {
    /// No VIP points at a slot that names a backend that is not there.
    pub(super) fn check(&self) {
        let regions: BTreeSet<u32> =
            self.vips.values().filter(|entry| entry.table_len > 0).map(|entry| entry.table).collect();
        // By number: slots are many, and looked at after every write.
        let mut is_there = vec![false; 1 << 16];
        for (id, entry) in &self.backends {
            is_there[usize::from(id.0)] = entry.flags & PRESENT != 0;
        }
        for table in regions {
            for slot in self.slots().range(table as usize, LEN).iter() {
                let (owner, previous) = (usize::from(slot.owner()), usize::from(slot.previous()));
                assert!(is_there[owner] && is_there[previous], "slot names who is not there: {slot:?}");
                assert!(slot.phase() == Phase::Settled || self.meta.flags & FLAG_MOVING != 0);
            }
        }
        for entry in self.vips.values().filter(|entry| entry.flags & SOURCES != 0) {
            let set = self.sets[&entry.vip];
            let held: Vec<u32> =
                self.sources.iter().filter(|(key, _)| key.set == set).map(|(_, table)| *table).collect();
            assert!(!held.is_empty(), "it has prefixes");
            for table in held {
                let anchored = self.vips.values().any(|entry| entry.vip == u32::MAX && entry.table == table);
                assert!(anchored || table == lb_abi::source::OWN, "a prefix leads to table {table}");
            }
        }
        for entry in self.vips.values().filter(|entry| entry.flags & QUIC != 0) {
            assert_ne!(self.quic.get(&entry.vip).map_or(0, |entry| entry.configs), 0, "it has keys");
        }
    }
}

impl Store for Fake {
    fn vips(&self) -> Result<BTreeMap<VipKey, VipEntry>> {
        Ok(self.vips.clone())
    }
    fn put_vip(&mut self, key: &VipKey, entry: &VipEntry) -> Result<()> {
        self.vips.insert(*key, *entry);
        self.check();
        Ok(())
    }
    fn remove_vip(&mut self, key: &VipKey) -> Result<()> {
        assert!(self.vips.remove(key).is_some());
        Ok(())
    }
    fn backends(&self) -> Result<BTreeMap<BackendId, BackendEntry>> {
        Ok(self.backends.clone())
    }
    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry) -> Result<()> {
        self.backends.insert(id, *entry);
        self.check();
        Ok(())
    }
    fn slots(&self) -> SlotArray<'_> {
        SlotArray::new(&self.slots)
    }
    fn meta(&self) -> Result<Meta> {
        Ok(self.meta)
    }
    fn put_meta(&mut self, meta: &Meta) -> Result<()> {
        self.meta = *meta;
        self.check();
        assert!(meta.flags & (FLAG_DENY_V4 | FLAG_DENY_V6) == 0 || !self.listed.is_empty());
        Ok(())
    }
    fn admit_sources(&mut self, lists: &Lists) -> Result<()> {
        self.listed.extend(lists.words());
        Ok(())
    }
    fn expel_sources(&mut self, lists: &Lists) {
        self.listed.retain(|word| lists.words().contains(word));
    }
    fn put_lengths(&mut self, list: usize, copy: u8, wanted: &Lengths) -> Result<u8> {
        assert_eq!(self.meta.lengths[list], copy);
        if self.lengths[list][usize::from(copy)] == *wanted {
            return Ok(copy);
        }
        self.lengths[list][usize::from(copy ^ 1)] = *wanted;
        Ok(copy ^ 1)
    }
    fn quic_servers(&self) -> Result<BTreeMap<u16, Server>> {
        Ok(self.servers.clone())
    }
    fn put_quic_server(&mut self, id: u16, server: Server) -> Result<()> {
        self.servers.insert(id, server);
        if server == Server::default() {
            self.servers.remove(&id);
        }
        self.check();
        Ok(())
    }
    fn put_quic_vip(&mut self, index: u32, entry: &QuicEntry) -> Result<()> {
        self.quic.insert(index, *entry);
        self.check();
        Ok(())
    }
    fn put_limits(&mut self, limits: &Limits) -> Result<()> {
        self.limits = *limits;
        Ok(())
    }
    fn sources(&self) -> Result<Vec<(SourceKey, u32)>> {
        Ok(self.sources.iter().map(|(key, table)| (*key, *table)).collect())
    }
    fn put_source(&mut self, key: &SourceKey, table: u32) -> Result<()> {
        self.sources.insert(*key, table);
        let mut readers = self.vips.values().filter(|entry| entry.flags & SOURCES != 0);
        assert!(!readers.any(|entry| self.sets.get(&entry.vip) == Some(&key.set)), "packets read this set");
        Ok(())
    }
    fn remove_source(&mut self, key: &SourceKey) -> Result<()> {
        assert!(self.sources.remove(key).is_some());
        self.check();
        Ok(())
    }
    fn put_source_tree(&mut self, set: u32, tree: &SourceTree) -> Result<()> {
        self.trees.insert(set, *tree);
        Ok(())
    }
    fn source_set(&self, vip: u32) -> Result<u32> {
        Ok(self.sets.get(&vip).copied().unwrap_or(0))
    }
    fn put_source_set(&mut self, vip: u32, set: u32) -> Result<()> {
        self.sets.insert(vip, set);
        self.check();
        Ok(())
    }
    fn for_each_flow(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        self.flows.values().for_each(|(key, record)| each(key, record));
        Ok(())
    }
    fn remove_flow(&mut self, key: &FlowKey) -> Result<()> {
        self.flows.remove(&bytes(key));
        Ok(())
    }
    fn inserts_refused(&self) -> Result<u64> {
        Ok(self.refused)
    }
    fn refused_at(&self) -> Result<u32> {
        Ok(self.refused_at)
    }
    fn reset_vip_traffic(&mut self, index: u32) -> Result<()> {
        self.resets.push(index);
        Ok(())
    }
}

pub(super) fn bytes(key: &FlowKey) -> Vec<u8> {
    format!("{key:?}").into_bytes()
}
