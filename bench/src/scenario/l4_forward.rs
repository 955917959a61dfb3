//! `l4-forward`: packets through native XDP on veth, beside the kernel's own forwarding, and beside TCP proxies
//! ([`super::l4_relay`]).
//!
//! ```text
//!   peer0 ------ lb0   lb1 ------ peer1
//!   frames in    the subject      bench_sink counts and drops
//! ```
//! One thread on one core writes small UDP frames into `peer0`, no more than a window ahead of the sink, so that
//! nothing is dropped for want of room; receiving and forwarding run on the same core. The packet rate is thus
//! that of one core that does everything, generator and sink included; they are the same for every subject, and
//! the floor, with the sink on `lb0` itself, says what they take. A round is void unless packets sent, counted as
//! forwarded and taken by the sink are the same number.
//!
//! CPU time is that of the thread, which softirqs run in too, and of the core's ksoftirqd; a kernel that accounts
//! interrupt time apart (`CONFIG_IRQ_TIME_ACCOUNTING`) would hide the softirqs' part.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_abi::{
    reason::Reason,
    vip::{FORWARD_IPIP, FORWARD_L2DSR},
};
use lb_tests::{
    packet::Packet,
    xdp::{
        tap::Tap,
        world::{FAR, LB0, LB0_MAC, ROUTER_MAC},
    },
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{
    Scenario, l4_relay,
    program_object::{Bench, Maps, Program, Slots, directory},
};
use crate::{
    context::Context,
    interrupt::check_interrupted,
    named::Named,
    peers::Subject as Server,
    sample::{Metric, Sample},
    system::processes,
};

/// The scenario.
pub(crate) struct L4Forward;

const RATE: Metric = Metric::gain("rate_per_core", "packets/s");
const CPU: Metric = Metric::cost("cpu", "ns/packet");

/// Frames between two looks at the sink: less than a veth queue holds (256).
const WINDOW: u64 = 64;
/// The longest that a window may be under way.
const LOST_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The generator and the sink alone.
    Floor,
    Ipip,
    Layer2,
    /// No program on the way in: the kernel routes.
    Kernel,
}

const SUBJECTS: [Subject; 4] = [Subject::Floor, Subject::Ipip, Subject::Layer2, Subject::Kernel];

impl Named for Subject {
    fn name(&self) -> String {
        match self {
            Self::Floor => "floor: dropped on arrival",
            Self::Ipip => "lb, 4in4",
            Self::Layer2 => "lb, layer 2",
            Self::Kernel => "kernel forwarding",
        }
        .to_owned()
    }
}

impl Scenario for L4Forward {
    fn name(&self) -> &'static str {
        "l4-forward"
    }

    fn description(&self) -> &'static str {
        "small packets through native XDP on veth, one core doing everything, beside kernel forwarding; and small \
         messages through TCP proxies, per packet"
    }

    fn subjects(&self) -> Vec<Server> {
        l4_relay::subjects()
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        // On a thread of its own: its namespace and its core end with it.
        thread::scope(|scope| match scope.spawn(|| measure(context)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })?;
        l4_relay::measure(context)
    }
}

fn measure(context: &mut Context<'_>) -> Result<()> {
    let core = stay_on_one_core()?;
    let softirqs = softirq_thread(core);
    if softirqs.is_none() {
        context.samples.note("ksoftirqd is not visible here: its part of the CPU time is missing");
    }
    let mut bench = Bench::load(&directory())?;
    let _sink = bench.sink("peer1")?;
    let generator = Tap::new(LB0 + 1)?;
    context.samples.note(
        "one core generates, forwards and receives; interfaces and neighbours in one network namespace, frames \
         enter by a packet socket",
    );
    context.samples.compare(&Subject::Ipip.name(), &Subject::Kernel.name());
    context.samples.compare(&Subject::Layer2.name(), &Subject::Kernel.name());
    let length = context.pace.sample;
    context.rounds(&SUBJECTS, |subject| once(&mut bench, &generator, softirqs.as_deref(), *subject, length))
}

fn once(
    bench: &mut Bench,
    generator: &Tap,
    softirqs: Option<&Path>,
    subject: Subject,
    length: Duration,
) -> Result<Sample> {
    let forward = if subject == Subject::Layer2 { FORWARD_L2DSR } else { FORWARD_IPIP };
    bench.write(&Maps { forward, slots: Slots::Settled(FAR.id), deny: false })?;
    bench.stand(match subject {
        Subject::Floor => Some(Program::Sink),
        Subject::Ipip | Subject::Layer2 => Some(Program::Ingress),
        Subject::Kernel => None,
    })?;
    let destination =
        if subject == Subject::Kernel { format!("{}:53", FAR.address) } else { "192.0.2.1:53".into() };
    // From the near network, so that the kernel has a way back and takes it for no martian.
    let frame = Packet::udp("10.0.0.77:40000", &destination).macs(LB0_MAC, ROUTER_MAC).payload(18).build();
    let before = (bench.sunk()?, bench.reason(Reason::Forwarded)?);
    let cpu_before = cpu_ns(softirqs)?;
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < length {
        check_interrupted()?;
        for _ in 0..WINDOW {
            generator.send(&frame)?;
        }
        sent += WINDOW;
        let due = Instant::now() + LOST_AFTER;
        while bench.sunk()? - before.0 < sent {
            ensure!(
                Instant::now() < due,
                "{}: of {sent} sent, {} came",
                subject.name(),
                bench.sunk()? - before.0
            );
            thread::yield_now();
        }
    }
    let cpu = cpu_ns(softirqs)? - cpu_before;
    let seconds = began.elapsed().as_secs_f64();
    let (sunk, forwarded) = (bench.sunk()? - before.0, bench.reason(Reason::Forwarded)? - before.1);
    let expected = if matches!(subject, Subject::Ipip | Subject::Layer2) { sent } else { 0 };
    ensure!(
        (sunk, forwarded) == (sent, expected),
        "{}: {sent} sent, {forwarded} counted as forwarded, {sunk} received",
        subject.name()
    );
    Ok(Sample::new().with(RATE, sent as f64 / seconds).with(CPU, cpu as f64 / sent as f64))
}

/// The last core that we may use, where the others' work is least likely to be.
fn stay_on_one_core() -> Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|core| allowed.is_set(*core)).context("no core")?;
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one)?;
    Ok(last)
}

/// Accounting file of the kernel thread that softirqs of a core are put off to.
fn softirq_thread(core: usize) -> Option<PathBuf> {
    let name = format!("ksoftirqd/{core}");
    processes().into_iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))).find_map(|directory| {
        let found = fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        found.then(|| directory.join("schedstat"))
    })
}

/// Run time of this thread and of `softirqs`, in nanoseconds.
fn cpu_ns(softirqs: Option<&Path>) -> Result<u64> {
    [Some(Path::new("/proc/thread-self/schedstat")), softirqs]
        .into_iter()
        .flatten()
        .map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).context("schedstat")
        })
        .sum()
}
