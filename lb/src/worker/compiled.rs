//! What is compiled of a snapshot for every worker: by control, once, from what its predecessor was compiled to.
//!
//! It is never changed and has no state, so that workers share it: of routes that a change does not mention nothing is
//! made anew, and nothing of what went is freed between two turns of a worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use super::trusted::Trusted;
use crate::{
    config::{BurstRate, ListenerSnapshot, Protocol, ProxyHeaders, RateBy, RouteSnapshot, Slots, Snapshot},
    l7::{
        answer::Answer,
        edit::{FieldEdits, RequestEdits},
        http1::Upgrades,
        route::{Asked, Routes},
    },
    limits::Rate,
    model::RouteId,
    relay::Names,
    tls::{Server, Upstream},
};

/// What there is of TLS, by names of listeners and pools. What does not change over a change is the very same.
#[derive(Clone, Debug, Default)]
pub struct TlsParts {
    /// How connections of listeners are made that speak TLS.
    pub listeners: BTreeMap<Arc<str>, Arc<Server>>,
    /// How connections to backends of pools are made that speak TLS.
    pub pools: BTreeMap<Arc<str>, Arc<Upstream>>,
}

/// A snapshot, compiled.
pub struct Compiled {
    snapshot: Arc<Snapshot>,
    /// By place in the snapshot.
    listeners: Vec<Arc<ListenerPlan>>,
    /// By id.
    routes: Slots<RoutePlan>,
    /// By place in the snapshot.
    tls: Placed<Server>,
    /// By place of the pool in the snapshot.
    pool_tls: Placed<Upstream>,
    /// Fields that no client may have, but through a trusted proxy: they tell backends who it is.
    client_fields: Vec<Arc<str>>,
    /// Names of routes that its predecessor had and it has not.
    gone: Vec<Arc<str>>,
}

impl Compiled {
    /// Compiles all of it.
    pub fn new(snapshot: Arc<Snapshot>, tls: &TlsParts) -> Arc<Self> {
        let plan = |listener| Arc::new(ListenerPlan::new(&snapshot, listener, None));
        let listeners = snapshot.listeners.iter().map(plan).collect();
        let routes = snapshot.routes.map(RoutePlan::new);
        let (tls, pool_tls) = placed(&snapshot, tls);
        let client_fields = client_fields(&tls);
        Arc::new(Self { listeners, routes, tls, pool_tls, client_fields, gone: Vec::new(), snapshot })
    }

    /// Compiles a snapshot that was built after this one's: what differs.
    #[must_use]
    pub fn after(&self, snapshot: Arc<Snapshot>, tls: &TlsParts) -> Arc<Self> {
        let before = &self.snapshot;
        let mut moves: BTreeMap<&str, Moves<'_>> = BTreeMap::new();
        for (_, old, new) in before.routes.changes(&snapshot.routes) {
            if let Some(route) = old {
                moves.entry(&route.listener).or_default().out.push(route);
            }
            if let Some(route) = new {
                moves.entry(&route.listener).or_default().into.push(route);
            }
        }
        let known: BTreeMap<&str, _> = before
            .listeners
            .iter()
            .zip(&self.listeners)
            .map(|(known, plan)| (&*known.name, (known, plan)))
            .collect();
        let listeners = snapshot.listeners.iter().map(|listener| {
            let moves = moves.get(&*listener.name);
            match known.get(&*listener.name) {
                Some((old, plan)) if moves.is_none() && is_compiled_alike(old, listener) => Arc::clone(plan),
                known => {
                    let routes = known.and_then(|(_, plan)| Some(plan.http.as_ref()?.routes.clone()));
                    let none = Moves::default();
                    let routes = routes.map(|routes| moves.unwrap_or(&none).make(routes));
                    Arc::new(ListenerPlan::new(&snapshot, listener, routes))
                }
            }
        });
        let listeners = listeners.collect();
        let routes = snapshot.routes.carry_on(&before.routes, &self.routes, RoutePlan::new);
        let gone = moves.values().flat_map(|moves| &moves.out).map(|route| route.name.clone());
        let mut gone: BTreeSet<_> = gone.collect();
        for route in moves.values().flat_map(|moves| &moves.into) {
            gone.remove(&route.name);
        }
        let gone = gone.into_iter().collect();
        drop((moves, known));
        let (tls, pool_tls) = placed(&snapshot, tls);
        let client_fields = client_fields(&tls);
        Arc::new(Self { listeners, routes, tls, pool_tls, client_fields, gone, snapshot })
    }

    /// What it is compiled of.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(super) fn gone(&self) -> &[Arc<str>] {
        &self.gone
    }

    pub(super) fn http(&self, place: usize) -> Option<&HttpPlan> {
        self.listeners.get(place)?.http.as_ref()
    }

    pub(super) fn proxied(&self, place: usize) -> Option<&Proxied> {
        self.listeners.get(place)?.proxied.as_deref()
    }

    pub(super) fn names(&self, place: usize) -> Option<&Names<RouteId>> {
        self.listeners.get(place)?.names.as_deref()
    }

    /// How connections of a listener are made; `None`: without TLS.
    pub(super) fn tls(&self, place: usize) -> Option<&Arc<Server>> {
        self.tls.get(place)?.as_ref()
    }

    /// How connections to a pool's backends are made; `None`: without TLS.
    pub(super) fn pool_tls(&self, place: usize) -> Option<&Arc<Upstream>> {
        self.pool_tls.get(place)?.as_ref()
    }

    pub(super) fn client_fields(&self) -> &[Arc<str>] {
        &self.client_fields
    }

    pub(super) fn route(&self, id: RouteId) -> Option<&RoutePlan> {
        self.routes.get(id.index())
    }
}

/// By place; not everything speaks TLS.
type Placed<T> = Vec<Option<Arc<T>>>;

/// Those of all listeners: who has one pool behind two of them must not find a way round.
fn client_fields(listeners: &[Option<Arc<Server>>]) -> Vec<Arc<str>> {
    let entries = listeners.iter().flatten().flat_map(|server| server.entries());
    let names: BTreeSet<_> =
        entries.flat_map(|entry| entry.client_fields()).map(|(name, _)| name.clone()).collect();
    names.into_iter().collect()
}

/// TLS of listeners and of pools by their places.
fn placed(snapshot: &Snapshot, tls: &TlsParts) -> (Placed<Server>, Placed<Upstream>) {
    let listeners = snapshot.listeners.iter().map(|listener| tls.listeners.get(&listener.name).cloned());
    let pools = snapshot.pools.iter().map(|pool| tls.pools.get(&pool.name).cloned());
    (listeners.collect(), pools.collect())
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("generation", &self.snapshot.generation).finish_non_exhaustive()
    }
}

/// Routes of a listener that come and go.
#[derive(Default)]
struct Moves<'s> {
    out: Vec<&'s Arc<RouteSnapshot>>,
    into: Vec<&'s Arc<RouteSnapshot>>,
}

impl Moves<'_> {
    fn make(&self, mut routes: Routes) -> Routes {
        self.out.iter().for_each(|route| routes.remove(route));
        self.into.iter().for_each(|route| routes.insert(route));
        routes
    }
}

/// Whether, but for its routes, the same is made of both.
fn is_compiled_alike(before: &ListenerSnapshot, now: &ListenerSnapshot) -> bool {
    before.protocol == now.protocol
        && before.trusted_proxies == now.trusted_proxies
        && before.proxy_protocol == now.proxy_protocol
}

/// What is compiled of a listener.
struct ListenerPlan {
    http: Option<HttpPlan>,
    proxied: Option<Box<Proxied>>,
    names: Option<Box<Names<RouteId>>>,
}

impl ListenerPlan {
    /// `routes`: where they are compiled already.
    fn new(snapshot: &Snapshot, listener: &ListenerSnapshot, routes: Option<Routes>) -> Self {
        let http = match listener.protocol {
            Protocol::Http => Some(HttpPlan {
                routes: routes.unwrap_or_else(|| Routes::build(snapshot, listener.id)),
                trusted: Trusted::new(&listener.trusted_proxies),
            }),
            Protocol::Tcp | Protocol::Udp => None,
        };
        Self { http, proxied: Proxied::new(listener), names: names(snapshot, listener) }
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
    pub(super) rate: Option<Box<RatePlan>>,
}

impl RoutePlan {
    fn new(route: &RouteSnapshot) -> Self {
        Self {
            request: RequestEdits::new(route).map(Box::new),
            response: FieldEdits::new(&route.response_headers).map(Box::new),
            answer: Answer::new(route).map(Box::new),
            upgrades: Upgrades::new(route.policy.upgrades()),
            rate: RatePlan::of(route),
        }
    }
}

/// How often whom may ask.
pub(super) struct RatePlan {
    pub(super) rate: Rate,
    pub(super) by: RateBy,
    /// Keeps its keys apart from others'.
    pub(super) scope: Arc<str>,
}

impl RatePlan {
    pub(super) fn new(rate: BurstRate, by: RateBy, scope: Arc<str>) -> Self {
        Self { rate: Rate::new(rate.rate.interval(), rate.burst), by, scope }
    }

    fn of(route: &RouteSnapshot) -> Option<Box<Self>> {
        let limit = route.policy.rate_limit.as_ref()?;
        Some(Box::new(Self::new(limit.rate, limit.key.clone(), route.name.clone())))
    }
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

fn names(snapshot: &Snapshot, listener: &ListenerSnapshot) -> Option<Box<Names<RouteId>>> {
    let is_relay = listener.protocol == Protocol::Tcp;
    let routes = listener.routes.iter().filter_map(|id| snapshot.routes.get(id.index()));
    (is_relay && !listener.routes.is_empty())
        .then(|| Box::new(Names::new(routes.map(|route| (&route.host, route.id)))))
}
