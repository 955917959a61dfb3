//! [`Config`] -> [`Snapshot`]: names become indexes, and routes stand in the order they are tried.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use super::{
    AccessLogSnapshot, BackendIds, BackendIdsExhausted, BackendSnapshot, Balance, Config, HostMatch,
    HostPattern, Keepalive, ListenerSnapshot, PathMatch, PathPattern, Pool, PoolSecret, PoolSnapshot,
    RouteAction, RouteSnapshot, Snapshot, Udp,
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
        ids.assign(config)?;
        let pools = config.pools.iter().zip(0..);
        let pools: Vec<_> =
            pools.map(|((name, pool), id)| pool_snapshot(PoolId(id), name, pool, ids)).collect();
        let pool_ids: HashMap<&str, PoolId> = pools.iter().map(|pool| (&*pool.name, pool.id)).collect();
        let routes = routes(config, &pool_ids);
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
            connections: listener.connections,
            udp: Udp {
                idle: listener.idle.unwrap_or(config.limits.idle_timeout),
                replies: listener.replies.unwrap_or(0),
            },
            pool: listener.pool.as_deref().and_then(|pool| pool_ids.get(pool).copied()),
            routes: routes.iter().filter(|(of, _)| of == name).map(|(_, route)| route.id).collect(),
        });
        let listeners = listeners.collect();
        drop(pool_ids);
        Ok(Self {
            generation,
            limits: config.limits,
            access_log: config
                .access_log
                .as_ref()
                .map(|log| AccessLogSnapshot { include: log.include(), sample_ppm: log.sample_ppm }),
            listeners,
            pools,
            routes: routes.into_iter().map(|(_, route)| route).collect(),
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
    }
}

/// Every route once per host with the name of its listener, most specific first.
fn routes(config: &Config, pool_ids: &HashMap<&str, PoolId>) -> Vec<(Arc<str>, RouteSnapshot)> {
    let mut routes = Vec::new();
    for (name, route) in &config.routes {
        let action = match &route.action {
            RouteAction::Forward { pool, rewrite } => {
                // A valid config has this pool.
                let Some(&pool) = pool_ids.get(&**pool) else { continue };
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
        routes.extend(hosts.chain(any).map(|host| {
            let compiled = RouteSnapshot {
                id: RouteId(0),
                name: name.clone(),
                host,
                path: path.clone(),
                conditions: route.conditions.clone(),
                priority: route.priority,
                action: action.clone(),
                request_headers: route.request_headers.clone(),
                response_headers: route.response_headers.clone(),
                timeout: route.timeout.unwrap_or(config.limits.idle_timeout),
                deadline: route.deadline,
                policy: route.policy.clone(),
            };
            (route.listener.clone(), compiled)
        }));
    }
    routes.sort_by(|(_, a), (_, b)| specificity(a, b));
    for ((_, route), id) in routes.iter_mut().zip(0..) {
        route.id = RouteId(id);
    }
    routes
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

    proptest! {
        #[test]
        fn file_order_of_routes_never_matters(routes in Just(mixed()).prop_shuffle()) {
            prop_assert_eq!(order(&routes.concat()), MOST_SPECIFIC_FIRST);
        }
    }
}
