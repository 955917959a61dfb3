//! Keys of `[route.NAME]` that say what is done for a request on its way.

use std::sync::Arc;

use super::{
    field,
    log::sample,
    process::{self, TIMEOUTS},
    reader::{Fault, Table, Value},
    schema,
};
use crate::config::{RateBy, RateLimit, Retry, RoutePolicy};

/// Protocols that carry HTTP themselves.
const PAST_ROUTES: [&str; 4] = ["h2c", "h2", "http", "tls"];

pub(super) fn read(table: &Table<'_>) -> RoutePolicy {
    RoutePolicy {
        idle: table.value("idle").and_then(|value| value.duration(&TIMEOUTS)).map(|at| at.value),
        upgrade: table.value("upgrade").map(|value| upgrade(&value)),
        body_bytes: table.value("body_bytes").and_then(|value| process::body_bytes(&value)),
        rate_limit: table
            .table("rate_limit", &schema::RATE_LIMIT)
            .and_then(|table| rate_limit(&table))
            .map(Arc::new),
        retry: table.table("retry", &schema::RETRY).map(|table| Arc::new(retry(&table))),
    }
}

fn rate_limit(table: &Table<'_>) -> Option<RateLimit> {
    let rule = "must be \"address\", \"route\" or a field, such as \"header:X-Api-Key\"";
    let key = table.required("key", rule).and_then(|value| {
        value.parsed(rule, |text| match text.split_once(':') {
            None if text == "address" => Ok(RateBy::Address),
            None if text == "route" => Ok(RateBy::Route),
            Some(("header", name)) => field::matched(name).map(RateBy::Header),
            _ => Err(Fault::new(rule)),
        })
    });
    let rate = process::burst_rate(table);
    Some(RateLimit { rate: rate?, key: key?.value })
}

/// One more than the first.
const ATTEMPTS: u64 = 2;
/// Most attempts that one request may make: as many failed backends are remembered.
const ATTEMPTS_MAX: u64 = 8;
/// A tenth.
const BUDGET_PPM: u32 = 100_000;

fn retry(table: &Table<'_>) -> Retry {
    let rule = "must be an array of causes, such as [\"connect\", \"reset\", \"503\"]";
    let mut on = Vec::new();
    for item in table.required("on", rule).and_then(|value| value.items(rule)).unwrap_or_default() {
        let Some(cause) = item.choice(&schema::RETRY_CAUSES) else { continue };
        match on.contains(&cause.value) {
            true => item.fault(Fault::new("this cause is listed already")),
            false => on.push(cause.value),
        }
    }
    let attempts = table.value("attempts").and_then(|value| value.integer(2..ATTEMPTS_MAX + 1));
    let budget =
        table.value("budget").and_then(|value| value.parsed("must be a share, as in \"10%\"", sample));
    Retry {
        on,
        attempts: attempts.map_or(ATTEMPTS, |at| at.value) as u32,
        budget_ppm: budget.map_or(BUDGET_PPM, |at| at.value),
    }
}

fn upgrade(value: &Value<'_>) -> Arc<[Arc<str>]> {
    let rule = "must be an array of protocols, such as [\"websocket\"], or [] for none";
    let mut protocols: Vec<Arc<str>> = Vec::new();
    for item in value.items_or_none(rule).unwrap_or_default() {
        let Some(at) = item.parsed("a protocol is a string", protocol) else { continue };
        match protocols.contains(&at.value) {
            true => item.fault(Fault::new("this protocol is listed already")),
            false => protocols.push(at.value),
        }
    }
    protocols.into()
}

/// `name` or `name/version` by RFC 9110, 7.8; upper and lower case are the same.
fn protocol(text: &str) -> Result<Arc<str>, Fault> {
    let is_token = |part: &str| {
        let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_tchar)
    };
    let (name, version) = text.split_once('/').unwrap_or((text, "1"));
    let lower = text.to_ascii_lowercase();
    if text.len() > 64 || !is_token(name) || !is_token(version) {
        return Err(Fault::new("must be the name of a protocol, such as \"websocket\""));
    }
    if PAST_ROUTES.contains(&&*name.to_ascii_lowercase()) {
        return Err(Fault::new("is never passed on: it would carry requests past routes and limits"));
    }
    Ok(lower.into())
}
