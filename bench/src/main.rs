//! `lb-bench [ROUNDS] [SECONDS]`: small keepalive requests through lb, nginx and HAProxy, interleaved.
//!
//! Method: subject alone on core 0; load (wrk, 64 connections) and backend (nginx, 200 bytes) on core 1;
//! loopback. CPU is the run time of all of the subject's threads (schedstat), divided by the requests that wrk
//! saw answered; on loopback that holds the peer's receive work too, for every subject alike. System calls are
//! counted by strace in a round of their own, since it slows the subject down.

mod subject;
mod sys;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use subject::{Kind, Running};

const BACKEND_PORT: u16 = 18_080;
const SUBJECTS: [Kind; 3] = [Kind::Lb, Kind::Nginx, Kind::Haproxy];

#[derive(Clone, Copy)]
struct Sample {
    cpu_us: f64,
    rate: f64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse()).context("ROUNDS")?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse()).context("SECONDS")?;
    let directory = std::env::temp_dir().join(format!("lb-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let outcome = compare(&directory, rounds, seconds);
    std::fs::remove_dir_all(&directory)?;
    outcome
}

fn compare(directory: &Path, rounds: usize, seconds: u64) -> Result<()> {
    let _backend = Running::start(Kind::Backend, directory, BACKEND_PORT, BACKEND_PORT, 1)?;
    let mut subjects = BTreeMap::new();
    for (at, kind) in SUBJECTS.into_iter().enumerate() {
        if !kind.is_installed() {
            println!("{}: not installed, left out", kind.name());
            continue;
        }
        let port = BACKEND_PORT + 1 + at as u16;
        subjects.insert(kind, Running::start(kind, directory, port, BACKEND_PORT, 0)?);
    }
    let mut samples: BTreeMap<Kind, Vec<Sample>> = BTreeMap::new();
    for round in 0..rounds {
        let mut order: Vec<_> = subjects.keys().copied().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for kind in order {
            let sample = measure(&subjects[&kind], seconds)?;
            println!(
                "round {round} {:8} {:6.2} us/request {:8.0} requests/s",
                kind.name(),
                sample.cpu_us,
                sample.rate
            );
            samples.entry(kind).or_default().push(sample);
        }
    }
    report(&samples);
    for (kind, subject) in &subjects {
        let (calls, requests) = syscalls(subject)?;
        println!("{:8} {:5.2} system calls per request", kind.name(), calls as f64 / requests as f64);
    }
    Ok(())
}

fn measure(subject: &Running, seconds: u64) -> Result<Sample> {
    let before = sys::cpu_ns(subject.pid())?;
    let load = sys::wrk(subject.port, seconds)?;
    let cpu_ns = sys::cpu_ns(subject.pid())? - before;
    ensure!(load.requests > 0, "{} answered nothing", subject.kind.name());
    ensure!(load.errors == 0, "{}: {} errors make the run void", subject.kind.name(), load.errors);
    Ok(Sample {
        cpu_us: cpu_ns as f64 / 1000.0 / load.requests as f64,
        rate: load.requests as f64 / seconds as f64,
    })
}

fn syscalls(subject: &Running) -> Result<(u64, u64)> {
    let count = sys::Strace::attach(subject.pid())?;
    let load = sys::wrk(subject.port, 2)?;
    Ok((count.finish()?, load.requests))
}

fn report(samples: &BTreeMap<Kind, Vec<Sample>>) {
    let Some(ours) = samples.get(&Kind::Lb) else { return };
    println!("\nsubject   us/request min/median/max   ratio to lb, same round, min/median/max");
    for (kind, theirs) in samples {
        let [low, mid, high] = spread(theirs.iter().map(|sample| sample.cpu_us));
        let ratios = theirs.iter().zip(ours).map(|(theirs, ours)| theirs.cpu_us / ours.cpu_us);
        let [ratio_low, ratio_mid, ratio_high] = spread(ratios);
        println!(
            "{:8}  {low:6.2} {mid:6.2} {high:6.2}          {ratio_low:5.2} {ratio_mid:5.2} {ratio_high:5.2}",
            kind.name()
        );
    }
}

/// Minimum, median, maximum; of nothing: zeros.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => [0.0; 3],
        sorted => [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]],
    }
}
