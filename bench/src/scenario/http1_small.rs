//! `http1-small`: what a request costs when nothing in it is large.

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    measure::CostMetrics,
    named::Named,
    peers::{Logging, Peer, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Plan, Requests, Stage},
    topology::Wiring,
};

const COST: CostMetrics = CostMetrics::of("us/request");
const THROUGHPUT: Metric = Metric::gain("throughput", "requests/s");
/// With an access log.
const LOGGED: Metric = Metric::cost("cpu_logged", "us/request");
/// Over loopback instead of veth.
const LOOPBACK: Metric = Metric::cost("cpu_loopback", "us/request");
/// Rounds of what is measured beside.
const BESIDE_ROUNDS: usize = 3;
const LOAD: Requests = Requests { body: SMALL, connections: 64, churn: false, speaks: Speaks::Http1 };

/// Keepalive, 200 B answers, 64 connections; beside that with access logs, and over loopback.
pub(crate) struct Http1Small;

impl Scenario for Http1Small {
    fn name(&self) -> &'static str {
        "http1-small"
    }

    fn description(&self) -> &'static str {
        "CPU per request: 200 B answers on 64 keepalive connections; again with access logs, and over loopback"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        plain(context)?;
        if context.is_full() {
            logged(context)?;
            loopback(context)?;
        }
        Ok(())
    }
}

fn plain(context: &mut Context<'_>) -> Result<()> {
    for peer in [Peer::Nginx, Peer::Haproxy, Peer::Envoy] {
        // What its experts' settings are worth.
        context.samples.compare(&Subject::tuned(peer).name(), &Subject::defaults(peer).name());
    }
    let mut stage = Stage::set(context, HTTP)?;
    let length = context.pace.sample;
    context.rounds(&stage.subjects(), |&subject| {
        let (load, cost) = stage.requests(subject, LOAD, length)?;
        Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
    })
}

/// With a line per request on all sides; that they were written is checked by counting them.
fn logged(context: &mut Context<'_>) -> Result<()> {
    let plan = Plan { logging: Logging::On, ..HTTP };
    let mut stage = Stage::set(context, plan)?;
    let length = context.pace.sample;
    context.some_rounds(BESIDE_ROUNDS, &stage.subjects(), |&subject| {
        let (load, cost) = stage.requests(subject, LOAD, length)?;
        Ok(Sample::new().with(LOGGED, cost.subject_ns() as f64 / 1000.0 / load.answered as f64))
    })?;
    for subject in stage.subjects() {
        let running = stage.running_mut(subject)?;
        running.stop()?;
        let (lines, answered) = (running.logged_requests()? as u64, stage.answered(subject));
        if lines != answered {
            let name = subject.name();
            context
                .samples
                .note(format!("{name}, cpu_logged: {answered} requests, but {lines} lines in its log"));
        }
    }
    Ok(())
}

fn loopback(context: &mut Context<'_>) -> Result<()> {
    let mut stage = Stage::set_over(context, HTTP, Wiring::Loopback)?;
    let length = context.pace.sample;
    context.some_rounds(BESIDE_ROUNDS, &stage.subjects(), |&subject| {
        let (load, cost) = stage.requests(subject, LOAD, length)?;
        Ok(Sample::new().with(LOOPBACK, cost.subject_ns() as f64 / 1000.0 / load.answered as f64))
    })
}
