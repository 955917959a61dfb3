//! From a request to a route: the first match of an ordered list, found without walking it.
//!
//! Hosts and paths are looked up. Only routes of the same host and path that differ in their other conditions are tried
//! one after the other.

mod asked;
mod segments;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use foldhash::fast::FixedState;

pub use self::asked::Asked;
use self::segments::Node;
use super::{authority::HOST_BYTES_MAX, rewrite::match_segments};
use crate::{
    config::{Conditions, HostMatch, PathMatch, RouteAction, RouteSnapshot, Snapshot},
    model::{ListenerId, RouteId},
};

/// The keys are the config's, not a client's, so a fixed hash seed is no weakness.
type Table<V> = HashMap<Box<[u8]>, V, FixedState>;

/// Compiled routes of one listener.
///
/// Gives what a walk over `snapshot.listeners[..].routes` would give, provided that list is ordered as it
/// promises: exact host, then suffixes from long to short, then any; within a host exact path, then prefixes
/// from long to short, then paths with captures, then any; within a path those with conditions first. A host whose paths do not match falls through to the next, as in the walk.
#[derive(Debug, Default)]
pub struct Routes {
    exact: Table<Paths>,
    suffixes: Longest<Paths>,
    any: Paths,
    /// Every method that a route names.
    methods: Vec<Arc<str>>,
    /// Routes that only refuse; in order.
    refusing: Vec<RouteId>,
}

/// Routes of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: Table<Slot>,
    /// Keyed without the last `/`.
    prefixes: Longest<Slot>,
    segments: Option<Box<Node>>,
    any: Slot,
}

/// Routes of one host and path, in order.
#[derive(Debug, Default)]
struct Slot {
    conditional: Vec<(Conditions, RouteId)>,
    /// The first without conditions.
    always: Option<RouteId>,
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
        for route in in_order(snapshot, listener) {
            routes.insert(route);
            if matches!(&route.action, RouteAction::Respond(respond) if respond.status >= 400) {
                routes.refusing.push(route.id);
            }
            routes.methods.extend(route.conditions.methods.iter().cloned());
        }
        routes.methods.sort();
        routes.methods.dedup();
        routes
    }

    fn insert(&mut self, route: &RouteSnapshot) {
        let paths = match &route.host {
            HostMatch::Exact(host) => entry(&mut self.exact, host).or_default(),
            HostMatch::Suffix(suffix) => self.suffixes.entry(suffix).or_default(),
            HostMatch::Any => &mut self.any,
        };
        let slot = match &route.path {
            PathMatch::Exact(path) => entry(&mut paths.exact, path).or_default(),
            PathMatch::Prefix(prefix) => {
                let key = prefix.strip_suffix('/').unwrap_or(prefix);
                paths.prefixes.entry(key).or_default()
            }
            PathMatch::Segments(segments) => paths.segments.get_or_insert_default().slot(segments, route.id),
            PathMatch::Any => &mut paths.any,
        };
        slot.push(route);
    }

    /// The route of a request. Does not allocate.
    pub fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let mut lower = [0; HOST_BYTES_MAX];
        let host = lower_case(asked.host, &mut lower);
        self.find_by_host(host, asked).or_else(|| self.any.find(asked))
    }

    /// Methods with which a route would take a request that none takes as it is, and not only to refuse it; in the order of
    /// their names.
    pub fn allowed<'a>(&'a self, asked: &'a Asked<'a>) -> impl Iterator<Item = &'a str> {
        let takes = |method: &str| {
            let taker = self.find(&Asked { method: method.as_bytes(), ..*asked });
            taker.is_some_and(|route| self.refusing.binary_search(&route).is_err())
        };
        self.methods.iter().map(|method| &**method).filter(move |method| takes(method))
    }

    fn find_by_host(&self, host: &[u8], asked: &Asked<'_>) -> Option<RouteId> {
        if let Some(route) = self.exact.get(host).and_then(|paths| paths.find(asked)) {
            return Some(route);
        }
        self.suffixes.lens.iter().find_map(|&len| {
            let start = host.len().checked_sub(len).filter(|&start| start > 0)?;
            self.suffixes.by_key.get(host.get(start..)?)?.find(asked)
        })
    }
}

impl Paths {
    fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let path = asked.path;
        if let Some(route) = self.exact.get(path).and_then(|slot| slot.find(asked)) {
            return Some(route);
        }
        let prefixed = self.prefixes.lens.iter().find_map(|&len| {
            let ends_segment = path.len() == len || path.get(len) == Some(&b'/');
            let key = path.get(..len).filter(|_| ends_segment)?;
            self.prefixes.by_key.get(key)?.find(asked)
        });
        prefixed
            .or_else(|| self.segments.as_ref().and_then(|segments| segments.find(asked)))
            .or_else(|| self.any.find(asked))
    }
}

impl Slot {
    /// Puts a route behind those that are here. What stands behind one without conditions is never reached.
    fn push(&mut self, route: &RouteSnapshot) {
        if self.always.is_some() {
            return;
        }
        match route.conditions.count() {
            0 => self.always = Some(route.id),
            // A copy: its patterns match in memory of this worker's own.
            _ => self.conditional.push(((*route.conditions).clone(), route.id)),
        }
    }

    fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let met = self.conditional.iter().find(|(conditions, _)| asked.meets(conditions));
        met.map(|(_, route)| *route).or(self.always)
    }
}

/// Every route of a listener that takes this request, the one that gets it first: the walk that [`Routes`] spares.
pub fn all<'s>(
    snapshot: &'s Snapshot,
    listener: ListenerId,
    asked: &Asked<'_>,
) -> impl Iterator<Item = &'s RouteSnapshot> {
    let mut lower = [0; HOST_BYTES_MAX];
    let host = lower_case(asked.host, &mut lower).to_vec();
    in_order(snapshot, listener).filter(move |route| {
        let takes_host = match &route.host {
            HostMatch::Exact(exact) => host == exact.as_bytes(),
            HostMatch::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
            HostMatch::Any => true,
        };
        let takes_path = match &route.path {
            PathMatch::Exact(exact) => asked.path == exact.as_bytes(),
            PathMatch::Prefix(prefix) => {
                asked.path.starts_with(prefix.as_bytes())
                    || prefix.as_bytes().strip_suffix(b"/").is_some_and(|prefix| prefix == asked.path)
            }
            PathMatch::Segments(segments) => match_segments(segments, asked.path).is_some(),
            PathMatch::Any => true,
        };
        takes_host && takes_path && asked.meets(&route.conditions)
    })
}

fn in_order(snapshot: &Snapshot, listener: ListenerId) -> impl Iterator<Item = &RouteSnapshot> {
    let ids = snapshot.listener(listener).map(|l| l.routes.as_slice()).unwrap_or_default();
    ids.iter().filter_map(|id| snapshot.routes.get(id.index()))
}

/// In lower case; empty for a host that is too long to be anybody's name.
fn lower_case<'l>(host: &[u8], lower: &'l mut [u8; HOST_BYTES_MAX]) -> &'l [u8] {
    match lower.get_mut(..host.len()) {
        Some(lower) => {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            lower
        }
        None => &[],
    }
}

fn entry<'t, V>(table: &'t mut Table<V>, key: &str) -> Entry<'t, Box<[u8]>, V> {
    table.entry(key.as_bytes().into())
}

#[cfg(test)]
mod tests;
