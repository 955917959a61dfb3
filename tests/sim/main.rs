//! Flows over a table that moves: the packet path on several cores, the daemon's steering code and clients, whole, on
//! a virtual clock, in every order that a seed makes of them.
//!
//! What is judged: packets of one flow that come within its idle time meet one backend, as long as that is up; those of
//! one that was down are re-picked once; nothing is dropped while somebody is up; who leaves a pool of equals moves its
//! own slots alone; an id is not given away while anything names it; without change all slots close although clients
//! go on, and without traffic they settle and nothing stays behind.
//!
//! Not judged are packets of one flow that overlap in time on two cores, and what `lb_ebpf::select` does not promise:
//! a SYN that is repeated or forged where nothing is recorded of its flow yet. Both are counted.
//!
//! `LB_SIM_SECONDS=600` searches for longer than the usual few seconds, `LB_SIM_SEED=42` runs one seed again.
#![expect(clippy::unwrap_used, reason = "a simulation that cannot run has failed")]

mod clients;
mod cores;
mod maps;
mod mutant;
mod operator;
mod rng;
mod run;
mod store;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lb_abi::counter::FlowEvent;

use crate::{mutant::Mutant, run::Run};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Seeds to run: the one that is asked for, or as many as there is time for, beginning anywhere.
fn seeds(usual: Duration) -> impl Iterator<Item = u64> {
    let asked = variable("LB_SIM_SEED");
    let time = variable("LB_SIM_SECONDS").map_or(usual, Duration::from_secs);
    let began = Instant::now();
    let first = asked.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64 % 1_000_000_000)
    });
    (first..)
        .take(if asked.is_some() { 1 } else { usize::MAX })
        .take_while(move |seed| *seed == first || began.elapsed() < time)
}

#[test]
fn flows_stay_where_they_are() {
    let mut events = [0; FlowEvent::ALL.len()];
    let mut runs = 0;
    for seed in seeds(Duration::from_secs(4)) {
        let (run, failure) = Run::of(seed, None);
        println!("LB_SIM_SEED={seed}: {:?}, {} deaths", run.clients.traffic.get(), run.operator.deaths.get());
        if let Some(failure) = failure {
            panic!("LB_SIM_SEED={seed}: {failure}");
        }
        events.iter_mut().zip(*run.maps.events.borrow()).for_each(|(sum, one)| *sum += one);
        runs += 1;
    }
    for (event, count) in FlowEvent::ALL.iter().zip(events) {
        println!("{:>24} {count}", event.name());
    }
    println!("{runs} runs");
}

/// Without one of the rules, the simulation tells. A mutant that no seed finds says that the simulation is blind.
#[test]
fn planted_bugs_are_found() {
    let time = Duration::from_secs(variable("LB_SIM_SECONDS").unwrap_or(20));
    let mut unfound = Vec::new();
    for (mutant, first) in Mutant::ALL {
        let began = Instant::now();
        let mut seeds = (first..).take_while(|seed| *seed == first || began.elapsed() < time);
        let found = seeds.find_map(|seed| {
            let (_, failure) = Run::of(seed, Some(mutant));
            failure.map(|failure| (seed, failure))
        });
        match found {
            Some((seed, failure)) => println!("{mutant:?}: seed {seed}, {failure}"),
            None => unfound.push(mutant),
        }
    }
    assert!(unfound.is_empty(), "not found: {unfound:?}");
}
