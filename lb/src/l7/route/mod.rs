//! From a request to a route: the first match of an ordered list, found without walking it.
//!
//! Hosts and paths are looked up. Only routes of the same host and path that differ in their other conditions are tried
//! one after the other.

mod asked;
mod segments;
mod table;

use std::{cmp::Reverse, sync::Arc};

pub use self::asked::Asked;
use self::{
    segments::Node,
    table::{Longest, Table},
};
use super::{authority::HOST_BYTES_MAX, rewrite::match_segments};
use crate::{
    config::{Conditions, HostMatch, PathMatch, RouteAction, RouteSnapshot, Snapshot},
    model::{ListenerId, RouteId},
};

/// Compiled routes of one listener. A clone shares everything, and then whatever is not changed in it.
///
/// Gives what a walk over `snapshot.listeners[..].routes` would give, provided that list is ordered as it
/// promises: exact host, then suffixes from long to short, then any; within a host exact path, then prefixes
/// from long to short, then paths with captures, then any; within a path those with conditions first. A host whose paths do not match falls through to the next, as in the walk.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: Table<Arc<Paths>>,
    suffixes: Longest<Arc<Paths>>,
    any: Arc<Paths>,
    /// Every method that a route names, and how many do.
    methods: Vec<(Arc<str>, usize)>,
    /// Routes that only refuse; by number.
    refusing: Vec<RouteId>,
}

/// Routes of one host.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: Table<Slot>,
    /// Keyed without the last `/`.
    prefixes: Longest<Slot>,
    segments: Option<Arc<Node>>,
    any: Slot,
}

/// Routes of one host and path, in order.
#[derive(Clone, Debug, Default)]
struct Slot(Vec<Entry>);

/// One route in its place.
#[derive(Clone, Debug)]
struct Entry {
    rank: Rank,
    id: RouteId,
    /// `None`: there are none. Those of the config, whose patterns no worker has made.
    conditions: Option<Arc<Conditions>>,
}

/// Of routes with the same host and an equally specific path the lesser one goes first: more conditions, the greater
/// priority, then the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    conditions: Reverse<usize>,
    priority: Reverse<u16>,
    name: Arc<str>,
}

impl Rank {
    fn of(route: &RouteSnapshot) -> Self {
        Self {
            conditions: Reverse(route.conditions.count()),
            priority: Reverse(route.priority),
            name: route.name.clone(),
        }
    }
}

impl Routes {
    /// Compiles the routes of one listener; empty for one that the snapshot does not have.
    pub fn build(snapshot: &Snapshot, listener: ListenerId) -> Self {
        let mut routes = Self::default();
        in_order(snapshot, listener).for_each(|route| routes.insert(route));
        routes
    }

    /// Puts in a route of this listener.
    pub fn insert(&mut self, route: &RouteSnapshot) {
        let conditions = (route.conditions.count() > 0).then(|| route.conditions.clone());
        let entry = Entry { rank: Rank::of(route), id: route.id, conditions };
        let paths = match &route.host {
            HostMatch::Exact(host) => self.exact.entry(host.as_bytes()).0,
            HostMatch::Suffix(suffix) => self.suffixes.entry(suffix.as_bytes()),
            HostMatch::Any => &mut self.any,
        };
        Arc::make_mut(paths).insert(&route.path, entry);
        if refuses(route)
            && let Err(at) = self.refusing.binary_search(&route.id)
        {
            self.refusing.insert(at, route.id);
        }
        for method in &route.conditions.methods {
            match self.methods.binary_search_by(|(known, _)| known.cmp(method)) {
                Ok(at) => self.methods[at].1 += 1,
                Err(at) => self.methods.insert(at, (method.clone(), 1)),
            }
        }
    }

    /// Takes a route out that was [put in](Self::insert).
    pub fn remove(&mut self, route: &RouteSnapshot) {
        let rank = Rank::of(route);
        match &route.host {
            HostMatch::Any => Arc::make_mut(&mut self.any).remove(&route.path, &rank),
            HostMatch::Exact(host) => {
                let Some(paths) = self.exact.get_mut(host.as_bytes()) else { return };
                Arc::make_mut(paths).remove(&route.path, &rank);
                if paths.is_empty() {
                    self.exact.remove(host.as_bytes());
                }
            }
            HostMatch::Suffix(suffix) => {
                let Some(paths) = self.suffixes.by_key.get_mut(suffix.as_bytes()) else { return };
                Arc::make_mut(paths).remove(&route.path, &rank);
                if paths.is_empty() {
                    self.suffixes.remove(suffix.as_bytes());
                }
            }
        }
        if let Ok(at) = self.refusing.binary_search(&route.id) {
            self.refusing.remove(at);
        }
        for method in &route.conditions.methods {
            if let Ok(at) = self.methods.binary_search_by(|(known, _)| known.cmp(method)) {
                self.methods[at].1 -= 1;
            }
        }
        self.methods.retain(|(_, routes)| *routes > 0);
    }

    /// The route of a request. Does not allocate.
    pub fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let mut lower = [0; HOST_BYTES_MAX];
        let host = lower_case(asked.host, &mut lower);
        self.find_by_host(host, asked).or_else(|| self.any.find(asked)).map(|entry| entry.id)
    }

    /// Methods with which a route would take a request that none takes as it is, and not only to refuse it; in the order of
    /// their names.
    pub fn allowed<'a>(&'a self, asked: &'a Asked<'a>) -> impl Iterator<Item = &'a str> {
        let takes = |method: &str| {
            let taker = self.find(&Asked { method: method.as_bytes(), ..*asked });
            taker.is_some_and(|route| self.refusing.binary_search(&route).is_err())
        };
        self.methods.iter().map(|(method, _)| &**method).filter(move |method| takes(method))
    }

    fn find_by_host(&self, host: &[u8], asked: &Asked<'_>) -> Option<&Entry> {
        if let Some(entry) = self.exact.get(host).and_then(|paths| paths.find(asked)) {
            return Some(entry);
        }
        self.suffixes.lens().find_map(|len| {
            let start = host.len().checked_sub(len).filter(|&start| start > 0)?;
            self.suffixes.by_key.get(host.get(start..)?)?.find(asked)
        })
    }
}

/// Whether it only refuses.
fn refuses(route: &RouteSnapshot) -> bool {
    matches!(&route.action, RouteAction::Respond(respond) if respond.status >= 400)
}

/// What a prefix is looked up by.
fn prefix_key(prefix: &str) -> &[u8] {
    prefix.strip_suffix('/').unwrap_or(prefix).as_bytes()
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.segments.is_none() && self.any.is_empty()
    }

    fn insert(&mut self, path: &PathMatch, entry: Entry) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_bytes()).0.insert(entry),
            PathMatch::Prefix(prefix) => self.prefixes.entry(prefix_key(prefix)).insert(entry),
            PathMatch::Segments(segments) => {
                Arc::make_mut(self.segments.get_or_insert_default()).insert(segments, entry);
            }
            PathMatch::Any => self.any.insert(entry),
        }
    }

    fn remove(&mut self, path: &PathMatch, rank: &Rank) {
        match path {
            PathMatch::Exact(path) => {
                let Some(slot) = self.exact.get_mut(path.as_bytes()) else { return };
                slot.remove(rank);
                if slot.is_empty() {
                    self.exact.remove(path.as_bytes());
                }
            }
            PathMatch::Prefix(prefix) => {
                let Some(slot) = self.prefixes.by_key.get_mut(prefix_key(prefix)) else { return };
                slot.remove(rank);
                if slot.is_empty() {
                    self.prefixes.remove(prefix_key(prefix));
                }
            }
            PathMatch::Segments(segments) => {
                let Some(node) = &mut self.segments else { return };
                Arc::make_mut(node).remove(segments, rank);
                if node.is_empty() {
                    self.segments = None;
                }
            }
            PathMatch::Any => self.any.remove(rank),
        }
    }

    fn find(&self, asked: &Asked<'_>) -> Option<&Entry> {
        let path = asked.path;
        if let Some(entry) = self.exact.get(path).and_then(|slot| slot.find(asked)) {
            return Some(entry);
        }
        let prefixed = self.prefixes.lens().find_map(|len| {
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
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, entry: Entry) {
        let (Ok(at) | Err(at)) = self.0.binary_search_by(|known| known.rank.cmp(&entry.rank));
        self.0.insert(at, entry);
    }

    fn remove(&mut self, rank: &Rank) {
        if let Ok(at) = self.0.binary_search_by(|known| known.rank.cmp(rank)) {
            self.0.remove(at);
        }
    }

    /// What stands behind one without conditions is never reached.
    #[inline]
    fn find(&self, asked: &Asked<'_>) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.conditions.as_ref().is_none_or(|conditions| asked.meets(conditions)))
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

#[cfg(test)]
mod tests;
