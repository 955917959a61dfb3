//! A world in the maps of the object, and out of them.

use anyhow::{Result, ensure};
use aya::maps::{PerCpuArray, PerCpuValues};
use lb_abi::{
    backend::BackendEntry,
    counter::Budget,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{BUCKET_LEN, FlowKey, FlowRecord},
    guard::GuardBucket,
    hop::HopEntry,
    lengths::Lengths,
    limit::Limits,
    link::LinkEntry,
    meta::Meta,
    names,
    nat::{NatEntry, NatPool},
    quic::QuicEntry,
    slot::Slot,
    source::{SourceKey, SourceTree},
    spread::Spread,
    steer::{SteerEntry, SteerKey},
    tag::FlowTag,
    vip::{VipEntry, VipKey},
};

use super::Bench;
use crate::xdp::{
    directory::Directory,
    guard::Guard,
    namespace,
    world::{NOBODY, TAG_KEYS, VIP, World},
};

impl Bench {
    /// Writes a world into empty maps.
    pub fn write(&mut self, world: &World) -> Result<()> {
        self.array::<Meta>(names::MAP_META)?.set(0, world.meta, 0)?;
        self.array::<u32>(names::MAP_REFUSED_AT)?.set(0, world.refused_at, 0)?;
        let mut slots = self.array::<u64>(names::MAP_SLOTS)?;
        for (index, Slot(word)) in world.slots.iter().enumerate() {
            slots.set(index as u32, word, 0)?;
        }
        let mut backends = self.array::<BackendEntry>(names::MAP_BACKENDS)?;
        for (id, entry) in &world.backends {
            backends.set(u32::from(*id), entry, 0)?;
        }
        let mut vips = self.hash::<VipKey, VipEntry>(names::MAP_VIPS)?;
        for (key, entry) in &world.vips {
            vips.insert(key, entry, 0)?;
        }
        self.write_directory(&Directory::of(&world.vips), |bucket| bucket.0)?;
        let mut quic = self.array::<QuicEntry>(names::MAP_QUIC)?;
        for (index, entry) in &world.quic {
            quic.set(*index, entry, 0)?;
        }
        let mut servers = self.array::<u64>(names::MAP_QUIC_SERVERS)?;
        for (id, server) in &world.servers {
            servers.set(u32::from(*id), server.to_word(), 0)?;
        }
        self.array::<Limits>(names::MAP_LIMITS)?.set(0, world.limits, 0)?;
        let mut allowances = self.allowances()?;
        for (source, allowance) in &world.allowances {
            allowances.insert(source, allowance.to_word(), 0)?;
        }
        let mut sources = self.hash::<SourceKey, u32>(names::MAP_SOURCES)?;
        for (key, table) in &world.sources {
            sources.insert(key, table, 0)?;
        }
        let mut trees = self.array::<SourceTree>(names::MAP_SOURCE_TREES)?;
        for (set, tree) in &world.trees {
            trees.set(*set, tree, 0)?;
        }
        let mut sets = self.array::<u32>(names::MAP_SOURCE_SETS)?;
        for (vip, set) in &world.sets {
            sets.set(*vip, set, 0)?;
        }
        self.write_flows(world)?;
        for (name, entries) in
            [(names::MAP_NAT_OPENING, &world.nat.opening), (names::MAP_NAT_FLOWS, &world.nat.flows)]
        {
            let mut map = self.hash::<FlowKey, NatEntry>(name)?;
            for (key, entry) in entries {
                map.insert(key, entry, 0)?;
            }
        }
        self.array::<NatPool>(names::MAP_NAT_POOLS)?.set(VIP, world.nat.pool, 0)?;
        let mut sources = self.array::<[u8; 16]>(names::MAP_NAT_SOURCES)?;
        for index in 0..16 {
            sources.set(index, world.nat.sources.get(index as usize).copied().unwrap_or_default(), 0)?;
        }
        let mut position = PerCpuArray::<_, u32>::try_from(self.map(names::MAP_NAT_POSITION)?)?;
        let cores = position.get(&0, 0)?.len();
        position.set(0, PerCpuValues::try_from(vec![world.nat.position; cores])?, 0)?;
        let mut links = self.hash::<u32, LinkEntry>(names::MAP_LINKS)?;
        for (index, entry) in &world.links {
            links.insert(index, entry, 0)?;
        }
        let guard = Guard::of(&world.meta, &world.deny, &world.allow);
        self.write_guard(&guard, |word| word, |bucket| bucket)?;
        let mut lengths = self.array::<Lengths>(names::MAP_LENGTHS)?;
        for (index, value) in guard.lengths.iter().chain(&world.lengths()) {
            lengths.set(*index, value, 0)?;
        }
        let mut listeners = self.hash::<SteerKey, SteerEntry>(names::MAP_STEER_LISTENERS)?;
        for (key, entry) in &world.listeners {
            listeners.insert(key, entry, 0)?;
        }
        self.array::<Spread>(names::MAP_SPREAD)?.set(0, world.spread_entry(), 0)?;
        let mut cores = self.array::<u32>(names::MAP_SPREAD_CORES)?;
        for (worker, core) in (0..).zip(&world.cores) {
            cores.set(worker, core, 0)?;
        }
        let mut syns = PerCpuArray::<_, Budget>::try_from(self.map(names::MAP_SYNS)?)?;
        let all = vec![Budget { tick: namespace::now_ticks(), spent: world.syns }; syns.get(&0, 0)?.len()];
        syns.set(0, PerCpuValues::try_from(all)?, 0)?;
        Ok(())
    }

    fn write_flows(&mut self, world: &World) -> Result<()> {
        self.has_flows |= !world.flows.is_empty();
        for (key, record) in &world.flows {
            let is_new = self.flows().insert(key, FlowTag::of(&TAG_KEYS, key), *record);
            ensure!(is_new, "{key:?} has a record already");
        }
        let Some(key) = &world.crowded else { return Ok(()) };
        let full = FlowTag::of(&TAG_KEYS, key);
        // Others that may lie in the same places.
        for tag in (1..=2 * BUCKET_LEN as u64).map(|n| FlowTag(full.0 ^ n << 48)) {
            ensure!(tag.buckets() == full.buckets(), "{tag:?} lies elsewhere");
            ensure!(
                self.flows().insert(&FlowKey::default(), tag, FlowRecord::default()),
                "no room for {tag:?}"
            );
            self.crowd.push(tag);
        }
        Ok(())
    }

    /// Empties what a world is written into, and what the programs kept of the way to its backends; other arrays are
    /// overwritten anyway.
    pub fn clear(&mut self) -> Result<()> {
        let mut hops = PerCpuArray::<_, HopEntry>::try_from(self.map(names::MAP_HOPS)?)?;
        for id in 0..=u32::from(NOBODY) {
            let none = vec![HopEntry::default(); hops.get(&id, 0)?.len()];
            hops.set(id, PerCpuValues::try_from(none)?, 0)?;
        }
        let mut vips = self.hash::<VipKey, VipEntry>(names::MAP_VIPS)?;
        for key in vips.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            vips.remove(&key)?;
        }
        let directory = std::mem::take(&mut self.directory);
        self.write_directory(&directory, |_| 0)?;
        let mut tags = std::mem::take(&mut self.crowd);
        if self.may_have_records()? {
            self.flows().for_each(&mut |key, _| tags.push(FlowTag::of(&TAG_KEYS, key)));
            (self.has_flows, self.inserts) = (false, self.inserts()?);
        }
        tags.into_iter().for_each(|tag| self.flows().remove(tag));
        for name in [names::MAP_NAT_OPENING, names::MAP_NAT_FLOWS] {
            let mut map = self.hash::<FlowKey, NatEntry>(name)?;
            for key in map.keys().collect::<std::result::Result<Vec<_>, _>>()? {
                map.remove(&key)?;
            }
        }
        let mut allowances = self.allowances()?;
        for source in allowances.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            allowances.remove(&source)?;
        }
        let mut sources = self.hash::<SourceKey, u32>(names::MAP_SOURCES)?;
        for key in sources.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            sources.remove(&key)?;
        }
        let mut links = self.hash::<u32, LinkEntry>(names::MAP_LINKS)?;
        for key in links.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            links.remove(&key)?;
        }
        let mut listeners = self.hash::<SteerKey, SteerEntry>(names::MAP_STEER_LISTENERS)?;
        for key in listeners.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            listeners.remove(&key)?;
        }
        let guard = std::mem::take(&mut self.guard);
        self.write_guard(&guard, |_| 0, |_| GuardBucket::default())
    }

    /// Writes all but the lengths, each value as the functions say.
    fn write_guard(
        &mut self,
        guard: &Guard,
        gate: fn(u64) -> u64,
        bucket: fn(GuardBucket) -> GuardBucket,
    ) -> Result<()> {
        let mut gates = self.array::<u64>(names::MAP_GATES)?;
        guard.gates.iter().try_for_each(|(at, word)| gates.set(*at, gate(*word), 0))?;
        let mut buckets = self.array::<GuardBucket>(names::MAP_GUARD)?;
        guard.buckets.iter().try_for_each(|(at, words)| buckets.set(*at, bucket(*words), 0))?;
        self.guard = guard.clone();
        Ok(())
    }

    /// Writes the entries, and their buckets as `word` says.
    fn write_directory(&mut self, directory: &Directory, word: fn(&Bucket) -> u64) -> Result<()> {
        let mut entries = self.array::<VipSlot>(names::MAP_VIP_ENTRIES)?;
        for (index, slot) in directory.slots.iter().enumerate() {
            entries.set(index as u32, slot, 0)?;
        }
        let mut ranges = self.array::<PortRanges>(names::MAP_VIP_RANGES)?;
        for (index, value) in directory.ranges.iter().enumerate() {
            ranges.set(index as u32, value, 0)?;
        }
        let mut buckets = self.array::<u64>(names::MAP_VIP_BUCKETS)?;
        for (at, bucket) in &directory.buckets {
            buckets.set(*at, word(bucket), 0)?;
        }
        self.directory = directory.clone();
        Ok(())
    }
}
