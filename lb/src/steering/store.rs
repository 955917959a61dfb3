//! The maps as [`super::sync`] sees them, so that its order of writes can be tested without a kernel.

use std::collections::BTreeMap;

use lb_abi::{
    backend::BackendEntry,
    counter::{FlowEvent, Traffic},
    flow::{FlowKey, FlowRecord},
    lengths::Lengths,
    limit::Limits,
    meta::Meta,
    names,
    nat::{NatEntry, NatPool},
    quic::{QuicEntry, Server},
    source::{SourceKey, SourceTree},
    tag::FlowTag,
    vip::{VipEntry, VipKey},
};

use super::{
    error::{Error, Result},
    maps::{Lists, Maps, NatPlace, SlotArray},
};
use crate::model::BackendId;

/// What [`super::Sync`] reads and writes. Every write is visible to packets when the call returns.
pub trait Store: NatStore {
    /// Every entry of `VIPS`.
    fn vips(&self) -> Result<BTreeMap<VipKey, VipEntry>>;
    /// Writes one, over what is there.
    fn put_vip(&mut self, key: &VipKey, entry: &VipEntry) -> Result<()>;
    /// Removes one that is there.
    fn remove_vip(&mut self, key: &VipKey) -> Result<()>;
    /// Entries that were ever written.
    fn backends(&self) -> Result<BTreeMap<BackendId, BackendEntry>>;
    /// Writes one.
    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry) -> Result<()>;
    /// All slots.
    fn slots(&self) -> SlotArray<'_>;
    /// What holds for the whole packet path.
    fn meta(&self) -> Result<Meta>;
    /// Overwrites that.
    fn put_meta(&mut self, meta: &Meta) -> Result<()>;
    /// Adds what the lists have and the maps have not.
    fn admit_sources(&mut self, lists: &Lists) -> Result<()>;
    /// Takes away what the lists have not.
    fn expel_sources(&mut self, lists: &Lists);
    /// Writes the prefix lengths of a list into the copy that packets do not read, unless the one they do read,
    /// `copy`, has them. Gives back the copy that has.
    fn put_lengths(&mut self, list: usize, copy: u8, wanted: &Lengths) -> Result<u8>;
    /// Server ids that name a backend.
    fn quic_servers(&self) -> Result<BTreeMap<u16, Server>>;
    /// Says whom a server id names; nobody, where it is zero.
    fn put_quic_server(&mut self, id: u16, server: Server) -> Result<()>;
    /// Says what ids of the VIP of an index are checked by.
    fn put_quic_vip(&mut self, index: u32, entry: &QuicEntry) -> Result<()>;
    /// Says how fast one source may open flows.
    fn put_limits(&mut self, limits: &Limits) -> Result<()>;
    /// Prefixes and markers of every set.
    fn sources(&self) -> Result<Vec<(SourceKey, u32)>>;
    /// Adds a prefix or marker, or changes it.
    fn put_source(&mut self, key: &SourceKey, table: u32) -> Result<()>;
    /// Takes one away that is there.
    fn remove_source(&mut self, key: &SourceKey) -> Result<()>;
    /// Says in which order the lengths of a set are tried.
    fn put_source_tree(&mut self, set: u32, tree: &SourceTree) -> Result<()>;
    /// The set that packets to the VIP of an index read.
    fn source_set(&self, vip: u32) -> Result<u32>;
    /// Has packets to the VIP of an index read a set.
    fn put_source_set(&mut self, vip: u32, set: u32) -> Result<()>;
    /// Every record there is; ones written or removed meanwhile may be missed.
    fn for_each_flow(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) -> Result<()>;
    /// One that is gone already is no error.
    fn remove_flow(&mut self, key: &FlowKey) -> Result<()>;
    /// Inserts refused for want of room since the maps were made.
    fn inserts_refused(&self) -> Result<u64>;
    /// Tick at which a flow last could not be recorded, for whatever reason; 0: never.
    fn refused_at(&self) -> Result<u32>;
    /// Starts the counters of a VIP index anew, when it is given to another VIP.
    fn reset_vip_traffic(&mut self, index: u32) -> Result<()>;
}

impl Store for Maps {
    fn vips(&self) -> Result<BTreeMap<VipKey, VipEntry>> {
        self.vips.iter().collect::<std::result::Result<_, _>>().map_err(Error::map(names::MAP_VIPS))
    }

    fn put_vip(&mut self, key: &VipKey, entry: &VipEntry) -> Result<()> {
        // First where packets look last.
        self.vips.insert(key, entry, 0).map_err(Error::map(names::MAP_VIPS))?;
        self.directory.put(key, entry)
    }

    fn remove_vip(&mut self, key: &VipKey) -> Result<()> {
        self.directory.remove(key)?;
        self.vips.remove(key).map_err(Error::map(names::MAP_VIPS))
    }

    fn backends(&self) -> Result<BTreeMap<BackendId, BackendEntry>> {
        let mut entries = BTreeMap::new();
        for (index, entry) in (0u16..).zip(self.backends.iter()) {
            let entry = entry.map_err(Error::map(names::MAP_BACKENDS))?;
            if entry != BackendEntry::default() {
                entries.insert(BackendId(index), entry);
            }
        }
        Ok(entries)
    }

    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry) -> Result<()> {
        self.backends.set(u32::from(id.0), entry, 0).map_err(Error::map(names::MAP_BACKENDS))
    }

    fn slots(&self) -> SlotArray<'_> {
        self.slots.array()
    }

    fn meta(&self) -> Result<Meta> {
        self.meta.get(&0, 0).map_err(Error::map(names::MAP_META))
    }

    fn put_meta(&mut self, meta: &Meta) -> Result<()> {
        self.meta.set(0, meta, 0).map_err(Error::map(names::MAP_META))
    }

    fn admit_sources(&mut self, lists: &Lists) -> Result<()> {
        self.guard.admit(lists)
    }

    fn expel_sources(&mut self, lists: &Lists) {
        self.guard.expel(lists);
    }

    fn put_lengths(&mut self, list: usize, copy: u8, wanted: &Lengths) -> Result<u8> {
        self.lengths.put(list, copy, wanted)
    }

    fn quic_servers(&self) -> Result<BTreeMap<u16, Server>> {
        let mut servers = BTreeMap::new();
        for (id, word) in (0u16..).zip(self.quic_servers.iter()) {
            let server = Server::from_word(word.map_err(Error::map(names::MAP_QUIC_SERVERS))?);
            if server != Server::default() {
                servers.insert(id, server);
            }
        }
        Ok(servers)
    }

    fn put_quic_server(&mut self, id: u16, server: Server) -> Result<()> {
        let failed = Error::map(names::MAP_QUIC_SERVERS);
        self.quic_servers.set(u32::from(id), server.to_word(), 0).map_err(failed)
    }

    fn put_quic_vip(&mut self, index: u32, entry: &QuicEntry) -> Result<()> {
        self.quic.set(index, entry, 0).map_err(Error::map(names::MAP_QUIC))
    }

    fn put_limits(&mut self, limits: &Limits) -> Result<()> {
        self.limits.set(0, limits, 0).map_err(Error::map(names::MAP_LIMITS))
    }

    fn sources(&self) -> Result<Vec<(SourceKey, u32)>> {
        self.sources.iter().collect::<std::result::Result<_, _>>().map_err(Error::map(names::MAP_SOURCES))
    }

    fn put_source(&mut self, key: &SourceKey, table: u32) -> Result<()> {
        self.sources.insert(key, table, 0).map_err(Error::map(names::MAP_SOURCES))
    }

    fn remove_source(&mut self, key: &SourceKey) -> Result<()> {
        self.sources.remove(key).map_err(Error::map(names::MAP_SOURCES))
    }

    fn put_source_tree(&mut self, set: u32, tree: &SourceTree) -> Result<()> {
        self.source_trees.set(set, tree, 0).map_err(Error::map(names::MAP_SOURCE_TREES))
    }

    fn source_set(&self, vip: u32) -> Result<u32> {
        self.source_sets.get(&vip, 0).map_err(Error::map(names::MAP_SOURCE_SETS))
    }

    fn put_source_set(&mut self, vip: u32, set: u32) -> Result<()> {
        self.source_sets.set(vip, set, 0).map_err(Error::map(names::MAP_SOURCE_SETS))
    }

    fn for_each_flow(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        self.flows.for_each(each);
        Ok(())
    }

    fn remove_flow(&mut self, key: &FlowKey) -> Result<()> {
        self.flows.remove(FlowTag::of(&self.meta()?.tag_keys, key));
        Ok(())
    }

    fn inserts_refused(&self) -> Result<u64> {
        let per_cpu = self
            .flow_events
            .get(&(FlowEvent::InsertRefused as u32), 0)
            .map_err(Error::map(names::MAP_FLOW_EVENTS))?;
        Ok(per_cpu.iter().sum())
    }

    fn refused_at(&self) -> Result<u32> {
        self.refused_at.get(&0, 0).map_err(Error::map(names::MAP_REFUSED_AT))
    }

    fn reset_vip_traffic(&mut self, index: u32) -> Result<()> {
        let failed = Error::map(names::MAP_VIP_TRAFFIC);
        let cpus = match self.vip_traffic.get(&index, 0) {
            Ok(values) => values.len(),
            Err(error) => return Err(failed(error)),
        };
        aya::maps::PerCpuValues::try_from(vec![Traffic::default(); cpus])
            .map_err(aya::maps::MapError::from)
            .and_then(|zero| self.vip_traffic.set(index, zero, 0))
            .map_err(failed)
    }
}

/// The maps of translated flows, as control sees them.
pub trait NatStore {
    /// Pools that are not empty, by VIP index.
    fn nat_pools(&self) -> Result<BTreeMap<u32, NatPool>>;
    /// Writes one.
    fn put_nat_pool(&mut self, vip: u32, pool: &NatPool) -> Result<()>;
    /// All of them; who is not dealt out is zero or old.
    fn nat_sources(&self) -> Result<Vec<[u8; 16]>>;
    /// Writes one.
    fn put_nat_source(&mut self, index: u32, source: &[u8; 16]) -> Result<()>;
    /// Cores that the machine may ever have.
    fn nat_cores(&self) -> Result<u32>;
    /// Established entries from a place on; whether these were the last.
    fn nat_read(&self, place: &mut NatPlace, count: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)>;
    /// The same of half-open ones.
    fn nat_read_opening(
        &self,
        place: &mut NatPlace,
        count: usize,
    ) -> Result<(Vec<(FlowKey, NatEntry)>, bool)>;
    /// An established entry.
    fn nat_get(&self, key: &FlowKey) -> Result<Option<NatEntry>>;
    /// One that is gone already is no error.
    fn nat_remove(&mut self, key: &FlowKey) -> Result<()>;
}

impl NatStore for Maps {
    fn nat_pools(&self) -> Result<BTreeMap<u32, NatPool>> {
        let mut pools = BTreeMap::new();
        for (vip, pool) in (0..).zip(self.nat.pools.iter()) {
            let pool = pool.map_err(Error::map(names::MAP_NAT_POOLS))?;
            if pool.count > 0 {
                pools.insert(vip, pool);
            }
        }
        Ok(pools)
    }

    fn put_nat_pool(&mut self, vip: u32, pool: &NatPool) -> Result<()> {
        self.nat.pools.set(vip, pool, 0).map_err(Error::map(names::MAP_NAT_POOLS))
    }

    fn nat_sources(&self) -> Result<Vec<[u8; 16]>> {
        self.nat
            .sources
            .iter()
            .collect::<std::result::Result<_, _>>()
            .map_err(Error::map(names::MAP_NAT_SOURCES))
    }

    fn put_nat_source(&mut self, index: u32, source: &[u8; 16]) -> Result<()> {
        self.nat.sources.set(index, source, 0).map_err(Error::map(names::MAP_NAT_SOURCES))
    }

    fn nat_cores(&self) -> Result<u32> {
        let per_core = self.nat.events.get(&0, 0).map_err(Error::map(names::MAP_NAT_EVENTS))?;
        Ok(per_core.len() as u32)
    }

    fn nat_read(&self, place: &mut NatPlace, count: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        self.nat.flows.read(place, count)
    }

    fn nat_read_opening(
        &self,
        place: &mut NatPlace,
        count: usize,
    ) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        self.nat.opening.read(place, count)
    }

    fn nat_get(&self, key: &FlowKey) -> Result<Option<NatEntry>> {
        self.nat.flows.get(key)
    }

    fn nat_remove(&mut self, key: &FlowKey) -> Result<()> {
        self.nat.flows.remove(key)
    }
}
