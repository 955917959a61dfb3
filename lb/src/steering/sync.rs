//! Desired state -> maps, in an order in which no index points at nothing: backends, then tables, then VIPs;
//! the reverse on the way out.
//!
//! What the maps hold is read once, when they are opened; from then on this is their only writer beside the
//! programs. Slots are always compared with the word that lies there, so that a restart with adopted pins
//! touches nothing that stays the same. A backend that leaves the config stays readable ("lingers") until
//! nothing moves any more: its old flows are still sent to it.

mod guard;
mod nat;
mod quic;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_abi::{
    ABI_VERSION,
    backend::{BackendEntry, DOWN, LOCAL, PRESENT},
    be::Be16,
    bounds::{TABLE_LEN, VIPS_MAX},
    meta::{FLAG_MOVING, Meta},
    slot::{Phase, Slot},
    subject::GROUPS,
    vip::{
        ECHO, FLOWS_NONE, FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR, FORWARD_NAT, FRAGMENTS, HASH_PORT,
        HASH_SOURCE, NAT_SOURCE, QUIC, SOURCES, VipEntry, VipKey,
    },
};

use super::{
    anchor::anchored,
    causes::{Cause, Causes},
    desired::{Checked, Desired, DesiredVip},
    error::{Error, Result},
    maps::SlotArray,
    nat::Nat,
    patience::Patience,
    quic::Quic,
    regions::{self, Plan, Region},
    sources::Sources,
    store::Store,
    terms::{mapped, ticks},
    transition, wide,
};
use crate::{
    balance::maglev::{DownSet, Table},
    config::{Forward, HashBy},
    model::BackendId,
};

/// Slots per region.
const LEN: usize = TABLE_LEN as usize;

/// What the maps hold, and what they were made from: [`super::Plane`] without a kernel.
pub struct Sync {
    pub(super) vips: BTreeMap<VipKey, VipEntry>,
    pub(super) backends: BTreeMap<BackendId, BackendEntry>,
    pub(super) meta: Meta,
    /// What the maps hold of the deny and allow lists, once known.
    guard: Option<Listed>,
    /// Pool of each region in use, as far as known.
    pub(super) regions: BTreeMap<Region, Arc<str>>,
    /// Base tables of the pools in use.
    pub tables: BTreeMap<Arc<str>, Table>,
    /// Name of the VIP that has a counter index.
    pub(super) vip_names: BTreeMap<u32, Arc<str>>,
    /// Backends of the desired state; the others that are present linger.
    pub(super) wanted: BTreeSet<BackendId>,
    pub(super) down: BTreeSet<BackendId>,
    /// The last change of `down` was not carried through.
    is_behind: bool,
    pub(super) patience: Patience,
    pub(super) quic: Quic,
    pub(super) sources: Sources,
    pub(super) causes: Causes,
    pub(super) nat: Nat,
}

/// Deny and allow list, and the key under which they stand in the maps.
#[derive(PartialEq, Eq)]
struct Listed {
    key: [u64; 2],
    deny: Arc<[IpNet]>,
    allow: Arc<[IpNet]>,
}

/// What moves slots.
enum Mover<'a> {
    /// A config.
    Config(&'a Applied),
    /// Health.
    Health,
}

/// What was before a config, and what of it matters for slots.
struct Applied {
    generation: u64,
    regions_before: BTreeMap<Region, Arc<str>>,
    /// Ids of the members of each pool's table.
    members_before: BTreeMap<Arc<str>, BTreeSet<BackendId>>,
    wanted: BTreeSet<BackendId>,
    /// Ids that now mean another backend.
    renamed: BTreeSet<BackendId>,
}

impl Sync {
    /// Reads what the maps hold; those that are new hold nothing.
    ///
    /// # Errors
    /// The map that refused.
    pub fn adopt(store: &impl Store) -> Result<Self> {
        let backends = store.backends()?;
        let with =
            |flag: u32| backends.iter().filter(move |(_, entry)| entry.flags & flag != 0).map(|(id, _)| *id);
        Ok(Self {
            vips: store.vips()?,
            meta: store.meta()?,
            // It cannot be read back; what the maps hold beyond the desired state is found there word by word.
            guard: None,
            regions: BTreeMap::new(),
            tables: BTreeMap::new(),
            vip_names: BTreeMap::new(),
            // Nothing is said to linger before the first desired state is known.
            wanted: with(PRESENT).collect(),
            down: with(DOWN).collect(),
            is_behind: false,
            patience: Patience::new(store.inserts_refused()?),
            quic: Quic::adopt(store)?,
            sources: Sources::adopt(store)?,
            causes: Causes::default(),
            nat: Nat::adopt(store)?,
            backends,
        })
    }

    /// Brings the maps to `desired`. After an error the maps are valid, between the old state and the new;
    /// the next call goes on from there.
    ///
    /// # Errors
    /// What is wrong with `desired`, found before anything is written, or the map that refused.
    pub fn sync(&mut self, store: &mut impl Store, desired: &Desired, now: u32) -> Result<()> {
        let checked = desired.check()?;
        self.check_hash_keys(&checked)?;
        self.check_quic(&desired.quic)?;
        let of_keys = checked.keys.iter().map(|(key, vip)| (*key, vip.pool.clone()));
        let of_anchors = checked.anchors.iter().map(|(key, (pool, _))| (*key, pool.clone()));
        let pool_of = of_keys.chain(of_anchors).collect();
        let plan = regions::plan(&self.regions_of_keys(), &self.regions, &pool_of)?;
        let indexes = self.vip_indexes(&checked)?;
        let tables = self.build_tables(&checked);

        let applied = Applied {
            generation: desired.generation.0,
            regions_before: self.regions.clone(),
            members_before: self.members_before(&checked),
            wanted: checked.backends.keys().copied().collect(),
            renamed: self.put_backends(store, &checked.backends, &desired.local)?,
        };
        self.tables = tables;
        self.regions.extend(plan.pools.clone());
        self.put_tables(store, &plan, &applied, now)?;
        for (&index, name) in &indexes {
            if self.vip_names.insert(index, name.clone()).is_none() && !self.index_is_live(index) {
                store.reset_vip_traffic(index)?;
            }
        }
        let index_of: BTreeMap<&str, u32> = indexes.iter().map(|(index, name)| (&**name, *index)).collect();
        self.put_nat(store, &checked, |vip| index_of.get(&*vip.name).copied().unwrap_or(0))?;
        let wanted = entries(desired, &checked, &plan, &indexes);
        if self.meta.flags & FLAG_MOVING != 0 && !self.vips.keys().eq(wanted.keys()) {
            self.forget_flows(store, &wanted)?;
        }
        self.put_sources(store, desired, &indexes, &wanted)?;
        self.put_quic(store, &desired.quic, &indexes)?;
        self.put_vips(store, &wanted, now)?;
        for (_, copy) in &plan.copies {
            self.move_region(store, *copy, &Mover::Config(&applied), now)?;
        }

        self.put_wide(store, &checked)?;
        self.remove_vips(store, &wanted, now)?;
        self.vip_names = indexes;
        self.regions = plan.pools;
        self.remove_sources(desired);
        self.remove_quic(store, &desired.quic)?;
        self.put_limits(store, desired)?;
        self.wanted = applied.wanted;
        self.put_guard(store, desired)?;
        let meta = Meta {
            abi: ABI_VERSION,
            generation: desired.generation.0,
            tag_keys: match self.meta.tag_keys {
                [[0, 0], [0, 0]] => desired.tag_keys,
                kept => kept,
            },
            outer_v4: desired.outer_v4.map_or([0; 4], |net| net.network().octets()),
            outer_v4_mask: desired.outer_v4.map_or([0; 4], |net| varying(net.hostmask().to_bits())),
            outer_v6: desired.outer_v6.map_or([0; 16], |net| net.network().octets()),
            outer_v6_mask: desired.outer_v6.map_or([0; 4], |net| varying(net.hostmask().to_bits() as u32)),
            ..self.meta
        };
        self.put_meta(store, meta)
    }

    /// Lays health over the tables: `down` is the whole set. Commutes: only the set counts.
    ///
    /// # Errors
    /// The map that refused; calling it again goes on from there.
    pub fn set_down(&mut self, store: &mut impl Store, down: &BTreeSet<BackendId>, now: u32) -> Result<()> {
        if *down == self.down && !self.is_behind {
            return Ok(());
        }
        self.down.clone_from(down);
        self.is_behind = true;
        // Who returned must be readable as up before a slot names it; who died is named by no slot when its
        // flag goes up, so that no packet is dropped for it.
        let known: Vec<BackendId> = self.backends.keys().copied().collect();
        known.iter().filter(|id| !down.contains(id)).try_for_each(|id| self.put_health(store, *id))?;
        for region in self.regions.keys().copied().collect::<Vec<_>>() {
            self.move_region(store, region, &Mover::Health, now)?;
        }
        known.iter().filter(|id| down.contains(id)).try_for_each(|id| self.put_health(store, *id))?;
        self.is_behind = false;
        Ok(())
    }

    /// Backends that are down, as last set, or as they were adopted.
    pub fn down(&self) -> &BTreeSet<BackendId> {
        &self.down
    }

    /// The region of every key that has a table.
    fn regions_of_keys(&self) -> BTreeMap<VipKey, Region> {
        let forwards = self.vips.iter().filter(|(_, entry)| entry.table_len > 0);
        forwards.map(|(key, entry)| (*key, Region::of_slot(entry.table))).collect()
    }

    fn check_hash_keys(&self, checked: &Checked<'_>) -> Result<()> {
        for (key, vip) in &checked.keys {
            let live = self.vips.get(key).filter(|entry| entry.table_len > 0);
            if live.is_some_and(|entry| entry.hash_key != vip.hash_key) {
                return Err(Error::HashKeyChanged { vip: vip.name.to_string() });
            }
            if live.is_some_and(|entry| entry.flags & GROUPS != groups(vip.hash)) {
                return Err(Error::HashChanged { vip: vip.name.to_string() });
            }
        }
        Ok(())
    }

    /// Counter index by VIP: the one its keys have, else a free one.
    fn vip_indexes(&self, checked: &Checked<'_>) -> Result<BTreeMap<u32, Arc<str>>> {
        let mut indexes: BTreeMap<u32, Arc<str>> = BTreeMap::new();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        for (key, vip) in &checked.keys {
            let Some(index) = self.vips.get(key).map(|entry| entry.vip) else { continue };
            let theirs = self.vip_names.get(&index).is_none_or(|name| *name == vip.name);
            if theirs && !indexes.contains_key(&index) && named.insert(&vip.name) {
                indexes.insert(index, vip.name.clone());
            }
        }
        let live: BTreeSet<u32> = self.vips.values().map(|entry| entry.vip).collect();
        let mut free = (0..VIPS_MAX).filter(|index| !live.contains(index));
        for vip in checked.keys.values() {
            if named.insert(&vip.name) {
                let max = VIPS_MAX as usize;
                let index = free.next().ok_or(Error::Bounds { what: "vips", is: max + 1, max })?;
                indexes.insert(index, vip.name.clone());
            }
        }
        Ok(indexes)
    }

    fn index_is_live(&self, index: u32) -> bool {
        self.vips.values().any(|entry| entry.vip == index)
    }

    /// Base tables, each from the one this process has, else from the lineage that came along.
    fn build_tables(&self, checked: &Checked<'_>) -> BTreeMap<Arc<str>, Table> {
        let build = |pool: &&super::desired::DesiredPool| {
            let previous = self.tables.get(&pool.name).or(pool.lineage.as_deref());
            Table::build(TABLE_LEN, pool.table_key, &pool.members(), previous)
        };
        checked.pools.values().map(|pool| (pool.name.clone(), build(pool))).collect()
    }

    /// Writes new and changed entries; gives back the ids that now mean another backend.
    fn put_backends(
        &mut self,
        store: &mut impl Store,
        wanted: &BTreeMap<BackendId, (IpAddr, Be16)>,
        local: &BTreeSet<IpAddr>,
    ) -> Result<BTreeSet<BackendId>> {
        let mut renamed = BTreeSet::new();
        for (&id, &(address, port)) in wanted {
            let local = if local.contains(&address) { LOCAL } else { 0 };
            let address = mapped(address);
            let down = if self.down.contains(&id) { DOWN } else { 0 };
            let old = self.backends.get(&id).copied();
            let same = old.is_none_or(|entry| entry.address == address && entry.port == port);
            if !same {
                renamed.insert(id);
            }
            let generation = old.map_or(0, |entry| entry.generation.wrapping_add(u32::from(!same)));
            let flags = PRESENT | down | local;
            self.put_backend(store, id, BackendEntry { address, flags, generation, port, pad: 0 })?;
        }
        Ok(renamed)
    }

    fn put_health(&mut self, store: &mut impl Store, id: BackendId) -> Result<()> {
        let Some(mut entry) = self.backends.get(&id).copied().filter(|entry| entry.flags & PRESENT != 0)
        else {
            return Ok(());
        };
        entry.flags = if self.down.contains(&id) { entry.flags | DOWN } else { entry.flags & !DOWN };
        self.put_backend(store, id, entry)
    }

    pub(super) fn put_backend(
        &mut self,
        store: &mut impl Store,
        id: BackendId,
        entry: BackendEntry,
    ) -> Result<()> {
        if self.backends.get(&id) != Some(&entry) {
            store.put_backend(id, &entry)?;
            self.backends.insert(id, entry);
        }
        Ok(())
    }

    /// Slots of every region that a VIP will point at; copies are moved after their VIP has flipped.
    fn put_tables(&mut self, store: &mut impl Store, plan: &Plan, applied: &Applied, now: u32) -> Result<()> {
        for &region in &plan.fresh {
            let slots = slots_of(store, region);
            self.owners(region).into_iter().enumerate().for_each(|(at, owner)| {
                slots.store(at, Slot::settled(owner.0, 0, now));
            });
        }
        for &(from, to) in &plan.copies {
            let (from, to) = (slots_of(store, from), slots_of(store, to));
            from.iter().enumerate().for_each(|(at, slot)| to.store(at, slot));
        }
        plan.copies.iter().for_each(|(from, to)| self.causes.copy(*from, *to));
        let is_copy = |region| plan.copies.iter().any(|(_, to)| *to == region);
        for &region in plan.pools.keys().filter(|region| !plan.fresh.contains(region) && !is_copy(**region)) {
            self.move_region(store, region, &Mover::Config(applied), now)?;
        }
        Ok(())
    }

    /// Members of the tables that those of `checked` are built from.
    fn members_before(&self, checked: &Checked<'_>) -> BTreeMap<Arc<str>, BTreeSet<BackendId>> {
        let members = |pool: &&super::desired::DesiredPool| {
            let table = self.tables.get(&pool.name).or(pool.lineage.as_deref())?;
            Some((pool.name.clone(), table.members().iter().map(|member| member.id).collect()))
        };
        checked.pools.values().filter_map(members).collect()
    }

    /// Why a slot of `old` becomes one of `new`.
    fn cause(&self, mover: &Mover<'_>, region: Region, old: BackendId, new: BackendId) -> Cause {
        let address = |id: BackendId| {
            let octets = self.backends.get(&id).map_or([0; 16], |entry| entry.address);
            Ipv6Addr::from(octets).to_canonical()
        };
        let applied = match mover {
            Mover::Health if self.down.contains(&old) => return Cause::Down(address(old)),
            Mover::Health => return Cause::Up(address(new)),
            Mover::Config(applied) => applied,
        };
        let (generation, pool) = (applied.generation, self.regions.get(&region));
        let is_member = |id| pool.and_then(|pool| self.tables.get(pool)).is_some_and(|table| table.has(id));
        let was_member =
            |id| pool.and_then(|pool| applied.members_before.get(pool)).is_some_and(|ids| ids.contains(&id));
        match applied.regions_before.get(&region) {
            before if before != pool => Cause::Repooled(generation),
            _ if is_member(old) && was_member(new) => Cause::Reweighted(generation),
            _ if is_member(old) => Cause::Added(address(new), generation),
            _ if applied.wanted.contains(&old) => Cause::Drained(address(old), generation),
            _ => Cause::Removed(address(old), generation),
        }
    }

    /// Owners of a region's slots under the present health.
    fn owners(&self, region: Region) -> Vec<BackendId> {
        let down: DownSet = self.down.iter().copied().collect();
        let table = self.regions.get(&region).and_then(|pool| self.tables.get(pool));
        table.map(|table| table.overlay(&down)).unwrap_or_default()
    }

    /// Moves a live region's slots to their owners, storing only words that change.
    fn move_region(
        &mut self,
        store: &mut impl Store,
        region: Region,
        mover: &Mover<'_>,
        now: u32,
    ) -> Result<()> {
        let serves = |id: BackendId| match mover {
            Mover::Config(applied) => self.serves(id) && !applied.renamed.contains(&id),
            Mover::Health => self.serves(id),
        };
        let slots = slots_of(store, region);
        let changes: Vec<(usize, Slot, Slot)> = self
            .owners(region)
            .into_iter()
            .zip(slots.iter())
            .enumerate()
            .map(|(at, (owner, slot))| (at, slot, transition::change(slot, owner, serves, now)))
            .filter(|(_, old, new)| old != new)
            .collect();
        if changes.iter().any(|(.., slot)| slot.phase() != Phase::Settled) {
            self.put_meta(store, Meta { flags: self.meta.flags | FLAG_MOVING, ..self.meta })?;
        }
        let slots = slots_of(store, region);
        changes.iter().for_each(|(at, _, slot)| slots.store(*at, *slot));
        for (at, old, new) in changes {
            if old.owner() != new.owner() && new.phase() != Phase::Settled {
                let cause = self.cause(mover, region, BackendId(old.owner()), BackendId(new.owner()));
                self.causes.note(region, at, cause, now);
            }
        }
        Ok(())
    }

    /// Whether a backend's old flows can still go there.
    pub(super) fn serves(&self, id: BackendId) -> bool {
        self.backends.get(&id).is_some_and(|entry| entry.flags & PRESENT != 0) && !self.down.contains(&id)
    }

    fn put_vips(
        &mut self,
        store: &mut impl Store,
        wanted: &BTreeMap<VipKey, VipEntry>,
        now: u32,
    ) -> Result<()> {
        if wide::is_wide(self.vips.keys()) && wanted.keys().any(|key| !self.vips.contains_key(key)) {
            // Flows go from one VIP to another; a program may record one for its old VIP yet.
            self.patience.vips_change(now);
        }
        wanted.iter().try_for_each(|(key, entry)| self.put_vip(store, *key, *entry))
    }

    pub(super) fn put_vip(&mut self, store: &mut impl Store, key: VipKey, entry: VipEntry) -> Result<()> {
        if self.vips.get(&key) != Some(&entry) {
            store.put_vip(&key, &entry)?;
            self.vips.insert(key, entry);
        }
        Ok(())
    }

    fn remove_vips(
        &mut self,
        store: &mut impl Store,
        wanted: &BTreeMap<VipKey, VipEntry>,
        now: u32,
    ) -> Result<()> {
        for key in self.vips.keys().copied().filter(|key| !wanted.contains_key(key)).collect::<Vec<_>>() {
            store.remove_vip(&key)?;
            self.vips.remove(&key);
            self.patience.vips_change(now);
        }
        Ok(())
    }

    pub(super) fn put_meta(&mut self, store: &mut impl Store, meta: Meta) -> Result<()> {
        if meta != self.meta {
            store.put_meta(&meta)?;
            self.meta = meta;
        }
        Ok(())
    }
}

/// What `VIPS` should hold.
fn entries(
    desired: &Desired,
    checked: &Checked<'_>,
    plan: &Plan,
    indexes: &BTreeMap<u32, Arc<str>>,
) -> BTreeMap<VipKey, VipEntry> {
    let index_of: BTreeMap<&str, u32> = indexes.iter().map(|(index, name)| (&**name, *index)).collect();
    let index = |vip: &DesiredVip| index_of.get(&*vip.name).copied().unwrap_or(0);
    let mut entries = BTreeMap::new();
    for (key, vip) in &checked.keys {
        let Some(region) = plan.of_key.get(key) else { continue };
        let forward = match vip.forward {
            Forward::Ipip => FORWARD_IPIP,
            Forward::Gue => FORWARD_GUE,
            Forward::L2dsr => FORWARD_L2DSR,
            Forward::Nat => FORWARD_NAT,
        };
        let entry = VipEntry {
            vip: index(vip),
            table: region.first_slot(),
            table_len: TABLE_LEN,
            flags: forward
                | groups(vip.hash)
                | if desired.sources.contains_key(&vip.name) { SOURCES } else { 0 }
                | if desired.quic.reads_ids(key, &vip.name) { QUIC } else { 0 }
                | if vip.flows_none { FLOWS_NONE } else { 0 },
            hash_key: vip.hash_key,
            flow_idle_ticks: ticks(vip.flow_idle).saturating_add(1),
            last_port: vip.last_port(key),
            pad: 0,
        };
        entries.insert(*key, entry);
    }
    let source = |vip: &DesiredVip| VipEntry { vip: index(vip), flags: NAT_SOURCE, ..VipEntry::default() };
    entries.extend(checked.sources.iter().map(|(key, vip)| (*key, source(vip))));
    entries.extend(checked.echo.iter().map(|(key, vip)| {
        let flags = if key.protocol == FRAGMENTS { 0 } else { ECHO };
        (*key, VipEntry { vip: index(vip), flags, ..VipEntry::default() })
    }));
    let anchors = checked.anchors.iter().filter_map(|(key, (_, memory))| {
        let region = plan.of_key.get(key)?;
        Some((*key, anchored(*region, *memory)))
    });
    entries.extend(anchors);
    entries
}

/// What a VIP's packets are told apart by, as its entry says it.
fn groups(hash: HashBy) -> u32 {
    match hash {
        HashBy::Flow => 0,
        HashBy::Source => HASH_SOURCE,
        HashBy::DestinationPort => HASH_PORT,
    }
}

/// The bits of an outer source that vary: no more than 16, which is spread enough for any NIC.
fn varying(host_mask: u32) -> [u8; 4] {
    (host_mask & 0xffff).to_be_bytes()
}

/// The slots of one region.
pub(super) fn slots_of(store: &impl Store, region: Region) -> SlotArray<'_> {
    store.slots().range(region.first_slot() as usize, LEN)
}

#[cfg(test)]
mod tests;
