//! `idle` and `idle-tls`: what a connection costs that waits.

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use crate::{
    context::Context,
    load::{Idle, Waits},
    measure::memory_bytes,
    peers::{Logging, Peer, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Plan, Stage, TLS, connections_max},
};

const MEMORY: Metric = Metric::cost("memory", "bytes/connection");
const WANTED: usize = 10_000;
const WANTED_QUICK: usize = 2_000;
/// With TLS less memory is a greater part of it, and each costs a handshake.
const WANTED_TLS: usize = 2_000;
/// Opened before memory is read the first time, so that buffers and caches are there.
const WARM: usize = 64;
const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory (PSS) of keepalive connections that were used once.
pub(crate) struct IdleConnections;

impl Scenario for IdleConnections {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn description(&self) -> &'static str {
        "resident memory per idle proxied keepalive connection, at 10 000 of them"
    }

    fn subjects(&self) -> Vec<Subject> {
        subjects(Protocol::Http)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let wanted = if context.is_full() { WANTED } else { WANTED_QUICK };
        let count = wanted.min(connections_max().saturating_sub(WARM));
        if count < wanted {
            context.samples.note(format!(
                "{count} connections instead of {wanted}: the limit on open files, two per connection"
            ));
        }
        let connections = Metric::fact("connections", "count");
        measure(context, HTTP, Waits::Http1, count, |grown, before| {
            let base = Metric::fact("memory_before", "MiB");
            Sample::new().with(MEMORY, grown).with(base, before).with(connections, count as f64)
        })
    }
}

/// The same over TLS, and with HTTP/2.
pub(crate) struct IdleTls;

impl Scenario for IdleTls {
    fn name(&self) -> &'static str {
        "idle-tls"
    }

    fn description(&self) -> &'static str {
        "resident memory per idle proxied connection over TLS 1.3, at 2 000 of them: of HTTP/1.1, and of HTTP/2"
    }

    fn subjects(&self) -> Vec<Subject> {
        subjects(Protocol::Tls)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let count = WANTED_TLS.min(connections_max().saturating_sub(WARM));
        measure(context, TLS, Waits::Tls, count, |grown, _| Sample::new().with(MEMORY, grown))?;
        let both = Metric::cost("memory_h2", "bytes/connection");
        measure(context, TLS, Waits::Http2, count, |grown, _| Sample::new().with(both, grown))
    }
}

/// With their defaults nginx and HAProxy take fewer connections than that.
fn subjects(protocol: Protocol) -> Vec<Subject> {
    [Peer::Lb, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Pingora, Peer::Caddy]
        .map(Subject::tuned)
        .into_iter()
        .filter(|subject| Subject::all(protocol, Logging::Off).contains(subject))
        .collect()
}

/// A fresh process each time; `sample`: of bytes that each connection took, and MiB that were taken before.
fn measure(
    context: &mut Context<'_>,
    plan: Plan,
    waits: Waits,
    count: usize,
    sample: impl Fn(f64, f64) -> Sample,
) -> Result<()> {
    let (wiring, directory, subjects) = (context.wiring, context.directory, context.subjects.clone());
    let plan = Plan { connections: count + WARM, ..plan };
    context.rounds(&subjects, |&subject| {
        let (stage, _) = Stage::open(plan, wiring, directory, &[subject])?;
        let (client, running) = (stage.client(), stage.running(subject)?);
        let open = |count| Idle::open((client.namespace, client.cores), running.address, waits, count);
        let warm = open(WARM)?;
        let before = memory_bytes(running.pid())?;
        let idle = open(count)?;
        let after = memory_bytes(running.pid())?;
        let alive = idle.alive()? + warm.alive()?;
        ensure!(alive == count + WARM, "{alive} of {} connections are left", count + WARM);
        let grown = after.checked_sub(before).context("memory shrank")?;
        Ok(sample(grown as f64 / count as f64, before as f64 / MIB))
    })
}
