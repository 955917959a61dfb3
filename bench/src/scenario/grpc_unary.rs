//! `grpc-unary`: what a call costs.

use anyhow::Result;

use super::Scenario;
use crate::{
    context::Context,
    http2_backend::CALL,
    load::Speaks,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::Metric,
    stage::{HTTP, Plan, Requests, Stage},
};

const COST: CostMetrics = CostMetrics::of("us/call");
const THROUGHPUT: Metric = Metric::gain("throughput", "calls/s");
const LOAD: Requests =
    Requests { body: CALL, connections: 4, churn: false, speaks: Speaks::Grpc { streams: 32 } };

/// Unary calls, HTTP/2 on both sides, answers with trailers.
pub(crate) struct GrpcUnary;

impl Scenario for GrpcUnary {
    fn name(&self) -> &'static str {
        "grpc-unary"
    }

    fn description(&self) -> &'static str {
        "CPU per unary call of gRPC: 32 B there, 200 B and trailers back, 4 connections with 32 at a time"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http2, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, Plan { protocol: Protocol::Http2, ..HTTP })?;
        let length = context.pace.sample;
        context.rounds(&stage.subjects(), |&subject| {
            let (load, cost) = stage.requests(subject, LOAD, length)?;
            Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
        })
    }
}
