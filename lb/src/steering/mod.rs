//! The door to the kernel's packet programs: the only place that knows aya.
//!
//! [`Plane`] is its face. It loads the embedded object, pins maps and links under one bpffs directory (or
//! adopts what an earlier process pinned there), brings the maps to a [`Desired`] state, lays health over the
//! tables and lets time pass for slots. It never reads a clock: callers give [`ticks`]. It knows nothing of
//! workers but their ids and the sockets that control hands over.
//!
//! While a plane exists it is the only writer of the maps beside the programs. Dropping it changes nothing
//! in the kernel as long as there are pins: packets go on by the last state.

mod activity;
mod attach;
mod capture;
mod decap;
mod desired;
mod detach;
mod error;
mod facts;
mod flows;
mod frame;
mod interfaces;
mod loader;
pub mod maps;
mod netlink;
mod object;
mod patience;
mod pins;
mod regions;
pub mod reuseport;
mod settle;
mod stats;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod transition;
mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use aya::{Ebpf, programs::links::FdLink};
use lb_abi::{backend::PRESENT, names, steer::SteerCounters};

pub use activity::ActiveFlows;
pub use attach::Attached;
pub use capture::{Capture, Captured};
pub use decap::Decap;
pub use desired::{Desired, DesiredBackend, DesiredPool, DesiredVip, derive_key, duration, ticks};
pub use detach::{Detached, detach};
pub use error::{Error, Result};
pub use facts::gather as gather_steer_facts;
pub use flows::Flow;
pub use interfaces::InterfaceDrops;
pub use object::embedded as embedded_object;
pub use reuseport::{Choice, Facts, Group, SteerMode, choose as choose_steer};
pub use settle::Phases;
pub use stats::Stats;
pub use why::WhyAnswer;

use self::{
    activity::Activity, capture::Captures, interfaces::Interfaces, maps::Maps, reuseport::Groups, sync::Sync,
};
use crate::{
    balance::maglev::Table,
    config::XdpMode,
    model::{BackendId, Generation, WorkerId},
};

/// Where the plane lives.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Directory of the pins, such as `/sys/fs/bpf/lb`; made when its parent is a bpffs. `None`: nothing is
    /// pinned, and everything goes when the plane is dropped (a quickstart, a test).
    pub pins: Option<PathBuf>,
}

/// The packet path, loaded.
pub struct Plane {
    options: Options,
    object: Ebpf,
    maps: Maps,
    sync: Sync,
    groups: Groups,
    attached: BTreeMap<String, Attached>,
    interfaces: Interfaces,
    captures: Captures,
    activity: Activity,
    /// Links that no pin holds.
    _links: Vec<FdLink>,
    /// Of the pin directory: one process writes the maps.
    _lock: Option<OwnedFd>,
}

/// What the plane does now.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// Generation that the maps hold; 0: none yet.
    pub generation: Generation,
    /// Interfaces by name, those of this process.
    pub interfaces: Vec<Attached>,
    /// Pools with a table, by name.
    pub pools: BTreeMap<String, PoolStatus>,
    /// Backends that left the config and whose flows still drain.
    pub lingering: Vec<BackendId>,
}

/// One pool's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Of the base table, health not laid over; equal on nodes with the same config and lineage.
    pub digest: u64,
    /// Its slots by phase; counted twice while a VIP brings its own copy.
    pub slots: Phases,
}

impl Plane {
    /// Loads the object and creates or adopts the maps. Programs are loaded when first needed.
    ///
    /// # Errors
    /// No object in this build, another version's object or pins, no bpffs, missing capabilities, another daemon
    /// on the same pins.
    pub fn open(options: Options) -> Result<Self> {
        let bytes = object::embedded()?;
        let lock = options.pins.as_deref().map(loader::take_directory).transpose()?;
        let object = loader::load(bytes, options.pins.as_deref())?;
        Self::of(options, object, lock)
    }

    /// As [`Self::open`], for `lb_steer` alone: unpinned, and without room for a single VIP, which would lock
    /// some 60 MiB of kernel memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for_steering() -> Result<Self> {
        let object = loader::load_without(object::embedded()?, &[loader::OF_INGRESS])?;
        Self::of(Options::default(), object, None)
    }

    fn of(options: Options, mut object: Ebpf, lock: Option<OwnedFd>) -> Result<Self> {
        let maps = Maps::take(&mut object)?;
        let captures = Captures::take(&mut object)?;
        let activity = Activity::take(&mut object)?;
        let sync = Sync::adopt(&maps)?;
        let groups = Groups::adopt(&maps)?;
        Ok(Self {
            options,
            object,
            maps,
            sync,
            groups,
            attached: BTreeMap::new(),
            interfaces: Interfaces::default(),
            captures,
            activity,
            _links: Vec::new(),
            _lock: lock,
        })
    }

    /// Backends that the maps name: after a restart, what an earlier process called them, and which of them
    /// it saw down. Ids must be given out accordingly, else old flows go elsewhere.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, IpAddr)> + '_ {
        let present = self.sync.backends.iter().filter(|(_, entry)| entry.flags & PRESENT != 0);
        present.map(|(id, entry)| (*id, Ipv6Addr::from(entry.address).to_canonical()))
    }

    /// Backends that are down, as last set, or as an earlier process left them.
    pub fn down(&self) -> &BTreeSet<BackendId> {
        &self.sync.down
    }

    /// Puts `lb_ingress` on an interface: native first, generic where the driver cannot, when `mode` is
    /// `None`. Where the pinned link of an earlier process hangs, its program is replaced without a gap.
    ///
    /// # Errors
    /// The verifier's log, a mode that cannot be had, an interface that is taken or not there.
    pub fn attach(&mut self, interface: &str, mode: Option<XdpMode>) -> Result<Attached> {
        let program = loader::xdp(&mut self.object, names::PROGRAM_INGRESS)?;
        self.interfaces.number(&mut self.maps, interface, netlink::interface_index(interface)?)?;
        let (attached, link) = attach::attach(program, interface, mode, self.options.pins.as_deref())?;
        self._links.extend(link);
        self.attached.insert(interface.to_owned(), attached.clone());
        Ok(attached)
    }

    /// Takes `lb_ingress` off every interface that an earlier process put it on and this one did not; gives their
    /// names. To be called when all are attached.
    ///
    /// # Errors
    /// The first pin that cannot be removed.
    pub fn detach_others(&mut self) -> Result<Vec<String>> {
        let Some(dir) = &self.options.pins else { return Ok(Vec::new()) };
        pins::detach_others(dir, self.attached.keys().map(String::as_str))
    }

    /// Brings the maps to `desired`. Everything that can be wrong with it is found before the first write.
    ///
    /// # Errors
    /// What is wrong with `desired`, or the map that refused; the maps are valid all the same, and the next
    /// call goes on from there.
    pub fn sync(&mut self, desired: &Desired, now_ticks: u32) -> Result<()> {
        self.sync.sync(&mut self.maps, desired, now_ticks)
    }

    /// Lays health over the tables: `down` is the whole set of backends that take nothing.
    ///
    /// # Errors
    /// The map that refused.
    pub fn set_down(&mut self, down: &BTreeSet<BackendId>, now_ticks: u32) -> Result<()> {
        self.sync.set_down(&mut self.maps, down, now_ticks)
    }

    /// Lets time pass: closes and settles slots, forgets backends that left, counts up windows of activity. Call it about once a second; it
    /// may take a second itself when a full flow table is looked through, so never on a prober's executor.
    ///
    /// # Errors
    /// The map that refused.
    pub fn tick(&mut self, now_ticks: u32) -> Result<()> {
        self.turn_window(now_ticks)?;
        self.sync.tick(&mut self.maps, now_ticks)
    }

    /// Base tables by pool, for the state directory.
    pub fn tables(&self) -> &BTreeMap<Arc<str>, Table> {
        &self.sync.tables
    }

    /// Says which worker runs on which core, for groups steered by core.
    ///
    /// # Errors
    /// The map that refused, or a core beyond its bound.
    pub fn steer_cores(&mut self, workers: &[(usize, WorkerId)]) -> Result<()> {
        reuseport::put_cores(&mut self.maps, workers)
    }

    /// Puts a listener group's sockets into the maps and `lb_steer` on the group.
    ///
    /// # Errors
    /// The verifier's log, the map or the socket option that refused.
    pub fn steer(&mut self, group: &Group<'_>) -> Result<()> {
        let program = loader::sk_reuseport(&mut self.object, names::PROGRAM_STEER)?;
        self.groups.put(&mut self.maps, group)?;
        let Some((_, socket)) = group.sockets.first() else { return Ok(()) };
        program.attach(socket).map_err(|source| Error::Program {
            action: format!("attach {} to the group of {}", names::PROGRAM_STEER, group.address),
            source: Box::new(source),
        })
    }

    /// Forgets a listener group; the kernel chooses from now on, as long as its sockets live.
    ///
    /// # Errors
    /// The map that refused.
    pub fn unsteer(&mut self, address: SocketAddr, protocol: u8) -> Result<()> {
        self.groups.remove(&mut self.maps, address, protocol)
    }

    /// How often `lb_steer` chose by what, by group. Groups of an earlier process stand here until
    /// [`Plane::unsteer`].
    ///
    /// # Errors
    /// The map that refused.
    pub fn steer_counters(&self) -> Result<Vec<(SocketAddr, u8, SteerCounters)>> {
        let read = |(address, protocol, index)| Ok((address, protocol, stats::steer(&self.maps, index)?));
        self.groups.iter().map(read).collect()
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The map that refused.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.maps, &self.sync.vip_names, self.backends().map(|(id, _)| id))
    }

    /// Packets dropped, by interface.
    ///
    /// # Errors
    /// The map that refused.
    pub fn drops(&self) -> Result<Vec<InterfaceDrops>> {
        self.interfaces.drops(&self.maps)
    }

    /// What is remembered of flows: at most `max` records, and how many more there are. A full table takes a second.
    ///
    /// # Errors
    /// The map that refused.
    pub fn flows(&self, max: usize) -> Result<(Vec<Flow>, usize)> {
        flows::read(&self.maps, max)
    }

    /// What the plane does now. Reads every slot in use.
    pub fn status(&self) -> Status {
        let mut pools = BTreeMap::new();
        for (region, pool) in &self.sync.regions {
            let Some(table) = self.sync.tables.get(pool) else { continue };
            let slots = self.sync.phases(&self.maps, *region);
            pools
                .entry(pool.to_string())
                .and_modify(|status: &mut PoolStatus| status.slots.add(slots))
                .or_insert_with(|| PoolStatus { digest: table.digest(), slots });
        }
        let lingering = self.backends().map(|(id, _)| id).filter(|id| !self.sync.wanted.contains(id));
        Status {
            generation: Generation(self.sync.meta.generation),
            interfaces: self.attached.values().cloned().collect(),
            pools,
            lingering: lingering.collect(),
        }
    }
}
