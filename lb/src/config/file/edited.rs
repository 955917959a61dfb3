//! A config that few entries of another one make: read is what an edit names and what that may have to do with, of the
//! routes; tables of the process, VIPs, listeners and pools are read as a whole.
//!
//! Whatever is wrong, or is not sure to be right, is left to whoever reads the whole document: only that says it in the
//! right words.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Loaded, json,
    notes::{DocumentSize, ReadingNotes},
    unread::{Groups, Unread},
};
use crate::config::{Config, Route};

/// Most routes that are read; beyond that it is not faster than to read all.
const READ_MAX: usize = 500;
/// Most of them whose warnings are carried on.
const WARNED_MAX: usize = 100;

/// What an edit names.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Routes, that there are or are to be.
    routes: BTreeSet<String>,
    /// Pools.
    pools: BTreeSet<String>,
}

impl Touched {
    /// One entry.
    pub fn entry(table: &str, name: &str) -> Self {
        let mut touched = Self::default();
        match table {
            "route" => _ = touched.routes.insert(name.to_owned()),
            "pool" => _ = touched.pools.insert(name.to_owned()),
            _ => {}
        }
        touched
    }

    /// What a merge patch names; `None`: more than single entries.
    pub fn by_patch(patch: &Value) -> Option<Self> {
        let patch = patch.as_object()?;
        let names = |table: &str| match patch.get(table) {
            None => Some(BTreeSet::new()),
            Some(entries) => Some(entries.as_object()?.keys().cloned().collect()),
        };
        Some(Self { routes: names("route")?, pools: names("pool")? })
    }
}

/// Reads the config that `apply` makes of the canonical document of `now`, whose entries it is given but for routes that
/// are not `touched`. `apply` says whether it could. Routes that stay are the very same.
///
/// `None`: the whole document has to be read.
pub fn read_edited(
    name: &str,
    now: &Config,
    notes: &ReadingNotes,
    touched: &Touched,
    apply: impl Fn(&mut Value) -> bool,
) -> Option<Loaded> {
    if touched.routes.len() > READ_MAX || notes.warned.len() > WARNED_MAX {
        return None;
    }
    let mut read: BTreeSet<Arc<str>> =
        touched.routes.iter().filter_map(|name| Some(now.routes.get_key_value(&**name)?.0.clone())).collect();
    let (news, grown) = match touched.routes.is_empty() {
        true => Default::default(),
        false => {
            let mut document = now.routes_to_json(&read);
            let is_applied = apply(&mut document);
            new_routes(document.get("route").filter(|_| is_applied)?)?
        }
    };
    let index = notes.index(now);
    let known = |name: &Arc<str>| now.routes.get(&**name).map(|route| &**route);
    let groups = {
        let olds = read.iter().chain(&notes.warned).filter_map(known);
        Groups::of(olds.chain(news.iter()), index.captured().filter_map(known))
    };
    for (listener, host, path) in groups.places() {
        read.extend(index.at(listener, host, path).iter().cloned());
    }
    if !touched.pools.is_empty() {
        // Whether there is another backend to try may be another answer now.
        let is_touched = |name: &&Arc<str>| {
            known(name)
                .and_then(|route| route.action.pool())
                .is_some_and(|pool| touched.pools.contains(&**pool))
        };
        read.extend(index.retried().filter(is_touched).cloned());
    }
    if read.len() > READ_MAX {
        return None;
    }
    let mut rest = index.clone();
    read.iter()
        .filter_map(|name| Some((name, known(name)?)))
        .for_each(|(name, route)| rest.remove(name, route));
    let uses = rest.uses();
    let unread = Unread { hosts: rest.hosts(), uses: uses.clone(), groups: Some(groups) };
    let mut document = now.to_json_with(&read);
    if !apply(&mut document) {
        return None;
    }
    let loaded = json::read_beside(name, &document, unread).ok()?;
    let size = notes.size.plus(grown);
    if !size.plus(loaded.notes.size).fits() || !are_kept(now, &loaded.config, &uses) {
        return None;
    }
    let mut config = loaded.config;
    let (mut routes, mut index) = (now.routes.clone(), index.clone());
    for name in &touched.routes {
        if let Some((name, route)) = now.routes.get_key_value(&**name) {
            index.remove(name, route);
        }
        match config.routes.get_key_value(&**name) {
            Some((name, route)) => {
                index.add(name, route);
                if routes.get(name) != Some(route) {
                    routes.insert(name.clone(), route.clone());
                }
            }
            None => _ = routes.remove(&**name),
        }
    }
    config.routes = routes;
    let notes = loaded.notes.with(size, index);
    Some(Loaded { config, notes, ..loaded })
}

/// Whether what unread routes name is there as it was.
fn are_kept(before: &Config, after: &Config, uses: &BTreeMap<Arc<str>, Vec<Arc<str>>>) -> bool {
    let protocol = |config: &Config, name: &str| Some(config.listeners.get(name)?.protocol);
    uses.iter().all(|(listener, pools)| {
        let now = protocol(after, listener);
        now.is_some()
            && now == protocol(before, listener)
            && pools.iter().all(|pool| after.pools.contains_key(pool))
    })
}

/// Routes of a document by themselves, and how much they add to it; `None` where anything is wrong with them.
fn new_routes(routes: &Value) -> Option<(Vec<Route>, DocumentSize)> {
    json::read_routes(&json!({ "version": 1, "route": routes }))
}

impl Config {
    /// The same config, of which whatever is as in `before` is that.
    #[must_use]
    pub fn sharing(mut self, before: &Self) -> Self {
        let mut routes = before.routes.clone();
        for name in before.routes.keys().filter(|name| !self.routes.contains_key(&***name)) {
            routes.remove(&**name);
        }
        for (name, route) in &self.routes {
            if routes.get(&**name) != Some(route) {
                routes.insert(name.clone(), route.clone());
            }
        }
        self.routes = routes;
        self
    }
}
