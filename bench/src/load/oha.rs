//! oha: requests at a constant rate whatever the subject does (open loop), latencies from when each was due.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::process::Pinned;

/// Where `cargo install` puts it, unless it is in PATH.
const PROGRAM: &str = "oha";

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) url: String,
    pub(crate) connections: usize,
    /// Requests per second; `None`: as many as the subject takes (a closed loop, which finds the knee).
    pub(crate) rate: Option<f64>,
    pub(crate) requests: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latencies {
    /// Answers with a status of 2xx.
    pub(crate) answered: u64,
    /// Requests that failed otherwise, by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Bytes of bodies.
    pub(crate) body_bytes: u64,
    /// Requests per second, as they were answered.
    pub(crate) rate: f64,
    /// Microseconds by percentile, as `(99.9, 1234.5)`.
    pub(crate) percentiles_us: Vec<(f64, f64)>,
}

impl Latencies {
    /// The latency that this share of requests, in percent, stayed below.
    pub(crate) fn at_us(&self, percentile: f64) -> Option<f64> {
        self.percentiles_us.iter().find(|(at, _)| *at == percentile).map(|(_, us)| *us)
    }
}

/// Runs it to its end.
///
/// # Errors
/// oha is missing or fails. Requests that fail are no error here: see the counts.
pub(crate) fn open_loop(place: Pinned<'_>, load: &Open, time_max: Duration) -> Result<Latencies> {
    let mut arguments: Vec<String> =
        ["--no-tui", "--output-format", "json", "--redirect", "0", "-c"].map(str::to_owned).to_vec();
    arguments.push(load.connections.to_string());
    arguments.extend(["-n".to_owned(), load.requests.to_string()]);
    if let Some(rate) = load.rate {
        arguments.extend(["--latency-correction".to_owned(), "-q".to_owned(), format!("{rate:.0}")]);
    }
    arguments.push(load.url.clone());
    let output = place.output(&program(), &arguments, time_max)?;
    let found = parse(&output.stdout)?;
    ensure!(!found.percentiles_us.is_empty(), "oha measured no latency");
    Ok(found)
}

/// The program, where cargo installs programs or in PATH.
pub(crate) fn program() -> PathBuf {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("bin").join(PROGRAM))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// The parts of oha's JSON that we use; times are in seconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    summary: Summary,
    latency_percentiles: BTreeMap<String, Option<f64>>,
    status_code_distribution: BTreeMap<u16, u64>,
    error_distribution: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    requests_per_sec: f64,
    total_data: u64,
}

fn parse(json: &[u8]) -> Result<Latencies> {
    let report: Report = serde_json::from_slice(json).context("oha's report")?;
    let mut errors = report.error_distribution;
    let mut answered = 0;
    for (status, count) in report.status_code_distribution {
        if (200..300).contains(&status) {
            answered += count;
        } else {
            errors.insert(format!("status {status}"), count);
        }
    }
    let mut percentiles_us: Vec<(f64, f64)> = report
        .latency_percentiles
        .iter()
        .filter_map(|(name, seconds)| Some((name.strip_prefix('p')?.parse().ok()?, (*seconds)? * 1e6)))
        .collect();
    percentiles_us.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(Latencies {
        answered,
        errors,
        body_bytes: report.summary.total_data,
        rate: report.summary.requests_per_sec,
        percentiles_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_errors_and_percentiles_are_read() {
        let json =
            br#"{"summary":{"successRate":1.0,"requestsPerSec":2000.5,"totalData":600,"sizePerSec":1.0},
            "latencyPercentiles":{"p10":0.0001,"p99.9":0.002,"p50":0.0005,"p99.99":null},
            "statusCodeDistribution":{"200":2,"204":1,"502":4},
            "errorDistribution":{"connection closed before message completed":3}}"#;
        let found = parse(json).unwrap();
        assert_eq!((found.answered, found.body_bytes), (3, 600));
        assert_eq!(found.errors.values().sum::<u64>(), 7);
        assert_eq!(found.percentiles_us.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [10.0, 50.0, 99.9]);
        assert!((found.at_us(99.9).unwrap() - 2000.0).abs() < 1e-6);
        assert_eq!(found.at_us(99.0), None);
    }
}
