//! `tls-small`: what a request costs when its bytes are sealed.

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::Metric,
    stage::{Requests, Stage, TLS},
};

const COST: CostMetrics = CostMetrics::of("us/request");
const THROUGHPUT: Metric = Metric::gain("throughput", "requests/s");
const LOAD: Requests = Requests { body: SMALL, connections: 64, churn: false, speaks: Speaks::Http1 };

/// `http1-small` over TLS with clients.
pub(crate) struct TlsSmall;

impl Scenario for TlsSmall {
    fn name(&self) -> &'static str {
        "tls-small"
    }

    fn description(&self) -> &'static str {
        "CPU per request over TLS 1.3 (AES-128-GCM): 200 B answers on 64 keepalive connections"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Tls, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, TLS)?;
        let length = context.pace.sample;
        context.rounds(&stage.subjects(), |&subject| {
            let (load, cost) = stage.requests(subject, LOAD, length)?;
            Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
        })
    }
}
