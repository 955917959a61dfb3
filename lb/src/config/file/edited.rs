//! A config that few entries of another one make: read is what an edit names and what that may have to do with, of the
//! routes. There may be ten thousand of them, and each is looked at briefly; tables of the process, VIPs, listeners and
//! pools are read as a whole.
//!
//! Whatever is wrong, or is not sure to be right, is left to whoever reads the whole document: only that says it in the
//! right words.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    FILE_BYTES_MAX, Loaded,
    json::{self, VALUES_MAX},
};
use crate::config::{Config, HostPattern, PathPattern, Problems, Route, Segment, Segments};

/// Most routes that are read; beyond that it is not faster than to read all.
const READ_MAX: usize = 500;
/// Most of them whose warnings are carried on.
const WARNED_MAX: usize = 100;

/// What is to be known of a config beside itself, to read an edit of it.
#[derive(Clone, Debug, Default)]
pub struct ReadingNotes {
    /// Routes that there were warnings of.
    warned: BTreeSet<Arc<str>>,
    /// Its canonical document is no larger.
    pub(super) size: DocumentSize,
}

/// Size of a document.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DocumentSize {
    /// Bytes of compact JSON.
    pub(super) bytes: usize,
    /// Keys and values.
    pub(super) values: usize,
}

impl DocumentSize {
    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, values: self.values + other.values }
    }

    const fn fits(self) -> bool {
        self.bytes <= FILE_BYTES_MAX && self.values < VALUES_MAX
    }
}

impl ReadingNotes {
    pub(super) fn new(warnings: &Problems, size: DocumentSize) -> Self {
        let names = warnings.iter().filter_map(|problem| problem.key.strip_prefix("route."));
        let warned = names.filter_map(|name| Some(name.split('.').next()?.into())).collect();
        Self { warned, size }
    }
}

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

/// What is known of routes that stay as they are and are not read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Each counted once per host.
    pub(super) hosts: usize,
    /// Listeners with pools that their routes lead to.
    pub(super) uses: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Where routes are compared; `None`: everywhere.
    pub(super) groups: Option<Groups>,
    /// The last two names that were added: nearly all routes have those of their neighbour.
    last: Option<(Arc<str>, Option<Arc<str>>)>,
}

impl Unread {
    fn add(&mut self, route: &Route) {
        self.hosts += route.hosts.len().max(1);
        if let Some((listener, pool)) = &self.last
            && Arc::ptr_eq(listener, &route.listener)
            && match (pool, route.action.pool()) {
                (None, None) => true,
                (Some(last), Some(pool)) => Arc::ptr_eq(last, pool),
                _ => false,
            }
        {
            return;
        }
        self.last = Some((route.listener.clone(), route.action.pool().cloned()));
        let pools = match self.uses.get_mut(&route.listener) {
            Some(pools) => pools,
            None => self.uses.entry(route.listener.clone()).or_default(),
        };
        if let Some(pool) = route.action.pool().filter(|pool| !pools.contains(*pool)) {
            pools.insert(pool.clone());
        }
    }

    /// Listeners with the pools that their routes lead to.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.uses.iter().flat_map(|(listener, pools)| pools.iter().map(|pool| (&**listener, &**pool)))
    }
}

/// Listener and host.
type Site = (Arc<str>, Option<HostPattern>);

/// Places of routes: listener, host and path. Where a place is in here, so is every other one that a route of it is
/// compared with.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_path: HashMap<Option<PathPattern>, Vec<Site>>,
    /// Of those paths: most routes have none of them, and that can be told without a look at their text.
    sketches: BTreeSet<(u8, usize)>,
}

/// Kind and length.
fn sketch(path: Option<&PathPattern>) -> (u8, usize) {
    match path {
        None => (0, 0),
        Some(PathPattern::Exact(path)) => (1, path.len()),
        Some(PathPattern::Prefix(path)) => (2, path.len()),
        Some(PathPattern::Segments(_)) => (3, 0),
    }
}

impl Groups {
    /// Those of these routes, and what they may be compared with.
    fn of<'r>(routes: impl Iterator<Item = &'r Route> + Clone, now: &'r Config) -> Self {
        let mut groups = Self::default();
        // Hosts where one of them may take what captures would, or has some itself.
        let mut broad: Vec<(&Arc<str>, Option<&HostPattern>)> = Vec::new();
        for route in routes.clone() {
            for host in hosts(route) {
                groups.add(&route.listener, host, route.path.as_ref());
                let is_broad = matches!(route.path, Some(PathPattern::Prefix(_) | PathPattern::Segments(_)));
                if is_broad && !broad.contains(&(&route.listener, host)) {
                    broad.push((&route.listener, host));
                }
            }
        }
        if broad.is_empty() {
            return groups;
        }
        for route in now.routes.values().map(|route| &**route).chain(routes) {
            let Some(PathPattern::Segments(segments)) = &route.path else { continue };
            for host in hosts(route).filter(|host| broad.contains(&(&route.listener, *host))) {
                groups.add(&route.listener, host, route.path.as_ref());
                for prefix in literal_prefixes(segments) {
                    groups.add(&route.listener, host, Some(&PathPattern::Prefix(prefix.into())));
                }
            }
        }
        groups
    }

    fn add(&mut self, listener: &Arc<str>, host: Option<&HostPattern>, path: Option<&PathPattern>) {
        let path = path.cloned();
        if !self.has(listener, host, &path) {
            self.sketches.insert(sketch(path.as_ref()));
            self.by_path.entry(path).or_default().push((listener.clone(), host.cloned()));
        }
    }

    pub(super) fn has(&self, listener: &str, host: Option<&HostPattern>, path: &Option<PathPattern>) -> bool {
        let known = self.by_path.get(path).map(Vec::as_slice).unwrap_or_default();
        known.iter().any(|(of, known)| **of == *listener && known.as_ref() == host)
    }

    fn has_any(&self, route: &Route) -> bool {
        if !self.sketches.contains(&sketch(route.path.as_ref())) {
            return false;
        }
        let Some(known) = self.by_path.get(&route.path) else { return false };
        known.iter().any(|(of, host)| {
            *of == route.listener
                && match host {
                    None => route.hosts.is_empty(),
                    Some(host) => route.hosts.contains(host),
                }
        })
    }
}

fn hosts(route: &Route) -> impl Iterator<Item = Option<&HostPattern>> {
    let any = route.hosts.is_empty().then_some(None);
    route.hosts.iter().map(Some).chain(any)
}

/// Prefixes that take every path that these match, as far as literals tell.
pub(super) fn literal_prefixes(segments: &Segments) -> Vec<String> {
    let mut prefixes = vec!["/".to_owned()];
    for segment in &segments.segments {
        let (Segment::Literal(text), Some(last)) = (segment, prefixes.last()) else { break };
        prefixes.push(format!("{last}{text}/"));
    }
    prefixes
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
    let known = |name: &str| now.routes.get_key_value(name).map(|(name, _)| name.clone());
    let mut read: BTreeSet<Arc<str>> = touched.routes.iter().filter_map(|name| known(name)).collect();
    let (news, grown) = match touched.routes.is_empty() {
        true => Default::default(),
        false => {
            let mut document = now.to_json_with(&read);
            let is_applied = apply(&mut document);
            new_routes(document.get("route").filter(|_| is_applied)?)?
        }
    };
    let olds = read.iter().chain(&notes.warned).filter_map(|name| Some(&**now.routes.get(name)?));
    let groups = Groups::of(olds.chain(news.iter()), now);
    let mut unread = Unread::default();
    let own: Vec<_> = read.iter().filter_map(|name| Some(Arc::as_ptr(now.routes.get(name)?))).collect();
    for (name, route) in &now.routes {
        if own.contains(&Arc::as_ptr(route)) {
            continue;
        }
        // Whether there is another backend to try may be another answer now.
        let is_retried = || {
            route.policy.retry.is_some()
                && route.action.pool().is_some_and(|pool| touched.pools.contains(&**pool))
        };
        if groups.has_any(route) || (!touched.pools.is_empty() && is_retried()) {
            read.insert(name.clone());
        } else {
            unread.add(route);
        }
    }
    if read.len() > READ_MAX {
        return None;
    }
    unread.groups = Some(groups);
    let uses = unread.uses.clone();
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
    let mut routes = now.routes.clone();
    for name in &touched.routes {
        match config.routes.get_key_value(&**name) {
            Some((name, route)) if routes.get(name) != Some(route) => {
                routes.insert(name.clone(), route.clone());
            }
            Some(_) => {}
            None => _ = routes.remove(&**name),
        }
    }
    config.routes = routes;
    let notes = ReadingNotes { size, ..loaded.notes };
    Some(Loaded { config, notes, ..loaded })
}

/// Whether what unread routes name is there as it was.
fn are_kept(before: &Config, after: &Config, uses: &BTreeMap<Arc<str>, BTreeSet<Arc<str>>>) -> bool {
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
