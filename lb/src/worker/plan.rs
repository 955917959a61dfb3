//! A snapshot with what this worker makes of it: what is compiled of it for all workers, its own way of choosing backends,
//! what is left of its routes' retries.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use foldhash::fast::FixedState;

use super::{
    compiled::{Compiled, HttpPlan, Proxied, RatePlan, RoutePlan},
    line::Lines,
    pool_plan::PoolPlan,
};
use crate::{
    config::{ListenerSnapshot, PoolSnapshot, RateBy, Retry, RoutePolicy, RouteSnapshot, Snapshot},
    l7::http1::{HeadLimits, Upgrades},
    limits::RetryBudget,
    metrics::{BACKENDS_MAX, LISTENERS_MAX},
    model::{BackendId, ListenerId, PoolId, RouteId, WorkerId},
    relay::Names,
    tls::{Server, Upstream},
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
    /// Those that are spoken with through TLS.
    pub(super) sealed: Backends,
    compiled: Arc<Compiled>,
    /// Of listeners by id; [`NOWHERE`] where there is none.
    places: Box<[u16]>,
    /// Of pools by id; [`NOWHERE`] where there is none.
    pool_places: Box<[u16]>,
    /// By place in the snapshot.
    pools: Vec<Rc<PoolPlan>>,
    retries: Retries,
    /// Protocols that a connection may change to where no route says.
    pub(super) upgrades: Rc<Upgrades>,
    /// `limits.rate`.
    pub(super) rate: Option<Rc<RatePlan>>,
}

/// No place.
const NOWHERE: u16 = u16::MAX;

/// A set of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backends(Box<[u64; BACKENDS_MAX / 64]>);

impl Backends {
    fn of<'s>(pools: impl Iterator<Item = &'s PoolSnapshot>) -> Self {
        let mut words = Box::new([0; BACKENDS_MAX / 64]);
        for backend in pools.flat_map(|pool| &pool.backends) {
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

/// A route's `retry`, with what is left of it.
pub(super) struct RetryPlan {
    pub(super) policy: Arc<Retry>,
    pub(super) budget: RefCell<RetryBudget>,
}

/// Whether what was learnt of the one holds for the other.
fn is_chosen_alike(before: &PoolSnapshot, now: &PoolSnapshot) -> bool {
    before.backends == now.backends
        && before.balance == now.balance
        && before.choosing == now.choosing
        && before.secret == now.secret
        && before.sticky_secret == now.sticky_secret
}

/// Budgets by the names of routes: those that were asked for. All plans of a worker have the same.
#[derive(Clone, Default)]
struct Retries(Rc<RefCell<Budgets>>);

type Budgets = HashMap<Arc<str>, Rc<RetryPlan>, FixedState>;

impl Retries {
    fn of(&self, route: &RouteSnapshot) -> Option<Rc<RetryPlan>> {
        let policy = route.policy.retry.as_ref()?;
        let is_same = |known: &&Rc<RetryPlan>| Arc::ptr_eq(&known.policy, policy) || known.policy == *policy;
        if let Some(known) = self.0.borrow().get(&route.name).filter(is_same) {
            return Some(known.clone());
        }
        let budget = RefCell::new(RetryBudget::new(policy.budget_ppm));
        let made = Rc::new(RetryPlan { policy: policy.clone(), budget });
        self.0.borrow_mut().insert(route.name.clone(), made.clone());
        Some(made)
    }

    fn forget(&self, gone: &[Arc<str>]) {
        let mut retries = self.0.borrow_mut();
        for name in gone {
            retries.remove(name);
        }
    }
}

impl Plan {
    /// `before`: the one that held until now. What pools of the same kind have learnt goes on, and so do retry budgets.
    pub(super) fn new(
        compiled: Arc<Compiled>,
        before: Option<&Self>,
        worker: WorkerId,
        lines: &Lines,
    ) -> Self {
        let snapshot = compiled.snapshot().clone();
        let mut places = vec![NOWHERE; LISTENERS_MAX].into_boxed_slice();
        for (listener, at) in snapshot.listeners.iter().zip(0..) {
            places[listener.id.index()] = at;
        }
        let pool_ids = snapshot.pools.iter().map(|pool| pool.id.index() + 1).max().unwrap_or(0);
        let mut pool_places = vec![NOWHERE; pool_ids].into_boxed_slice();
        for (pool, at) in snapshot.pools.iter().zip(0..) {
            pool_places[pool.id.index()] = at;
        }
        let retries = before.map_or_else(Retries::default, |before| before.retries.clone());
        retries.forget(compiled.gone());
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
        let backends = Backends::of(snapshot.pools.iter());
        let tls = |at| compiled.pool_tls(at).is_some();
        let sealed = snapshot.pools.iter().enumerate().filter(|(at, _)| tls(*at)).map(|(_, pool)| pool);
        let sealed = Backends::of(sealed);
        Self {
            head_limits,
            backends,
            sealed,
            places,
            pool_places,
            pools,
            retries,
            upgrades,
            rate,
            snapshot,
            compiled,
        }
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

    /// Backends that were spoken with otherwise: without TLS, or on other terms.
    pub(super) fn spoken_otherwise(&self, before: &Self) -> Backends {
        Backends::of(before.snapshot.pools.iter().filter(|pool| !self.speaks_alike(before, pool)))
    }

    /// Whether backends of a pool of `before` are spoken with as they were.
    pub(super) fn speaks_alike(&self, before: &Self, pool: &PoolSnapshot) -> bool {
        let Some(now) = self.snapshot.pools.iter().find(|now| now.name == pool.name) else { return true };
        if now.protocol != pool.protocol {
            return false;
        }
        match (self.pool_tls(now.id), before.pool_tls(pool.id)) {
            (None, None) => true,
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            _ => false,
        }
    }

    /// Ids in a snapshot are those of its pools.
    fn pool_place(&self, id: PoolId) -> usize {
        usize::from(self.pool_places[id.index()])
    }

    pub(super) fn pool(&self, id: PoolId) -> &PoolSnapshot {
        &self.snapshot.pools[self.pool_place(id)]
    }

    /// How this worker chooses in a pool.
    pub(super) fn choosing(&self, id: PoolId) -> &PoolPlan {
        &self.pools[self.pool_place(id)]
    }

    /// What is compiled of an http listener.
    pub(super) fn http(&self, id: ListenerId) -> Option<&HttpPlan> {
        self.compiled.http(self.place(id)?)
    }

    /// Who speaks for others there; `None`: nobody.
    pub(super) fn proxied(&self, id: ListenerId) -> Option<&Proxied> {
        self.compiled.proxied(self.place(id)?)
    }

    /// Routes of a tcp listener by TLS server name; `None`: it has none, and a hello is not looked for.
    pub(super) fn names(&self, id: ListenerId) -> Option<&Names<RouteId>> {
        self.compiled.names(self.place(id)?)
    }

    /// How connections of a listener are made; `None`: without TLS.
    pub(super) fn tls(&self, id: ListenerId) -> Option<&Arc<Server>> {
        self.compiled.tls(self.place(id)?)
    }

    /// Fields that no client may have, but through a trusted proxy.
    pub(super) fn client_fields(&self) -> &[Arc<str>] {
        self.compiled.client_fields()
    }

    /// How connections to a pool's backends are made; `None`: without TLS.
    pub(super) fn pool_tls(&self, id: PoolId) -> Option<&Arc<Upstream>> {
        self.compiled.pool_tls(self.pool_place(id))
    }

    /// A route, and what is compiled of it.
    pub(super) fn route(&self, id: RouteId) -> Option<(&RouteSnapshot, &RoutePlan)> {
        self.snapshot.routes.get(id.index()).zip(self.compiled.route(id))
    }

    /// A route's `retry`, with what is left of it; the same for all hosts of a route.
    pub(super) fn retry(&self, route: &RouteSnapshot) -> Option<Rc<RetryPlan>> {
        self.retries.of(route)
    }
}
