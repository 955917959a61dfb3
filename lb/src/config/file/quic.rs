//! `vip.quic` and `backend.server_id`: who is named by connection ids, and by which keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lb_abi::quic::POOLS_MAX;

use super::{
    check::Drafts,
    pool::PoolDraft,
    process::file_reference,
    reader::{At, Fault, Findings, Show, Table},
    schema,
    vip::VipDraft,
};
use crate::config::{Quic, Severity, Transport};

/// What was read of `vip.quic`.
pub(super) struct QuicDraft {
    pub(super) keys: BTreeMap<u8, std::path::PathBuf>,
    /// For messages about the whole of it.
    pub(super) place: At<()>,
}

impl QuicDraft {
    /// `None` also where a problem was reported.
    pub(super) fn read(vip: &Table<'_>) -> Option<Self> {
        let value = vip.value("quic")?;
        let table = value.table(&schema::QUIC)?;
        let rule = "ids are checked by keys, such as { 0 = \"file:quic-0.key\" }";
        let keys = table.required("keys", rule)?;
        let given = keys.table(&schema::QUIC_KEYS)?;
        if given.is_empty() {
            keys.fault(Fault::new(format!("must not be empty: {rule}")));
        }
        let read = |(name, value): (
            &serde_spanned::Spanned<std::borrow::Cow<'_, str>>,
            super::reader::Value<'_>,
        )| {
            let name: &str = name.get_ref();
            let config = schema::QUIC_KEYS.supported.iter().position(|known| *known == name)? as u8;
            let file = value
                .parsed_secret("a key is given by reference, as in \"file:quic-0.key\"", file_reference)?;
            Some((config, file))
        };
        let keys: BTreeMap<_, _> = given.entries().filter_map(read).collect();
        // Of keys that cannot be read that is said, and nothing else.
        (!keys.is_empty()).then(|| Self { keys, place: value.at(()) })
    }

    pub(super) fn build(self) -> Quic {
        Quic { keys: self.keys }
    }
}

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
