//! `tls-handshake`: what it costs to begin.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;

use super::Scenario;
use crate::{
    context::Context,
    load::{Greeters, Session},
    measure::{Cost, CostMetrics},
    named::Named,
    peers::{Logging, Peer, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{Stage, TLS},
};

const COST: CostMetrics = CostMetrics::of("us/handshake");
const FULL: Metric = Metric::gain("full", "handshakes/CPU second");
const RESUMED: Metric = Metric::gain("resumed", "handshakes/CPU second");
const CPU_RESUMED: Metric = Metric::cost("cpu_resumed", "us/handshake");
/// Handshakes that show how fast it goes.
const FIRST: u64 = 320;

/// Full and resumed handshakes of TLS 1.3 on connections that carry nothing else.
pub(crate) struct TlsHandshake;

impl Scenario for TlsHandshake {
    fn name(&self) -> &'static str {
        "tls-handshake"
    }

    fn description(&self) -> &'static str {
        "handshakes of TLS 1.3 (X25519, ECDSA P-256) per CPU second, full and resumed, connections without requests"
    }

    fn subjects(&self) -> Vec<Subject> {
        // Envoy keeps its tickets until it has something to say, and here nobody asks.
        let says_first = |subject: &Subject| subject.peer != Peer::Envoy;
        Subject::all(Protocol::Tls, Logging::Off).into_iter().filter(says_first).collect()
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let stage = Stage::set(context, TLS)?;
        let length = context.pace.sample;
        let mut clients = HashMap::new();
        context.rounds(&stage.subjects(), |&subject| {
            let mut begin = |session| -> Result<(f64, Cost)> {
                let key = (subject.name(), session == Session::Full);
                if !clients.contains_key(&key) {
                    let address = stage.running(subject)?.address;
                    clients.insert(key.clone(), Greeters::acquaint(stage.client(), address, session)?);
                }
                measure(&stage, subject, &clients[&key], length)
            };
            let (full, cost) = begin(Session::Full)?;
            let (resumed, cost_resumed) = begin(Session::Resumed)?;
            Ok(per_second(FULL, full, &cost)
                .and(per_second(RESUMED, resumed, &cost_resumed))
                .and(cost.per_unit(&COST, full))
                .with(CPU_RESUMED, cost_resumed.subject_ns() as f64 / 1000.0 / resumed))
        })
    }
}

fn measure(stage: &Stage, subject: Subject, clients: &Greeters, length: Duration) -> Result<(f64, Cost)> {
    let (count, seconds) = clients.greet(stage.client(), FIRST)?;
    let wanted = (count as f64 / seconds * length.as_secs_f64()) as u64;
    let before = stage.reading(subject)?;
    let (count, _) = clients.greet(stage.client(), wanted.max(FIRST))?;
    Ok((count as f64, stage.reading(subject)?.since(&before)))
}

fn per_second(metric: Metric, count: f64, cost: &Cost) -> Sample {
    Sample::new().with(metric, count * 1e9 / cost.subject_ns() as f64)
}
