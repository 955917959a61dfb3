//! What no table can know alone: references, duplicates, bounds over all, and whether uses fit their pool.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
};

use ipnet::IpNet;
use lb_abi::bounds;

use super::{
    choosing::{self, Uses},
    drafts::Drafts,
    health::HealthDraft,
    listener::ListenerDraft,
    named, nat,
    pool::PoolDraft,
    quic,
    reader::{At, Fault, Findings, Show},
    route::RouteDraft,
    route_conflicts, tls_uses,
    vip::VipDraft,
    vip_keys,
};
use crate::config::{BackendPlace, Balance, BindRange, Forward, Protocol, Severity};

/// Most routes, each counted once per host: a `RouteId` is a u16.
const ROUTES_MAX: usize = u16::MAX as usize;

/// Reports all that is wrong between the tables.
pub(super) fn check(drafts: &Drafts, findings: &Findings<'_>) {
    let checker = Checker {
        findings,
        pools: drafts.pools.iter().map(|pool| (&*pool.name, pool)).collect(),
        listeners: drafts.listeners.iter().map(|listener| (&*listener.name, listener)).collect(),
    };
    // Beyond the bounds nothing else is looked at: some checks compare each with each.
    if !checker.bounds(drafts) {
        return;
    }
    for vip in &drafts.vips {
        checker.vip(vip);
    }
    vip_keys::check(&drafts.vips, &drafts.listeners, findings);
    nat::check_all(drafts, findings);
    let routed: HashSet<&str> = routed_listeners(drafts).collect();
    for listener in &drafts.listeners {
        checker.listener(listener, &routed);
    }
    checker.bind_addresses(drafts);
    checker.ranges(drafts);
    checker.loops(drafts);
    for route in &drafts.routes {
        checker.route(route);
    }
    route_conflicts::check(&drafts.routes, drafts.unread.groups.as_ref(), findings);
    quic::check(drafts, findings);
    named::check(drafts, findings);
    tls_uses::check(drafts, findings);
    checker.pool_uses(drafts);
    if !drafts.has_programs {
        let programs = drafts.pools.iter().filter_map(|pool| pool.health.as_ref()?.program());
        let rule = "needs `programs_dir` in [health], the directory of such programs";
        programs.for_each(|program| findings.error(program, Fault::new(rule)));
    }
    checker.unused_pools(drafts);
    if let (false, Some(vip)) = (drafts.has_xdp, drafts.vips.first()) {
        let fault = Fault::new("a VIP needs [xdp] with the interfaces that its packets come in by");
        checker.header(Severity::Error, "vip", &vip.name, &vip.span, fault);
    }
}

/// Names of the listeners that routes name.
fn routed_listeners(drafts: &Drafts) -> impl Iterator<Item = &str> {
    let read = drafts.routes.iter().filter_map(|route| Some(&*route.listener.as_ref()?.value));
    read.chain(drafts.unread.uses.keys().map(|listener| &**listener))
}

struct Checker<'d, 'f> {
    findings: &'d Findings<'f>,
    pools: BTreeMap<&'d str, &'d PoolDraft>,
    listeners: BTreeMap<&'d str, &'d ListenerDraft>,
}

impl<'d> Checker<'d, '_> {
    fn header(&self, severity: Severity, table: &str, name: &str, span: &Range<usize>, fault: Fault) {
        self.findings.report(&format!("{table}.{name}"), span, Show::KeyOnly, severity, fault);
    }

    /// The pool that a reference names.
    fn find_pool(&self, reference: &At<Arc<str>>) -> Option<&'d PoolDraft> {
        let pool = self.pools.get(&*reference.value).copied();
        if pool.is_none() {
            let near = self.findings.near(&reference.value, self.pools.keys().copied());
            self.findings.error(reference, Fault::new("there is no pool of this name").suggest(near));
        }
        pool
    }

    fn vip(&self, vip: &VipDraft) {
        let pools: Vec<_> = vip.pools().filter_map(|pool| self.find_pool(pool)).collect();
        nat::check(vip, &pools, self.findings);
        for pool in pools {
            self.vip_backends(vip, pool);
        }
    }

    fn vip_backends(&self, vip: &VipDraft, pool: &PoolDraft) {
        let translates = vip.forward.as_ref().is_some_and(|at| at.value == Forward::Nat);
        for backend in &pool.backends {
            if !translates
                && let Some(other) = vip
                    .ports
                    .iter()
                    .find(|at| backend.value.port().is_some_and(|p| at.value.single() != Some(p)))
            {
                let message = format!(
                    "vip.{} forwards to its own port {} and cannot change it; leave the port out",
                    vip.name,
                    other.value.to_string().split('/').next().unwrap_or_default()
                );
                self.findings
                    .error(backend, Fault::new(message).suggest(backend.value.ip().map(|ip| ip.to_string())));
            }
            if backend.value.ip().is_some_and(|ip| vip.addresses.iter().any(|at| at.value == IpNet::from(ip)))
            {
                self.findings.error(backend, Fault::new(format!("is an address of vip.{} itself", vip.name)));
            }
        }
    }

    fn vip_probes(&self, vip: &VipDraft, pool: &PoolDraft) {
        let Some(kind) = pool.health.as_ref().and_then(HealthDraft::without_port) else { return };
        if pool.backends.iter().any(|backend| backend.value.port().is_none()) {
            let port = vip.ports.iter().find_map(|at| Some(at.value.single()?.to_string()));
            // Where a port is a value of the kind's key, it is what was meant.
            let (rule, port) = match kind.is_port {
                true => ("\"auto\" needs a port on every backend; give the port to probe", port),
                false => ("needs a port on every backend, or `port`, the port to probe", None),
            };
            self.findings.error(kind.at, Fault::new(rule).suggest(port));
        }
    }

    /// `lb_lookup` is asked before any bound socket is looked for, and knows one owner for each address and port.
    fn ranges(&self, drafts: &Drafts) {
        let listeners = || drafts.listeners.iter();
        let ranges: Vec<_> = listeners().flat_map(|l| l.ranges.iter().map(move |at| (&l.name, at))).collect();
        let streams = || listeners().filter(|listener| !listener.takes_datagrams());
        let bound = streams().flat_map(|l| l.bind.iter().map(move |at| (format!("listener.{}", l.name), at)));
        let bound: Vec<_> =
            bound.chain(drafts.admin_http.iter().map(|at| ("admin.http".to_owned(), at))).collect();
        for (at, (_, range)) in ranges.iter().enumerate() {
            // A range within another prefix is the nearer one; in the same prefix neither is.
            let other = ranges[..at]
                .iter()
                .find(|(_, other)| other.value.net == range.value.net && other.value.meets(&range.value));
            if let Some((other, _)) = other {
                let fault = Fault::new(format!("listener.{other} has ports of this prefix already"));
                self.findings.error(range, fault);
            }
            if let Some((owner, _)) = bound.iter().find(|(_, bound)| range.value.contains(bound.value)) {
                let fault = Fault::new(format!("{owner} is bound to an address and port in this range"));
                self.findings.error(range, fault);
            }
        }
    }

    fn listener(&self, listener: &ListenerDraft, routed: &HashSet<&str>) {
        listener.pool.as_ref().and_then(|pool| self.find_pool(pool));
        if listener.has_pool {
            return;
        }
        let name = &listener.name;
        match listener.protocol.as_ref().map(|at| at.value) {
            Some(Protocol::Udp) => {
                let fault = Fault::new("missing: must be the name of a pool, where datagrams go");
                self.header(Severity::Error, "listener", &format!("{name}.pool"), &listener.span, fault);
            }
            Some(Protocol::Tcp) if !routed.contains(&*listener.name) => {
                let fault = Fault::new("missing: must be the name of a pool, where connections go");
                self.header(Severity::Error, "listener", &format!("{name}.pool"), &listener.span, fault);
            }
            Some(Protocol::Http) if !routed.contains(&*listener.name) => {
                let fault = Fault::new("has neither routes nor a pool: every request is answered with 404");
                self.header(Severity::Warning, "listener", name, &listener.span, fault);
            }
            _ => {}
        }
    }

    /// What a use asks of a pool is said once per pool, with the first that uses it so.
    fn pool_uses(&self, drafts: &Drafts) {
        let mut vips = BTreeMap::new();
        for (vip, pool) in drafts.vips.iter().flat_map(|vip| vip.pools().map(move |pool| (vip, pool))) {
            vips.entry(&*pool.value).or_insert(vip);
        }
        let mut connections = BTreeMap::new();
        let listeners = drafts.listeners.iter().map(|listener| ("listener", &listener.name, &listener.pool));
        for (table, name, pool) in listeners.chain(drafts.routes.iter().map(|r| ("route", &r.name, &r.pool)))
        {
            let Some(pool) = pool else { continue };
            connections.entry(&*pool.value).or_insert_with(|| format!("{table}.{name}"));
        }
        for (listener, pool) in drafts.unread.pairs() {
            connections.entry(pool).or_insert_with(|| format!("a route of listener.{listener}"));
        }
        let datagrams = drafts.listeners.iter().filter(|listener| listener.takes_datagrams());
        let datagrams: BTreeMap<&str, &str> = datagrams
            .filter_map(|listener| Some((&*listener.pool.as_ref()?.value, &*listener.name)))
            .collect();
        for pool in &drafts.pools {
            if let (Some(user), Some(version)) = (datagrams.get(&*pool.name), &pool.proxy_protocol) {
                let fault = format!("listener.{user} uses this pool; datagrams are not headed by anything");
                self.findings.error(version, Fault::new(fault));
            }
            if let Some(vip) = vips.get(&*pool.name) {
                self.vip_probes(vip, pool);
                let user = format!("vip.{}", vip.name);
                self.balance(pool, &user, Balance::Maglev, "behind VIPs only \"maglev\" is supported");
                if let Some(version) = &pool.proxy_protocol {
                    let fault =
                        Fault::new(format!("{user} uses this pool; packets are not headed by anything"));
                    self.findings.error(version, fault);
                }
            }
            let vip = vips.get(&*pool.name).map(|vip| format!("vip.{}", vip.name));
            let is_tcp = |listener: &&ListenerDraft| {
                listener.protocol.as_ref().is_some_and(|at| at.value == Protocol::Tcp)
                    && listener.pool.as_ref().is_some_and(|at| at.value == pool.name)
            };
            let tcp =
                drafts.listeners.iter().find(is_tcp).map(|listener| format!("listener.{}", listener.name));
            let uses = Uses {
                balance: pool.balance.as_ref().map(|at| at.value),
                backends: &pool.backends,
                names: &pool.names,
                vip: vip.as_deref(),
                tcp: tcp.as_deref(),
            };
            choosing::check(&pool.choosing, &uses, self.findings);
            if let (Some(panic), None, None) = (&pool.choosing.panic, &pool.health, &pool.choosing.outlier) {
                let fault = "has no meaning without `health` or `outlier`: nobody is ever found bad";
                self.findings.error(panic, Fault::new(fault));
            }
            if let Some(user) = connections.get(&*pool.name) {
                for backend in
                    pool.backends.iter().filter(|at| matches!(at.value.place, BackendPlace::Ip(_, None)))
                {
                    self.findings
                        .error(backend, Fault::new(format!("needs a port, as {user} uses this pool")));
                }
            }
        }
    }

    fn balance(&self, pool: &PoolDraft, user: &str, only: Balance, rule: &str) {
        if let Some(balance) = pool.balance.as_ref().filter(|at| at.value != only) {
            self.findings.error(balance, Fault::new(format!("{user} uses this pool; {rule}")));
        }
    }

    fn bind_addresses(&self, drafts: &Drafts) {
        // A port of TCP and the same of UDP are two.
        let mut owners: HashMap<(SocketAddr, bool), String> = HashMap::new();
        if let Some(http) = &drafts.admin_http {
            owners.insert((http.value, false), "admin.http".to_owned());
        }
        for listener in &drafts.listeners {
            for bind in &listener.bind {
                let key = (bind.value, listener.takes_datagrams());
                match owners.get(&key) {
                    Some(owner) => {
                        self.findings
                            .error(bind, Fault::new(format!("{owner} is bound to this address already")));
                    }
                    None => _ = owners.insert(key, format!("listener.{}", listener.name)),
                }
            }
        }
    }

    /// A listener that is its own backend dials itself until no descriptor is left.
    fn loops(&self, drafts: &Drafts) {
        let mut uses: BTreeSet<(&str, &str)> = BTreeSet::new();
        let listeners = drafts.listeners.iter().map(|listener| (Some(&*listener.name), &listener.pool));
        let routes =
            drafts.routes.iter().map(|route| (route.listener.as_ref().map(|at| &*at.value), &route.pool));
        for (listener, pool) in listeners.chain(routes) {
            uses.extend(listener.zip(pool.as_ref().map(|at| &*at.value)));
        }
        uses.extend(drafts.unread.pairs());
        for (listener, pool) in uses {
            let (Some(listener), Some(pool)) = (self.listeners.get(listener), self.pools.get(pool)) else {
                continue;
            };
            for backend in &pool.backends {
                let BackendPlace::Ip(ip, port) = backend.value.place else { continue };
                let is_own = |bind: &At<SocketAddr>| {
                    let own = bind.value.ip();
                    // Of the addresses behind a wildcard, only loopback is known to be ours.
                    let any = own.is_unspecified() && own.is_ipv4() == ip.is_ipv4() && ip.is_loopback();
                    (own == ip || any) && port == Some(bind.value.port())
                };
                let is_in_range = |range: &At<BindRange>| {
                    port.is_some_and(|port| range.value.contains(SocketAddr::new(ip, port)))
                };
                if listener.bind.iter().any(is_own) || listener.ranges.iter().any(is_in_range) {
                    let fault =
                        Fault::new(format!("is listener.{} itself, which uses this pool", listener.name));
                    self.findings.error(backend, fault);
                }
            }
        }
    }

    fn route(&self, route: &RouteDraft) {
        route.pool.as_ref().and_then(|pool| self.find_pool(pool));
        let Some(reference) = &route.listener else { return };
        match self.listeners.get(&*reference.value) {
            None => {
                let near = self.findings.near(&reference.value, self.listeners.keys().copied());
                self.findings.error(reference, Fault::new("there is no listener of this name").suggest(near));
            }
            Some(listener) => match (listener.protocol.as_ref().map(|at| at.value), &route.sni) {
                (Some(Protocol::Tcp), None) => {
                    let rule = "is a relay (protocol = \"tcp\"): its routes go by `sni`";
                    self.findings.error(reference, Fault::new(rule));
                }
                (Some(Protocol::Udp), _) => {
                    self.findings.error(reference, Fault::new("takes datagrams, and those have no routes"));
                }
                (Some(Protocol::Http), Some(sni)) => {
                    let rule =
                        "only routes of listeners with protocol = \"tcp\" have it; requests have `host`";
                    self.findings.error(sni, Fault::new(rule));
                }
                _ => {}
            },
        }
    }

    fn unused_pools(&self, drafts: &Drafts) {
        let of_vips = drafts.vips.iter().flat_map(VipDraft::pools);
        let of_listeners = drafts.listeners.iter().map(|listener| &listener.pool);
        let of_routes = drafts.routes.iter().map(|route| &route.pool);
        let used = of_vips.chain(of_listeners.chain(of_routes).flatten()).map(|at| &*at.value);
        let used: HashSet<&str> = used.chain(drafts.unread.pairs().map(|(_, pool)| pool)).collect();
        for pool in drafts.pools.iter().filter(|pool| !used.contains(&*pool.name)) {
            let fault = Fault::new("nothing uses this pool");
            self.header(Severity::Warning, "pool", &pool.name, &pool.span, fault);
        }
    }

    /// Maps and ids have fixed sizes. False where one is too small.
    fn bounds(&self, drafts: &Drafts) -> bool {
        let vip_pools: HashSet<_> =
            drafts.vips.iter().flat_map(VipDraft::pools).map(|pool| &pool.value).collect();
        let source_pools: HashSet<_> = drafts
            .vips
            .iter()
            .flat_map(|vip| vip.sources.pools.iter().flatten())
            .map(|pool| &pool.value)
            .collect();
        let prefixes = drafts.vips.iter().map(|vip| vip.sources.pools.len()).sum();
        let first = |spans: Option<&Range<usize>>| spans.cloned().unwrap_or(0..0);
        let vips = first(drafts.vips.first().map(|vip| &vip.span));
        let pools = first(drafts.pools.first().map(|pool| &pool.span));
        let listeners = first(drafts.listeners.first().map(|listener| &listener.span));
        let routes = first(drafts.routes.first().map(|route| &route.span));
        let backends = drafts.pools.iter().map(|pool| pool.backends.len() + pool.names.len()).sum();
        // The ranges of a listener have a group of sockets for each family.
        let groups = |listener: &ListenerDraft| listener.bind.len() + 2.min(listener.ranges.len());
        let binds = drafts.listeners.iter().map(groups).sum();
        let keys = |vip: &VipDraft| {
            // For ICMP, and for fragments of either transport.
            let others = if vip.hashes_by_source() { 3 } else { 1 };
            vip.addresses.len().saturating_mul(vip.ports.len().saturating_add(others))
        };
        let keys = drafts.vips.iter().map(keys).fold(source_pools.len(), usize::saturating_add);
        let read: usize = drafts.routes.iter().map(|route| route.hosts.len().max(1)).sum();
        let conditions = read + drafts.unread.hosts;
        let keys_are = "keys of address, port and protocol over all VIPs (and one per address for ICMP, two more for fragments)";
        let mut is_kept = true;
        for (key, span, what, count, max) in [
            ("vip", &vips, keys_are, keys, bounds::VIP_KEYS_MAX as usize),
            ("vip", &vips, "VIPs", drafts.vips.len(), bounds::VIPS_MAX as usize),
            ("vip", &vips, "pools behind VIPs", vip_pools.len(), bounds::TABLES_MAX as usize),
            (
                "vip",
                &vips,
                "prefixes of sources over all VIPs",
                prefixes,
                bounds::SOURCE_PREFIXES_MAX as usize,
            ),
            ("pool", &pools, "backends", backends, bounds::BACKENDS_MAX as usize - 1),
            ("listener", &listeners, "listener addresses", binds, bounds::STEER_LISTENERS_MAX as usize),
            ("route", &routes, "hosts over all routes", conditions, ROUTES_MAX),
        ] {
            if count > max {
                let fault = Fault::new(format!("{count} {what}; {max} is the most"));
                self.findings.report(key, span, Show::KeyOnly, Severity::Error, fault);
                is_kept = false;
            }
        }
        is_kept
    }
}
