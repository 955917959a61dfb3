//! `idle`: what a connection costs that waits.

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use crate::{
    context::Context,
    load::Idle,
    measure::memory_bytes,
    peers::{Logging, Peer, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Plan, Stage, connections_max},
};

const MEMORY: Metric = Metric::cost("memory", "bytes/connection");
const BASE: Metric = Metric::fact("memory_before", "MiB");
const CONNECTIONS: Metric = Metric::fact("connections", "count");
const WANTED: usize = 10_000;
const WANTED_QUICK: usize = 2_000;
/// Opened before memory is read the first time, so that buffers and caches are there.
const WARM: usize = 64;
const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory (PSS) of keepalive connections that were used once; a fresh process each time.
pub(crate) struct IdleConnections;

impl Scenario for IdleConnections {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn description(&self) -> &'static str {
        "resident memory per idle proxied keepalive connection, at 10 000 of them"
    }

    fn subjects(&self) -> Vec<Subject> {
        // With their defaults nginx and HAProxy take fewer connections than that.
        [Peer::Lb, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Pingora, Peer::Caddy]
            .map(Subject::tuned)
            .into_iter()
            .filter(|subject| Subject::all(Protocol::Http, Logging::Off).contains(subject))
            .collect()
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let wanted = if context.is_full() { WANTED } else { WANTED_QUICK };
        let count = wanted.min(connections_max().saturating_sub(WARM));
        if count < wanted {
            context.samples.note(format!(
                "{count} connections instead of {wanted}: the limit on open files, two per connection"
            ));
        }
        let (wiring, directory, subjects) = (context.wiring, context.directory, context.subjects.clone());
        let plan = Plan { connections: count + WARM, ..HTTP };
        context.rounds(&subjects, |&subject| {
            let (stage, _) = Stage::open(plan, wiring, directory, &[subject])?;
            let (client, running) = (stage.client(), stage.running(subject)?);
            let open = |count| Idle::open((client.namespace, client.cores), running.address, count);
            let warm = open(WARM)?;
            let before = memory_bytes(running.pid())?;
            let idle = open(count)?;
            let after = memory_bytes(running.pid())?;
            let alive = idle.alive()? + warm.alive()?;
            ensure!(alive == count + WARM, "{alive} of {} connections are left", count + WARM);
            let grown = after.checked_sub(before).context("memory shrank")?;
            Ok(Sample::new()
                .with(MEMORY, grown as f64 / count as f64)
                .with(BASE, before as f64 / MIB)
                .with(CONNECTIONS, count as f64))
        })
    }
}
