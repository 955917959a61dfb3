//! What the packet path is made of beside a config, and the steps that a start and a change have in common.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use ipnet::IpNet;

use super::{
    desired::{Outer, desired, local},
    plan::Plan,
    quic,
    secret::Secret,
    sources,
};
use crate::{
    config::{Config, Interface, Snapshot, Xdp},
    model::BackendId,
    steering::{self, Desired, DesiredQuic, Plane, Presence, ProbePorts, ProbeWay},
};

/// What is lost where `lb_lookup` cannot be had.
pub(super) const LOST_RANGES: &str = "prefixes and port ranges in listener.bind cannot be had";

/// Which checks go the way of traffic, and by what.
#[derive(Default)]
pub(super) struct Through {
    /// Backends that are checked so.
    pub(super) backends: BTreeSet<BackendId>,
    /// For the prober, once.
    pub(super) ports: Option<ProbePorts>,
}

/// What the maps are made of beside config and snapshot: secrets and what stands in files.
#[derive(Clone)]
pub(super) struct Material {
    key: [u64; 2],
    deny: Arc<[IpNet]>,
    allow: Arc<[IpNet]>,
    quic: DesiredQuic,
}

impl Material {
    /// Read for a config with `[xdp]`.
    ///
    /// # Errors
    /// A file that cannot be read, or says something else.
    pub(super) fn read(plan: &Plan, xdp: &Xdp, snapshot: &Snapshot) -> anyhow::Result<Self> {
        let list =
            |key: &str, list| sources::read(&plan.directory, list).with_context(|| format!("xdp.{key}"));
        Ok(Self {
            key: Secret::of(plan)?.key(),
            deny: list("deny", &xdp.deny)?,
            allow: list("allow", &xdp.allow)?,
            quic: quic::desired(&plan.config, snapshot, &plan.directory)?,
        })
    }

    /// What the maps should hold.
    ///
    /// # Errors
    /// Those of getifaddrs(3).
    pub(super) fn desired(
        &self,
        config: &Config,
        snapshot: &Snapshot,
        outer: Outer,
    ) -> anyhow::Result<Desired> {
        let desired = desired(config, snapshot, self.key, outer, &config.state.dir);
        Ok(Desired {
            deny: self.deny.clone(),
            allow: self.allow.clone(),
            local: local(&desired.pools).context("getifaddrs")?,
            quic: self.quic.clone(),
            ..desired
        })
    }
}

/// Puts `lb_ingress` on an interface, where it is there. What is lost, one sentence each.
///
/// # Errors
/// It cannot be had.
pub(super) fn attach(plane: &mut Plane, interface: &Interface) -> steering::Result<Vec<String>> {
    let name = &interface.name;
    if plane.presence(name)? == Presence::Absent {
        return Ok(vec![format!("interface {name} is not there; it is attached when it comes")]);
    }
    let attached = plane.attach(name, interface.mode)?;
    tracing::info!(interface = %name, mode = ?attached.mode, adopted = attached.replaced, "XDP attached");
    Ok(attached.fallback.map(|why| format!("{name}: XDP in generic mode: {why}")).into_iter().collect())
}

/// Opens the ways of checks.
///
/// # Errors
/// What is lost, in one sentence.
pub(super) fn set_ways(plane: &mut Plane, ways: &[ProbeWay]) -> Result<Through, String> {
    let ports = plane.set_probe_ways(ways).map_err(|error| {
        format!(
            "{error}: health checks go to the backends' own addresses, so one whose tunnel is broken counts as up"
        )
    })?;
    Ok(Through { backends: ways.iter().map(|way| BackendId(way.number)).collect(), ports })
}
