//! `tcp-bulk`: what a MiB costs that is only passed on.

use anyhow::Result;

use super::Scenario;
use crate::{
    context::Context,
    load,
    peers::{Logging, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{Stage, TCP},
    topology::Wiring,
};

const CPU: Metric = Metric::cost("cpu", "us/MiB").over("streams");
const MACHINE: Metric = Metric::cost("machine_cpu", "us/MiB").over("streams");
const THROUGHPUT: Metric = Metric::gain("throughput", "MiB/s").over("streams");
/// Over loopback, where GRO puts nothing together.
const LOOPBACK: Metric = Metric::cost("cpu_loopback", "us/MiB").over("streams");
const LOOPBACK_ROUNDS: usize = 3;
const STREAMS: [usize; 2] = [1, 16];
const MIB: f64 = 1024.0 * 1024.0;

/// Downloads on 1 and 16 connections, from a source that only writes to a sink that only reads.
pub(crate) struct TcpBulk;

impl Scenario for TcpBulk {
    fn name(&self) -> &'static str {
        "tcp-bulk"
    }

    fn description(&self) -> &'static str {
        "CPU per MiB relayed: downloads on 1 and on 16 TCP connections; again over loopback"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Tcp, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let length = context.pace.sample;
        let stage = Stage::set(context, TCP)?;
        context.rounds(&stage.subjects(), |&subject| {
            let mut sample = Sample::new();
            for streams in STREAMS {
                let before = stage.reading(subject)?;
                let moved = bulk(&stage, subject, streams, length)?;
                let cost = stage.reading(subject)?.since(&before);
                let (at, mib) = (streams as f64, moved.bytes as f64 / MIB);
                sample = sample
                    .with_at(CPU, at, cost.subject_ns() as f64 / 1000.0 / mib)
                    .with_at(MACHINE, at, cost.machine_ns as f64 / 1000.0 / mib)
                    .with_at(THROUGHPUT, at, mib / moved.seconds);
            }
            Ok(sample)
        })?;
        drop(stage);
        if !context.is_full() {
            return Ok(());
        }
        let stage = Stage::set_over(context, TCP, Wiring::Loopback)?;
        context.some_rounds(LOOPBACK_ROUNDS, &stage.subjects(), |&subject| {
            let before = stage.reading(subject)?;
            let moved = bulk(&stage, subject, 1, length)?;
            let cost = stage.reading(subject)?.since(&before);
            let mib = moved.bytes as f64 / MIB;
            Ok(Sample::new().with_at(LOOPBACK, 1.0, cost.subject_ns() as f64 / 1000.0 / mib))
        })
    }
}

fn bulk(stage: &Stage, subject: Subject, streams: usize, length: std::time::Duration) -> Result<load::Bulk> {
    let (client, address) = (stage.client(), stage.running(subject)?.address);
    load::bulk((client.namespace, client.cores), stage.tcp_backend()?, address, streams, length)
}
