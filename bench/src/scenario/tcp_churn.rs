//! `tcp-churn`: what a connection costs that is made, used once, and closed.

use anyhow::Result;

use super::Scenario;
use crate::{
    context::Context,
    load,
    measure::CostMetrics,
    peers::{Logging, Protocol, Subject},
    sample::Metric,
    stage::{Stage, TCP},
};

const COST: CostMetrics = CostMetrics::of("us/connection");
const THROUGHPUT: Metric = Metric::gain("throughput", "connections/s");
const CLIENTS: usize = 32;

/// Connections with one exchange of 64 bytes, 32 at a time.
pub(crate) struct TcpChurn;

impl Scenario for TcpChurn {
    fn name(&self) -> &'static str {
        "tcp-churn"
    }

    fn description(&self) -> &'static str {
        "CPU per TCP connection: made, 64 B each way, closed; 32 at a time"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Tcp, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let length = context.pace.sample;
        let stage = Stage::set(context, TCP)?;
        context.rounds(&stage.subjects(), |&subject| {
            let (client, address) = (stage.client(), stage.running(subject)?.address);
            let before = stage.reading(subject)?;
            let made = load::churn(
                (client.namespace, client.cores),
                stage.tcp_backend()?,
                address,
                CLIENTS,
                length,
            )?;
            let cost = stage.reading(subject)?.since(&before);
            let connections = made.connections as f64;
            Ok(cost.per_unit(&COST, connections).with(THROUGHPUT, connections / made.seconds))
        })
    }
}
