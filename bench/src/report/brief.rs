//! The table of the project's README: what lb costs, and its share of what each peer costs.

use std::fmt::Write as _;

use super::{Found, OURS, Report, number, place};
use crate::sample::{Metric, Spread};

/// Peers in the order of the columns, as tuned by their own rules; their defaults stand in the full report.
const PEERS: [&str; 5] = ["nginx", "haproxy", "envoy", "pingora", "caddy"];

/// Costs that have a row: scenario, metric, and the places on its axis (none named: all there are).
const ROWS: &[(&str, &str, &[f64])] = &[
    ("http1-small", "cpu", &[]),
    ("http1-small", "cpu_loopback", &[]),
    ("http1-sizes", "cpu", &[1024.0, 65_536.0, 4_194_304.0]),
    ("http1-churn", "cpu", &[]),
    ("tcp-bulk", "cpu", &[1.0, 16.0]),
    ("tcp-churn", "cpu", &[]),
    ("latency", "latency_at_50_percent", &[50.0, 99.0, 99.9]),
    ("latency", "latency_at_75_percent", &[99.0]),
    ("idle", "memory", &[]),
    ("scale", "cpu_by_workers", &[2.0]),
    ("scale", "cpu_by_connections", &[]),
    ("syscalls", "syscalls", &[]),
    ("l4-forward", "relay_cpu", &[]),
];

/// The table, as Markdown. A row that was not measured is left out; a peer without that row has a dash.
pub(super) fn brief(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_table(&mut text, report);
    text
}

fn write_table(text: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        text,
        "{}, {} cores, Linux {}, commit {}; lb / it, median (min-max) of the rounds: below 1 lb is cheaper.\n",
        machine.cpu, machine.cores, machine.kernel, machine.commit
    )?;
    write!(text, "| scenario | lb |")?;
    PEERS.iter().try_for_each(|peer| write!(text, " / {peer} |"))?;
    writeln!(text, "\n|---|--:|{}", "--:|".repeat(PEERS.len()))?;
    for (scenario, name, places) in ROWS {
        let Some(found) = report.found.iter().find(|found| found.scenario == *scenario) else { continue };
        for metric in found.metrics().into_iter().filter(|metric| metric.name == *name) {
            let places = if places.is_empty() { found.places(metric) } else { places.to_vec() };
            places.into_iter().try_for_each(|at| row(text, found, metric, at))?;
        }
    }
    packets(text, report)
}

fn row(text: &mut String, found: &Found, metric: Metric, at: f64) -> std::fmt::Result {
    let Some(ours) =
        found.series(metric, OURS, at).and_then(|series| Spread::of(series.rounds.values().copied()))
    else {
        return Ok(());
    };
    let where_ = metric.axis.map_or_else(String::new, |axis| format!(", {}", label(axis, at)));
    write!(
        text,
        "| {} {}{where_} | {} {} |",
        found.scenario,
        metric.name.replace('_', " "),
        number(ours.median),
        metric.unit
    )?;
    for peer in PEERS {
        match found.ratio(metric, at, OURS, peer) {
            Some(Spread { median, min, max }) => {
                write!(text, " {} ({}-{}) |", number(median), number(min), number(max))?;
            }
            None => write!(text, " - |")?,
        }
    }
    writeln!(text)
}

fn label(axis: &str, at: f64) -> String {
    match axis {
        "body_bytes" | "percentile" => place(axis, at),
        _ => format!("{} {axis}", place(axis, at)),
    }
}

/// What the packet path costs: it has floors instead of peers.
fn packets(text: &mut String, report: &Report) -> std::fmt::Result {
    let Some(found) = report.found.iter().find(|found| found.scenario == "l4-program") else { return Ok(()) };
    let Some(metric) = found.metrics().into_iter().find(|metric| metric.name == "above_empty") else {
        return Ok(());
    };
    writeln!(text, "\n| l4-program, packet | ns above an empty program |\n|---|--:|")?;
    for subject in found.subjects(metric) {
        let spread =
            found.series(metric, subject, 0.0).and_then(|series| Spread::of(series.rounds.values().copied()));
        if let Some(Spread { median, min, max }) = spread {
            writeln!(text, "| {subject} | {} ({}-{}) |", number(median), number(min), number(max))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_our_cost_and_shares() {
        let text = brief(&super::super::tests::report());
        assert!(text.contains("| scenario | lb | / nginx |"), "{text}");
        assert!(text.contains("| http1-small cpu | 12.5 us/request | 0.50 (0.50-0.50) | - |"), "{text}");
        assert!(!text.contains("l4-program"), "{text}");
    }
}
