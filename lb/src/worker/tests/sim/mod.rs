//! Whole connections on a virtual clock: the worker as it is, from its accepts to its drain, over a kernel that a seed makes
//! ([`crate::ring::simulated`]), between clients and backends that a seed writes.
//!
//! What is judged: who asks has one answer for each request, in order, the bytes that its backend sent for it; or a refusal
//! with a reason that there was; or a cut connection, where somebody gave cause and so that it cannot be taken for whole.
//! Nothing of a malformed message reaches a backend. No request reaches backends twice that may not. What a backend said
//! beyond its answer is nobody's. A relay passes what was sent, and its end. At the end nothing is left: no operation, buffer,
//! socket, pipe, task, place or gauge. No loop is busy with nothing. A drain ends in its time.
//!
//! `LB_SIM_SECONDS=600` searches for longer than the usual few seconds, `LB_SIM_SEED=42` runs one seed again and tells what
//! happened.

mod ask;
mod backend;
mod client;
mod ledger;
mod message;
mod peer;
mod raw;
mod run;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::run::{Outcome, Planted, run};
use crate::{ring::simulated::Flaw, worker::mutant::Mutant};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// However slow the machine is.
const RUNS_MIN: u64 = 5;
/// Lines of a trace that are shown.
const TRACE_LINES: usize = 400;

/// Tells a failure whole, from a second run of the same seed.
fn tell(seed: u64, failure: &str) -> ! {
    let again = run(seed, Planted::Nothing, true);
    for line in again.trace.iter().rev().take(TRACE_LINES).rev() {
        println!("{line}");
    }
    panic!("LB_SIM_SEED={seed}: {failure}");
}

#[test]
fn connections_end_as_they_should() {
    if let Some(seed) = variable("LB_SIM_SEED") {
        let Outcome { failure, trace, .. } = run(seed, Planted::Nothing, true);
        trace.iter().for_each(|line| println!("{line}"));
        assert_eq!(failure, None);
        return;
    }
    let searching = variable("LB_SIM_SECONDS").map(Duration::from_secs);
    let time = searching.unwrap_or(Duration::from_secs(6));
    // The usual seconds tell whether a change has broken something: of seeds that are known to pass.
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let first = searching.map_or(1, |_| now() % 1_000_000_000);
    let (began, mut runs) = (Instant::now(), 0);
    let (mut whole, mut attempts, mut conns) = (0, 0, 0);
    let (mut virtual_time, mut reasons) = (Duration::ZERO, std::collections::BTreeMap::new());
    for seed in (first..).take_while(|seed| seed - first < RUNS_MIN || began.elapsed() < time) {
        let outcome = run(seed, Planted::Nothing, false);
        if let Some(failure) = outcome.failure {
            tell(seed, &failure);
        }
        runs += 1;
        whole += outcome.whole;
        attempts += outcome.attempts;
        conns += outcome.conns;
        virtual_time += outcome.virtual_time;
        for (name, count) in outcome.reasons {
            *reasons.entry(name).or_insert(0) += count;
        }
    }
    println!("{runs} runs from {first} on, {virtual_time:?} of virtual time");
    println!("{conns} connections, {attempts} requests at backends, {whole} answers and streams came whole");
    reasons.retain(|_, count| *count > 0);
    println!("{reasons:?}");
    assert!(whole > 0, "a simulation of nothing");
}

/// Each third seed has a shelf. Who searches looks at more of them.
#[test]
fn connections_go_over_the_shelf() {
    let mut used = 0;
    let seeds = if variable("LB_SIM_SECONDS").is_some() { 60 } else { 20 };
    for seed in (1..=seeds).map(|at| 3 * at) {
        let Outcome { failure, shelf_reuses, .. } = run(seed, Planted::Nothing, false);
        if let Some(failure) = failure {
            tell(seed, &failure);
        }
        used += shelf_reuses;
    }
    println!("{used} exchanges took theirs from there");
    assert!(used > 0, "nobody uses it");
}

#[test]
fn a_seed_is_one_history() {
    for seed in [1, 2, 3] {
        let [one, other] = [(); 2].map(|()| run(seed, Planted::Nothing, true));
        let differs = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!((one.digest, differs), (other.digest, None), "seed {seed}");
    }
}

/// Without one of the rules, the simulation tells. A bug that no seed finds says that the simulation is blind.
#[test]
fn planted_bugs_are_found() {
    let time = Duration::from_secs(variable("LB_SIM_SECONDS").unwrap_or(60));
    let flaws = [Flaw::Flips, Flaw::Loses, Flaw::Repeats].map(|flaw| (Planted::Kernel(flaw), 1));
    let all = flaws.into_iter().chain(Mutant::ALL.map(|(mutant, first)| (Planted::Worker(mutant), first)));
    let mut unfound = Vec::new();
    for (planted, first) in all {
        let began = Instant::now();
        let mut seeds = (first..).take_while(|seed| *seed == first || began.elapsed() < time);
        match seeds.find_map(|seed| run(seed, planted, false).failure.map(|failure| (seed, failure))) {
            Some((seed, failure)) => println!("{planted:?}: seed {seed}, {failure}"),
            None => unfound.push(planted),
        }
    }
    assert!(unfound.is_empty(), "not found: {unfound:?}");
}
