//! `tls-bulk`: what it costs to seal a large answer.

use anyhow::{Context as _, Result};
use lb::{sys::ktls, tls::KernelSuites};

use super::Scenario;
use crate::{
    backend::FILES,
    context::Context,
    load::Speaks,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::Metric,
    stage::{Requests, Stage, TLS},
};

const COST: CostMetrics = CostMetrics::of("us/MiB");
const THROUGHPUT: Metric = Metric::gain("throughput", "MiB/s");
const MIB: u64 = 1 << 20;
const CONNECTIONS: usize = 16;

/// Bodies of 1 MiB over TLS with clients.
pub(crate) struct TlsBulk;

impl Scenario for TlsBulk {
    fn name(&self) -> &'static str {
        "tls-bulk"
    }

    fn description(&self) -> &'static str {
        "CPU per MiB over TLS 1.3 (AES-128-GCM): 1 MiB answers on 16 keepalive connections"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Tls, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let body = *FILES.iter().find(|body| body.len == MIB).context("no body of 1 MiB")?;
        let load = Requests { body, connections: CONNECTIONS, churn: false, speaks: Speaks::Http1 };
        let mut stage = Stage::set(context, TLS)?;
        let length = context.pace.sample;
        context.samples.note(match KernelSuites::probe(ktls::try_keys) {
            Ok(_) => "kTLS: the kernel seals what lb sends".to_owned(),
            Err(error) => format!("no kTLS, lb seals what it sends: the kernel takes no keys: {error}"),
        });
        context.rounds(&stage.subjects(), |&subject| {
            let (load, cost) = stage.requests(subject, load, length)?;
            Ok(cost.per_unit(&COST, load.answered as f64).with(THROUGHPUT, load.rate()))
        })
    }
}
