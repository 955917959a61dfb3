//! Routes of a config that are not read anew, as an edit has nothing to do with them: what has to be known of them all the
//! same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::config::{HostPattern, PathPattern, Route, Segment, Segments};

/// What is known of routes that stay as they are and are not read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Each counted once per host.
    pub(super) hosts: usize,
    /// Listeners with pools that their routes lead to.
    pub(super) uses: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Where routes are compared; `None`: everywhere.
    pub(super) groups: Option<Groups>,
}

impl Unread {
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
}

impl Groups {
    /// Those of these routes, and what they may be compared with. `captured`: those of the config whose paths have captures.
    pub(super) fn of<'r>(
        routes: impl Iterator<Item = &'r Route> + Clone,
        captured: impl Iterator<Item = &'r Route>,
    ) -> Self {
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
        for route in captured.chain(routes) {
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
            self.by_path.entry(path).or_default().push((listener.clone(), host.cloned()));
        }
    }

    pub(super) fn has(&self, listener: &str, host: Option<&HostPattern>, path: &Option<PathPattern>) -> bool {
        let known = self.by_path.get(path).map(Vec::as_slice).unwrap_or_default();
        known.iter().any(|(of, known)| **of == *listener && known.as_ref() == host)
    }

    /// Of them all.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, Option<&HostPattern>, Option<&PathPattern>)> {
        self.by_path.iter().flat_map(|(path, sites)| {
            sites.iter().map(move |(listener, host)| (&**listener, host.as_ref(), path.as_ref()))
        })
    }
}

pub(super) fn hosts(route: &Route) -> impl Iterator<Item = Option<&HostPattern>> {
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
