//! Joins control and steering: hands listener groups to the plane, tells it who is down, reads it for the admin API.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use lb_abi::reason::Reason;

use super::{
    addresses::Held,
    clock::now_ticks,
    cookies,
    desired::Outer,
    forwarding::{self, LOST_RANGES},
    hotplug::Hotplug,
    lineage::{self, KeptTables},
    listeners::Group,
    loads::Loads,
    neighbours::{self, Neighbours},
    plane::{Brought, Doors, PacketPath, PathChange},
    ranges, spread,
    ways::ways,
};
use crate::{
    admin::{
        Attached, Flow, FlowList, NatReport, Packets, SlotMove, Spread, SteerReport, TableDigest,
        capture::{Feed, Wish},
        packets::{InterfaceDrops, Reading, Refusal, WhyAnswer},
    },
    config::{Config, Listener, Steer, SynCookies},
    model::{BackendId, Question, WorkerId},
    steering::{self, Choice, Detached, Device, InterfaceFacts, NatStats, Plane, SpreadChoice, SteerMode},
};

/// Number of TCP.
const TCP: u8 = 6;
/// What is lost where only `lb_steer` was wanted.
pub(super) const LOST_STEER: &str = "lb_steer is not attached, so the kernel's own hash chooses the worker";

/// Records that one answer shows; there may be a quarter of a million.
const FLOWS_SHOWN: usize = 10_000;

/// The plane, with what control knows of its listener groups.
pub(super) struct KernelPath {
    plane: Plane,
    kept: KeptTables,
    steered: Vec<Steered>,
    neighbours: Neighbours,
    /// `None`: there is no `[xdp]`.
    hotplug: Option<Hotplug>,
    loads: Loads,
    /// Whether XDP spreads listeners' packets; `None` without `[xdp]`.
    spread: Option<SpreadChoice>,
    /// Whose packets it spreads.
    spread_interfaces: BTreeSet<Arc<str>>,
    /// XDP answers SYN floods for listeners.
    sends_cookies: bool,
}

fn name_at(held: &[Held], address: SocketAddr) -> Option<Arc<str>> {
    let held = held.iter().find(|held| held.address == address && !held.wanted.is_udp);
    held.map(|held| held.wanted.name.clone())
}

struct Steered {
    listener: Arc<str>,
    address: SocketAddr,
    mode: Steer,
    why: Arc<str>,
}

impl KernelPath {
    /// `kept`: what of it is in the state directory.
    pub(super) fn new(plane: Plane, kept: KeptTables) -> Self {
        let mut path = Self {
            plane,
            kept,
            steered: Vec::new(),
            neighbours: Neighbours::default(),
            hotplug: None,
            loads: Loads::default(),
            spread: None,
            spread_interfaces: BTreeSet::new(),
            sends_cookies: false,
        };
        path.nudge_neighbours();
        path
    }

    /// Looks after interfaces that come and go.
    pub(super) fn watching(self, hotplug: Hotplug) -> Self {
        Self { hotplug: Some(hotplug), ..self }
    }

    /// XDP finds a backend's Ethernet address only where the kernel knows it already.
    fn nudge_neighbours(&mut self) {
        let unknown = self.plane.stats().map_or(0, |stats| {
            let count = stats.reasons.iter().find(|(reason, _)| *reason == Reason::NoNeighbour);
            count.map_or(0, |(_, count)| *count)
        });
        if self.neighbours.are_due(unknown) {
            let backends = self.plane.backends().map(|(_, address)| address);
            neighbours::nudge(backends.chain(self.plane.gateways()).collect());
        }
    }

    /// Hands new listener groups to `lb_steer`, and all that hangs on which addresses there are. What is lost, one sentence
    /// each.
    pub(super) fn listen(&mut self, doors: &Doors<'_>) -> Vec<String> {
        let Doors { config, cores, held, opened } = *doors;
        let workers: Vec<_> = cores.iter().copied().zip((0..).map(WorkerId)).collect();
        if let Err(error) = self.plane.steer_cores(&workers) {
            return vec![format!("{error}: {LOST_STEER}")];
        }
        let (choice, mut lost) = spread::arm(&mut self.plane, config, cores, held);
        self.set_spread(config, choice);
        let is_there = |address| held.iter().any(|held| held.address == address && !held.wanted.is_udp);
        self.steered.retain(|steered| is_there(steered.address));
        for group in opened {
            let Some(name) = name_at(held, group.address) else { continue };
            let Some(own) = config.listeners.get(&name) else { continue };
            match self.steer_group(own, cores, group) {
                Ok(choice) => {
                    let mode = choice.mode;
                    tracing::info!(listener = %name, address = %group.address, ?mode, why = choice.reason, "lb_steer attached");
                    self.steered.retain(|steered| steered.address != group.address);
                    self.steered.push(Steered {
                        listener: name,
                        address: group.address,
                        mode: match mode {
                            SteerMode::Core => Steer::Core,
                            SteerMode::Hash => Steer::Hash,
                        },
                        why: choice.reason.into(),
                    });
                }
                Err(error) => lost.push(format!("listener {name} {}: {error}: {LOST_STEER}", group.address)),
            }
        }
        for steered in &mut self.steered {
            steered.listener = name_at(held, steered.address).unwrap_or_else(|| steered.listener.clone());
        }
        self.forget_others(&mut lost);
        let (armed, unarmed) = cookies::arm(&mut self.plane, config);
        self.sends_cookies = armed;
        lost.extend(unarmed);
        self.loads = Loads::find();
        lost
    }

    fn set_spread(&mut self, config: &Config, choice: Option<SpreadChoice>) {
        let Some(SpreadChoice { on, reason: why, .. }) = &choice else { return };
        tracing::info!(on, why, "xdp.spread");
        if *on {
            let interfaces = config.xdp.iter().flat_map(|xdp| &xdp.interfaces);
            self.spread_interfaces = interfaces.map(|interface| interface.name.clone()).collect();
        }
        self.spread = choice;
    }

    /// Brings maps and interfaces to a config, or leaves them as they were.
    fn bring_to(&mut self, change: &PathChange) -> anyhow::Result<Brought> {
        let (Some(hotplug), Some(xdp), Some(material)) =
            (&self.hotplug, &change.config.xdp, &change.material)
        else {
            return Ok(Brought::default());
        };
        let outer = Outer::of(xdp).context("getifaddrs")?.or(hotplug.outer());
        let desired = material.desired(&change.config, &change.snapshot, outer)?;
        let before = hotplug.desired().clone();
        let known = hotplug.xdp().interfaces.clone();
        let mut brought = Brought { warnings: outer.shortages(&change.config), ..Brought::default() };
        let synced = self.plane.sync(&desired, now_ticks()).map_err(anyhow::Error::from).and_then(|()| {
            for interface in xdp.interfaces.iter().filter(|interface| !known.contains(interface)) {
                let attached = forwarding::attach(&mut self.plane, interface);
                brought.warnings.extend(attached.with_context(|| format!("interface {}", interface.name))?);
            }
            Ok(())
        });
        if let Err(error) = synced {
            if let Err(error) = self.plane.sync(&before, now_ticks()) {
                tracing::error!(%error, "the maps could not be brought back; the next change goes on from there");
            }
            return Err(error);
        }
        let ways = ways(&change.config, &change.snapshot, outer, &desired.local);
        match forwarding::set_ways(&mut self.plane, &ways) {
            Ok(through) => brought.through = through,
            Err(warning) => brought.warnings.push(warning),
        }
        self.hotplug = Some(Hotplug::new(xdp.clone(), outer, desired));
        Ok(brought)
    }

    /// Gives the ranges of listeners to their groups. What is missing, one sentence each.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn give_ranges(&mut self, held: &[Held]) -> steering::Result<Vec<String>> {
        ranges::give(&mut self.plane, held)
    }

    fn steer_group(
        &mut self,
        listener: &Listener,
        cores: &[usize],
        group: &Group,
    ) -> steering::Result<Choice> {
        let (steer, takes_cookies) = (listener.steer, listener.syn_cookies == SynCookies::Auto);
        // Any interface may bring packets for a range.
        let any = match group.address {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let at = if group.ranges.is_empty() { group.address.ip() } else { any };
        let mut facts = steering::gather_steer_facts(at, cores)?;
        facts.worker_cores = cores.to_vec();
        let spread = &self.spread_interfaces;
        let is_spread = |facts: &&mut InterfaceFacts| spread.iter().any(|name| **name == *facts.name);
        facts.interfaces.iter_mut().filter(is_spread).for_each(|facts| facts.device = Device::Spread);
        let choice = steering::choose_steer(steer, &facts);
        let sockets: Vec<_> = (0..).map(WorkerId).zip(group.sockets.iter().map(AsFd::as_fd)).collect();
        // What a listener says holds, however busy the worker is.
        let relieves = steer == Steer::Auto;
        let group = steering::Group {
            address: group.address,
            protocol: TCP,
            sockets: &sockets,
            mode: choice.mode,
            relieves,
            is_looked_up: !group.ranges.is_empty(),
            takes_cookies,
        };
        self.plane.steer(&group)?;
        Ok(choice)
    }

    /// Groups that this config does not have, of an earlier one or of an earlier run.
    fn forget_others(&mut self, lost: &mut Vec<String>) {
        let known = self.plane.steer_counters().unwrap_or_default();
        for (address, protocol, _) in known {
            if self.steered.iter().any(|steered| steered.address == address && protocol == TCP) {
                continue;
            }
            if let Err(error) = self.plane.unsteer(address, protocol) {
                lost.push(format!(
                    "the group of {address} that is no longer there cannot be forgotten: {error}"
                ));
            }
        }
    }

    fn steer_reports(&self) -> steering::Result<Vec<SteerReport>> {
        let counters = self.plane.steer_counters()?;
        let mut reports: Vec<SteerReport> = Vec::new();
        for steered in &self.steered {
            let counted = counters
                .iter()
                .find(|(address, protocol, _)| *address == steered.address && *protocol == TCP);
            let counted = counted.map(|(_, _, counters)| *counters).unwrap_or_default();
            // A listener with several addresses has several groups; its name is what counters hang on.
            let at =
                reports.iter().position(|report| report.listener == steered.listener).unwrap_or_else(|| {
                    reports.push(SteerReport {
                        listener: steered.listener.clone(),
                        mode: steered.mode,
                        why: steered.why.clone(),
                        by_core: 0,
                        by_hash: 0,
                        missing: 0,
                        relieved: 0,
                    });
                    reports.len() - 1
                });
            let report = &mut reports[at];
            report.by_core += counted.by_core;
            report.by_hash += counted.by_hash;
            report.missing += counted.missing;
            report.relieved += self.plane.relieved(steered.address, TCP)?;
        }
        Ok(reports)
    }

    fn nat_report(&self) -> steering::Result<NatReport> {
        let NatStats { flows, expired, events } = self.plane.nat_stats()?;
        Ok(NatReport { flows, expired, events })
    }

    fn packets(&self) -> steering::Result<Packets> {
        let (stats, status) = (self.plane.stats()?, self.plane.status());
        let now = now_ticks();
        let active = self.plane.active_flows()?;
        let phases = || status.pools.values().map(|pool| pool.slots);
        Ok(Packets {
            reasons: std::array::from_fn(|at| stats.reasons.get(at).map_or(0, |(_, count)| *count)),
            flow_events: std::array::from_fn(|at| stats.flow_events.get(at).map_or(0, |(_, count)| *count)),
            drops: self.plane.drops()?.into_iter().map(drops).collect(),
            quic_events: std::array::from_fn(|at| stats.quic_events.get(at).map_or(0, |(_, count)| *count)),
            vips: stats.vips.into_iter().collect(),
            backends: stats.backends.into_iter().collect(),
            active_vips: active.vips.into_iter().collect(),
            active_backends: active.backends.into_iter().collect(),
            slots_open: phases().map(|slots| slots.open as u64).sum(),
            slots_closed: phases().map(|slots| slots.closed as u64).sum(),
            tables: status
                .pools
                .iter()
                .map(|(pool, table)| TableDigest {
                    pool: pool.as_str().into(),
                    digest: format!("{:016x}", table.digest),
                    open: table.slots.open as u64,
                    closed: table.slots.closed as u64,
                    moves: table.moves.iter().map(|change| slot_move(change, now)).collect(),
                })
                .collect(),
            interfaces: status
                .interfaces
                .into_iter()
                .map(|attached| Attached {
                    interface: attached.interface,
                    mode: attached.mode,
                    adopted: attached.replaced,
                    fallback: attached.fallback,
                })
                .collect(),
            nat: self.nat_report()?,
            steer: self.steer_reports()?,
            spread: self.spread.as_ref().map(|choice| Spread { on: choice.on, why: choice.reason.clone() }),
            cookies: if self.sends_cookies { cookies::read() } else { None },
        })
    }
}

/// A verifier's log is for our own log, where it can be as long as it is.
fn failed(error: &steering::Error) -> Refusal {
    tracing::warn!(%error, "a question to the packet path failed");
    Refusal::Failed(error.to_string().lines().next().unwrap_or_default().to_owned())
}

fn drops(of: steering::InterfaceDrops) -> InterfaceDrops {
    InterfaceDrops { interface: of.interface, counts: of.counts }
}

impl PacketPath for KernelPath {
    fn change(&mut self, change: &PathChange) -> Result<Brought, String> {
        self.bring_to(change).map_err(|error| format!("{error:#}"))
    }

    fn listen(&mut self, doors: &Doors<'_>) -> Vec<String> {
        let mut lost = Self::listen(self, doors);
        match self.give_ranges(doors.held) {
            Ok(missing) => lost.extend(missing),
            Err(error) => lost.push(format!("{error}: {LOST_RANGES}")),
        }
        lost
    }

    fn settle(&mut self, config: &Config) -> Vec<String> {
        let Some(hotplug) = &self.hotplug else { return Vec::new() };
        let is_named = |name: &str| hotplug.xdp().interfaces.iter().any(|interface| *interface.name == *name);
        let gone: Vec<String> =
            self.plane.attached().filter(|name| !is_named(name)).map(str::to_owned).collect();
        gone.iter().for_each(|name| self.plane.forget_interface(name));
        let mut lost = lineage::keep_changed(self.plane.tables(), &config.state.dir, &mut self.kept);
        match self.plane.detach_others() {
            Ok(gone) => gone.iter().for_each(|interface| {
                tracing::info!(%interface, "XDP detached: the config does not name the interface any more");
            }),
            Err(error) => lost.push(error.to_string()),
        }
        lost
    }

    fn freeze(&mut self) -> Result<(), String> {
        self.plane.lend_sockets().map_err(|error| error.to_string())
    }

    fn thaw(&mut self) -> Result<(), String> {
        // It may have kept others.
        self.kept.clear();
        self.plane.take_back().map_err(|error| error.to_string())
    }

    fn set_down(&mut self, down: &BTreeSet<BackendId>) -> Result<(), String> {
        self.plane.set_down(down, now_ticks()).map_err(|error| error.to_string())
    }

    fn tick(&mut self) -> Result<(), String> {
        self.nudge_neighbours();
        if let Some(hotplug) = &mut self.hotplug {
            hotplug.look(&mut self.plane);
        }
        self.loads.look(&mut self.plane, std::time::Instant::now());
        if let Err(error) = self.plane.refresh_links() {
            tracing::warn!(%error, "what became of interfaces cannot be seen");
        }
        self.plane.tick(now_ticks()).map_err(|error| error.to_string())
    }

    fn read(&mut self) -> Result<Packets, String> {
        self.packets().map_err(|error| error.to_string())
    }

    fn flows(&mut self) -> Result<FlowList, String> {
        let now = now_ticks();
        let (found, mut omitted) = self.plane.flows(FLOWS_SHOWN, now).map_err(|error| error.to_string())?;
        let room = FLOWS_SHOWN - found.len().min(FLOWS_SHOWN);
        let (translated, more) = self.plane.nat_flows(room).map_err(|error| error.to_string())?;
        omitted += more;
        // Another core's clock may be a tick ahead of ours.
        let age = |seen: u32| steering::duration(u32::try_from(now.wrapping_sub(seen) as i32).unwrap_or(0));
        let flow = |flow: steering::Flow| Flow {
            group_of: flow.group_of,
            source: flow.source,
            destination: flow.destination,
            protocol: flow.protocol,
            backend: flow.backend,
            age: age(flow.seen),
            state: flow.state.words(),
            translated: None,
        };
        let nat_flow = |flow: steering::NatFlow| Flow {
            group_of: None,
            source: flow.client,
            destination: flow.vip,
            protocol: flow.protocol,
            backend: flow.backend,
            age: age(flow.seen),
            state: flow.state.words(),
            translated: Some(flow.source),
        };
        let flows = found.into_iter().map(flow).chain(translated.into_iter().map(nat_flow)).collect();
        Ok(FlowList { flows, omitted })
    }

    fn why(&mut self, question: &Question) -> WhyAnswer {
        let answer = self.plane.why(question).map_err(|error| match error {
            steering::Error::NotAttached { .. } => Refusal::Question(error.to_string()),
            error => failed(&error),
        })?;
        Ok(answer.map(|answer| Reading {
            ingress: answer.ingress,
            trace: answer.trace,
            egress: answer.egress,
            vip: answer.vip,
            pool: answer.pool,
            slot: answer.slot,
        }))
    }

    fn capture(&mut self, wish: &Wish) -> Result<Feed, Refusal> {
        use steering::Error::{Capturing, NotAttached, NothingAttached, VipUnknown};
        let begun = self.plane.capture(wish.filter, wish.vip.as_deref(), wish.interface.as_deref());
        let capture = begun.map_err(|error| match error {
            NotAttached { .. } | NothingAttached | VipUnknown { .. } => Refusal::Question(error.to_string()),
            Capturing => Refusal::Busy(error.to_string()),
            error => failed(&error),
        })?;
        super::capture::start(capture, wish).map_err(|error| Refusal::Failed(format!("a thread: {error}")))
    }
}

fn slot_move(change: &steering::Move, now: u32) -> SlotMove {
    SlotMove {
        why: change.why.clone(),
        since_seconds: change.since.map(|since| steering::duration(now.wrapping_sub(since)).as_secs()),
        open: change.open as u64,
        closed: change.closed as u64,
    }
}

/// Takes our programs off their interfaces and our pins out of `bpf_dir`.
///
/// # Errors
/// The first file that cannot be removed; what was removed before stays removed.
pub fn detach(bpf_dir: &Path) -> anyhow::Result<Detached> {
    Ok(steering::detach(bpf_dir)?)
}
