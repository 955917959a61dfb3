//! What was found, as JSON, as Markdown tables and as one HTML page.

mod agree;
mod brief;
mod escape;
mod html;
mod markdown;
mod plot;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    machine::Machine,
    sample::{Better, Metric, Samples, Series, Spread},
    topology::Wiring,
};

pub(crate) use agree::agree;
pub(crate) use markdown::markdown;

/// The subject that all others are compared with.
const OURS: &str = "lb";

/// Everything of one run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) found: Vec<Found>,
}

/// What one scenario gave.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) scenario: &'static str,
    pub(crate) description: &'static str,
    pub(crate) wiring: Wiring,
    pub(crate) took: Duration,
    pub(crate) samples: Samples,
    /// Why the scenario as a whole did not run to its end.
    pub(crate) failure: Option<String>,
}

impl Report {
    /// Of these.
    pub(crate) fn new(machine: Machine, found: Vec<Found>) -> Self {
        Self { machine, found }
    }
}

impl Found {
    /// Metrics in order of appearance.
    fn metrics(&self) -> Vec<Metric> {
        let mut metrics: Vec<Metric> = Vec::new();
        for series in &self.samples.series {
            if !metrics.contains(&series.metric) {
                metrics.push(series.metric);
            }
        }
        metrics
    }

    /// Subjects that have this metric, in order of appearance.
    fn subjects(&self, metric: Metric) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for series in self.samples.series.iter().filter(|series| series.metric == metric) {
            if !subjects.contains(&series.subject.as_str()) {
                subjects.push(&series.subject);
            }
        }
        subjects
    }

    /// Places on the metric's axis, in order.
    fn places(&self, metric: Metric) -> Vec<f64> {
        let of_metric = self.samples.series.iter().filter(|series| series.metric == metric);
        let mut places: Vec<f64> = of_metric.map(|series| series.at).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }

    fn series(&self, metric: Metric, subject: &str, at: f64) -> Option<&Series> {
        let same = |series: &&Series| series.metric == metric && series.subject == subject && series.at == at;
        self.samples.series.iter().find(same)
    }

    /// Who is compared with whom for a metric: ours with each other, and what the scenario asks for besides.
    fn pairs(&self, metric: Metric) -> Vec<(&str, &str)> {
        if metric.better == Better::Neither {
            return Vec::new();
        }
        let subjects = self.subjects(metric);
        let others = subjects.iter().filter(|&&subject| subject != OURS && subjects.contains(&OURS));
        let asked = self.samples.pairs.iter().map(|(subject, versus)| (subject.as_str(), versus.as_str()));
        others.map(|&subject| (OURS, subject)).chain(asked).collect()
    }

    /// Ratio of a subject over another at one place of a metric, pair by pair.
    fn ratio(&self, metric: Metric, at: f64, subject: &str, versus: &str) -> Option<Spread> {
        Spread::of_ratios(self.series(metric, subject, at)?, self.series(metric, versus, at)?)
    }
}

/// The report as a file.
#[derive(Serialize)]
struct Json<'a> {
    machine: &'a Machine,
    scenarios: Vec<JsonScenario<'a>>,
    results: Vec<JsonResult<'a>>,
    ratios: Vec<JsonRatio<'a>>,
}

#[derive(Serialize)]
struct JsonScenario<'a> {
    scenario: &'a str,
    description: &'a str,
    wiring: &'static str,
    took_s: f64,
    void_samples: usize,
    failure: Option<&'a str>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct JsonResult<'a> {
    scenario: &'a str,
    subject: &'a str,
    /// With its place on the axis, so that it stands for one thing: `cpu[body_bytes=1024]`.
    metric: String,
    unit: &'static str,
    better: &'static str,
    axis: Option<&'static str>,
    at: Option<f64>,
    rounds: Vec<f64>,
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Serialize)]
struct JsonRatio<'a> {
    scenario: &'a str,
    metric: String,
    subject: &'a str,
    versus: &'a str,
    ratio_median: f64,
    ratio_min: f64,
    ratio_max: f64,
}

/// The report as JSON.
///
/// # Errors
/// A value is no number that JSON knows.
pub(crate) fn json(report: &Report) -> Result<String> {
    let mut json =
        Json { machine: &report.machine, scenarios: Vec::new(), results: Vec::new(), ratios: Vec::new() };
    for found in &report.found {
        json.scenarios.push(JsonScenario {
            scenario: found.scenario,
            description: found.description,
            wiring: wiring(found.wiring),
            took_s: found.took.as_secs_f64(),
            void_samples: found.samples.void,
            failure: found.failure.as_deref(),
            notes: &found.samples.notes,
        });
        json.results.extend(found.samples.series.iter().filter_map(|series| result(found, series)));
        for metric in found.metrics() {
            json.ratios.extend(ratios(found, metric));
        }
    }
    Ok(serde_json::to_string_pretty(&json)?)
}

fn result<'a>(found: &'a Found, series: &'a Series) -> Option<JsonResult<'a>> {
    let Spread { median, min, max } = Spread::of(series.rounds.values().copied())?;
    let Series { metric, at, .. } = *series;
    Some(JsonResult {
        scenario: found.scenario,
        subject: &series.subject,
        metric: full_name(metric, at),
        unit: metric.unit,
        better: match metric.better {
            Better::Less => "less",
            Better::More => "more",
            Better::Neither => "neither",
        },
        axis: metric.axis,
        at: metric.axis.map(|_| at),
        rounds: series.rounds.values().copied().collect(),
        median,
        min,
        max,
    })
}

fn ratios(found: &Found, metric: Metric) -> Vec<JsonRatio<'_>> {
    let mut ratios = Vec::new();
    for at in found.places(metric) {
        for (subject, versus) in found.pairs(metric) {
            if let Some(Spread { median, min, max }) = found.ratio(metric, at, subject, versus) {
                ratios.push(JsonRatio {
                    scenario: found.scenario,
                    metric: full_name(metric, at),
                    subject,
                    versus,
                    ratio_median: median,
                    ratio_min: min,
                    ratio_max: max,
                });
            }
        }
    }
    ratios
}

fn full_name(metric: Metric, at: f64) -> String {
    match metric.axis {
        None => metric.name.to_owned(),
        Some(axis) => format!("{}[{axis}={at}]", metric.name),
    }
}

fn wiring(wiring: Wiring) -> &'static str {
    match wiring {
        Wiring::Veth => "veth, GRO on",
        Wiring::Loopback => "loopback",
    }
}

/// Writes `report.json`, `report.md`, `report.html` and the README's table `brief.md`, and says where.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(report: &Report, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let files = [
        ("report.json", json(report)?),
        ("report.md", markdown(report)),
        ("report.html", html::html(report)),
        ("brief.md", brief::brief(report)),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        eprintln!("bench: wrote {}", path.display());
    }
    Ok(())
}

/// A value with three digits that mean something, as a person writes it.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == 0.0 {
        grouped(value.round())
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A place on an axis: bytes in binary units, the rest as numbers.
fn place(axis: &str, at: f64) -> String {
    const KIB: f64 = 1024.0;
    match axis {
        "body_bytes" if at >= KIB * KIB => format!("{} MiB", number_short(at / KIB / KIB)),
        "body_bytes" if at >= KIB => format!("{} KiB", number_short(at / KIB)),
        "body_bytes" => format!("{at} B"),
        "percentile" => format!("p{at}"),
        _ => grouped(at),
    }
}

fn number_short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    const CPU: Metric = Metric::cost("cpu", "us/request");
    const SIZE: Metric = Metric::cost("cpu", "us/request").over("body_bytes");
    const FACT: Metric = Metric::fact("core_busy", "%");

    pub(super) fn report() -> Report {
        let mut samples = Samples::default();
        for (round, factor) in [(0, 1.0), (1, 1.5)] {
            for (subject, cpu) in [("lb", 10.0), ("nginx", 20.0)] {
                let sample = Sample::new()
                    .with(CPU, cpu * factor)
                    .with(FACT, 99.0)
                    .with_at(SIZE, 1024.0, cpu)
                    .with_at(SIZE, 4_194_304.0, cpu * 50.0);
                samples.record(round, subject, sample);
            }
        }
        samples.note("envoy: not installed");
        samples.compare("nginx", "lb");
        let machine = Machine::look(0.0, Duration::from_secs(1));
        let found = Found {
            scenario: "http1-small",
            description: "small <requests>",
            wiring: Wiring::Veth,
            took: Duration::from_secs(1),
            samples,
            failure: None,
        };
        Report::new(machine, vec![found])
    }

    #[test]
    fn json_has_results_and_ratios_pair_by_pair() {
        let json: serde_json::Value = serde_json::from_str(&json(&report()).unwrap()).unwrap();
        let results = json["results"].as_array().unwrap();
        assert_eq!(results.len(), 8);
        assert_eq!(results[0]["metric"], "cpu");
        assert_eq!(results[0]["rounds"], serde_json::json!([10.0, 15.0]));
        assert_eq!(results[0]["median"], 12.5);
        assert_eq!(results[2]["metric"], "cpu[body_bytes=1024]");
        let ratios = json["ratios"].as_array().unwrap();
        // The fact is not compared; each of the others is, ours over theirs and as asked for.
        assert_eq!(ratios.len(), 6);
        for ratio in ratios.iter().filter(|ratio| ratio["subject"] == "lb") {
            assert_eq!((&ratio["subject"], &ratio["versus"]), (&"lb".into(), &"nginx".into()));
            assert_eq!(ratio["ratio_median"], 0.5);
        }
        assert_eq!(ratios.iter().filter(|ratio| ratio["ratio_median"] == 2.0).count(), 3);
        assert_eq!(json["scenarios"][0]["notes"][0], "envoy: not installed");
        assert!(json["machine"]["kernel"].as_str().unwrap().contains('.'));
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, expected) in
            [(0.0, "0"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.4, "1\u{202f}234")]
        {
            assert_eq!(number(value), expected);
        }
        assert_eq!(number(-1_234_567.0), "-1\u{202f}234\u{202f}567");
        assert_eq!(place("body_bytes", 65536.0), "64 KiB");
        assert_eq!(place("percentile", 99.9), "p99.9");
    }
}
