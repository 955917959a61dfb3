//! A snapshot with what this worker makes of it: compiled routes with their changes and answers, its own round-robin
//! positions.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use super::trusted::Trusted;
use crate::{
    balance::round_robin::RoundRobin,
    config::{ListenerSnapshot, PoolSnapshot, Protocol, RouteSnapshot, Snapshot},
    l7::{
        answer::Answer,
        edit::{FieldEdits, RequestEdits},
        http1::HeadLimits,
        route::{Asked, Routes},
    },
    model::{ListenerId, PoolId, RouteId, WorkerId},
};

/// Longest method taken; longer ones are answered 501.
const METHOD_BYTES_MAX: usize = 32;
/// Longest target taken, where the head may be that long; longer ones are answered 414.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Held by `Rc`: an exchange ends on the plan it began with.
pub(super) struct Plan {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) head_limits: HeadLimits,
    http: Vec<Option<HttpPlan>>,
    routes: Vec<RoutePlan>,
    balancers: Vec<RefCell<RoundRobin>>,
}

/// What is compiled of an http listener.
pub(super) struct HttpPlan {
    routes: Routes,
    trusted: Trusted,
}

/// What is compiled of a route; nothing of one that only forwards.
#[derive(Default)]
pub(super) struct RoutePlan {
    pub(super) request: Option<Box<RequestEdits>>,
    pub(super) response: Option<Box<FieldEdits>>,
    pub(super) answer: Option<Box<Answer>>,
}

impl HttpPlan {
    /// Whether this client's word on whom it speaks for is believed.
    pub(super) fn trusts(&self, client: IpAddr) -> bool {
        self.trusted.contains(client)
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        self.routes.find(asked)
    }
}

impl Plan {
    pub(super) fn new(snapshot: Arc<Snapshot>, worker: WorkerId) -> Self {
        let http = snapshot
            .listeners
            .iter()
            .map(|listener| match listener.protocol {
                Protocol::Http => Some(HttpPlan {
                    routes: Routes::build(&snapshot, listener.id),
                    trusted: Trusted::new(&listener.trusted_proxies),
                }),
                Protocol::Tcp => None,
            })
            .collect();
        let routes = snapshot
            .routes
            .iter()
            .map(|route| RoutePlan {
                request: RequestEdits::new(route).map(Box::new),
                response: FieldEdits::new(&route.response_headers).map(Box::new),
                answer: Answer::new(route).map(Box::new),
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
        Self { head_limits, http, routes, balancers, snapshot }
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

    /// What is compiled of an http listener.
    pub(super) fn http(&self, id: ListenerId) -> Option<&HttpPlan> {
        self.http.get(id.index()).and_then(Option::as_ref)
    }

    /// A route, and what is compiled of it.
    pub(super) fn route(&self, id: RouteId) -> Option<(&RouteSnapshot, &RoutePlan)> {
        self.snapshot.routes.get(id.index()).zip(self.routes.get(id.index()))
    }
}
