//! Whether `listener.tls` and `[tls.NAME]` agree.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    drafts::Drafts,
    listener::ListenerDraft,
    reader::{Fault, Findings, Show},
    tls::TlsDraft,
};
use crate::config::{BackendPlace, CheckTrust, Protocol, Severity};

/// Reports all that is wrong between them.
pub(super) fn check(drafts: &Drafts, findings: &Findings<'_>) {
    let entries: BTreeMap<&str, &TlsDraft> = drafts.tls.iter().map(|entry| (&*entry.name, entry)).collect();
    let mut used = BTreeSet::new();
    for listener in &drafts.listeners {
        used.extend(listener.tls.iter().map(|at| &*at.value));
        entries_of(listener, &entries, findings);
    }
    for entry in drafts.tls.iter().filter(|entry| !used.contains(&*entry.name)) {
        let (key, fault) = (format!("tls.{}", entry.name), Fault::new("no listener uses it"));
        findings.report(&key, &entry.span, Show::KeyOnly, Severity::Warning, fault);
    }
    let passes_on: HashSet<&str> = drafts
        .routes
        .iter()
        .filter(|route| route.sni.is_some())
        .filter_map(|route| Some(&*route.listener.as_ref()?.value))
        .collect();
    for listener in drafts.listeners.iter().filter(|listener| passes_on.contains(&*listener.name)) {
        if let Some(first) = listener.tls.first() {
            let fault = "TLS ends here, and this listener's routes by `sni` pass it on: one or the other";
            findings.error(first, Fault::new(fault));
        }
    }
    pools(drafts, findings);
    users(drafts, findings);
}

/// Whose bytes cannot be sealed, or are already.
fn users(drafts: &Drafts, findings: &Findings<'_>) {
    let mut users = BTreeMap::new();
    for (vip, pool) in drafts.vips.iter().flat_map(|vip| vip.pools().map(move |pool| (vip, pool))) {
        let why = format!("vip.{} uses this pool, and forwards packets as they are", vip.name);
        users.entry(&*pool.value).or_insert(why);
    }
    for listener in drafts.listeners.iter().filter(|listener| listener.takes_datagrams()) {
        let why = format!("listener.{} uses this pool, and takes datagrams", listener.name);
        users.extend(listener.pool.iter().map(|pool| (&*pool.value, why.clone())));
    }
    for route in drafts.routes.iter().filter(|route| route.sni.is_some()) {
        let why = format!("route.{} uses this pool, and passes on what TLS its clients speak", route.name);
        users.extend(route.pool.iter().map(|pool| (&*pool.value, why.clone())));
    }
    for pool in &drafts.pools {
        if let (Some(tls), Some(why)) = (&pool.tls, users.get(&*pool.name)) {
            findings.error(tls, Fault::new(why.clone()));
        }
    }
}

fn entries_of(listener: &ListenerDraft, entries: &BTreeMap<&str, &TlsDraft>, findings: &Findings<'_>) {
    if listener.protocol.as_ref().is_some_and(|at| at.value == Protocol::Udp) {
        if let Some(first) = listener.tls.first() {
            findings.error(first, Fault::new("only listeners with protocol = \"http\" or \"tcp\" speak TLS"));
        }
        return;
    }
    let (mut seen, mut default) = (HashSet::new(), None);
    for reference in &listener.tls {
        if !seen.insert(&*reference.value) {
            findings.error(reference, Fault::new("stands there already"));
            continue;
        }
        let Some(entry) = entries.get(&*reference.value) else {
            let near = findings.near(&reference.value, entries.keys().copied());
            findings.error(reference, Fault::new("there is no [tls.NAME] of this name").suggest(near));
            continue;
        };
        if !entry.default.as_ref().is_some_and(|at| at.value) {
            continue;
        }
        if let Some(other) = default.replace(&entry.name) {
            let fault = format!("is `default`, and so is tls.{other}: a listener has one");
            findings.error(reference, Fault::new(fault));
        }
    }
}

/// A path is no name that a certificate could be for.
fn pools(drafts: &Drafts, findings: &Findings<'_>) {
    for pool in &drafts.pools {
        let Some(tls) = pool.tls.as_ref().filter(|at| at.value.sni.is_none()) else { continue };
        let is_path = |place: &BackendPlace| matches!(place, BackendPlace::Unix(_));
        if tls.value.trust != CheckTrust::Anyone
            && let Some(backend) = pool.backends.iter().find(|at| is_path(&at.value.place))
        {
            let fault = "needs `sni` in `tls`: no certificate is for a socket's path";
            findings.error(backend, Fault::new(fault));
        }
    }
}
