//! `http1-sizes`: what a request costs as its answer grows, and from where on splice pays.

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::FILES,
    context::Context,
    load::{Load, Speaks},
    measure::Cost,
    peers::{Logging, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Requests, Stage},
};

const CPU: Metric = Metric::cost("cpu", "us/request").over("body_bytes");
const MACHINE: Metric = Metric::cost("machine_cpu", "us/request").over("body_bytes");
const THROUGHPUT: Metric = Metric::gain("throughput", "MiB/s").over("body_bytes");
/// Few, so that 4 MiB bodies do not queue for seconds.
const CONNECTIONS: usize = 16;
const MIB: f64 = 1024.0 * 1024.0;

/// Bodies of 1 KiB to 4 MiB on 16 keepalive connections.
pub(crate) struct Http1Sizes;

impl Scenario for Http1Sizes {
    fn name(&self) -> &'static str {
        "http1-sizes"
    }

    fn description(&self) -> &'static str {
        "CPU per request as bodies grow: 1 KiB to 4 MiB on 16 keepalive connections"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, HTTP)?;
        let length = context.pace.sample;
        // Where time is short: the ends and the middle.
        let bodies: Vec<_> = FILES.iter().step_by(if context.is_full() { 1 } else { 3 }).copied().collect();
        context.rounds(&stage.subjects(), |&subject| {
            let mut sample = Sample::new();
            for &body in &bodies {
                let load = Requests { body, connections: CONNECTIONS, churn: false, speaks: Speaks::Http1 };
                let (load, cost) = stage.requests(subject, load, length)?;
                sample = sample.and(at(body.len as f64, load, cost));
            }
            Ok(sample)
        })
    }
}

fn at(body_bytes: f64, load: Load, cost: Cost) -> Sample {
    let us = |ns: u64| ns as f64 / 1000.0 / load.answered as f64;
    Sample::new()
        .with_at(CPU, body_bytes, us(cost.subject_ns()))
        .with_at(MACHINE, body_bytes, us(cost.machine_ns))
        .with_at(THROUGHPUT, body_bytes, load.body_bytes as f64 / MIB / load.seconds)
}
