//! `scale`: whether a request costs the same with more workers, and with more connections.

use anyhow::{Context as _, Result};

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    peers::{Logging, Peer, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Plan, Requests, Stage, connections_max},
    system::cores_online,
};

const BY_WORKERS: Metric = Metric::cost("cpu_by_workers", "us/request").over("workers");
const BY_CONNECTIONS: Metric = Metric::cost("cpu_by_connections", "us/request").over("connections");
const THROUGHPUT: Metric = Metric::gain("throughput_by_workers", "requests/s").over("workers");
/// Below this the load generator and the backend, not the subject, are what a second worker competes with.
const CORES_FOR_THROUGHPUT: usize = 6;
const CONNECTIONS: [usize; 3] = [64, 1000, 10_000];
/// Requests per connection in the shorter of two runs; the longer has so many more.
const REQUESTS: (u64, u64) = (1, 6);
const CONNECTIONS_QUICK: [usize; 2] = [64, 1000];

/// CPU per request with 1 and 2 workers, and with 64 to 10 000 busy connections.
pub(crate) struct Scale;

impl Scenario for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn description(&self) -> &'static str {
        "CPU per request with 2 workers against 1, and with 64 to 10 000 busy connections"
    }

    fn subjects(&self) -> Vec<Subject> {
        [Peer::Lb, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Pingora, Peer::Caddy]
            .map(Subject::tuned)
            .into_iter()
            .filter(|subject| Subject::all(Protocol::Http, Logging::Off).contains(subject))
            .collect()
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        for workers in [1, 2] {
            by_workers(context, workers)?;
        }
        by_connections(context)
    }
}

fn by_workers(context: &mut Context<'_>, workers: usize) -> Result<()> {
    let enough = cores_online() >= CORES_FOR_THROUGHPUT;
    if !enough {
        let (cores, least) = (cores_online(), CORES_FOR_THROUGHPUT);
        context.samples.note(format!(
            "throughput_by_workers: not measurable here ({cores} cores; at least {least} are needed for load, \
             backend and two workers)"
        ));
    }
    let mut stage = Stage::set(context, Plan { workers, ..HTTP })?;
    let load = Requests { body: SMALL, connections: 64, churn: false, speaks: Speaks::Http1 };
    let length = context.pace.sample;
    context.rounds(&stage.subjects(), |&subject| {
        let (load, cost) = stage.requests(subject, load, length)?;
        let at = workers as f64;
        let sample =
            Sample::new().with_at(BY_WORKERS, at, cost.subject_ns() as f64 / 1000.0 / load.answered as f64);
        Ok(if enough { sample.with_at(THROUGHPUT, at, load.rate()) } else { sample })
    })
}

/// All subjects at one number of connections before the next, so that rounds stay close in time.
fn by_connections(context: &mut Context<'_>) -> Result<()> {
    let most = connections_max();
    let steps: &[usize] = if context.is_full() { &CONNECTIONS } else { &CONNECTIONS_QUICK };
    let largest = steps.iter().copied().max().unwrap_or(0).min(most);
    let mut stage = Stage::set(context, Plan { connections: largest, ..HTTP })?;
    let length = context.pace.sample;
    for &wanted in steps {
        let connections = wanted.min(most);
        if connections < wanted {
            context.samples.note(format!(
                "{connections} busy connections instead of {wanted}: the limit on open files, two per connection"
            ));
        }
        context.rounds(&stage.subjects(), |&subject| {
            let load = Requests { body: SMALL, connections, churn: false, speaks: Speaks::Http1 };
            // What the longer run costs more than the shorter one: the making of connections is in both.
            let requests = connections as u64 * REQUESTS.0;
            let (few, short) = stage.run(subject, load, requests)?;
            let more = (few.rate() * length.as_secs_f64()) as u64;
            let more = more.max(connections as u64 * REQUESTS.1);
            let (_, long) = stage.run(subject, load, requests + more)?;
            let grown =
                long.subject_ns().checked_sub(short.subject_ns()).context("the longer run cost less")?;
            let cpu = grown as f64 / 1000.0 / more as f64;
            Ok(Sample::new().with_at(BY_CONNECTIONS, connections as f64, cpu))
        })?;
    }
    Ok(())
}
