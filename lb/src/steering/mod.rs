//! The door to the kernel's packet programs: the only place that knows aya.
//!
//! [`Plane`] is its face. It loads the embedded object, pins maps and links under one bpffs directory (or
//! adopts what an earlier process pinned there), brings the maps to a [`Desired`] state, lays health over the
//! tables and lets time pass for slots. It never reads a clock: callers give [`ticks`]. It knows nothing of
//! workers but their ids and the sockets that control hands over.
//!
//! While a plane exists it is the only writer of the maps beside the programs. Dropping it changes nothing
//! in the kernel as long as there are pins: packets go on by the last state.
//!
//! # Moving a table
//!
//! A change of config or health is a list of slots that get another owner, each by one store. `lb_abi::slot` has the
//! diagram, `lb_ebpf::select` says what packets do and why that is right while anything here happens; here is what
//! control owes them. [`Sync`] is all of it, over any [`Store`], so that `tests/sim` can run it with cores and clients
//! on one clock.
//!
//! - *Overlapping changes*: `previous` is the owner when the slot was last closed or settled, and stays so however
//!   often the owner changes while it is open; whom the slot belonged to meanwhile stands in records. A change back
//!   to `previous` closes the slot: unrecorded flows are its own again (`transition`).
//! - *Flapping*: owners are a function of the base table and the set of backends that are down, so deaths and returns
//!   commute. A death leaves nothing to remember: its settled slots settle on the heir at once. A return opens them,
//!   with the heir as `previous`; the next death closes them on the heir again.
//! - *Drained and removed backends* serve their flows for as long as those live: they own no slot, linger readable, and
//!   are forgotten when nothing moves any more. Until then their id means them: no slot, record or running program
//!   names an id that is given to another backend, and the entry's generation tells two that had it in turn apart.
//! - *A full table* refuses; nothing that lives is evicted. What is refused goes to `previous`, so no slot closes
//!   until everything was recordable for a whole window. Records that have ended make room: where nothing is
//!   recorded any more (closed and settled slots) they are taken away as slots settle, and open slots are swept for
//!   that (`settle`).
//! - *Epochs wrap* at 64: before a slot settles every record of another epoch than its own is gone, so there are two
//!   at most.
//! - *Death of the daemon*, between any two stores: every word is right by itself, owners and health differ from
//!   what was wanted at most. The next one adopts what lies there, takes everything that it has not seen happen for
//!   just happened, and goes on from there. So does one that was refused a write.
//! - *Clocks*: `now` is read before a step, and a step stores within a grace of that. Windows are longer than the flow
//!   memory by one.

mod activity;
mod anchor;
mod attach;
mod capture;
mod causes;
mod cookies;
mod decap;
mod desired;
mod detach;
mod error;
mod facts;
mod floor;
mod flows;
mod frame;
mod interfaces;
mod links;
mod loader;
mod lookup;
pub mod maps;
mod nat;
mod netlink;
mod object;
mod patience;
mod pins;
mod places;
mod presence;
mod probes;
mod quic;
mod regions;
pub mod reuseport;
mod settle;
mod sources;
mod spread;
mod stats;
mod store;
mod sync;
mod terms;
#[cfg(test)]
mod tests;
mod transition;
mod why;
mod wide;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use aya::{Ebpf, programs::links::FdLink};
use lb_abi::{backend::PRESENT, names, steer::SteerCounters};

pub use activity::ActiveFlows;
pub use attach::Attached;
pub use capture::{Capture, Captured};
pub use causes::Move;
pub use cookies::cookies_missing;
pub use decap::Decap;
pub use desired::{Desired, DesiredBackend, DesiredPool, DesiredVip, derive_key};
pub use detach::{Detached, detach};
pub use error::{Error, Result};
pub use facts::{gather as gather_steer_facts, gather_interfaces as gather_interface_facts};
pub use flows::{Flow, FlowState};
pub use interfaces::InterfaceDrops;
pub use lookup::{LookupGroup, parking};
pub use maps::{Lists, NatPlace, SlotArray};
pub use nat::{NatFlow, NatState, NatStats};
pub use object::embedded as embedded_object;
pub use presence::Presence;
pub use probes::{ProbePorts, ProbeWay};
pub use quic::{DesiredQuic, DesiredQuicVip, DesiredServer};
pub use reuseport::{Choice, Device, Facts, Group, InterfaceFacts, SteerMode, choose as choose_steer};
pub use settle::Phases;
pub use spread::{SpreadChoice, choose as choose_spread};
pub use stats::Stats;
pub use store::{NatStore, Store};
pub use sync::Sync;
pub use terms::{duration, ticks};
pub use why::WhyAnswer;

use self::{
    activity::Activity, capture::Captures, interfaces::Interfaces, links::Links, maps::Maps,
    reuseport::Groups,
};
use crate::{
    balance::maglev::Table,
    config::XdpMode,
    model::{BackendId, Generation, WorkerId},
    sys::lock::Lock,
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
    links: Links,
    groups: Groups,
    attached: BTreeMap<String, Attached>,
    /// Of `lb_ingress`, once it is loaded.
    ingress_id: Option<u32>,
    /// Health probes go the way of traffic, on interfaces that come later, too.
    ways: Option<probes::Ways>,
    interfaces: Interfaces,
    captures: Captures,
    activity: Activity,
    /// `lb_lookup` is attached.
    looks_up: bool,
    /// Links that no pin holds.
    _links: Vec<FdLink>,
    /// Of the pin directory: one process writes the maps.
    _lock: Option<Lock>,
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Of the base table, health not laid over; equal on nodes with the same config and lineage.
    pub digest: u64,
    /// Its slots by phase; counted twice while a VIP brings its own copy.
    pub slots: Phases,
    /// Why those move that do.
    pub moves: Vec<Move>,
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
    /// some 80 MiB of kernel memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for_steering() -> Result<Self> {
        let object = loader::load_without(object::embedded()?, &[loader::OF_INGRESS])?;
        Self::of(Options::default(), object, None)
    }

    fn of(options: Options, mut object: Ebpf, lock: Option<Lock>) -> Result<Self> {
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
            links: Links::default(),
            groups,
            attached: BTreeMap::new(),
            ingress_id: None,
            ways: None,
            looks_up: false,
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
        self.place_nat()?;
        let program = loader::xdp(&mut self.object, names::PROGRAM_INGRESS)?;
        self.interfaces.number(&mut self.maps, interface, netlink::interface_index(interface)?)?;
        let (attached, link) = attach::attach(program, interface, mode, self.options.pins.as_deref())?;
        self.ingress_id = program.info().ok().map(|info| info.id());
        self._links.extend(link);
        self.attached.insert(interface.to_owned(), attached.clone());
        if self.ways.is_some() {
            probes::attach(&mut self.object, interface)?;
        }
        Ok(attached)
    }

    /// Puts `lb_nat` where `lb_ingress` calls it. An earlier process's one is replaced without a gap; the pinned map
    /// keeps it when this process ends.
    fn place_nat(&mut self) -> Result<()> {
        loader::place(&mut self.object, &mut self.maps.programs, names::PROGRAM_NAT, names::CALL_NAT)
    }

    /// Interfaces that this process attached to.
    pub fn attached(&self) -> impl Iterator<Item = &str> {
        self.attached.keys().map(String::as_str)
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

    /// Lets health probes go the way of traffic: hangs the programs for it on every interface that this process attached
    /// to and wherever a backend is routed to. The first call that has any ways gives what the prober needs.
    ///
    /// # Errors
    /// The verifier's log, the map that refused, or a kernel without clsact queues (module sch_ingress).
    pub fn set_probe_ways(&mut self, ways: &[ProbeWay]) -> Result<Option<ProbePorts>> {
        if self.ways.is_none() && ways.is_empty() {
            return Ok(None);
        }
        let (mut open, ports) = match self.ways.take() {
            Some(open) => (open, None),
            None => probes::open(&mut self.object).map(|(open, ports)| (open, Some(ports)))?,
        };
        let interfaces: Vec<&str> = self.attached.keys().map(String::as_str).collect();
        let put = open.put(&mut self.object, &interfaces, ways);
        self.ways = Some(open);
        put.map(|()| ports)
    }

    /// Brings the maps to `desired`. Everything that can be wrong with it is found before the first write.
    ///
    /// # Errors
    /// What is wrong with `desired`, or the map that refused; the maps are valid all the same, and the next
    /// call goes on from there.
    pub fn sync(&mut self, desired: &Desired, now_ticks: u32) -> Result<()> {
        self.links.set_gateways(&desired.gateways);
        self.links.refresh(&mut self.maps.links)?;
        self.sync.sync(&mut self.maps, desired, now_ticks)
    }

    /// Lays health over the tables: `down` is the whole set of backends that take nothing.
    ///
    /// # Errors
    /// The map that refused.
    pub fn set_down(&mut self, down: &BTreeSet<BackendId>, now_ticks: u32) -> Result<()> {
        self.sync.set_down(&mut self.maps, down, now_ticks)
    }

    /// Gateways whose Ethernet addresses the kernel should know.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.links.gateways()
    }

    /// Sees what became of interfaces: VLAN devices, bonds, the Ethernet addresses of gateways. Call it about once a
    /// second.
    ///
    /// # Errors
    /// The kernel does not list its interfaces, or the map refused.
    pub fn refresh_links(&mut self) -> Result<()> {
        self.links.refresh(&mut self.maps.links)
    }

    /// Lets time pass: closes and settles slots, forgets backends that left, counts up windows of activity. Call it
    /// about once a second; it
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

    /// Whether connections to an address are for this host, bound to an interface or routed so.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn is_local(&self, address: IpAddr) -> Result<bool> {
        netlink::is_local(address)
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

    /// How many connections of a group went to another worker than their own, which lagged.
    ///
    /// # Errors
    /// The map that refused.
    pub fn relieved(&self, address: SocketAddr, protocol: u8) -> Result<u64> {
        let group = self.groups.iter().find(|(at, of, _)| (*at, *of) == (address, protocol));
        group.map_or(Ok(0), |(_, _, index)| stats::relieved(&self.maps, index))
    }

    /// Says how busy a worker was in the last while, of 100.
    ///
    /// # Errors
    /// The map that refused.
    pub fn set_load(&mut self, worker: WorkerId, load: u32) -> Result<()> {
        let set = self.maps.steer_loads.set(u32::from(worker.0), load, 0);
        set.map_err(Error::map(names::MAP_STEER_LOADS))
    }

    /// Lets another process have the sockets of every group: one is in one map only. Until it has, or [`Plane::take_back`]
    /// and [`Plane::steer`], the kernel chooses. Maps that are pinned are the other process's, too.
    ///
    /// # Errors
    /// The map that refused.
    pub fn lend_sockets(&mut self) -> Result<()> {
        match self.options.pins {
            Some(_) => Ok(()),
            None => self.groups.clear_sockets(&mut self.maps),
        }
    }

    /// Goes on after another process that was to take over and did not, whatever it came to write and to replace. To be
    /// followed by [`Plane::sync`], [`Plane::set_down`] and [`Plane::steer`], as after a restart.
    ///
    /// # Errors
    /// As [`Plane::open`] and [`Plane::attach`].
    pub fn take_back(&mut self) -> Result<()> {
        self.sync = Sync::adopt(&self.maps)?;
        self.groups = Groups::adopt(&self.maps)?;
        // Programs for probes are put back by themselves below.
        let ways = self.ways.take();
        let put = self.attached.clone().into_iter().try_for_each(|(interface, before)| {
            self.attach(&interface, Some(before.mode))?;
            self.attached.insert(interface, before);
            Ok(())
        });
        self.ways = ways;
        put?;
        let ways = self.ways.as_ref();
        let all: Vec<String> = ways.map(|ways| ways.interfaces(&self.attached)).unwrap_or_default();
        all.iter().try_for_each(|interface| probes::put_back(&mut self.object, interface))
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
    pub fn flows(&self, max: usize, now_ticks: u32) -> Result<(Vec<Flow>, usize)> {
        flows::read(&self.sync, &self.maps, max, now_ticks)
    }

    /// Translated flows: at most `max`, and how many more there are. A full table takes a second.
    ///
    /// # Errors
    /// The map that refused.
    pub fn nat_flows(&self, max: usize) -> Result<(Vec<NatFlow>, usize)> {
        nat::flows(&self.maps, max)
    }

    /// Counts of translated flows.
    ///
    /// # Errors
    /// The map that refused.
    pub fn nat_stats(&self) -> Result<NatStats> {
        Ok(NatStats { events: stats::nat_events(&self.maps)?, ..self.sync.nat_stats() })
    }

    /// What the plane does now. Reads every slot in use.
    pub fn status(&self) -> Status {
        let mut pools = BTreeMap::new();
        for (region, pool) in &self.sync.regions {
            let Some(table) = self.sync.tables.get(pool) else { continue };
            let slots = self.sync.phases(&self.maps, *region);
            let moves = self.sync.moves(&self.maps, *region);
            let status = pools.entry(pool.to_string()).or_insert_with(|| PoolStatus {
                digest: table.digest(),
                slots: Phases::default(),
                moves: Vec::new(),
            });
            status.slots.add(slots);
            status.moves.extend(moves);
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
