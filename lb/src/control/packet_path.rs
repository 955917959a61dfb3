//! Joins control and steering: opens the plane, fills it from the config, reads it for the admin API.

use std::{collections::BTreeSet, net::SocketAddr, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use lb_abi::reason::Reason;
use rustix::time::{ClockId, clock_gettime};

use super::{
    desired::{Outer, desired},
    host, lineage,
    listeners::Group,
    neighbours::{self, Neighbours},
    plan::Plan,
    plane::PacketPath,
    secret::Secret,
};
use crate::{
    admin::{Attached, Packets, SteerReport, TableDigest},
    config::{Config, Snapshot, Steer, Xdp},
    model::{BackendId, WorkerId},
    steering::{self, Choice, Detached, Plane, SteerMode},
};

/// Number of TCP.
const TCP: u8 = 6;
/// What is lost where only `lb_steer` was wanted.
const LOST_STEER: &str = "lb_steer is not attached, so the kernel's own hash chooses the worker";

/// The plane, with what control knows of its listener groups.
pub(super) struct KernelPath {
    plane: Plane,
    steered: Vec<Steered>,
    neighbours: Neighbours,
}

struct Steered {
    listener: Arc<str>,
    address: SocketAddr,
    mode: Steer,
    why: Arc<str>,
}

/// What came of opening.
#[derive(Default)]
pub(super) struct Opened {
    /// `None`: nothing of the packet path can be had, and nothing but steering was wanted.
    pub(super) path: Option<KernelPath>,
    /// What is lost or worth a warning, one sentence each.
    pub(super) warnings: Vec<String>,
    /// Backends that an earlier run saw down, among those that are checked.
    pub(super) down: BTreeSet<BackendId>,
}

/// Opens the plane where the config has a use for it. With `[xdp]`: pinned, in `bpf_dir`, filled and attached.
/// Else only for `lb_steer`, and gone with the process.
///
/// # Errors
/// `[xdp]` is asked for and cannot be had: VIPs would be answered by nobody.
pub(super) fn open(
    plan: &Plan,
    snapshot: &Snapshot,
    bpf_dir: &Path,
    checked: &BTreeSet<BackendId>,
) -> anyhow::Result<Opened> {
    let xdp = plan.config.xdp.as_ref();
    if xdp.is_none() && snapshot.listeners.is_empty() {
        return Ok(Opened::default());
    }
    let plane = open_plane(xdp.map(|_| bpf_dir));
    match (plane, xdp) {
        (Err(error), Some(_)) => Err(error).context("[xdp] cannot be had, so no vip would be forwarded"),
        (Err(error), None) => {
            Ok(Opened { warnings: vec![format!("{error:#}: {LOST_STEER}")], ..Opened::default() })
        }
        (Ok(plane), None) => Ok(Opened { path: Some(KernelPath::new(plane)), ..Opened::default() }),
        (Ok(plane), Some(xdp)) => forward(plane, plan, xdp, snapshot, checked),
    }
}

fn open_plane(pins: Option<&Path>) -> anyhow::Result<Plane> {
    let missing = host::missing_capabilities();
    if !missing.is_empty() {
        return Err(anyhow!("this process lacks {}", missing.join(", ")));
    }
    Ok(Plane::open(steering::Options { pins: pins.map(Path::to_owned) })?)
}

/// Maps first, programs last: the first packet that meets a program finds a whole table.
fn forward(
    mut plane: Plane,
    plan: &Plan,
    xdp: &Xdp,
    snapshot: &Snapshot,
    checked: &BTreeSet<BackendId>,
) -> anyhow::Result<Opened> {
    let state_dir = &plan.config.state.dir;
    let secret = match &xdp.secret {
        Some(path) => {
            Secret::load(&plan.directory, path).with_context(|| format!("xdp.secret {}", path.display()))
        }
        None => Secret::load_or_make(state_dir).with_context(|| format!("secret in {}", state_dir.display())),
    }?;
    let outer = Outer::of(xdp).context("getifaddrs")?;
    let desired = desired(&plan.config, snapshot, secret.key(), outer, state_dir);
    let down = still_down(&plane, snapshot, checked);
    plane.sync(&desired, now_ticks())?;
    plane.set_down(&down, now_ticks())?;
    let mut warnings = outer.shortages(&plan.config);
    warnings.extend(host::forwarding_off(xdp.interfaces.iter().map(|interface| &*interface.name)));
    for (pool, table) in plane.tables() {
        if let Err(error) = lineage::keep(state_dir, pool, table) {
            warnings.push(format!(
                "the table of pool {pool} cannot be kept in {}: {error}; a restart may move more flows than \
                 necessary",
                state_dir.display()
            ));
        }
    }
    for interface in &xdp.interfaces {
        let attached = plane.attach(&interface.name, interface.mode)?;
        tracing::info!(interface = %interface.name, mode = ?attached.mode, adopted = attached.replaced, "XDP attached");
        warnings
            .extend(attached.fallback.map(|why| format!("{}: XDP in generic mode: {why}", interface.name)));
    }
    Ok(Opened { path: Some(KernelPath::new(plane)), warnings, down })
}

/// Those that an earlier run saw down, where the id still names that address and a check will say when it is back.
fn still_down(plane: &Plane, snapshot: &Snapshot, checked: &BTreeSet<BackendId>) -> BTreeSet<BackendId> {
    let known: BTreeSet<_> = plane.backends().filter(|(id, _)| plane.down().contains(id)).collect();
    let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
    backends
        .filter(|backend| {
            checked.contains(&backend.id) && known.contains(&(backend.id, backend.address.ip()))
        })
        .map(|backend| backend.id)
        .collect()
}

impl KernelPath {
    fn new(plane: Plane) -> Self {
        let mut path = Self { plane, steered: Vec::new(), neighbours: Neighbours::default() };
        path.nudge_neighbours();
        path
    }

    /// XDP finds a backend's Ethernet address only where the kernel knows it already.
    fn nudge_neighbours(&mut self) {
        let unknown = self.plane.stats().map_or(0, |stats| {
            let count = stats.reasons.iter().find(|(reason, _)| *reason == Reason::NoNeighbour);
            count.map_or(0, |(_, count)| *count)
        });
        if self.neighbours.are_due(unknown) {
            self.plane.backends().for_each(|(_, address)| neighbours::nudge(address));
        }
    }

    /// Hands every listener group to `lb_steer`; `cores` are those of the workers. What is lost, one sentence each.
    pub(super) fn steer(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
        cores: &[usize],
        groups: &[Group],
    ) -> Vec<String> {
        let workers: Vec<_> = cores.iter().copied().zip((0..).map(WorkerId)).collect();
        if let Err(error) = self.plane.steer_cores(&workers) {
            return vec![format!("{error}: {LOST_STEER}")];
        }
        let mut lost = Vec::new();
        for group in groups {
            let Some(listener) = snapshot.listeners.get(group.listener.index()) else { continue };
            let steer =
                config.listeners.get(&listener.name).map(|listener| listener.steer).unwrap_or_default();
            match self.steer_group(steer, cores, group) {
                Ok(choice) => {
                    let (name, mode) = (&listener.name, choice.mode);
                    tracing::info!(listener = %name, address = %group.address, ?mode, why = choice.reason, "lb_steer attached");
                    self.steered.push(Steered {
                        listener: name.clone(),
                        address: group.address,
                        mode: match mode {
                            SteerMode::Core => Steer::Core,
                            SteerMode::Hash => Steer::Hash,
                        },
                        why: choice.reason.into(),
                    });
                }
                Err(error) => {
                    lost.push(format!("listener {} {}: {error}: {LOST_STEER}", listener.name, group.address))
                }
            }
        }
        self.forget_others(&mut lost);
        lost
    }

    fn steer_group(&mut self, steer: Steer, cores: &[usize], group: &Group) -> steering::Result<Choice> {
        let mut facts = steering::gather_steer_facts(group.address.ip(), cores)?;
        facts.worker_cores = cores.to_vec();
        let choice = steering::choose_steer(steer, &facts);
        let sockets: Vec<_> = (0..).map(WorkerId).zip(group.sockets.iter().map(AsFd::as_fd)).collect();
        let group =
            steering::Group { address: group.address, protocol: TCP, sockets: &sockets, mode: choice.mode };
        self.plane.steer(&group)?;
        Ok(choice)
    }

    /// Groups of an earlier run that this config does not have.
    fn forget_others(&mut self, lost: &mut Vec<String>) {
        let known = self.plane.steer_counters().unwrap_or_default();
        for (address, protocol, _) in known {
            if self.steered.iter().any(|steered| steered.address == address && protocol == TCP) {
                continue;
            }
            if let Err(error) = self.plane.unsteer(address, protocol) {
                lost.push(format!("the group of {address} of an earlier run cannot be forgotten: {error}"));
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
                    });
                    reports.len() - 1
                });
            let report = &mut reports[at];
            report.by_core += counted.by_core;
            report.by_hash += counted.by_hash;
            report.missing += counted.missing;
        }
        Ok(reports)
    }

    fn packets(&self) -> steering::Result<Packets> {
        let (stats, status) = (self.plane.stats()?, self.plane.status());
        let phases = || status.pools.values().map(|pool| pool.slots);
        Ok(Packets {
            reasons: std::array::from_fn(|at| stats.reasons.get(at).map_or(0, |(_, count)| *count)),
            flow_events: std::array::from_fn(|at| stats.flow_events.get(at).map_or(0, |(_, count)| *count)),
            vips: stats.vips.into_iter().collect(),
            backends: stats.backends.into_iter().collect(),
            slots_open: phases().map(|slots| slots.open as u64).sum(),
            slots_closed: phases().map(|slots| slots.closed as u64).sum(),
            tables: status
                .pools
                .iter()
                .map(|(pool, table)| TableDigest {
                    pool: pool.as_str().into(),
                    digest: format!("{:016x}", table.digest),
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
            steer: self.steer_reports()?,
        })
    }
}

impl PacketPath for KernelPath {
    fn set_down(&mut self, down: &BTreeSet<BackendId>) -> Result<(), String> {
        self.plane.set_down(down, now_ticks()).map_err(|error| error.to_string())
    }

    fn tick(&mut self) -> Result<(), String> {
        self.nudge_neighbours();
        self.plane.tick(now_ticks()).map_err(|error| error.to_string())
    }

    fn read(&mut self) -> Result<Packets, String> {
        self.packets().map_err(|error| error.to_string())
    }
}

/// Takes our programs off their interfaces and our pins out of `bpf_dir`.
///
/// # Errors
/// The first file that cannot be removed; what was removed before stays removed.
pub fn detach(bpf_dir: &Path) -> anyhow::Result<Detached> {
    Ok(steering::detach(bpf_dir)?)
}

/// The clock that the programs read (bpf_ktime_get_coarse_ns).
fn now_ticks() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // Monotonic time begins at boot and is never negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    steering::ticks(
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)),
    )
}
