//! What each scenario may take: the whole `report` has to end within [`REPORT_MAX`] on two cores.

use std::time::Duration;

/// Length of an unattended `bench report`.
pub(crate) const REPORT_MAX: Duration = Duration::from_secs(40 * 60);

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// For the report.
    Full,
    /// For a first look: ends within 60 s.
    Quick,
    /// For CI: one short round, so that the harness stays alive. Times mean nothing.
    Tiny,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Rounds; each measures every subject once.
    pub(crate) rounds: usize,
    /// Length of one measurement.
    pub(crate) sample: Duration,
    /// No further round is begun that would end after this.
    pub(crate) limit: Duration,
}

/// A row of the table: rounds and milliseconds per measurement in full, and seconds for all of it.
#[derive(Debug)]
struct Row {
    scenario: &'static str,
    rounds: usize,
    sample_ms: u64,
    limit_s: u64,
}

const fn row(scenario: &'static str, rounds: usize, sample_ms: u64, limit_s: u64) -> Row {
    Row { scenario, rounds, sample_ms, limit_s }
}

/// Limits are about a third above what two cores need for all subjects; a test holds their sum below
/// [`REPORT_MAX`].
const TABLE: &[Row] = &[
    row("http1-small", 5, 1_500, 215),
    row("http1-sizes", 3, 500, 200),
    row("http1-churn", 5, 1_200, 100),
    row("tcp-bulk", 5, 1_000, 150),
    row("tcp-churn", 5, 1_200, 80),
    row("latency", 5, 1_500, 400),
    row("idle", 2, 0, 85),
    row("scale", 3, 1_000, 270),
    row("reload", 3, 4_000, 70),
    row("syscalls", 3, 0, 120),
    row("l4-program", 11, 0, 100),
    row("l4-forward", 5, 1_000, 80),
    row("l4-table", 5, 0, 60),
    row("tls-small", 3, 1_000, 50),
    row("tls-handshake", 3, 1_000, 60),
    row("tls-bulk", 3, 1_000, 50),
    row("idle-tls", 2, 0, 70),
    row("h2-small", 3, 1_000, 100),
    row("grpc-unary", 3, 1_000, 50),
];

const QUICK_LIMIT: Duration = Duration::from_secs(45);

/// What this scenario may take; `None`: it has no row.
pub(crate) fn pace(scenario: &str, depth: Depth) -> Option<Pace> {
    let row = TABLE.iter().find(|row| row.scenario == scenario)?;
    let sample = Duration::from_millis(row.sample_ms);
    Some(match depth {
        Depth::Full => Pace { rounds: row.rounds, sample, limit: Duration::from_secs(row.limit_s) },
        Depth::Quick => Pace { rounds: 1, sample: sample.min(Duration::from_secs(1)), limit: QUICK_LIMIT },
        Depth::Tiny => Pace { rounds: 1, sample: Duration::from_millis(200), limit: QUICK_LIMIT },
    })
}

/// The table, as printed before a report.
pub(crate) fn table() -> String {
    let mut text = format!("  {:12} {:>6} {:>10} {:>10}\n", "scenario", "rounds", "sample ms", "at most s");
    for Row { scenario, rounds, sample_ms, limit_s } in TABLE {
        text.push_str(&format!("  {scenario:12} {rounds:>6} {sample_ms:>10} {limit_s:>10}\n"));
    }
    let sum: u64 = TABLE.iter().map(|row| row.limit_s).sum();
    text.push_str(&format!("  all together at most {} of {} s\n", sum, REPORT_MAX.as_secs()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_report_fits_with_time_to_start_and_to_write() {
        let sum: u64 = TABLE.iter().map(|row| row.limit_s).sum();
        assert!(Duration::from_secs(sum) <= REPORT_MAX - Duration::from_secs(90), "{sum} s");
    }

    #[test]
    fn every_scenario_has_a_row() {
        for scenario in scenario::ALL {
            assert!(pace(scenario.name(), Depth::Full).is_some(), "{}", scenario.name());
        }
    }
}
