//! `lb top`: what happens now, as rates between two readings of the admin API.

use std::{
    io::{self, IsTerminal},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::{args::Top, print, render, socket_of};
use crate::admin;

/// Home, and everything below it gone: the screen does not flicker as it would if it were cleared first.
const HOME: &str = "\x1b[H\x1b[J";
/// How often a pause looks whether to end.
const BREATH: Duration = Duration::from_millis(50);

/// One list: how rows are known again, what is shown as it is, and what as a rate.
struct Section {
    list: &'static str,
    keys: &'static [&'static str],
    plain: &'static [&'static str],
    rates: &'static [&'static str],
    /// Rows in which nothing ever happened are left out.
    only_busy: bool,
}

const SECTIONS: [Section; 4] = [
    Section {
        list: "vips",
        keys: &["vip"],
        plain: &["active_flows"],
        rates: &["packets", "bytes", "new_flows"],
        only_busy: false,
    },
    Section {
        list: "listeners",
        keys: &["listener"],
        plain: &["open"],
        rates: &["accepted", "requests", "received_bytes", "sent_bytes"],
        only_busy: false,
    },
    Section {
        list: "backends",
        keys: &["pool", "backend"],
        plain: &["state", "active_flows", "in_flight"],
        rates: &["packets", "bytes", "new_flows", "exchanges"],
        only_busy: false,
    },
    Section { list: "drops", keys: &["plane", "reason"], plain: &[], rates: &["count"], only_busy: true },
];

/// One reading of every list.
struct Reading {
    at: Instant,
    lists: Vec<Vec<Value>>,
}

impl Reading {
    fn take(socket: &Path) -> Result<Self, String> {
        let list = |section: &Section| {
            let mut document = admin::get(socket, &format!("/v1/show/{}", section.list))?;
            match document[section.list].take() {
                Value::Array(rows) => Ok(rows),
                _ => Err(format!("the daemon shows no list of {}", section.list)),
            }
        };
        let lists = SECTIONS.iter().map(list).collect::<Result<_, String>>()?;
        Ok(Self { at: Instant::now(), lists })
    }
}

/// Shows until Ctrl-C, or as often as was said.
pub(super) fn run(top: &Top) -> Result<(), String> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, is_over.clone()).map_err(|error| format!("signal handler: {error}"))?;
    }
    let socket = socket_of(top.admin.as_deref());
    let every = Duration::from_secs(u64::from(top.every.max(1)));
    let home = if io::stdout().is_terminal() { HOME } else { "" };
    let mut before = Reading::take(&socket)?;
    let mut left = top.count.unwrap_or(u64::MAX);
    while left > 0 {
        let due = before.at + every;
        while Instant::now() < due {
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(BREATH);
        }
        let after = Reading::take(&socket)?;
        print(format_args!("{home}{}\n", page(&before, &after)));
        before = after;
        left -= 1;
    }
    Ok(())
}

fn page(before: &Reading, after: &Reading) -> String {
    let seconds = (after.at - before.at).as_secs_f64();
    let lists = SECTIONS.iter().zip(before.lists.iter().zip(&after.lists));
    let tables = lists.filter_map(|(section, (before, after))| {
        let rows = section.rows(before, after, seconds);
        let columns = section.columns();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        (!rows.is_empty()).then(|| render::table(&columns, &rows))
    });
    tables.collect::<Vec<_>>().join("\n")
}

impl Section {
    fn columns(&self) -> Vec<String> {
        let plain = self.keys.iter().chain(self.plain).map(|name| (*name).to_owned());
        plain.chain(self.rates.iter().map(|name| format!("{name}/s"))).collect()
    }

    fn rows(&self, before: &[Value], after: &[Value], seconds: f64) -> Vec<Value> {
        let is_busy = |row: &&Value| !self.only_busy || self.rates.iter().any(|name| row[*name] != 0);
        let shown = after.iter().filter(is_busy).map(|row| {
            let former = before.iter().find(|former| self.keys.iter().all(|key| former[*key] == row[*key]));
            let mut shown: Map<String, Value> = self
                .keys
                .iter()
                .chain(self.plain)
                .map(|name| ((*name).to_owned(), row[*name].clone()))
                .collect();
            for name in self.rates {
                shown.insert(format!("{name}/s"), rate(former.map(|row| &row[*name]), &row[*name], seconds));
            }
            Value::Object(shown)
        });
        shown.collect()
    }
}

/// Whole numbers per second. Null where there is no counter; one that fell began anew.
fn rate(before: Option<&Value>, after: &Value, seconds: f64) -> Value {
    let Some(after) = after.as_u64() else { return Value::Null };
    let before = before.and_then(Value::as_u64).unwrap_or(0);
    let moved = after.checked_sub(before).unwrap_or(after);
    Value::from((moved as f64 / seconds).round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::{
        fixture,
        show::{Readings, What, render as show},
    };

    fn reading(at: Instant, packets: u64) -> Reading {
        let view = fixture::view();
        let mut counted = fixture::packets();
        counted
            .vips
            .push(("dns".into(), lb_abi::counter::Traffic { packets, bytes: 100 * packets, new_flows: 0 }));
        counted.reasons[lb_abi::reason::Reason::Mtu as usize] = packets;
        let list = |section: &Section| {
            let what: What = section.list.parse().unwrap();
            let readings = Readings { packets: Some(&counted), ..Readings::default() };
            show(what, &view, readings)[section.list].as_array().unwrap().clone()
        };
        Reading { at, lists: SECTIONS.iter().map(list).collect() }
    }

    #[test]
    fn rates_are_what_happened_between_two_readings() {
        let now = Instant::now();
        let page = page(&reading(now, 1000), &reading(now + Duration::from_secs(2), 1500));
        let lines: Vec<Vec<&str>> = page.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["VIP", "ACTIVE_FLOWS", "PACKETS/S", "BYTES/S", "NEW_FLOWS/S"]);
        assert_eq!(lines[1], ["dns", "-", "250", "25000", "0"]);
        assert!(lines.contains(&vec!["xdp", "mtu", "250"]), "{page}");
        assert!(!page.contains("ttl"), "{page}");
    }

    /// Every name that is shown is one that the API has.
    #[test]
    fn every_column_is_there() {
        let reading = reading(Instant::now(), 1);
        for (section, rows) in SECTIONS.iter().zip(&reading.lists) {
            let names = section.keys.iter().chain(section.plain).chain(section.rates);
            for name in names {
                assert!(rows.iter().all(|row| row.get(*name).is_some()), "{}: {name}", section.list);
            }
        }
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        assert_eq!(rate(Some(&json!(10)), &json!(4), 2.0), json!(2));
        assert_eq!(rate(None, &json!(4), 2.0), json!(2));
        assert_eq!(rate(Some(&json!(3)), &Value::Null, 2.0), Value::Null);
    }
}
