//! `l4-program`: what `lb_ingress` costs per packet, under `BPF_PROG_TEST_RUN`.
//!
//! A wrapper restores the packet before each run and gives it the next of n source addresses (see
//! `ebpf/src/bench.rs`). Two floors are measured the same way in the same round: a program that does nothing, and
//! one that swaps the Ethernet addresses and sends the packet back. A case's cost is its time less a floor's.
//! Routes and neighbours are the kernel's own, in a namespace. Rounds interleave all cases; every case counts its
//! packets by reason, and a round whose counters disagree with the number of runs is void.

use anyhow::{Result, ensure};
use lb_abi::{
    counter::FlowEvent,
    reason::Reason,
    vip::{FORWARD_IPIP, FORWARD_L2DSR},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    xdp::world::{LB0_MAC, ROUTER_MAC},
};

use super::program_object::{Bench, DENIED_V4, Maps, Program, Slots, directory};

/// Rounds, unless another number is asked for.
pub(crate) const ROUNDS: usize = 11;
const REPEAT: u32 = 100_000;
/// One flow after the other, so that look-ups do not find the last packet's lines warm by chance.
const FLOWS: u32 = 1024;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// A case's time in every round, beside both floors'.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) case: &'static str,
    /// Nanoseconds per packet, wrapper included, by round.
    pub(crate) whole_ns: Vec<f64>,
    /// The same above the empty program of that round.
    pub(crate) above_empty_ns: Vec<f64>,
    /// The same above the swap of that round.
    pub(crate) above_swap_ns: Vec<f64>,
}

struct Case {
    name: &'static str,
    program: Program,
    packet: Packet,
    frame: Vec<u8>,
    maps: Maps,
    flows: u32,
    /// Whether flow records are left from one round to the next.
    keep_flows: bool,
    expected: Expected,
}

struct Expected {
    verdict: u32,
    reason: Option<Reason>,
    event: Option<FlowEvent>,
}

/// Measures every case in `rounds` rounds. On a thread of its own, whose namespace ends with it.
pub(crate) fn run(rounds: usize, only: Option<&str>) -> Result<Vec<Cost>> {
    std::thread::scope(|scope| {
        match scope.spawn(|| measure(rounds, only)).join() {
            Ok(costs) => costs,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn measure(rounds: usize, only: Option<&str>) -> Result<Vec<Cost>> {
    let mut bench = Bench::load(&directory())?;
    let mut cases = cases();
    cases.retain(|case| case.program != Program::Ingress || only.is_none_or(|only| case.name.contains(only)));
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push(once(&mut bench, case)?);
        }
    }
    let (empty, swap) = (times[0].clone(), times[1].clone());
    let above = |times: &[f64], floor: &[f64]| times.iter().zip(floor).map(|(a, b)| a - b).collect();
    Ok(cases
        .iter()
        .zip(times)
        .map(|(case, times)| Cost {
            case: case.name,
            above_empty_ns: above(&times, &empty),
            above_swap_ns: above(&times, &swap),
            whole_ns: times,
        })
        .collect())
}

fn once(bench: &mut Bench, case: &Case) -> Result<f64> {
    bench.write(&case.maps)?;
    bench.aim(case.program, &case.packet, &case.frame, case.flows)?;
    if !case.keep_flows {
        bench.forget_flows()?;
    }
    if case.flows <= FLOWS {
        // Once around, so that caches and, where there are any, flow records are as they stay.
        bench.run(&case.frame, case.flows)?;
    }
    let count = |bench: &mut Bench| -> Result<_> {
        let reason = case.expected.reason.map_or(Ok(0), |reason| bench.reason(reason))?;
        let event = case.expected.event.map_or(Ok(0), |event| bench.event(event))?;
        Ok((reason, event))
    };
    let repeat = if case.flows <= FLOWS { REPEAT } else { case.flows };
    let before = count(bench)?;
    let (ns, verdict) = bench.run(&case.frame, repeat)?;
    let after = count(bench)?;
    ensure!(verdict == case.expected.verdict, "{}: verdict {verdict}", case.name);
    let moved = (after.0 - before.0, after.1 - before.1);
    let all = u64::from(repeat);
    let due = (case.expected.reason.map_or(0, |_| all), case.expected.event.map_or(0, |_| all));
    ensure!(moved == due, "{}: counted {moved:?} packets and flow events of {due:?}", case.name);
    Ok(ns)
}

fn tcp(flags: u8) -> Packet {
    Packet::tcp("198.51.100.0:40000", "192.0.2.1:80", flags).macs(LB0_MAC, ROUTER_MAC)
}

fn tcp_v6(flags: u8) -> Packet {
    Packet::tcp("[2001:db8:ffff::]:40000", "[2001:db8::1]:80", flags).macs(LB0_MAC, ROUTER_MAC)
}

fn cases() -> Vec<Case> {
    let udp = Packet::udp("198.51.100.0:40000", "192.0.2.1:53").macs(LB0_MAC, ROUTER_MAC);
    let mut cases = vec![
        floor("floor: empty", Program::Empty, XDP_PASS),
        floor("floor: swap", Program::Swap, XDP_TX),
        forwarded("IPIP, TCP, IPv4", tcp(ACK)),
        forwarded("IPIP, TCP, IPv6 in IPv4", tcp_v6(ACK)),
        forwarded("IPIP, UDP, IPv4", udp.clone()),
        forwarded("IPIP, SYN, IPv4", tcp(SYN)),
        forwarded("layer 2, TCP, IPv4", tcp(ACK)).by(FORWARD_L2DSR),
        forwarded("IPIP, TCP, IPv4, deny list on", tcp(ACK)).deny(),
        stopped(
            "not a VIP",
            Packet::tcp("198.51.100.0:40000", "192.0.2.7:80", ACK).macs(LB0_MAC, ROUTER_MAC),
            XDP_PASS,
            Reason::NotOurs,
        ),
        stopped("impossible TCP flags", tcp(SYN | 0x01), XDP_DROP, Reason::MalformedTcp),
        open("open slot, record found", tcp(ACK), FLOWS, FlowEvent::Followed),
        open("open slot, record written", tcp(SYN), 1 << 17, FlowEvent::Recorded),
    ];
    let denied = format!("{}:40000", std::net::Ipv4Addr::from(DENIED_V4));
    let denied = Packet::tcp(&denied, "192.0.2.1:80", ACK).macs(LB0_MAC, ROUTER_MAC);
    cases.push(Case { flows: 256, ..stopped("denied source", denied, XDP_DROP, Reason::Denied).deny() });
    let mut malformed = stopped("malformed IP header", tcp(ACK), XDP_DROP, Reason::MalformedIp);
    malformed.frame[malformed.packet.ip_at()] = 0x43;
    cases.push(malformed);
    cases
}

fn floor(name: &'static str, program: Program, verdict: u32) -> Case {
    let case = stopped(name, tcp(ACK), verdict, Reason::NotOurs);
    Case { program, expected: Expected { reason: None, ..case.expected }, ..case }
}

fn forwarded(name: &'static str, packet: Packet) -> Case {
    stopped(name, packet, XDP_TX, Reason::Forwarded)
}

fn open(name: &'static str, packet: Packet, flows: u32, event: FlowEvent) -> Case {
    let mut case = forwarded(name, packet);
    case.maps.slots = Slots::Open;
    case.expected.event = Some(event);
    Case { flows, ..case }
}

fn stopped(name: &'static str, packet: Packet, verdict: u32, reason: Reason) -> Case {
    Case {
        name,
        program: Program::Ingress,
        frame: packet.build(),
        packet,
        maps: Maps { forward: FORWARD_IPIP, slots: Slots::Settled, deny: false },
        flows: FLOWS,
        keep_flows: false,
        expected: Expected { verdict, reason: Some(reason), event: None },
    }
}

impl Case {
    fn by(mut self, forward: u32) -> Self {
        self.maps.forward = forward;
        self
    }

    fn deny(mut self) -> Self {
        self.maps.deny = true;
        self
    }
}
