//! Backends that are no addresses: what must agree with them.

use super::{
    drafts::Drafts,
    health::HealthDraft,
    listener::ListenerDraft,
    pool::PoolDraft,
    reader::{Fault, Findings, Show},
};
use crate::{
    config::{BackendPlace, Severity},
    model::UnixAddress,
};

/// Reports what does not go together with names and unix sockets, and retries that have nowhere to go.
pub(super) fn check(drafts: &Drafts, findings: &Findings<'_>) {
    for pool in &drafts.pools {
        pool_of(pool, drafts, findings);
    }
    retries(drafts, findings);
}

fn pool_of(pool: &PoolDraft, drafts: &Drafts, findings: &Findings<'_>) {
    let sockets = || pool.backends.iter().filter(|at| matches!(at.value.place, BackendPlace::Unix(_)));
    if let Some(vip) = drafts.vips.iter().find(|vip| vip.pools().any(|at| at.value == pool.name)) {
        let fault = |what: &str| Fault::new(format!("vip.{} uses this pool, and {what}", vip.name));
        for socket in sockets() {
            findings.error(socket, fault("packets cannot be sent to a socket of this host"));
        }
        for name in &pool.names {
            let what =
                "its packets go to addresses that stand in the config: names are for pools of listeners";
            findings.error(name, fault(what));
        }
        return;
    }
    let takes_datagrams = |listener: &&ListenerDraft| {
        listener.takes_datagrams() && listener.pool.as_ref().is_some_and(|at| at.value == pool.name)
    };
    if let Some(listener) = drafts.listeners.iter().find(takes_datagrams) {
        for socket in sockets() {
            let fault =
                format!("listener.{} uses this pool, and sends datagrams to addresses only", listener.name);
            findings.error(socket, Fault::new(fault));
        }
    }
    if let Some(admin) = UnixAddress::new(&drafts.admin_socket.display().to_string()) {
        for socket in sockets().filter(|at| at.value.place == BackendPlace::Unix(admin.clone())) {
            findings
                .error(socket, Fault::new("is admin.socket: whoever may connect could change everything"));
        }
    }
    let asks_more = pool.health.as_ref().and_then(HealthDraft::more_than_connects);
    if let (Some(more), Some(_)) = (asks_more, sockets().next()) {
        let fault = "a unix socket of this pool can be connected to and asked no more: `tcp = \"auto\"`";
        findings.error(more, Fault::new(fault));
    }
}

/// What `route.retry` sends again goes to another backend.
fn retries(drafts: &Drafts, findings: &Findings<'_>) {
    for route in &drafts.routes {
        let Some(reference) = route.pool.as_ref().filter(|_| route.policy.retry.is_some()) else { continue };
        let pool = drafts.pools.iter().find(|pool| pool.name == reference.value);
        if pool.is_some_and(|pool| pool.backends.len() == 1 && pool.names.is_empty()) {
            let fault = Fault::new("has one backend only: `retry` has no other one to try");
            findings.report(&reference.key, &reference.span, Show::Value, Severity::Warning, fault);
        }
    }
}
