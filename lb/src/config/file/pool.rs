//! `[pool.NAME]`.

use std::{ops::Range, sync::Arc, time::Duration};

use lb_abi::bounds;

use super::{
    address,
    process::TIMEOUTS,
    reader::{At, Fault, Table, Value},
    schema,
    units::show_duration,
};
use crate::config::{Backend, Balance, Health, Keepalive, Pool};

/// Defaults of `pool.health`: every 2 s, 1 s to answer, down after 3 failures, up after 2 successes.
const EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const FALL: u32 = 3;
const RISE: u32 = 2;

/// What was read of a pool.
pub(super) struct PoolDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) balance: Option<At<Balance>>,
    pub(super) backends: Vec<At<Backend>>,
    pub(super) health: Option<HealthDraft>,
    keepalive: Keepalive,
}

/// What was read of `pool.health`.
pub(super) struct HealthDraft {
    /// `None` inside: "auto".
    pub(super) tcp: Option<At<Option<u16>>>,
    every: Duration,
    timeout: Duration,
    fall: u32,
    rise: u32,
}

impl PoolDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of backends, such as [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]";
        let mut backends: Vec<At<Backend>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for item in table.required("backends", rule).and_then(|value| value.items(rule)).unwrap_or_default() {
            let Some(backend) = backend(&item) else { continue };
            match seen.insert((backend.value.ip, backend.value.port)) {
                true => backends.push(backend),
                false => {
                    item.fault(Fault::new("this backend is listed already; use `weight` for a larger share"))
                }
            }
        }
        Self {
            name,
            span: table.span.clone(),
            balance: table.value("balance").and_then(|value| value.choice(&schema::BALANCES)),
            backends,
            health: table.table("health", &schema::HEALTH).map(|table| health(&table)),
            keepalive: table
                .table("keepalive", &schema::KEEPALIVE)
                .map(|table| keepalive(&table))
                .unwrap_or_default(),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Pool> {
        let health = match self.health {
            None => None,
            Some(HealthDraft { tcp, every, timeout, fall, rise }) => {
                Some(Health { tcp_port: tcp?.value, every, timeout, fall, rise })
            }
        };
        Some(Pool {
            balance: self.balance.map(|at| at.value),
            backends: self.backends.into_iter().map(|at| at.value).collect(),
            health,
            keepalive: self.keepalive,
        })
    }
}

/// `"10.0.0.11:8080"` or `{ address = "10.0.0.11:8080", weight = 2 }`.
fn backend(value: &Value<'_>) -> Option<At<Backend>> {
    let rule = "a backend is an address, such as \"10.0.0.11:8080\", or { address = \"...\", weight = 2 }";
    let (address, weight, server_id) = if value.is_table() {
        let table = value.table(&schema::BACKEND)?;
        let weight = table.value("weight").map(|value| value.integer(1..1001));
        let address = table.required("address", "a backend needs its address")?;
        let address = address.parsed("an address is a string", address::backend);
        let last = u64::from(bounds::QUIC_SERVERS_MAX);
        let server_id = table.value("server_id").and_then(|value| value.integer(1..last));
        // A weight that cannot be read was reported; the address still takes part in all checks.
        (address?, weight.flatten().map_or(1, |at| at.value as u16), server_id.map(|at| at.value as u16))
    } else {
        (value.parsed(rule, address::backend)?, 1, None)
    };
    let (ip, port) = address.value;
    Some(At { value: Backend { ip, port, weight, server_id }, key: address.key, span: address.span })
}

fn health(table: &Table<'_>) -> HealthDraft {
    let rule = "must be \"auto\" or a port, such as \"8080\"";
    // A check of a kind that is not supported yet was refused by name; the missing kind is no news then.
    let has_later_kind = schema::HEALTH.later.iter().any(|kind| table.value(kind).is_some());
    let tcp = if has_later_kind { table.value("tcp") } else { table.required("tcp", rule) };
    let every = table.value("every").and_then(|value| value.duration(&TIMEOUTS));
    let timeout_value = table.value("timeout");
    let timeout = timeout_value.as_ref().and_then(|value| value.duration(&TIMEOUTS));
    let every_or_default = every.map_or(EVERY, |at| at.value);
    if let (Some(value), Some(timeout)) = (&timeout_value, &timeout)
        && timeout.value > every_or_default
    {
        let every = show_duration(every_or_default);
        value.fault(Fault::new(format!("must be at most `every`, which is {every}")));
    }
    let times = |key, default| {
        table.value(key).and_then(|value| value.integer(1..101)).map_or(default, |at| at.value as u32)
    };
    HealthDraft {
        tcp: tcp.and_then(|value| value.parsed(rule, tcp_port)),
        every: every_or_default,
        // A default that is longer than a short interval gives way to it.
        timeout: timeout.map_or(TIMEOUT.min(every_or_default), |at| at.value),
        fall: times("fall", FALL),
        rise: times("rise", RISE),
    }
}

fn tcp_port(text: &str) -> Result<Option<u16>, Fault> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        _ if text == "auto" => Ok(None),
        Ok(port @ 1..) if is_decimal => Ok(Some(port)),
        _ => Err(Fault::new("must be \"auto\" or a port from 1 to 65535, such as \"8080\"")),
    }
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
