//! `syscalls`: how often a request enters the kernel.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Scenario;
use crate::{
    backend::SMALL,
    context::Context,
    load::Speaks,
    measure::{PerfCount, Strace},
    named::Named,
    peers::{Logging, Protocol, Subject},
    sample::{Metric, Sample},
    stage::{HTTP, Requests, Stage},
};

const CALLS: Metric = Metric::cost("syscalls", "calls/request");
/// The same under strace.
const TRACED: Metric = Metric::fact("syscalls_traced", "calls/request");
const LOAD: Requests = Requests { body: SMALL, connections: 64, churn: false, speaks: Speaks::Http1 };
const REQUESTS: u64 = 10_000;
/// Calls that are named in the notes.
const NAMED: usize = 5;

/// Small keepalive requests, counted by perf at full speed; then again under `strace -c`, for the names.
pub(crate) struct Syscalls;

impl Scenario for Syscalls {
    fn name(&self) -> &'static str {
        "syscalls"
    }

    fn description(&self) -> &'static str {
        "system calls per request (perf; by name: strace -c): 200 B answers on 64 keepalive connections"
    }

    fn subjects(&self) -> Vec<Subject> {
        Subject::all(Protocol::Http, Logging::Off)
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        let mut stage = Stage::set(context, HTTP)?;
        let directory = context.directory;
        let mut calls_of: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        context.rounds(&stage.subjects(), |&subject| {
            // Upstream connections are there before anything is counted.
            stage.run(subject, LOAD, 1000)?;
            let pid = stage.running(subject)?.pid();
            let perf = PerfCount::begin(pid, directory)?;
            let run = stage.run(subject, LOAD, REQUESTS);
            let counted = perf.finish()?;
            run?;
            let strace = Strace::attach(pid, directory)?;
            let run = stage.run(subject, LOAD, REQUESTS);
            let calls = strace.finish()?;
            run?;
            let traced: u64 = calls.values().sum();
            calls_of.insert(subject.name(), calls);
            Ok(Sample::new()
                .with(CALLS, counted as f64 / REQUESTS as f64)
                .with(TRACED, traced as f64 / REQUESTS as f64))
        })?;
        for (subject, calls) in calls_of {
            context.samples.note(format!("{subject}, traced: {}", most_frequent(&calls)));
        }
        Ok(())
    }
}

fn most_frequent(calls: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = calls.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1));
    let share = |(name, count): (&String, &u64)| format!("{name} {:.2}", *count as f64 / REQUESTS as f64);
    sorted.into_iter().take(NAMED).map(share).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_calls_come_first() {
        let calls = BTreeMap::from([("read".to_owned(), 100), ("write".to_owned(), 20_000)]);
        assert_eq!(most_frequent(&calls), "write 2.00, read 0.01");
    }
}
