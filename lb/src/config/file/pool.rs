//! `[pool.NAME]`.

use std::{ops::Range, sync::Arc};

use lb_abi::bounds;

use super::{
    address::{self, Written},
    choosing::{CONNECTIONS, ChoosingDraft},
    health::HealthDraft,
    process::TIMEOUTS,
    reader::{At, Fault, Table, Value},
    schema,
    tls::pool_tls,
};
use crate::{
    config::{
        Backend, BackendPlace, BackendProtocol, Balance, Keepalive, NamedBackends, Pool, PoolTls,
        ProxyVersion,
    },
    model::BackendName,
};

/// What was read of a pool.
pub(super) struct PoolDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) balance: Option<At<Balance>>,
    pub(super) backends: Vec<At<Backend>>,
    pub(super) names: Vec<At<NamedBackends>>,
    pub(super) health: Option<HealthDraft>,
    pub(super) proxy_protocol: Option<At<ProxyVersion>>,
    protocol: BackendProtocol,
    keepalive: Keepalive,
    pub(super) choosing: ChoosingDraft,
    pub(super) tls: Option<At<PoolTls>>,
    /// Whether there is a key `tls`, readable or not.
    has_tls: bool,
}

impl PoolDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of backends, such as [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]";
        let (mut backends, mut names) = (Vec::<At<Backend>>::new(), Vec::<At<NamedBackends>>::new());
        let mut seen = std::collections::HashSet::new();
        let listed = table.required("backends", rule).and_then(|value| value.items(rule)).unwrap_or_default();
        let spare = table.value("backup").and_then(|value| value.items(rule)).unwrap_or_default();
        for (item, is_spare) in
            listed.iter().map(|item| (item, false)).chain(spare.iter().map(|item| (item, true)))
        {
            let Some(At { value, key, span }) = backend(item) else { continue };
            let is_new = match value {
                Entry::Here(mut value) => {
                    value.backup |= is_spare;
                    let is_new = seen.insert(value.place.clone());
                    backends.extend(is_new.then_some(At { value, key, span }));
                    is_new
                }
                Entry::Named(mut value) => {
                    value.backup |= is_spare;
                    let is_new = !names.iter().any(|at| at.value.name == value.name);
                    names.extend(is_new.then_some(At { value, key, span }));
                    is_new
                }
            };
            if !is_new {
                item.fault(Fault::new("this backend is listed already; use `weight` for a larger share"));
            }
        }
        let proxy_protocol =
            table.value("proxy_protocol").and_then(|value| value.choice(&schema::PROXY_VERSIONS));
        if let (Some(_), Some(value)) = (&proxy_protocol, table.value("keepalive")) {
            let rule = "has no meaning with `proxy_protocol`: a connection that tells of one client is not kept for others";
            value.fault(Fault::new(rule));
        }
        let protocol = table.value("protocol").and_then(|value| value.choice(&schema::BACKEND_PROTOCOLS));
        if let (Some(At { value: BackendProtocol::Http2, .. }), Some(value)) =
            (&protocol, table.value("proxy_protocol"))
        {
            let rule = "has no meaning with `protocol = \"h2\"`: a header tells of one client, and such a connection serves several";
            value.fault(Fault::new(rule));
        }
        let tls = table.value("tls");
        Self {
            name,
            span: table.span.clone(),
            proxy_protocol,
            balance: table.value("balance").and_then(|value| value.choice(&schema::BALANCES)),
            backends,
            names,
            health: table.table("health", &schema::HEALTH).map(|table| HealthDraft::read(&table)),
            keepalive: table
                .table("keepalive", &schema::KEEPALIVE)
                .map(|table| keepalive(&table))
                .unwrap_or_default(),
            choosing: ChoosingDraft::read(table),
            tls: tls.as_ref().and_then(|value| Some(value.at(pool_tls(&value.table(&schema::POOL_TLS)?)?))),
            has_tls: tls.is_some(),
            protocol: protocol.map(|at| at.value).unwrap_or_default(),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Pool> {
        Some(Pool {
            balance: self.balance.map(|at| at.value),
            backends: self.backends.into_iter().map(|at| at.value).collect(),
            names: self.names.into_iter().map(|at| at.value).collect(),
            health: match self.health {
                None => None,
                Some(draft) => Some(draft.build()?),
            },
            keepalive: self.keepalive,
            choosing: self.choosing.build(),
            proxy_protocol: self.proxy_protocol.map(|at| at.value),
            tls: match self.tls {
                None if self.has_tls => return None,
                tls => tls.map(|at| at.value).map(|tls| match self.protocol {
                    BackendProtocol::Http1 => tls,
                    BackendProtocol::Http2 => PoolTls { alpn: vec!["h2".into()], ..tls },
                }),
            },
            protocol: self.protocol,
        })
    }
}

/// One of `pool.backends`.
enum Entry {
    Here(Backend),
    Named(NamedBackends),
}

/// What a table says of its backend beside the address.
#[derive(Default)]
struct Terms<'t> {
    weight: Option<u16>,
    server_id: Option<(u16, Value<'t>)>,
    backup: bool,
    max_connections: Option<u32>,
}

impl<'t> Terms<'t> {
    fn read(table: &Table<'t>) -> Self {
        let last = u64::from(bounds::QUIC_SERVERS_MAX);
        let server_id = table.value("server_id").and_then(|value| {
            let id = value.integer(1..last)?.value as u16;
            Some((id, value))
        });
        let limit = table.value("max_connections").and_then(|value| value.integer(CONNECTIONS));
        Self {
            // A weight that cannot be read was reported; the address still takes part in all checks.
            weight: table.value("weight").and_then(|value| value.integer(1..1001)).map(|at| at.value as u16),
            server_id,
            backup: table.value("backup").and_then(|value| value.boolean()).unwrap_or(false),
            max_connections: limit.map(|at| at.value as u32),
        }
    }

    fn of(self, written: Written) -> Result<Entry, Fault> {
        let Self { weight, server_id, backup, max_connections } = self;
        if let Some((_, value)) =
            server_id.as_ref().filter(|_| !matches!(written, Written::Place(BackendPlace::Ip(..))))
        {
            value.fault(Fault::new("only an address has one: packets are led by it"));
        }
        Ok(match written {
            Written::Name(BackendName::Service(_)) if weight.is_some() => {
                return Err(Fault::new(
                    "has no `weight` here: a service says itself what its backends weigh",
                ));
            }
            Written::Name(name) => {
                Entry::Named(NamedBackends { name, weight: weight.unwrap_or(1), backup, max_connections })
            }
            Written::Place(place) => Entry::Here(Backend {
                place,
                weight: weight.unwrap_or(1),
                server_id: server_id.map(|(id, _)| id),
                backup,
                max_connections,
                origin: None,
            }),
        })
    }
}

/// `"10.0.0.11:8080"`, or `{ address = "10.0.0.11:8080", weight = 2 }`; instead of an address also a name or a socket.
fn backend(value: &Value<'_>) -> Option<At<Entry>> {
    let rule = "a backend is an address, such as \"10.0.0.11:8080\", or { address = \"...\", weight = 2 }";
    if !value.is_table() {
        return value.parsed(rule, |text| Terms::default().of(address::backend(text)?));
    }
    let table = value.table(&schema::BACKEND)?;
    let terms = Terms::read(&table);
    let address = table.required("address", "a backend needs its address")?;
    address.parsed("an address is a string", |text| terms.of(address::backend(text)?))
}

fn keepalive(table: &Table<'_>) -> Keepalive {
    let default = Keepalive::default();
    let idle = table.value("idle").and_then(|value| value.duration(&TIMEOUTS));
    // 0 is allowed: it keeps none.
    let per_worker = table.value("per_worker").and_then(|value| value.integer(0..65_536));
    Keepalive {
        idle: idle.map_or(default.idle, |at| at.value),
        per_worker: per_worker.map_or(default.per_worker, |at| at.value as usize),
    }
}

/// A name of something else; whether it exists is checked when all is read.
pub(super) fn reference(value: Option<Value<'_>>, kind: &str) -> Option<At<Arc<str>>> {
    value?.parsed(&format!("must be the name of a {kind}, as a string"), |text| Ok(Arc::from(text)))
}
