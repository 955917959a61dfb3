//! `[dns]`.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::{
    address,
    reader::{Fault, Table, Value},
    schema,
    units::show_duration,
};
use crate::config::{Dns, Families};

/// Where a server listens that is written without a port.
const PORT: u16 = 53;
/// Most servers.
const SERVERS_MAX: usize = 8;
/// Bounds of `timeout`.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(30);
/// Bounds of `ttl_min` and `ttl_max`: a name is never asked for more often than once a second, nor left alone for more
/// than a day.
const TTLS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Bounds of `hold`.
const HOLDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

pub(super) fn dns(top: &Table<'_>) -> Dns {
    let default = Dns::default();
    let Some(table) = top.table("dns", &schema::DNS) else { return default };
    let duration = |key, bounds, default| {
        table.value(key).and_then(|value| value.duration(bounds)).map_or(default, |at| at.value)
    };
    let ttl_max = duration("ttl_max", &TTLS, default.ttl_max);
    let ttl_min = duration("ttl_min", &TTLS, default.ttl_min.min(ttl_max));
    if let (true, Some(value)) = (ttl_min > ttl_max, table.value("ttl_min")) {
        let fault = format!("must be at most `ttl_max`, which is {}", show_duration(ttl_max));
        value.fault(Fault::new(fault));
    }
    let attempts = table.value("attempts").and_then(|value| value.integer(1..11));
    Dns {
        servers: table.value("servers").map(|value| servers(&value)).unwrap_or_default(),
        families: table.value("families").and_then(|value| families(&value)).unwrap_or(default.families),
        timeout: duration("timeout", &TIMEOUTS, default.timeout),
        attempts: attempts.map_or(default.attempts, |at| at.value as u32),
        ttl_min,
        ttl_max,
        hold: duration("hold", &HOLDS, default.hold),
    }
}

fn servers(value: &Value<'_>) -> Vec<SocketAddr> {
    let rule = "must be an array of DNS servers, such as [\"10.0.0.53\"]";
    let mut servers = Vec::new();
    for item in value.items(rule).unwrap_or_default() {
        let Some(server) = item.parsed("must be an address", server) else { continue };
        match servers.contains(&server.value) {
            true => item.fault(Fault::new("this server is listed already")),
            false => servers.push(server.value),
        }
    }
    if servers.len() > SERVERS_MAX {
        value.fault(Fault::new(format!("must be at most {SERVERS_MAX} servers")));
    }
    servers
}

fn server(text: &str) -> Result<SocketAddr, Fault> {
    let address = match (text.parse(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => SocketAddr::new(ip, PORT),
        (_, Ok(address)) if address.port() != 0 => address,
        _ => {
            let rule = "must be the address of a DNS server, with a port where that is not 53, such as \"10.0.0.53\"";
            return Err(Fault::new(rule));
        }
    };
    address::unicast(address.ip())?;
    Ok(address)
}

fn families(value: &Value<'_>) -> Option<Families> {
    let rule = "must be an array of \"ipv4\" and \"ipv6\"";
    let mut families = Families { v4: false, v6: false };
    for item in value.items(rule)? {
        match item.choice(&schema::FAMILIES).map(|at| at.value) {
            Some(schema::Family::V4) => families.v4 = true,
            Some(schema::Family::V6) => families.v6 = true,
            None => return None,
        }
    }
    Some(families)
}
