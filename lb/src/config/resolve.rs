//! [`Config`] -> [`Snapshot`]: names become indexes, and routes stand in the order they are tried.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    BackendIds, BackendIdsExhausted, BackendSnapshot, Config, HostMatch, HostPattern, ListenerSnapshot,
    PathMatch, PathPattern, Pool, PoolSnapshot, RouteSnapshot, Snapshot,
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
            pool: listener.pool.as_deref().and_then(|pool| pool_ids.get(pool).copied()),
            routes: routes.iter().filter(|(of, _)| of == name).map(|(_, route)| route.id).collect(),
        });
        let listeners = listeners.collect();
        drop(pool_ids);
        Ok(Self {
            generation,
            limits: config.limits,
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
            address: SocketAddr::new(backend.ip, backend.port.unwrap_or(0)),
            weight: backend.weight,
        })
    });
    PoolSnapshot { id, name: name.clone(), backends: backends.collect(), keepalive: pool.keepalive }
}

/// Every route once per host with the name of its listener, most specific first.
fn routes(config: &Config, pool_ids: &HashMap<&str, PoolId>) -> Vec<(Arc<str>, RouteSnapshot)> {
    let mut routes = Vec::new();
    for (name, route) in &config.routes {
        // A valid config has this pool.
        let Some(&pool) = pool_ids.get(&*route.pool) else { continue };
        let path = match &route.path {
            None => PathMatch::Any,
            Some(PathPattern::Exact(path)) => PathMatch::Exact(path.clone()),
            Some(PathPattern::Prefix(path)) => PathMatch::Prefix(path.clone()),
        };
        let hosts = route.hosts.iter().map(|host| match host {
            HostPattern::Exact(host) => HostMatch::Exact(host.clone()),
            HostPattern::Wildcard(suffix) => HostMatch::Suffix(suffix.clone()),
        });
        let any = route.hosts.is_empty().then_some(HostMatch::Any);
        routes.extend(hosts.chain(any).map(|host| {
            let timeout = route.timeout.unwrap_or(config.limits.idle_timeout);
            let (name, path) = (name.clone(), path.clone());
            (route.listener.clone(), RouteSnapshot { id: RouteId(0), name, host, path, pool, timeout })
        }));
    }
    routes.sort_by(|(_, a), (_, b)| specificity(a, b));
    for ((_, route), id) in routes.iter_mut().zip(0..) {
        route.id = RouteId(id);
    }
    routes
}

/// Exact host > longest wildcard > none; exact path > longest prefix > none; then the name. The host's text
/// comes last, so that the order is total.
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
            PathMatch::Any => (2, 0),
        };
        (host_rank, Reverse(host_len), path_rank, Reverse(path_len), &*route.name, host)
    }
    key(a).cmp(&key(b))
}
