//! `GET /v1/show/{what}`: one list each, as rows of plain values.

use std::{str::FromStr, time::Instant};

use lb_abi::counter::Traffic;
use serde_json::{Value, json};

use super::{
    packets::{FlowList, Packets, Reading, Refusal},
    standing::Standing,
    view::View,
};
use crate::{
    balance::{WHOLE, ramp},
    config::Balance,
    metrics::{ListenerMetrics, WorkerMetrics},
};

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// L4 services.
    Vips,
    /// Addresses where connections end here.
    Listeners,
    /// HTTP routes, in the order they are tried.
    Routes,
    /// Pools.
    Pools,
    /// Backends.
    Backends,
    /// Names of backends.
    Names,
    /// Certificates that are in use.
    Certificates,
    /// Workers.
    Workers,
    /// Flow records.
    Flows,
    /// Whatever did not go well, by reason.
    Drops,
    /// Configs that ran.
    Generations,
    /// The config that runs.
    Config,
}

impl What {
    /// All, with their names on the API and the command line.
    pub const ALL: [(&'static str, Self); 12] = [
        ("vips", Self::Vips),
        ("listeners", Self::Listeners),
        ("routes", Self::Routes),
        ("pools", Self::Pools),
        ("backends", Self::Backends),
        ("names", Self::Names),
        ("certificates", Self::Certificates),
        ("workers", Self::Workers),
        ("flows", Self::Flows),
        ("drops", Self::Drops),
        ("generations", Self::Generations),
        ("config", Self::Config),
    ];

    /// Its name, and the key of the list in the document.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, what)| *what == self).map_or("", |(name, _)| name)
    }

    /// Columns that a table on a terminal shows, in order; the document may hold more.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Vips => &[
                "vip",
                "address",
                "ports",
                "forward",
                "pool",
                "packets",
                "bytes",
                "new_flows",
                "active_flows",
            ],
            Self::Listeners => &[
                "listener", "protocol", "bind", "steer", "pool", "accepted", "open", "requests", "by_core",
                "by_hash",
            ],
            Self::Routes => {
                &["route", "listener", "by", "host", "path", "when", "action", "timeout_ms", "deadline_ms"]
            }
            Self::Pools => &[
                "pool", "balance", "key", "sticky", "backends", "backups", "up", "ejected", "panic",
                "checked", "queued",
            ],
            Self::Names => &["name", "pools", "state", "backends", "age_seconds", "next_seconds"],
            Self::Certificates => &[
                "certificate",
                "names",
                "key_type",
                "left_days",
                "file",
                "key_file",
                "staple",
                "staple_until",
                "crl_until",
                "listeners",
            ],
            Self::Backends => &[
                "pool",
                "backend",
                "name",
                "state",
                "override",
                "since_seconds",
                "role",
                "weight",
                "share_percent",
                "in_flight",
                "max_connections",
                "idle",
                "shelved",
                "exchanges",
                "connects",
                "reuses",
                "shelf_reuses",
                "reuse_percent",
                "connect_failures",
                "packets",
                "bytes",
                "new_flows",
                "active_flows",
                "probe_us",
                "reason",
            ],
            Self::Workers => &[
                "worker",
                "core",
                "accepted",
                "on_core",
                "open",
                "requests",
                "turns",
                "enters",
                "spliced_bytes",
            ],
            Self::Drops => &["plane", "reason", "count", "interfaces", "blame", "meaning"],
            Self::Generations => &["generation", "state", "when", "by", "source", "changed", "digest"],
            Self::Flows => {
                &["vip", "source", "destination", "protocol", "backend", "translated", "age_seconds", "state"]
            }
            Self::Config => &[],
        }
    }
}

impl FromStr for What {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, what)| *what).ok_or(())
    }
}

/// What a document may be made of besides the view; whatever is `None` was not asked for or did not answer.
#[derive(Clone, Copy, Debug)]
pub struct Readings<'a> {
    /// Counters.
    pub packets: Option<&'a Packets>,
    /// Flow records.
    pub flows: Option<&'a FlowList>,
    /// What XDP would do with a packet; `Ok(None)`: XDP sees none.
    pub why: Result<Option<&'a Reading>, &'a Refusal>,
}

impl Default for Readings<'_> {
    fn default() -> Self {
        Self { packets: None, flows: None, why: Ok(None) }
    }
}

/// The document `{ what: [row, ...] }`; `{ "config": { ... } }` for the config.
pub fn render(what: What, view: &View, readings: Readings<'_>) -> Value {
    let packets = readings.packets;
    let rows = match what {
        What::Vips => vips(view, packets),
        What::Listeners => listeners(view, packets),
        What::Routes => super::routes::rows(view),
        What::Pools => pools(view),
        What::Backends => backends(view, packets),
        What::Names => names(view),
        What::Certificates => super::certificate_list::rows(view),
        What::Workers => workers(view),
        What::Drops => super::drops::rows(view, packets),
        What::Generations => super::generation_list::rows(view),
        What::Flows => return super::flows::render(view, readings.flows),
        // Secrets stand in it by reference only.
        What::Config => return json!({ what.name(): view.config.to_json() }),
    };
    json!({ what.name(): rows })
}

fn vips(view: &View, packets: Option<&Packets>) -> Vec<Value> {
    let row = |(name, vip): (&std::sync::Arc<str>, &crate::config::Vip)| {
        let traffic: Option<Traffic> = packets.map(|packets| {
            packets.vips.iter().find(|(of, _)| of == name).map_or(Traffic::default(), |(_, traffic)| *traffic)
        });
        let ports = vip.ports.iter().map(ToString::to_string);
        let prefixes = vip.prefixes.iter().map(ToString::to_string);
        json!({
            "vip": name,
            "address": vip.addresses.iter().map(ToString::to_string).chain(prefixes).collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
            "forward": vip.forward.name(),
            "pool": vip.pool,
            "packets": traffic.map(|t| t.packets),
            "bytes": traffic.map(|t| t.bytes),
            "new_flows": traffic.map(|t| t.new_flows),
            "active_flows": packets.and_then(|packets| packets.active_of_vip(name)),
        })
    };
    view.config.vips.iter().map(row).collect()
}

fn listeners(view: &View, packets: Option<&Packets>) -> Vec<Value> {
    let row = |listener: &crate::config::ListenerSnapshot| {
        let sum = |value: fn(&ListenerMetrics) -> u64| -> u64 {
            view.workers.iter().map(|worker| value(worker.metrics.listener(listener.id))).sum()
        };
        let steer = packets
            .and_then(|packets| packets.steer.iter().find(|report| *report.listener == *listener.name));
        json!({
            "listener": listener.name,
            "protocol": listener.protocol,
            "bind": view.config.listeners.get(&listener.name).map(crate::config::Listener::spelled),
            "steer": steer.map(|report| report.mode),
            "steer_why": steer.map(|report| report.why.clone()),
            "pool": listener.pool.and_then(|id| view.snapshot.pool(id)).map(|pool| &pool.name),
            "accepted": sum(|m| m.accepted.value()),
            "accepted_on_core": sum(|m| m.accepted_on_core.value()),
            "open": sum(|m| m.open.value()),
            "connections_max": listener.connections,
            "requests": sum(|m| m.requests.value()),
            "retries": sum(|m| m.retries.value()),
            "upgrades": sum(|m| m.upgrades.value()),
            "tunnels": sum(|m| m.tunnels.value()),
            "received_bytes": sum(|m| m.received_bytes.value()),
            "sent_bytes": sum(|m| m.sent_bytes.value()),
            "received_datagrams": sum(|m| m.received_datagrams.value()),
            "sent_datagrams": sum(|m| m.sent_datagrams.value()),
            "by_core": steer.map(|report| report.by_core),
            "by_hash": steer.map(|report| report.by_hash),
            "missing": steer.map(|report| report.missing),
            "relieved": steer.map(|report| report.relieved),
        })
    };
    view.snapshot.listeners.iter().map(row).collect()
}

fn pools(view: &View) -> Vec<Value> {
    let row = |pool: &crate::config::PoolSnapshot| {
        let config = view.config.pools.get(&pool.name);
        let is_forwarded = view.config.vips.values().any(|vip| vip.pools().any(|name| *name == pool.name));
        json!({
            "pool": pool.name,
            "balance": config.and_then(|config| config.balance),
            "key": (pool.balance == Balance::Maglev && !is_forwarded).then(|| pool.choosing.key.to_string()),
            "backends": pool.backends.len(),
            "backups": pool.backends.iter().filter(|backend| backend.backup).count(),
            "queued": is_limited(pool).then(|| view.permits.gate(&pool.name).waiting()),
            "queue_length": is_limited(pool).then_some(pool.choosing.queue.length),
            "sticky": pool.choosing.sticky.as_ref().map(|sticky| &sticky.cookie),
            "slow_start_ms": pool.choosing.slow_start.map(|time| time.as_millis() as u64),
            "up": pool.backends.iter().filter(|backend| view.health.is_up(backend.id)).count(),
            "ejected": pool.backends.iter().filter(|backend| is_ejected(view, backend.id)).count(),
            "panic": view.is_panic(&pool.name),
            "checked": config.is_some_and(|config| config.health.is_some()),
        })
    };
    view.snapshot.pools.iter().map(row).collect()
}

fn is_ejected(view: &View, id: crate::model::BackendId) -> bool {
    view.checks.get(&id).is_some_and(|check| check.report.findings().ejected.is_some())
}

/// Whether one may have to wait for its backends.
fn is_limited(pool: &crate::config::PoolSnapshot) -> bool {
    pool.backends.iter().any(|backend| backend.max_connections.is_some())
}

fn backends(view: &View, packets: Option<&Packets>) -> Vec<Value> {
    let row = |(pool, backend): (&str, &crate::config::BackendSnapshot)| {
        let sum = |value: fn(&crate::metrics::BackendMetrics) -> u64| -> u64 {
            view.workers.iter().map(|worker| value(worker.metrics.backend(backend.id))).sum()
        };
        let shelved = view.shelf.count(backend.id) as u64;
        let traffic = packets
            .and_then(|packets| packets.backends.iter().find(|(id, _)| *id == backend.id))
            .map(|(_, traffic)| *traffic);
        let mut row = json!({
            "pool": pool,
            "backend": backend.name,
            "name": backend.origin,
            "id": backend.id,
            "role": if backend.backup { "backup" } else { "primary" },
            "weight": backend.weight,
            "override": view.override_of(pool, &backend.name).map(super::changes::OverrideView::said),
            "share_percent": share_percent(view, pool, backend),
            "in_flight": sum(|m| m.in_flight.value()),
            "max_connections": backend.max_connections,
            "idle": sum(|m| m.idle.value()) + shelved,
            "shelved": shelved,
            "exchanges": sum(|m| m.exchanges.value()),
            "connects": sum(|m| m.connects.value()),
            "reuses": sum(|m| m.reuses.value()),
            "shelf_reuses": sum(|m| m.shelf_reuses.value()),
            "reuse_percent": percent(sum(|m| m.reuses.value()), sum(|m| m.connects.value())),
            "connect_failures": sum(|m| m.connect_failures.value()),
            "packets": traffic.map(|t| t.packets),
            "bytes": traffic.map(|t| t.bytes),
            "new_flows": traffic.map(|t| t.new_flows),
            "active_flows": packets.and_then(|packets| packets.active_of_backend(backend.id)),
        });
        Standing::of(view, pool, backend).put(&mut row);
        row
    };
    view.backends().map(row).collect()
}

/// `state` is how the last lookup ended; `backends` are those of the last good answer, which came `age_seconds` ago.
fn names(view: &View) -> Vec<Value> {
    let now = Instant::now();
    let row = |name: &super::view::NameView| {
        let lookups: serde_json::Map<_, _> =
            name.lookups.iter().map(|(end, count)| ((*end).to_owned(), json!(count))).collect();
        json!({
            "name": name.name,
            "pools": name.pools,
            "state": name.condition.name(),
            "backends": name.backends.iter().map(|found| found.address.to_string()).collect::<Vec<_>>(),
            "age_seconds": name.answered.map(|at| now.saturating_duration_since(at).as_secs()),
            "next_seconds": name.due.saturating_duration_since(now).as_secs(),
            "lookups": lookups,
        })
    };
    view.names.iter().map(row).collect()
}

/// What part `of` is of both together; `None` where there is neither.
fn percent(of: u64, rest: u64) -> Option<u64> {
    (of * 100).checked_div(of + rest)
}

/// What part of its share a backend that starts slowly has by now; `None` where it has all of it, or nothing.
fn share_percent(view: &View, pool: &str, backend: &crate::config::BackendSnapshot) -> Option<u32> {
    let whole_after = view.config.pools.get(pool)?.choosing.slow_start?;
    let up_for = view.health.up_for(backend.id, Instant::now())?;
    (up_for < whole_after).then(|| ramp(1, up_for, whole_after) * 100 / WHOLE)
}

fn workers(view: &View) -> Vec<Value> {
    let row = |worker: &super::view::WorkerView| {
        let metrics: &WorkerMetrics = &worker.metrics;
        let sum = |value: fn(&ListenerMetrics) -> u64| -> u64 {
            view.snapshot.listeners.iter().map(|listener| value(metrics.listener(listener.id))).sum()
        };
        json!({
            "worker": worker.id,
            "core": worker.core,
            "has_left": worker.has_left,
            "accepted": sum(|m| m.accepted.value()),
            "on_core": sum(|m| m.accepted_on_core.value()),
            "open": sum(|m| m.open.value()),
            "requests": sum(|m| m.requests.value()),
            "turns": metrics.turns.value(),
            "enters": metrics.enters.value(),
            "completions": metrics.completions.value(),
            "completions_stray": metrics.completions_stray.value(),
            "spliced_bytes": metrics.spliced_bytes.value(),
            "splices_started": metrics.splices_started.value(),
            "kernel_tls": metrics.kernel_tls.value(),
            "pipes_refused": metrics.pipes_refused.value(),
            "cookies_refused": metrics.cookies_refused.value(),
            "snapshots": metrics.snapshots.value(),
        })
    };
    view.workers.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{
            certificates::{CertificateViews, tests::certificate},
            fixture,
        },
        model::BackendId,
    };

    fn rows(what: What, view: &View, packets: Option<&Packets>) -> Vec<Value> {
        let flows = fixture::flows();
        let mut document =
            render(what, view, Readings { packets, flows: Some(&flows), ..Readings::default() });
        let Value::Array(rows) = document[what.name()].take() else { panic!("{what:?} is no list") };
        rows
    }

    #[test]
    fn every_column_of_a_table_is_in_its_rows() {
        let (mut view, packets) = (fixture::view(), fixture::packets());
        view.names = [fixture::name()].into();
        let certificates = vec![certificate()];
        view.certificates = CertificateViews { certificates, ..CertificateViews::default() }.into();
        for (name, what) in What::ALL {
            assert_eq!(name.parse(), Ok(what));
            if what == What::Config {
                continue;
            }
            let rows = rows(what, &view, Some(&packets));
            assert!(!rows.is_empty(), "{name}");
            for row in rows {
                for column in what.columns() {
                    assert!(row.get(column).is_some(), "{name}: {column}");
                }
            }
        }
    }

    #[test]
    fn sums_over_workers_and_keeps_workers_apart() {
        let view = fixture::view();
        view.workers[0].metrics.listeners[0].accepted.add(2);
        view.workers[1].metrics.listeners[0].accepted.add(3);
        view.health.set(BackendId(1), false);
        assert_eq!(rows(What::Listeners, &view, None)[0]["accepted"], 5);
        let workers = rows(What::Workers, &view, None);
        assert_eq!((&workers[0]["accepted"], &workers[1]["accepted"]), (&json!(2), &json!(3)));
        let states: Vec<_> =
            rows(What::Backends, &view, None).iter().map(|row| row["state"].clone()).collect();
        assert_eq!(states, ["down", "up", "up"]);
        assert_eq!(rows(What::Pools, &view, None)[0]["up"], 1);
    }

    #[test]
    fn what_is_kept_is_that_of_workers_and_of_none() {
        let view = fixture::view();
        view.workers[0].metrics.backends[1].idle.add(2);
        view.workers[1].metrics.backends[1].idle.add(3);
        view.workers[1].metrics.backends[1].reuses.add(6);
        view.workers[1].metrics.backends[1].shelf_reuses.add(4);
        view.workers[0].metrics.backends[1].connects.add(2);
        let connection = std::fs::File::open("/dev/null").unwrap().into();
        let kept = crate::keepalive::Kept { connection, until: view.started };
        assert!(view.shelf.put(BackendId(1), kept, 1, 1).is_none());
        let row = &rows(What::Backends, &view, None)[0];
        assert_eq!((&row["idle"], &row["shelved"]), (&json!(6), &json!(1)));
        let reuses = (&row["reuses"], &row["shelf_reuses"], &row["reuse_percent"]);
        assert_eq!(reuses, (&json!(6), &json!(4), &json!(75)));
    }

    #[test]
    fn the_config_is_shown_as_it_is_written() {
        let document = render(What::Config, &fixture::view(), Readings::default());
        assert_eq!(document["config"]["pool"]["app"]["backends"][1]["address"], "127.0.0.1:9002");
    }

    #[test]
    fn patterns_are_shown_as_written() {
        let rows = rows(What::Routes, &fixture::view(), None);
        assert_eq!((&rows[0]["host"], &rows[0]["path"]), (&json!("*.example.com"), &json!("/v1/*")));
    }
}
