//! A snapshot with what this worker makes of it: compiled routes, its own round-robin positions.

use std::{cell::RefCell, sync::Arc};

use crate::{
    balance::round_robin::RoundRobin,
    config::{ListenerSnapshot, PoolSnapshot, Protocol, Snapshot},
    l7::{http1::HeadLimits, route::Routes},
    model::{ListenerId, PoolId, WorkerId},
};

/// Longest method taken; longer ones are answered 501.
const METHOD_BYTES_MAX: usize = 32;
/// Longest target taken, where the head may be that long; longer ones are answered 414.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Held by `Rc`: an exchange ends on the plan it began with.
pub(super) struct Plan {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) head_limits: HeadLimits,
    routes: Vec<Option<Routes>>,
    balancers: Vec<RefCell<RoundRobin>>,
}

impl Plan {
    pub(super) fn new(snapshot: Arc<Snapshot>, worker: WorkerId) -> Self {
        let routes = snapshot
            .listeners
            .iter()
            .map(|listener| match listener.protocol {
                Protocol::Http => Some(Routes::build(&snapshot, listener.id)),
                Protocol::Tcp => None,
            })
            .collect();
        let balancers = snapshot
            .pools
            .iter()
            .map(|pool| {
                let weights = pool.backends.iter().map(|backend| backend.weight);
                RefCell::new(RoundRobin::new(weights).skip(worker.index()))
            })
            .collect();
        let limits = &snapshot.limits;
        let head_limits = HeadLimits {
            bytes: limits.head_bytes,
            fields: limits.head_fields,
            target: TARGET_BYTES_MAX.min(limits.head_bytes),
            method: METHOD_BYTES_MAX,
        };
        Self { head_limits, routes, balancers, snapshot }
    }

    pub(super) fn listener(&self, id: ListenerId) -> Option<&ListenerSnapshot> {
        self.snapshot.listeners.get(id.index())
    }

    pub(super) fn pool(&self, id: PoolId) -> &PoolSnapshot {
        &self.snapshot.pools[id.index()]
    }

    pub(super) fn balancer(&self, id: PoolId) -> &RefCell<RoundRobin> {
        &self.balancers[id.index()]
    }

    /// Compiled routes of an http listener.
    pub(super) fn routes(&self, id: ListenerId) -> Option<&Routes> {
        self.routes.get(id.index()).and_then(Option::as_ref)
    }
}
