//! `http1-churn`: what a request costs that brings its own connection.

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::Metric,
    stage::{HTTP, Requests, Stage},
};

const COST: CostMetrics = CostMetrics::of("us/request");
const THROUGHPUT: Metric = Metric::gain("throughput", "requests/s");
const LOAD: Requests = Requests { body: SMALL, connections: 64, churn: true, speaks: Speaks::Http1 };

/// `Connection: close` on every request, 200 B answers, 64 clients. Upstream connections may be kept.
pub(crate) struct Http1Churn;

impl Scenario for Http1Churn {
    fn name(&self) -> &'static str {
        "http1-churn"
    }

    fn description(&self) -> &'static str {
        "CPU per request with a new connection for each: 200 B answers, 64 at a time"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, HTTP)?;
        let length = context.pace.sample;
        context.rounds(&stage.subjects(), |&subject| {
            let (load, cost) = stage.requests(subject, LOAD, length)?;
            Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
        })
    }
}
