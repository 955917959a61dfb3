//! `reload`: what requests notice of a config that changes under them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::Signal;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::{self, Latencies, Open},
    peers::{Peer, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Stage},
};

/// Requests that were not answered 2xx, while the config was loaded again every second.
const FAILED: Metric = Metric::cost("failed", "requests");
const LATENCY: Metric = Metric::cost("latency_while_reloading", "us").over("percentile");
/// The same without any reload, right before.
const CALM: Metric = Metric::cost("latency_calm", "us").over("percentile");
const RELOADS: Metric = Metric::fact("reloads", "count");
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];
const RATE: f64 = 2000.0;
const CONNECTIONS: usize = 32;
const BETWEEN: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(30);

/// 2 000 requests per second on 32 keepalive connections while the config is loaded again every second.
pub(crate) struct Reload;

impl Scenario for Reload {
    fn name(&self) -> &'static str {
        "reload"
    }

    fn description(&self) -> &'static str {
        "failed requests and latency while the config is reloaded every second, at 2 000 requests/s"
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject::tuned(Peer::Lb), Subject::tuned(Peer::Nginx), Subject::tuned(Peer::Haproxy)]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        if context.subjects.iter().any(|subject| subject.peer == Peer::Lb) {
            context.samples.note("lb: not supported yet (it has no live reload)");
        }
        context.samples.note("envoy, pingora, caddy: not measured (each reloads by means of its own)");
        context.subjects.retain(|subject| subject.peer != Peer::Lb);
        let stage = Stage::set(context, HTTP)?;
        let length = context.pace.sample;
        context.rounds(&stage.subjects(), |&subject| {
            let calm = send(&stage, subject, length / 2)?;
            let running = stage.running(subject)?;
            let signal = signal(subject.peer).context("no signal for that")?;
            let (found, reloads) = thread::scope(|scope| {
                let load = scope.spawn(|| send(&stage, subject, length));
                let mut reloads = 0;
                let mut due = Instant::now() + BETWEEN;
                while !load.is_finished() {
                    if Instant::now() >= due {
                        running.signal(signal)?;
                        reloads += 1;
                        due += BETWEEN;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Ok::<_, anyhow::Error>((load.join().map_err(|_| anyhow!("load panicked"))??, reloads))
            })?;
            let mut sample = Sample::new()
                .with(FAILED, (requests(length) - found.answered.min(requests(length))) as f64)
                .with(RELOADS, f64::from(reloads));
            for percentile in PERCENTILES {
                for (metric, found) in [(LATENCY, &found), (CALM, &calm)] {
                    let us = found.at_us(percentile).context("a percentile is missing")?;
                    sample = sample.with_at(metric, percentile, us);
                }
            }
            Ok(sample)
        })
    }
}

fn requests(length: Duration) -> u64 {
    (RATE * length.as_secs_f64()) as u64
}

fn send(stage: &Stage, subject: Subject, length: Duration) -> Result<Latencies> {
    let url = stage.url(subject, SMALL)?;
    let open = Open { url, connections: CONNECTIONS, rate: Some(RATE), requests: requests(length) };
    load::open_loop(stage.client(), &open, GRACE)
}

/// What asks the first process to read its config again: nginx's master, HAProxy's master process.
fn signal(peer: Peer) -> Option<Signal> {
    match peer {
        Peer::Nginx => Some(Signal::HUP),
        Peer::Haproxy => Some(Signal::USR2),
        Peer::Lb | Peer::Envoy | Peer::Pingora | Peer::Caddy => None,
    }
}
