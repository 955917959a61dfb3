//! `h2-small`: what a request costs among others on an HTTP/2 connection.

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Plan, Requests, Stage, TLS},
};

const COST: CostMetrics = CostMetrics::of("us/request");
const THROUGHPUT: Metric = Metric::gain("throughput", "requests/s");
/// With TLS with clients.
const SEALED: Metric = Metric::cost("cpu_tls", "us/request");
/// With HTTP/2 with the backend.
const BOTH: Metric = Metric::cost("cpu_h2_backend", "us/request");
const LOAD: Requests =
    Requests { body: SMALL, connections: 4, churn: false, speaks: Speaks::Http2 { streams: 32 } };

/// 200 B answers on 4 connections with 32 requests at a time each.
pub(crate) struct H2Small;

impl Scenario for H2Small {
    fn name(&self) -> &'static str {
        "h2-small"
    }

    fn description(&self) -> &'static str {
        "CPU per request of HTTP/2: 200 B answers, 4 connections with 32 at a time; again over TLS, and with HTTP/2 to the backend"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::H2c, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, Plan { protocol: Protocol::H2c, ..HTTP })?;
        let length = context.pace.sample;
        context.rounds(&stage.subjects(), |&subject| {
            let (load, cost) = stage.requests(subject, LOAD, length)?;
            Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
        })?;
        drop(stage);
        beside(context, TLS, SEALED)?;
        beside(context, Plan { protocol: Protocol::Http2, ..HTTP }, BOTH)
    }
}

fn beside(context: &mut Context<'_>, plan: Plan, metric: Metric) -> Result<()> {
    let mut stage = Stage::set(context, plan)?;
    let length = context.pace.sample;
    context.rounds(&stage.subjects(), |&subject| {
        let (load, cost) = stage.requests(subject, LOAD, length)?;
        Ok(Sample::new().with(metric, cost.subject_ns() as f64 / 1000.0 / load.answered as f64))
    })
}
