//! `latency`: how long requests take when they come at their own pace.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::{self, Latencies, Open},
    named::Named,
    peers::{Logging, Protocol, Subject},
    sample::{Metric, Sample, Spread},
    stage::{HTTP, Stage},
};

/// As many requests per second as oha gets answered with every connection busy all the time.
const KNEE: Metric = Metric::gain("knee", "requests/s");
/// Shares of the knee in percent, and the latencies at each.
const LOADS: [(f64, Metric); 3] = [
    (25.0, Metric::cost("latency_at_25_percent", "us").over("percentile")),
    (50.0, Metric::cost("latency_at_50_percent", "us").over("percentile")),
    (75.0, Metric::cost("latency_at_75_percent", "us").over("percentile")),
];
/// Requests per second as they were answered, of those that were due. Where that is well below 100, the subject (or
/// the generator beside it) could not follow, and latencies are those of a queue that grows.
const ACHIEVED: Metric = Metric::fact("rate_achieved", "%").over("percent_of_knee");
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
const CONNECTIONS: usize = 64;
/// Requests of the closed loop that finds the knee.
const KNEE_REQUESTS: u64 = 20_000;
const GRACE: Duration = Duration::from_secs(30);

/// Open loop at 25, 50 and 75 % of the subject's own knee; corrected for coordinated omission.
pub(crate) struct Latency;

impl Scenario for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn description(&self) -> &'static str {
        "latency percentiles to p99.9 at 25, 50 and 75 % of the subject's own knee: open loop, 200 B answers"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let stage = Stage::set(context, HTTP)?;
        let length = context.pace.sample;
        let mut found: HashMap<String, Vec<f64>> = HashMap::new();
        context.rounds(&stage.subjects(), |&subject| {
            let knee = find_knee(&stage, subject, length)?;
            found.entry(subject.name()).or_default().push(knee);
            Ok(Sample::new().with(KNEE, knee))
        })?;
        // The same rates in all rounds, or there would be nothing to compare.
        let knees: HashMap<String, f64> =
            found.into_iter().filter_map(|(name, knees)| Some((name, Spread::of(knees)?.median))).collect();
        context.rounds(&stage.subjects(), |&subject| {
            let knee = *knees.get(&subject.name()).context("no knee was found")?;
            LOADS.iter().try_fold(Sample::new(), |sample, &(percent, metric)| {
                Ok(sample.and(at_rate(&stage, subject, knee * percent / 100.0, length, percent, metric)?))
            })
        })
    }
}

/// Latencies at a rate of requests per second, which is `percent` of the knee.
fn at_rate(
    stage: &Stage,
    subject: Subject,
    rate: f64,
    length: Duration,
    percent: f64,
    metric: Metric,
) -> Result<Sample> {
    let rate = rate.round();
    let found = send(stage, subject, Some(rate), (rate * length.as_secs_f64()) as u64)?;
    let achieved = Sample::new().with_at(ACHIEVED, percent, 100.0 * found.rate / rate);
    PERCENTILES.iter().try_fold(achieved, |sample, &percentile| {
        let us = found.at_us(percentile).context("a percentile is missing")?;
        Ok(sample.with_at(metric, percentile, us))
    })
}

/// A first run warms up and tells how many requests fill the time; the second one counts.
fn find_knee(stage: &Stage, subject: Subject, length: Duration) -> Result<f64> {
    let rate = send(stage, subject, None, KNEE_REQUESTS.min(2000))?.rate;
    let requests = (rate * length.as_secs_f64().min(1.0)) as u64;
    Ok(send(stage, subject, None, requests.max(2000))?.rate)
}

fn send(stage: &Stage, subject: Subject, rate: Option<f64>, requests: u64) -> Result<Latencies> {
    let open = Open { url: stage.url(subject, SMALL)?, connections: CONNECTIONS, rate, requests };
    let seen = stage.requests_seen()?;
    let found = load::open_loop(stage.client(), &open, GRACE)?;
    let seen = stage.requests_seen()? - seen - 1;
    ensure!(
        found.answered == requests && seen == requests && found.body_bytes == requests * SMALL.len,
        "{requests} requests, {} answered 2xx with {} bytes, {seen} seen by the backend; errors: {:?}",
        found.answered,
        found.body_bytes,
        found.errors
    );
    Ok(found)
}
