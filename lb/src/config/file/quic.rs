//! `vip.quic` and `backend.server_id`: what must agree with them.

use std::{collections::HashMap, sync::Arc};

use lb_abi::quic::POOLS_MAX;

use super::{
    drafts::Drafts,
    pool::PoolDraft,
    quic_draft::QuicDraft,
    reader::{Fault, Findings, Show},
    vip::VipDraft,
};
use crate::config::{Severity, Transport};

/// Server ids are unique over all pools, and a QUIC VIP has somebody to lead to.
pub(super) fn check(drafts: &Drafts, findings: &Findings<'_>) {
    unique(&drafts.pools, findings);
    let pools: HashMap<&str, &PoolDraft> = drafts.pools.iter().map(|pool| (&*pool.name, pool)).collect();
    for vip in &drafts.vips {
        let Some(quic) = &vip.quic else { continue };
        if !vip.ports.iter().any(|port| port.value.transport == Transport::Udp) {
            error(findings, quic, format!("vip.{} has no udp port, and QUIC is over UDP", vip.name));
        }
        let used: Vec<_> = vip.pools().filter_map(|pool| pools.get(&*pool.value)).collect();
        if used.len() > POOLS_MAX {
            error(
                findings,
                quic,
                format!("vip.{} leads to {} pools; {POOLS_MAX} is the most with QUIC", vip.name, used.len()),
            );
        }
        servers(vip, quic, &used, findings);
    }
}

fn error(findings: &Findings<'_>, quic: &QuicDraft, message: String) {
    findings.report(&quic.place.key, &quic.place.span, Show::KeyOnly, Severity::Error, Fault::new(message));
}

fn servers(vip: &VipDraft, quic: &QuicDraft, pools: &[&&PoolDraft], findings: &Findings<'_>) {
    let backends = || pools.iter().flat_map(|pool| &pool.backends);
    if backends().all(|at| at.value.server_id.is_none()) {
        let Some(pool) = pools.first() else { return };
        let message = format!("no backend of pool.{} has a `server_id`, so no id names one", pool.name);
        return error(findings, quic, message);
    }
    for backend in backends().filter(|at| at.value.server_id.is_none()) {
        let fault = Fault::new(format!(
            "has no `server_id`: connections to it through vip.{} do not survive a change of the client's address",
            vip.name
        ));
        findings.report(&backend.key, &backend.span, Show::Value, Severity::Warning, fault);
    }
}

fn unique(pools: &[PoolDraft], findings: &Findings<'_>) {
    let mut owners: HashMap<u16, (Arc<str>, String)> = HashMap::new();
    for (pool, backend) in pools.iter().flat_map(|pool| pool.backends.iter().map(move |at| (pool, at))) {
        let Some(server) = backend.value.server_id else { continue };
        match owners.get(&server) {
            Some((other, address)) => {
                let message = format!("server_id {server} is that of {address} in pool.{other} already");
                findings.error(backend, Fault::new(message));
            }
            None => _ = owners.insert(server, (pool.name.clone(), backend.value.to_string())),
        }
    }
}
