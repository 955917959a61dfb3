//! [`Config`] -> [`Snapshot`]: names become indexes, and routes stand in the order they are tried.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use super::{
    AccessLogSnapshot, BackendIds, BackendIdsExhausted, BackendSnapshot, Balance, Config, HostMatch,
    HostPattern, Keepalive, ListenerSnapshot, PathMatch, PathPattern, Pool, PoolSecret, PoolSnapshot, Route,
    RouteAction, RouteSnapshot, Slots, Snapshot, Udp,
};
use crate::model::{Generation, ListenerId, PoolId, RouteId};

impl Snapshot {
    /// Resolves a valid config. Backends without an id get one.
    ///
    /// # Errors
    /// There are too few backend ids left.
    pub fn build(
        config: &Config,
        generation: Generation,
        ids: &mut BackendIds,
    ) -> Result<Self, BackendIdsExhausted> {
        Self::build_after(None, config, generation, ids)
    }

    /// The same. Of a predecessor, with the config that it was built of, whatever is the same is shared, and pools and
    /// routes keep their numbers; what is built is what differs.
    ///
    /// # Errors
    /// As of [`Self::build`].
    pub fn build_after(
        before: Option<(&Config, &Self)>,
        config: &Config,
        generation: Generation,
        ids: &mut BackendIds,
    ) -> Result<Self, BackendIdsExhausted> {
        ids.assign(config)?;
        let pool_ids = pool_ids(before.map(|(_, snapshot)| snapshot), config);
        let pools = config.pools.iter().zip(&pool_ids);
        let pools = pools.map(|((name, pool), (_, id))| pool_snapshot(*id, name, pool, ids)).collect();
        // What a route does not say itself, this does.
        let is_timed_alike =
            |(before, _): &(&Config, &Self)| before.limits.idle_timeout == config.limits.idle_timeout;
        let mut routed = match before.filter(is_timed_alike) {
            Some((before, snapshot)) => Routed::after(before, snapshot, config, &pool_ids),
            None => Routed::all(config, &pool_ids),
        };
        let listeners = config.listeners.iter().zip(0..).map(|((name, listener), id)| ListenerSnapshot {
            id: ListenerId(id),
            name: name.clone(),
            protocol: listener.protocol,
            bind: listener.bind.clone(),
            steer: listener.steer,
            port: listener.port(),
            trusted_proxies: listener.trusted_proxies.clone(),
            proxy_protocol: listener.proxy_protocol,
            forwarded: listener.forwarded,
            h2c: listener.h2c,
            connections: listener.connections,
            udp: Udp {
                idle: listener.idle.unwrap_or(config.limits.idle_timeout),
                replies: listener.replies.unwrap_or(0),
            },
            pool: listener.pool.as_deref().and_then(|pool| pool_ids.get(pool).copied()),
            routes: routed.lists.remove(name).unwrap_or_default(),
        });
        let listeners = listeners.collect();
        Ok(Self {
            generation,
            limits: config.limits,
            access_log: config
                .access_log
                .as_ref()
                .map(|log| AccessLogSnapshot { include: log.include(), sample_ppm: log.sample_ppm }),
            listeners,
            pools,
            routes: routed.slots,
        })
    }
}

fn pool_snapshot(id: PoolId, name: &Arc<str>, pool: &Pool, ids: &BackendIds) -> PoolSnapshot {
    let backends = pool.backends.iter().filter_map(|backend| {
        Some(BackendSnapshot {
            id: ids.id(name, backend)?,
            name: backend.to_string().into(),
            address: backend.place.address(),
            weight: backend.weight,
            backup: backend.backup,
            max_connections: backend.max_connections.or(pool.choosing.max_connections),
            origin: backend.origin.as_ref().map(|name| name.to_string().into()),
        })
    });
    // A connection that began with one client's address is no other client's.
    let keepalive = match pool.proxy_protocol {
        None => pool.keepalive,
        Some(_) => Keepalive { per_worker: 0, ..pool.keepalive },
    };
    PoolSnapshot {
        id,
        name: name.clone(),
        backends: backends.collect(),
        is_named: !pool.names.is_empty(),
        keepalive,
        balance: pool.balance.unwrap_or(Balance::RoundRobin),
        choosing: pool.choosing.clone(),
        secret: PoolSecret::default(),
        sticky_secret: PoolSecret::default(),
        proxy_protocol: pool.proxy_protocol,
        protocol: pool.protocol,
    }
}

/// By name. Who has an id keeps it; a new pool gets the lowest that nobody has or had just before.
fn pool_ids<'c>(before: Option<&Snapshot>, config: &'c Config) -> BTreeMap<&'c str, PoolId> {
    let known: HashMap<&str, PoolId> =
        before.iter().flat_map(|before| &before.pools).map(|pool| (&*pool.name, pool.id)).collect();
    let taken: HashSet<PoolId> = known.values().copied().collect();
    let mut free = (0..).map(PoolId).filter(|id| !taken.contains(id));
    let mut id = |name: &str| known.get(name).copied().or_else(|| free.next());
    config.pools.keys().filter_map(|name| Some((&**name, id(name)?))).collect()
}

/// Every route once per host.
struct Routed {
    slots: Slots<RouteSnapshot>,
    /// By the name of the listener, most specific first.
    lists: BTreeMap<Arc<str>, Vec<RouteId>>,
}

impl Routed {
    fn all(config: &Config, pools: &BTreeMap<&str, PoolId>) -> Self {
        let routes = config.routes.iter().flat_map(|(name, route)| resolved(name, route, config, pools));
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by(specificity);
        let mut lists: BTreeMap<Arc<str>, Vec<RouteId>> = BTreeMap::new();
        for (route, id) in routes.iter_mut().zip(0..) {
            route.id = RouteId(id);
            match lists.get_mut(&route.listener) {
                Some(list) => list.push(route.id),
                None => _ = lists.insert(route.listener.clone(), vec![route.id]),
            }
        }
        Self { slots: routes.into(), lists }
    }

    fn after(before: &Config, snapshot: &Snapshot, config: &Config, pools: &BTreeMap<&str, PoolId>) -> Self {
        let lists = snapshot.listeners.iter();
        let lists = lists.map(|listener| (listener.name.clone(), listener.routes.clone())).collect();
        let mut routed = Self { slots: snapshot.routes.clone(), lists };
        let differing: Vec<_> = before.routes.diff(&config.routes).collect();
        for item in &differing {
            if let DiffItem::Update { old: (name, route), .. } | DiffItem::Remove(name, route) = item {
                resolved(name, route, config, pools).for_each(|route| routed.remove(&route));
            }
        }
        for item in differing {
            if let DiffItem::Update { new: (name, route), .. } | DiffItem::Add(name, route) = item {
                resolved(name, route, config, pools).for_each(|route| routed.insert(route));
            }
        }
        routed
    }

    fn place(&self, route: &RouteSnapshot) -> Result<usize, usize> {
        let Some(list) = self.lists.get(&route.listener) else { return Err(0) };
        // All of them are there.
        let order = |id: &RouteId| {
            self.slots.get(id.index()).map_or(Ordering::Less, |known| specificity(known, route))
        };
        list.binary_search_by(order)
    }

    fn remove(&mut self, route: &RouteSnapshot) {
        if let (Ok(at), Some(list)) = (self.place(route), self.lists.get_mut(&route.listener)) {
            self.slots.remove(list.remove(at).index());
        }
    }

    fn insert(&mut self, route: RouteSnapshot) {
        let (Ok(at) | Err(at)) = self.place(&route);
        let list = self.lists.entry(route.listener.clone()).or_default();
        // There are as many as ids at most.
        let id = self.slots.insert(|id| RouteSnapshot { id: RouteId(id as u16), ..route });
        list.insert(at, RouteId(id as u16));
    }
}

/// A route, once per host. A pool that is not there any more is any.
fn resolved<'a>(
    name: &'a Arc<str>,
    route: &'a Route,
    config: &Config,
    pools: &BTreeMap<&str, PoolId>,
) -> impl Iterator<Item = RouteSnapshot> + use<'a> {
    let action = match &route.action {
        RouteAction::Forward { pool, rewrite } => {
            let pool = pools.get(&**pool).copied().unwrap_or(PoolId(0));
            RouteAction::Forward { pool, rewrite: rewrite.clone() }
        }
        RouteAction::Redirect(redirect) => RouteAction::Redirect(redirect.clone()),
        RouteAction::Respond(respond) => RouteAction::Respond(respond.clone()),
    };
    let path = match &route.path {
        None => PathMatch::Any,
        Some(PathPattern::Exact(path)) => PathMatch::Exact(path.clone()),
        Some(PathPattern::Prefix(path)) => PathMatch::Prefix(path.clone()),
        Some(PathPattern::Segments(segments)) => PathMatch::Segments(segments.clone()),
    };
    let hosts = route.hosts.iter().map(|host| match host {
        HostPattern::Exact(host) => HostMatch::Exact(host.clone()),
        HostPattern::Wildcard(suffix) => HostMatch::Suffix(suffix.clone()),
    });
    let any = route.hosts.is_empty().then_some(HostMatch::Any);
    let idle_timeout = config.limits.idle_timeout;
    hosts.chain(any).map(move |host| RouteSnapshot {
        id: RouteId(0),
        name: name.clone(),
        listener: route.listener.clone(),
        host,
        path: path.clone(),
        conditions: route.conditions.clone(),
        priority: route.priority,
        action: action.clone(),
        request_headers: route.request_headers.clone(),
        response_headers: route.response_headers.clone(),
        timeout: route.timeout.unwrap_or(idle_timeout),
        deadline: route.deadline,
        policy: route.policy.clone(),
    })
}

/// Exact host > longest wildcard > none; exact path > longest prefix > pattern > none; more conditions; the greater
/// priority; then the name. The host's text comes last, so that the order is total.
fn specificity(a: &RouteSnapshot, b: &RouteSnapshot) -> Ordering {
    fn key(route: &RouteSnapshot) -> impl Ord + '_ {
        let (host_rank, host_len, host) = match &route.host {
            HostMatch::Exact(host) => (0, 0, &**host),
            HostMatch::Suffix(suffix) => (1, suffix.len(), &**suffix),
            HostMatch::Any => (2, 0, ""),
        };
        let (path_rank, path_len) = match &route.path {
            PathMatch::Exact(_) => (0, 0),
            PathMatch::Prefix(prefix) => (1, prefix.len()),
            PathMatch::Segments(_) => (2, 0),
            PathMatch::Any => (3, 0),
        };
        let place = (host_rank, Reverse(host_len), path_rank, Reverse(path_len));
        (place, Reverse(route.conditions.count()), Reverse(route.priority), &*route.name, host)
    }
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::time::Duration;

    use super::*;

    /// Routes of the listener "web", as text: name, host, path.
    fn order(routes: &str) -> Vec<String> {
        let snapshot = snapshot(routes, &mut BackendIds::new());
        let [web] = &snapshot.listeners[..] else { panic!("one listener") };
        let show = |id: &RouteId| {
            let route = &snapshot.routes[id.index()];
            assert_eq!(route.id, *id);
            let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let (host, path) = (shown(route.host.spelled()), shown(route.path.spelled()));
            format!("{} {host} {path}", route.name)
        };
        web.routes.iter().map(show).collect()
    }

    fn snapshot(tables: &str, ids: &mut BackendIds) -> Snapshot {
        let head = r#"
            version = 1
            limits.idle_timeout = "7s"
            [listener.web]
            bind = ["[::1]:80"]
            protocol = "http"
            pool = "b"
            [pool.b]
            backends = ["10.0.0.1:80", { address = "[2001:db8::1]:80", weight = 3 }]
            [pool.a]
            backends = ["10.0.0.1:80"]
        "#;
        let config = crate::config::parse("f", &format!("{head}{tables}")).unwrap().config;
        Snapshot::build(&config, Generation(4), ids).unwrap()
    }

    fn route(name: &str, host: &str, path: &str) -> String {
        let host = if host.is_empty() { String::new() } else { format!("host = [{host}]\n") };
        let path = if path.is_empty() { String::new() } else { format!("path = \"{path}\"\n") };
        format!("[route.{name}]\nlistener = \"web\"\npool = \"a\"\n{host}{path}")
    }

    fn mixed() -> Vec<String> {
        vec![
            route("any", "", ""),
            route("root", "", "/*"),
            route("short", "", "/a/*"),
            route("long", "", "/a/b/*"),
            route("exact", "", "/a"),
            route("wide", "\"*.example\"", "/x"),
            route("narrow", "\"*.api.example\"", ""),
            route("host", "\"api.example\"", ""),
            route("host-path", "\"api.example\", \"*.example\"", "/a/*"),
            route("b-same", "\"b.example\"", "/a/*"),
            route("captures", "", "/{x}"),
            route("often", "", "") + "method = [\"GET\"]\nquery = { a = \"1\" }\n",
            route("urgent", "", "") + "method = [\"PUT\"]\npriority = 1\n",
            route("also", "", "") + "method = [\"POST\"]\n",
        ]
    }

    const MOST_SPECIFIC_FIRST: [&str; 15] = [
        "b-same b.example /a/*",
        "host-path api.example /a/*",
        "host api.example -",
        "narrow *.api.example -",
        "wide *.example /x",
        "host-path *.example /a/*",
        "exact - /a",
        "long - /a/b/*",
        "short - /a/*",
        "root - /*",
        "captures - /{x}",
        "often - -",
        "urgent - -",
        "also - -",
        "any - -",
    ];

    #[test]
    fn names_become_indexes() {
        let mut ids = BackendIds::new();
        let snapshot = snapshot(&mixed().concat(), &mut ids);
        assert_eq!(
            (snapshot.generation, &*snapshot.pools[0].name, &*snapshot.pools[1].name),
            (Generation(4), "a", "b")
        );
        assert_eq!(snapshot.listeners[0].pool, Some(PoolId(1)));
        assert!(snapshot.routes.iter().all(|route| route.action.pool() == Some(&PoolId(0))));
        assert!(snapshot.routes.iter().all(|route| route.timeout == Duration::from_secs(7)));
        let backend = &snapshot.pools[1].backends[1];
        assert_eq!((&*backend.name, backend.weight), ("[2001:db8::1]:80", 3));
        assert_eq!(backend.address, "[2001:db8::1]:80".parse::<std::net::SocketAddr>().unwrap().into());
        // The same address in two pools is two backends.
        assert_ne!(snapshot.pools[0].backends[0].id, snapshot.pools[1].backends[0].id);
        assert_eq!(ids.given(), 3);
    }

    /// Routes by name over pools, each with a host and maybe a second one; and a timeout that they get where they have none.
    fn configs() -> impl Strategy<Value = Config> {
        let pools = prop::collection::btree_set("[p-s]", 1..4);
        let routes = prop::collection::btree_map(
            "[a-f]",
            (0..3_u8, any::<bool>(), any::<prop::sample::Index>()),
            0..6,
        );
        (pools, routes, 1..3_u8, any::<bool>()).prop_map(|(pools, routes, idle, has_other)| {
            let pools: Vec<_> = pools.into_iter().collect();
            let mut text = format!("version = 1\nlimits.idle_timeout = \"{idle}s\"\n");
            text += "[listener.one]\nbind = [\"[::1]:80\"]\nprotocol = \"http\"\n";
            if has_other {
                text += "[listener.other]\nbind = [\"[::1]:81\"]\nprotocol = \"http\"\n";
            }
            for pool in &pools {
                text += &format!("[pool.{pool}]\nbackends = [\"10.0.0.1:80\"]\n");
            }
            for (name, (host, is_other, pool)) in &routes {
                let listener = if *is_other && has_other { "other" } else { "one" };
                let pool = pool.get(&pools);
                text += &format!(
                    "[route.{name}]\nlistener = \"{listener}\"\nhost = [\"h{host}\", \"*.{name}\"]\npath = \"/{name}\"\npool = \"{pool}\"\n"
                );
            }
            crate::config::parse("f", &text).unwrap().config
        })
    }

    /// Everything but numbers.
    fn told(snapshot: &Snapshot) -> Vec<String> {
        let mut told = Vec::new();
        for listener in &snapshot.listeners {
            for id in &listener.routes {
                let route = &snapshot.routes[id.index()];
                let pool = &snapshot.pool(*route.action.pool().unwrap()).unwrap().name;
                told.push(format!(
                    "{} {} {} {:?} {pool} {:?}",
                    listener.name, route.listener, route.name, route.host, route.timeout
                ));
            }
        }
        told
    }

    proptest! {
        /// What is built after another one is what is built anew, and numbers stay.
        #[test]
        fn what_is_carried_on_is_the_same(configs in prop::collection::vec(configs(), 2..6)) {
            let mut now: Option<(Config, Snapshot)> = None;
            for config in configs {
                let before = now.as_ref().map(|(config, snapshot)| (config, snapshot));
                let next = Snapshot::build_after(before, &config, Generation(1), &mut BackendIds::new()).unwrap();
                let anew = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
                prop_assert_eq!(told(&next), told(&anew));
                prop_assert_eq!(next.routes.len(), anew.routes.len());
                let mut ids: Vec<_> = next.pools.iter().map(|pool| pool.id).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), next.pools.len());
                if let Some((before, old)) = &now {
                    for pool in &next.pools {
                        let known = old.pools.iter().find(|known| known.name == pool.name);
                        prop_assert!(known.is_none_or(|known| known.id == pool.id));
                    }
                    if before.routes == config.routes && before.limits == config.limits {
                        prop_assert_eq!(old.routes.changes(&next.routes).count(), 0);
                    }
                }
                now = Some((config, next));
            }
        }

        #[test]
        fn file_order_of_routes_never_matters(routes in Just(mixed()).prop_shuffle()) {
            prop_assert_eq!(order(&routes.concat()), MOST_SPECIFIC_FIRST);
        }
    }
}
