//! How the packet path comes up: loaded, asked what it remembers of an earlier run, then filled and attached.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context, anyhow};

use super::{
    clock::now_ticks,
    desired::Outer,
    forwarding::{LOST_RANGES, Material, Through, attach, set_ways},
    host,
    hotplug::Hotplug,
    lineage::{self, KeptTables},
    packet_path::{KernelPath, LOST_STEER},
    plan::Plan,
    ways::ways,
};
use crate::{
    config::{BackendIds, Config, Snapshot, Vip, Xdp},
    model::BackendId,
    steering::{self, Plane},
};

/// Programs and maps, loaded or adopted, as an earlier run left them.
pub(super) struct Loaded {
    plane: Option<Plane>,
    warnings: Vec<String>,
}

/// What came of opening.
#[derive(Default)]
pub(super) struct Opened {
    /// `None`: nothing of the packet path can be had, and nothing but steering was wanted.
    pub(super) path: Option<KernelPath>,
    /// What is lost or worth a warning, one sentence each.
    pub(super) warnings: Vec<String>,
    /// Backends that an earlier run saw down, among those that something will say of when they are back.
    pub(super) down: BTreeSet<BackendId>,
    /// For checks that go the way of traffic.
    pub(super) through: Through,
}

/// Loads what the config has a use for. With `[xdp]`: pinned, in `bpf_dir`. Else
/// only for `lb_steer`, and gone with the process.
///
/// # Errors
/// `[xdp]` or a listener's range is asked for and cannot be had, as nobody would answer; or another daemon has a
/// directory.
pub(super) fn load(config: &Config, bpf_dir: &Path) -> anyhow::Result<Loaded> {
    if config.xdp.is_some() {
        let plane =
            permitted().and_then(|()| Ok(Plane::open(steering::Options { pins: Some(bpf_dir.to_owned()) })?));
        let plane = plane.context("[xdp] cannot be had, so no vip would be forwarded")?;
        return Ok(Loaded { plane: Some(plane), warnings: Vec::new() });
    }
    if config.listeners.is_empty() {
        return Ok(Loaded { plane: None, warnings: Vec::new() });
    }
    Ok(match permitted().and_then(|()| Ok(Plane::open_for_steering()?)) {
        Ok(plane) => Loaded { plane: Some(plane), warnings: Vec::new() },
        Err(error) if config.listeners.values().any(|listener| !listener.ranges.is_empty()) => {
            return Err(error.context(LOST_RANGES));
        }
        Err(error) => Loaded { plane: None, warnings: vec![format!("{error:#}: {LOST_STEER}")] },
    })
}

fn permitted() -> anyhow::Result<()> {
    let missing = host::missing_capabilities();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(anyhow!("this process lacks {}", missing.join(", "))),
    }
}

impl Loaded {
    /// Ids under which slots and flow records of an earlier run know backends; the same addresses get them again.
    pub(super) fn backend_ids(&self, config: &Config) -> BackendIds {
        let mut ids = BackendIds::new();
        let Some(plane) = &self.plane else { return ids };
        let pools: BTreeSet<&Arc<str>> = config.vips.values().flat_map(Vip::pools).collect();
        let named = |pool: &&Arc<str>| {
            let table = lineage::load(&config.state.dir, pool)?;
            Some((Arc::clone(pool), table.members().iter().map(|member| member.id).collect()))
        };
        ids.adopt(plane.backends(), pools.iter().filter_map(named));
        ids
    }

    /// Fills the maps and attaches the programs, where there is an `[xdp]`. Of those in `checked` something will say when they are back.
    ///
    /// # Errors
    /// A map, an interface, the secret or the state directory refuses.
    pub(super) fn forward(
        self,
        plan: &Plan,
        snapshot: &Snapshot,
        checked: &BTreeSet<BackendId>,
    ) -> anyhow::Result<Opened> {
        match (self.plane, &plan.config.xdp) {
            (Some(plane), Some(xdp)) => forward(plane, plan, xdp, snapshot, checked),
            (plane, _) => {
                let path = plane.map(|plane| KernelPath::new(plane, KeptTables::new()));
                Ok(Opened { path, warnings: self.warnings, ..Opened::default() })
            }
        }
    }
}

/// Maps first, programs last: the first packet that meets a program finds a whole table.
fn forward(
    mut plane: Plane,
    plan: &Plan,
    xdp: &Xdp,
    snapshot: &Snapshot,
    checked: &BTreeSet<BackendId>,
) -> anyhow::Result<Opened> {
    let outer = Outer::of(xdp).context("getifaddrs")?;
    let desired = Material::read(plan, xdp, snapshot)?.desired(&plan.config, snapshot, outer)?;
    let down = still_down(&plane, snapshot, checked);
    plane.sync(&desired, now_ticks())?;
    plane.set_down(&down, now_ticks())?;
    let mut warnings = outer.shortages(&plan.config);
    let mut kept = KeptTables::new();
    warnings.extend(lineage::keep_changed(plane.tables(), &plan.config.state.dir, &mut kept));
    warnings.extend(host::forwarding_off(xdp.interfaces.iter().map(|interface| &*interface.name)));
    for interface in &xdp.interfaces {
        warnings.extend(attach(&mut plane, interface)?);
    }
    for interface in plane.detach_others()? {
        tracing::info!(%interface, "XDP detached: this config does not name the interface");
    }
    let ways = ways(&plan.config, snapshot, outer, &desired.local);
    let through = match set_ways(&mut plane, &ways) {
        Ok(through) => through,
        Err(warning) => {
            warnings.push(warning);
            Through::default()
        }
    };
    let path = KernelPath::new(plane, kept).watching(Hotplug::new(xdp.clone(), outer, desired));
    Ok(Opened { path: Some(path), warnings, down, through })
}

/// Those that an earlier run saw down, where the id still names that address and something will say when it is back.
fn still_down(plane: &Plane, snapshot: &Snapshot, checked: &BTreeSet<BackendId>) -> BTreeSet<BackendId> {
    let known: BTreeSet<_> = plane.backends().filter(|(id, _)| plane.down().contains(id)).collect();
    let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
    backends
        .filter(|backend| {
            checked.contains(&backend.id)
                && backend.address.ip().is_some_and(|ip| known.contains(&(backend.id, ip)))
        })
        .map(|backend| backend.id)
        .collect()
}
