//! Routes of a config by what an edit of others may have to do with, carried on from edit to edit: for one of ten thousand
//! routes the others need not be walked.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use super::unread::hosts;
use crate::config::{Config, HostPattern, PathPattern, Route};

/// Persistent: another one is made of it at the cost of what differs.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteIndex {
    /// Names of the routes of each place, by its hash.
    by_place: imbl::HashMap<u64, Vec<Arc<str>>>,
    /// How many lead from a listener to a pool, or to none.
    uses: imbl::OrdMap<Arc<str>, imbl::OrdMap<Option<Arc<str>>, usize>>,
    /// Those whose path has captures.
    captured: imbl::OrdSet<Arc<str>>,
    /// Those that are tried again.
    retried: imbl::OrdSet<Arc<str>>,
    /// Each counted once per host.
    hosts: usize,
}

impl RouteIndex {
    pub(super) fn of(config: &Config) -> Self {
        let mut index = Self::default();
        config.routes.iter().for_each(|(name, route)| index.add(name, route));
        index
    }

    pub(super) fn add(&mut self, name: &Arc<str>, route: &Route) {
        for host in hosts(route) {
            self.hosts += 1;
            let names = self.by_place.entry(place(&route.listener, host, route.path.as_ref())).or_default();
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        *self
            .uses
            .entry(route.listener.clone())
            .or_default()
            .entry(route.action.pool().cloned())
            .or_default() += 1;
        if matches!(route.path, Some(PathPattern::Segments(_))) {
            self.captured.insert(name.clone());
        }
        if route.policy.retry.is_some() {
            self.retried.insert(name.clone());
        }
    }

    /// One that was added.
    pub(super) fn remove(&mut self, name: &Arc<str>, route: &Route) {
        for host in hosts(route) {
            self.hosts -= 1;
            let place = place(&route.listener, host, route.path.as_ref());
            if let Some(names) = self.by_place.get_mut(&place) {
                names.retain(|known| known != name);
                if names.is_empty() {
                    self.by_place.remove(&place);
                }
            }
        }
        let (listener, pool) = (&route.listener, route.action.pool().cloned());
        if let Some(pools) = self.uses.get_mut(listener) {
            if let Some(count) = pools.get_mut(&pool) {
                *count -= 1;
                if *count == 0 {
                    pools.remove(&pool);
                }
            }
            if pools.is_empty() {
                self.uses.remove(listener);
            }
        }
        self.captured.remove(name);
        self.retried.remove(name);
    }

    /// Names of all routes of a place, and maybe of others.
    pub(super) fn at(
        &self,
        listener: &str,
        host: Option<&HostPattern>,
        path: Option<&PathPattern>,
    ) -> &[Arc<str>] {
        self.by_place.get(&place(listener, host, path)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn captured(&self) -> impl Iterator<Item = &Arc<str>> {
        self.captured.iter()
    }

    pub(super) fn retried(&self) -> impl Iterator<Item = &Arc<str>> {
        self.retried.iter()
    }

    /// Routes, each counted once per host.
    pub(super) fn hosts(&self) -> usize {
        self.hosts
    }

    /// Listeners with the pools that their routes lead to.
    pub(super) fn uses(&self) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
        let pools = |pools: &imbl::OrdMap<Option<Arc<str>>, usize>| pools.keys().flatten().cloned().collect();
        self.uses.iter().map(|(listener, of)| (listener.clone(), pools(of))).collect()
    }
}

fn place(listener: &str, host: Option<&HostPattern>, path: Option<&PathPattern>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (listener, host, path).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
impl PartialEq for RouteIndex {
    /// Names of a place are in no order.
    fn eq(&self, other: &Self) -> bool {
        let sorted = |index: &Self| {
            let of_place = |(place, names): (&u64, &Vec<Arc<str>>)| {
                let mut names = names.clone();
                names.sort();
                (*place, names)
            };
            index.by_place.iter().map(of_place).collect::<BTreeMap<_, _>>()
        };
        sorted(self) == sorted(other)
            && (&self.uses, &self.captured, &self.retried, self.hosts)
                == (&other.uses, &other.captured, &other.retried, other.hosts)
    }
}
