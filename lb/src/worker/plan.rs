//! A snapshot with what this worker makes of it: compiled routes with their changes and answers, its own way of choosing
//! backends.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc, sync::Arc};

use super::{line::Lines, pool_plan::PoolPlan, trusted::Trusted};
use crate::{
    config::{
        BurstRate, ListenerSnapshot, PoolSnapshot, Protocol, ProxyHeaders, RateBy, Retry, RoutePolicy,
        RouteSnapshot, Snapshot,
    },
    l7::{
        answer::Answer,
        edit::{FieldEdits, RequestEdits},
        http1::{HeadLimits, Upgrades},
        route::{Asked, Routes},
    },
    limits::{Rate, RetryBudget},
    metrics::{BACKENDS_MAX, LISTENERS_MAX},
    model::{BackendId, ListenerId, PoolId, RouteId, WorkerId},
    relay::Names,
};

/// Longest method taken; longer ones are answered 501.
const METHOD_BYTES_MAX: usize = 32;
/// Longest target taken, where the head may be that long; longer ones are answered 414.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Held by `Rc`: an exchange ends on the plan it began with.
pub(super) struct Plan {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) head_limits: HeadLimits,
    /// Every backend that there is.
    pub(super) backends: Backends,
    /// By place in the snapshot.
    listeners: Vec<ListenerPlan>,
    /// By id; [`NOWHERE`] where there is none.
    places: Box<[u16]>,
    routes: Vec<RoutePlan>,
    pools: Vec<Rc<PoolPlan>>,
    /// Protocols that a connection may change to where no route says.
    pub(super) upgrades: Rc<Upgrades>,
    /// `limits.rate`.
    pub(super) rate: Option<Rc<RatePlan>>,
}

/// No place.
const NOWHERE: u16 = u16::MAX;

/// What is compiled of a listener.
struct ListenerPlan {
    http: Option<HttpPlan>,
    proxied: Option<Box<Proxied>>,
    names: Option<Box<Names<RouteId>>>,
}

impl ListenerPlan {
    fn new(snapshot: &Snapshot, listener: &ListenerSnapshot) -> Self {
        let http = match listener.protocol {
            Protocol::Http => Some(HttpPlan {
                routes: Routes::build(snapshot, listener.id),
                trusted: Trusted::new(&listener.trusted_proxies),
            }),
            Protocol::Tcp | Protocol::Udp => None,
        };
        Self { http, proxied: Proxied::new(listener), names: names(snapshot, listener) }
    }
}

/// A set of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backends(Box<[u64; BACKENDS_MAX / 64]>);

impl Backends {
    fn of(snapshot: &Snapshot) -> Self {
        let mut words = Box::new([0; BACKENDS_MAX / 64]);
        for backend in snapshot.pools.iter().flat_map(|pool| &pool.backends) {
            let at = backend.id.index();
            words[at / 64] |= 1 << (at % 64);
        }
        Self(words)
    }

    pub(super) fn contains(&self, id: BackendId) -> bool {
        let at = id.index();
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    /// Those that are not in `others`.
    pub(super) fn without(&self, others: &Self) -> Self {
        Self(Box::new(std::array::from_fn(|at| self.0[at] & !others.0[at])))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// What is compiled of an http listener.
pub(super) struct HttpPlan {
    routes: Routes,
    trusted: Trusted,
}

/// Who speaks for others on a listener, by PROXY headers.
pub(super) struct Proxied {
    trusted: Trusted,
    is_required: bool,
}

/// What a connection is expected to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    /// Its own first byte.
    Nothing,
    /// A PROXY header, or one if it likes.
    Header { is_required: bool },
    /// Nothing that we would read.
    Nobody,
}

impl Proxied {
    fn new(listener: &ListenerSnapshot) -> Option<Box<Self>> {
        let is_required = match listener.proxy_protocol {
            ProxyHeaders::Off => return None,
            ProxyHeaders::Accept => false,
            ProxyHeaders::Require => true,
        };
        Some(Box::new(Self { trusted: Trusted::new(&listener.trusted_proxies), is_required }))
    }

    pub(super) fn expects(&self, peer: IpAddr) -> Expects {
        match self.trusted.contains(peer) {
            true => Expects::Header { is_required: self.is_required },
            false if self.is_required => Expects::Nobody,
            false => Expects::Nothing,
        }
    }
}

/// What is compiled of a route.
pub(super) struct RoutePlan {
    pub(super) request: Option<Box<RequestEdits>>,
    pub(super) response: Option<Box<FieldEdits>>,
    pub(super) answer: Option<Box<Answer>>,
    pub(super) upgrades: Upgrades,
    /// The same for all hosts of a route.
    pub(super) retry: Option<Rc<RetryPlan>>,
    pub(super) rate: Option<Box<RatePlan>>,
}

/// How often whom may ask.
pub(super) struct RatePlan {
    pub(super) rate: Rate,
    pub(super) by: RateBy,
    /// Keeps its keys apart from others'.
    pub(super) scope: Arc<str>,
}

impl RatePlan {
    fn new(rate: BurstRate, by: RateBy, scope: Arc<str>) -> Self {
        Self { rate: Rate::new(rate.rate.interval(), rate.burst), by, scope }
    }

    fn of(route: &RouteSnapshot) -> Option<Box<Self>> {
        let limit = route.policy.rate_limit.as_ref()?;
        Some(Box::new(Self::new(limit.rate, limit.key.clone(), route.name.clone())))
    }
}

/// A route's `retry`, with what is left of it.
pub(super) struct RetryPlan {
    pub(super) policy: Arc<Retry>,
    pub(super) budget: RefCell<RetryBudget>,
}

impl HttpPlan {
    /// Whether this client's word on whom it speaks for is believed.
    pub(super) fn trusts(&self, client: IpAddr) -> bool {
        self.trusted.contains(client)
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        self.routes.find(asked)
    }

    /// Methods with which a request that no route takes would be taken.
    pub(super) fn allowed<'a>(&'a self, asked: &'a Asked<'a>) -> impl Iterator<Item = &'a str> {
        self.routes.allowed(asked)
    }
}

/// Whether what was learnt of the one holds for the other.
fn is_chosen_alike(before: &PoolSnapshot, now: &PoolSnapshot) -> bool {
    before.backends == now.backends
        && before.balance == now.balance
        && before.choosing == now.choosing
        && before.secret == now.secret
        && before.sticky_secret == now.sticky_secret
}

/// Budgets by the names of routes, while a plan is made.
struct Retries(HashMap<Arc<str>, Rc<RetryPlan>>);

impl Retries {
    fn of_those(before: Option<&Plan>) -> Self {
        let routes = before.iter().flat_map(|plan| plan.snapshot.routes.iter().zip(&plan.routes));
        let known = routes.filter_map(|(route, plan)| Some((route.name.clone(), plan.retry.clone()?)));
        Self(known.collect())
    }

    fn of(&mut self, route: &RouteSnapshot) -> Option<Rc<RetryPlan>> {
        let policy = route.policy.retry.as_ref()?;
        if let Some(known) = self.0.get(&route.name).filter(|known| known.policy == *policy) {
            return Some(known.clone());
        }
        let budget = RefCell::new(RetryBudget::new(policy.budget_ppm));
        let made = Rc::new(RetryPlan { policy: policy.clone(), budget });
        self.0.insert(route.name.clone(), made.clone());
        Some(made)
    }
}

fn names(snapshot: &Snapshot, listener: &ListenerSnapshot) -> Option<Box<Names<RouteId>>> {
    let is_relay = listener.protocol == Protocol::Tcp;
    let routes = listener.routes.iter().filter_map(|id| snapshot.routes.get(id.index()));
    (is_relay && !listener.routes.is_empty())
        .then(|| Box::new(Names::new(routes.map(|route| (&route.host, route.id)))))
}

impl Plan {
    /// `before`: the one that held until now. What pools of the same kind have learnt goes on, and so do retry budgets.
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        before: Option<&Self>,
        worker: WorkerId,
        lines: &Lines,
    ) -> Self {
        let listeners =
            snapshot.listeners.iter().map(|listener| ListenerPlan::new(&snapshot, listener)).collect();
        let mut places = vec![NOWHERE; LISTENERS_MAX].into_boxed_slice();
        for (listener, at) in snapshot.listeners.iter().zip(0..) {
            places[listener.id.index()] = at;
        }
        let mut retries = Retries::of_those(before);
        let routes = snapshot
            .routes
            .iter()
            .map(|route| RoutePlan {
                request: RequestEdits::new(route).map(Box::new),
                response: FieldEdits::new(&route.response_headers).map(Box::new),
                answer: Answer::new(route).map(Box::new),
                upgrades: Upgrades::new(route.policy.upgrades()),
                retry: retries.of(route),
                rate: RatePlan::of(route),
            })
            .collect();
        let known: HashMap<_, _> = before
            .iter()
            .flat_map(|before| before.snapshot.pools.iter().zip(&before.pools))
            .map(|(pool, plan)| (&*pool.name, (pool, plan)))
            .collect();
        let pools = snapshot.pools.iter().map(|pool| match known.get(&*pool.name) {
            Some((old, plan)) if is_chosen_alike(old, pool) => Rc::clone(plan),
            _ => Rc::new(PoolPlan::new(pool, worker, lines)),
        });
        let pools = pools.collect();
        let limits = &snapshot.limits;
        let head_limits = HeadLimits {
            bytes: limits.head_bytes,
            fields: limits.head_fields,
            target: TARGET_BYTES_MAX.min(limits.head_bytes),
            method: METHOD_BYTES_MAX,
        };
        let upgrades = Rc::new(Upgrades::new(RoutePolicy::upgrades_default()));
        // No route has an empty name.
        let rate = limits.rate.map(|rate| Rc::new(RatePlan::new(rate, RateBy::Address, "".into())));
        let backends = Backends::of(&snapshot);
        Self { head_limits, backends, listeners, places, routes, pools, upgrades, rate, snapshot }
    }

    pub(super) fn listener(&self, id: ListenerId) -> Option<&ListenerSnapshot> {
        self.snapshot.listeners.get(self.place(id)?)
    }

    fn place(&self, id: ListenerId) -> Option<usize> {
        self.places.get(id.index()).filter(|place| **place != NOWHERE).map(|place| usize::from(*place))
    }

    /// Whether a listener of `before` is none any more, or speaks another protocol.
    pub(super) fn has_lost_listeners(&self, before: &Self) -> bool {
        before
            .snapshot
            .listeners
            .iter()
            .any(|old| self.listener(old.id).is_none_or(|listener| listener.protocol != old.protocol))
    }

    pub(super) fn pool(&self, id: PoolId) -> &PoolSnapshot {
        &self.snapshot.pools[id.index()]
    }

    /// How this worker chooses in a pool.
    pub(super) fn choosing(&self, id: PoolId) -> &PoolPlan {
        &self.pools[id.index()]
    }

    /// What is compiled of an http listener.
    pub(super) fn http(&self, id: ListenerId) -> Option<&HttpPlan> {
        self.listeners.get(self.place(id)?)?.http.as_ref()
    }

    /// Who speaks for others there; `None`: nobody.
    pub(super) fn proxied(&self, id: ListenerId) -> Option<&Proxied> {
        self.listeners.get(self.place(id)?)?.proxied.as_deref()
    }

    /// Routes of a tcp listener by TLS server name; `None`: it has none, and a hello is not looked for.
    pub(super) fn names(&self, id: ListenerId) -> Option<&Names<RouteId>> {
        self.listeners.get(self.place(id)?)?.names.as_deref()
    }

    /// A route, and what is compiled of it.
    pub(super) fn route(&self, id: RouteId) -> Option<(&RouteSnapshot, &RoutePlan)> {
        self.snapshot.routes.get(id.index()).zip(self.routes.get(id.index()))
    }
}
