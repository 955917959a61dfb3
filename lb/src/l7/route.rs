//! From host and path to a route: the first match of an ordered list, found without walking it.

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::FixedState;

use super::authority::HOST_BYTES_MAX;
use crate::{
    config::{HostMatch, PathMatch, RouteSnapshot, Snapshot},
    model::{ListenerId, RouteId},
};

/// The keys are the config's, not a client's, so a fixed hash seed is no weakness.
type Table<V> = HashMap<Box<[u8]>, V, FixedState>;

/// Compiled routes of one listener.
///
/// Gives what a walk over `snapshot.listeners[..].routes` would give, provided that list is ordered as it
/// promises: exact host, then suffixes from long to short, then any; within a host exact path, then prefixes
/// from long to short, then any. A host whose paths do not match falls through to the next, as in the walk.
#[derive(Debug, Default)]
pub struct Routes {
    exact: Table<Paths>,
    suffixes: Longest<Paths>,
    any: Paths,
}

/// Routes of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: Table<RouteId>,
    /// Keyed without the last `/`.
    prefixes: Longest<RouteId>,
    any: Option<RouteId>,
}

/// Keys of few different lengths, tried from long to short: one hash per length that the config uses, so a
/// client cannot make a look-up dearer by its input.
#[derive(Debug)]
struct Longest<V> {
    by_key: Table<V>,
    /// Distinct, descending.
    lens: Vec<usize>,
}

impl<V> Default for Longest<V> {
    fn default() -> Self {
        Self { by_key: Table::default(), lens: Vec::new() }
    }
}

impl<V> Longest<V> {
    fn entry(&mut self, key: &str) -> Entry<'_, Box<[u8]>, V> {
        if let Err(at) = self.lens.binary_search_by(|len| key.len().cmp(len)) {
            self.lens.insert(at, key.len());
        }
        self.by_key.entry(key.as_bytes().into())
    }
}

impl Routes {
    /// Compiles the routes of one listener; empty for one that the snapshot does not have.
    pub fn build(snapshot: &Snapshot, listener: ListenerId) -> Self {
        let mut routes = Self::default();
        let ids = snapshot.listeners.get(listener.index()).map(|l| l.routes.as_slice()).unwrap_or_default();
        for route in ids.iter().filter_map(|id| snapshot.routes.get(id.index())) {
            routes.insert(route);
        }
        routes
    }

    fn insert(&mut self, route: &RouteSnapshot) {
        let paths = match &route.host {
            HostMatch::Exact(host) => entry(&mut self.exact, host).or_default(),
            HostMatch::Suffix(suffix) => self.suffixes.entry(suffix).or_default(),
            HostMatch::Any => &mut self.any,
        };
        // Of two routes with the same conditions the first in the list wins.
        match &route.path {
            PathMatch::Exact(path) => {
                entry(&mut paths.exact, path).or_insert(route.id);
            }
            PathMatch::Prefix(prefix) => {
                let key = prefix.strip_suffix('/').unwrap_or(prefix);
                paths.prefixes.entry(key).or_insert(route.id);
            }
            PathMatch::Any => {
                paths.any.get_or_insert(route.id);
            }
        }
    }

    /// The route of a request: `host` without port, in any case; `path` without query, normalised. Does not
    /// allocate.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        let mut lower = [0; HOST_BYTES_MAX];
        // A longer host is nobody's name.
        let host = match lower.get_mut(..host.len()) {
            Some(lower) => {
                lower.copy_from_slice(host);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => &[],
        };
        self.find_by_host(host, path).or_else(|| self.any.find(path))
    }

    fn find_by_host(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        if let Some(route) = self.exact.get(host).and_then(|paths| paths.find(path)) {
            return Some(route);
        }
        self.suffixes.lens.iter().find_map(|&len| {
            let start = host.len().checked_sub(len).filter(|&start| start > 0)?;
            self.suffixes.by_key.get(host.get(start..)?)?.find(path)
        })
    }
}

impl Paths {
    fn find(&self, path: &[u8]) -> Option<RouteId> {
        if let Some(&route) = self.exact.get(path) {
            return Some(route);
        }
        let prefixed = self.prefixes.lens.iter().find_map(|&len| {
            let ends_segment = path.len() == len || path.get(len) == Some(&b'/');
            let key = path.get(..len).filter(|_| ends_segment)?;
            self.prefixes.by_key.get(key).copied()
        });
        prefixed.or(self.any)
    }
}

fn entry<'t, V>(table: &'t mut Table<V>, key: &str) -> Entry<'t, Box<[u8]>, V> {
    table.entry(key.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{Limits, ListenerSnapshot, Protocol, Steer},
        model::{Generation, PoolId},
    };

    fn snapshot(conditions: &[(HostMatch, PathMatch)]) -> Snapshot {
        let routes: Vec<_> = conditions
            .iter()
            .enumerate()
            .map(|(at, (host, path))| RouteSnapshot {
                id: RouteId(at as u16),
                name: format!("r{at}").into(),
                host: host.clone(),
                path: path.clone(),
                pool: PoolId(0),
                timeout: Duration::from_secs(1),
            })
            .collect();
        let listener = ListenerSnapshot {
            id: ListenerId(0),
            name: "web".into(),
            protocol: Protocol::Http,
            bind: Vec::new(),
            steer: Steer::Auto,
            pool: None,
            routes: routes.iter().map(|route| route.id).collect(),
        };
        Snapshot {
            generation: Generation(1),
            access_log: None,
            limits: Limits::default(),
            listeners: vec![listener],
            pools: Vec::new(),
            routes,
        }
    }

    /// The order that a snapshot promises.
    fn rank((host, path): &(HostMatch, PathMatch)) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let host = match host {
            HostMatch::Exact(_) => (0, Reverse(0)),
            HostMatch::Suffix(suffix) => (1, Reverse(suffix.len())),
            HostMatch::Any => (2, Reverse(0)),
        };
        let path = match path {
            PathMatch::Exact(_) => (0, Reverse(0)),
            PathMatch::Prefix(prefix) => (1, Reverse(prefix.len())),
            PathMatch::Any => (2, Reverse(0)),
        };
        (host, path)
    }

    /// The walk, written from the doc comments of `HostMatch` and `PathMatch`.
    fn walk(snapshot: &Snapshot, host: &str, path: &str) -> Option<RouteId> {
        let host = host.to_ascii_lowercase();
        let matches = |route: &RouteSnapshot| {
            let host_matches = match &route.host {
                HostMatch::Exact(exact) => host == **exact,
                HostMatch::Suffix(suffix) => host.ends_with(&**suffix) && host.len() > suffix.len(),
                HostMatch::Any => true,
            };
            let path_matches = match &route.path {
                PathMatch::Exact(exact) => path == &**exact,
                PathMatch::Prefix(prefix) => path.starts_with(&**prefix) || format!("{path}/") == **prefix,
                PathMatch::Any => true,
            };
            host_matches && path_matches
        };
        snapshot.listeners[0]
            .routes
            .iter()
            .map(|id| &snapshot.routes[id.index()])
            .find(|route| matches(route))
            .map(|route| route.id)
    }

    fn arc(text: impl Into<String>) -> Arc<str> {
        text.into().into()
    }

    fn any_host() -> impl Strategy<Value = HostMatch> {
        prop_oneof![
            "(a|b)(\\.(a|b)){0,2}".prop_map(|host| HostMatch::Exact(arc(host))),
            "(\\.(a|b)){1,3}".prop_map(|suffix| HostMatch::Suffix(arc(suffix))),
            Just(HostMatch::Any),
        ]
    }

    fn any_path() -> impl Strategy<Value = PathMatch> {
        prop_oneof![
            "(/(x|y)){1,3}/?".prop_map(|path| PathMatch::Exact(arc(path))),
            "(/(x|y)){0,3}/".prop_map(|prefix| PathMatch::Prefix(arc(prefix))),
            Just(PathMatch::Any),
        ]
    }

    proptest! {
        #[test]
        fn equals_the_walk(
            mut conditions in prop::collection::vec((any_host(), any_path()), 0..24),
            requests in prop::collection::vec(("(a|B|b)(\\.(a|A|b)){0,4}|", "(/(x|y|xy)){0,4}/?|\\*"), 1..24),
        ) {
            conditions.sort_by_key(rank);
            let snapshot = snapshot(&conditions);
            let routes = Routes::build(&snapshot, ListenerId(0));
            for (host, path) in &requests {
                prop_assert_eq!(
                    routes.find(host.as_bytes(), path.as_bytes()),
                    walk(&snapshot, host, path),
                    "{} {}", host, path
                );
            }
        }
    }

    #[test]
    fn a_host_without_a_matching_path_falls_through() {
        let snapshot = snapshot(&[
            (HostMatch::Exact(arc("a.b")), PathMatch::Prefix(arc("/x/"))),
            (HostMatch::Suffix(arc(".b")), PathMatch::Exact(arc("/y"))),
            (HostMatch::Any, PathMatch::Any),
        ]);
        let routes = Routes::build(&snapshot, ListenerId(0));
        assert_eq!(routes.find(b"A.b", b"/x"), Some(RouteId(0)));
        assert_eq!(routes.find(b"a.b", b"/xy"), Some(RouteId(2)));
        assert_eq!(routes.find(b"a.b", b"/y"), Some(RouteId(1)));
        assert_eq!(routes.find(b"b", b"/y"), Some(RouteId(2)));
        assert_eq!(routes.find(&[b'a'; 4000], b"*"), Some(RouteId(2)));
        assert_eq!(Routes::build(&snapshot, ListenerId(7)).find(b"a.b", b"/x"), None);
    }
}
