//! Routes that cannot be told apart, and routes that are never reached.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{
    reader::{Fault, Findings, Show},
    route::RouteDraft,
    unread::{Groups, literal_prefixes},
};
use crate::config::{Conditions, HostPattern, PathPattern, Severity};

/// Most earlier routes of one kind that a route is compared with; only a config that wants to be slow has more.
const COMPARED_MAX: usize = 64;

/// One host of one route.
#[derive(Clone, Copy)]
struct Entry<'d> {
    route: &'d RouteDraft,
    /// Its place among the route's hosts; `None`: any.
    host: Option<usize>,
}

impl<'d> Entry<'d> {
    fn host(self) -> Option<&'d HostPattern> {
        self.route.hosts.get(self.host?).map(|at| &at.value)
    }

    fn path(self) -> Option<&'d PathPattern> {
        self.route.path.as_ref().map(|at| &at.value)
    }

    /// As `config::resolve` orders routes of the same host.
    fn order(self) -> impl Ord + 'd {
        let (rank, len) = match self.path() {
            Some(PathPattern::Exact(_)) => (0, 0),
            Some(PathPattern::Prefix(prefix)) => (1, prefix.len()),
            Some(PathPattern::Segments(_)) => (2, 0),
            None => (3, 0),
        };
        let count = self.route.conditions.count();
        (rank, Reverse(len), Reverse(count), Reverse(self.route.priority), &*self.route.name)
    }
}

/// Reports them; `groups`: where all are there that a route is compared with, and elsewhere it is not. `None`: everywhere.
pub(super) fn check(routes: &[RouteDraft], groups: Option<&Groups>, findings: &Findings<'_>) {
    let mut hosts: BTreeMap<&str, HashMap<Option<&HostPattern>, Vec<Entry<'_>>>> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.is_comparable) {
        let Some(listener) = &route.listener else { continue };
        let entries = match route.hosts.len() {
            0 => vec![Entry { route, host: None }],
            hosts => (0..hosts).map(|host| Entry { route, host: Some(host) }).collect(),
        };
        let of_listener = hosts.entry(&*listener.value).or_default();
        let path = route.path.as_ref().map(|at| at.value.clone());
        let is_whole =
            |entry: &Entry<'_>| groups.is_none_or(|groups| groups.has(&listener.value, entry.host(), &path));
        for entry in entries.into_iter().filter(is_whole) {
            of_listener.entry(entry.host()).or_default().push(entry);
        }
    }
    for mut entries in hosts.into_values().flat_map(HashMap::into_values) {
        entries.sort_by_key(|entry| entry.order());
        check_host(&entries, findings);
    }
}

/// Routes of one host, most specific first.
#[expect(
    clippy::mutable_key_type,
    reason = "a pattern is hashed by its text; what changes in it is scratch memory"
)]
fn check_host(entries: &[Entry<'_>], findings: &Findings<'_>) {
    type Whole<'d> = (Option<&'d PathPattern>, &'d Conditions, u16);
    let mut wholes: HashMap<Whole<'_>, Entry<'_>> = HashMap::new();
    let mut by_path: HashMap<Option<&PathPattern>, Vec<Entry<'_>>> = HashMap::new();
    let mut by_prefix: HashMap<&str, Vec<Entry<'_>>> = HashMap::new();
    let mut patterns: Vec<Entry<'_>> = Vec::new();
    for &entry in entries {
        let (path, conditions) = (entry.path(), &*entry.route.conditions);
        if let Some(&other) = wholes.get(&(path, conditions, entry.route.priority)) {
            alike(entry, other, findings);
            continue;
        }
        let covers = |other: &&Entry<'_>| other.route.conditions.covers(conditions);
        let mut taker = by_path.get(&path).and_then(|same| same.iter().take(COMPARED_MAX).find(covers));
        if let Some(PathPattern::Segments(own)) = path {
            for prefix in literal_prefixes(own) {
                let at_prefix = by_prefix.get(&*prefix);
                taker =
                    taker.or_else(|| at_prefix.and_then(|same| same.iter().take(COMPARED_MAX).find(covers)));
            }
            taker = taker.or_else(|| {
                patterns.iter().take(COMPARED_MAX).filter(covers).find(
                    |other| matches!(other.path(), Some(PathPattern::Segments(other)) if other.covers(own)),
                )
            });
        }
        match taker {
            Some(&taker) if is_alike(entry, taker) => alike(entry, taker, findings),
            Some(&taker) => never_reached(entry, taker, findings),
            None => {}
        }
        wholes.insert((path, conditions, entry.route.priority), entry);
        by_path.entry(path).or_default().push(entry);
        if let Some(PathPattern::Segments(_)) = path {
            patterns.push(entry);
        }
        if let Some(PathPattern::Prefix(prefix)) = path {
            by_prefix.entry(prefix).or_default().push(entry);
        }
    }
}

/// Whether only the names of captures differ.
fn is_alike(entry: Entry<'_>, other: Entry<'_>) -> bool {
    let (Some(PathPattern::Segments(own)), Some(PathPattern::Segments(others))) =
        (entry.path(), other.path())
    else {
        return false;
    };
    own.covers(others)
        && others.covers(own)
        && entry.route.conditions == other.route.conditions
        && entry.route.priority == other.route.priority
}

/// The same place, conditions and priority: neither is the more specific one.
fn alike(entry: Entry<'_>, other: Entry<'_>, findings: &Findings<'_>) {
    let fault = match (other.route.name == entry.route.name, entry.route.conditions.count()) {
        (true, _) => Fault::new("this host is listed already"),
        (false, 0) => Fault::new(format!("route.{} has the same listener, host and path", other.route.name)),
        (false, _) => {
            Fault::new(format!("route.{} has the same listener, host, path and conditions", other.route.name))
        }
    };
    report(entry, Severity::Error, fault, findings);
}

fn never_reached(entry: Entry<'_>, taker: Entry<'_>, findings: &Findings<'_>) {
    let path = taker.path().map_or_else(|| "any path".to_owned(), |path| format!("{:?}", path.to_string()));
    let fault = format!(
        "is never reached{}: route.{} ({path}) goes first and takes all of it",
        entry.host().map_or_else(String::new, |host| format!(" for {host}")),
        taker.route.name
    );
    report(entry, Severity::Warning, Fault::new(fault), findings);
}

fn report(entry: Entry<'_>, severity: Severity, fault: Fault, findings: &Findings<'_>) {
    let route = entry.route;
    match entry.host.and_then(|host| route.hosts.get(host)).filter(|_| severity == Severity::Error) {
        Some(host) => findings.error(host, fault),
        None => {
            findings.report(&format!("route.{}", route.name), &route.span, Show::KeyOnly, severity, fault);
        }
    }
}
