//! `l4-program`: what `lb_ingress` costs per packet, under `BPF_PROG_TEST_RUN`.
//!
//! A wrapper restores the packet before each run and gives it the next of n source addresses (see
//! `ebpf/src/bench.rs`). Two floors are measured the same way in the same round: a program that does nothing, and
//! one that swaps the Ethernet addresses and sends the packet back. A case's cost is its time less a floor's.
//! Routes and neighbours are the kernel's own, in a namespace. Rounds interleave all cases; every case counts its
//! packets by reason, and a round whose counters disagree with the number of runs is void.

use anyhow::{Result, ensure};
use lb_abi::{
    bounds::INSERTS_PER_TICK,
    counter::FlowEvent,
    reason::Reason,
    vip::{FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR, FORWARD_NAT, HASH_SOURCE, QUIC, SOURCES},
};
use lb_tests::{
    packet::{ACK, FIN, Packet, SYN},
    xdp::world::{FAR_V6, LB0_MAC, NEAR, NEAR_V6, OTHER, ROUTER_MAC},
};

use super::{
    Scenario,
    program_object::{
        BESIDE_DENIED_V4, Bench, DENIED_V4, Maps, NAT_SOURCE, Program, Slots, Way, directory, short_header,
    },
};
use crate::{
    budget::Depth,
    context::Context,
    named::Named,
    sample::{Metric, Sample},
};

/// The scenario.
pub(crate) struct L4Program;

const ABOVE_EMPTY: Metric = Metric::cost("above_empty", "ns/packet");
const ABOVE_SWAP: Metric = Metric::cost("above_swap", "ns/packet");
/// Wrapper and empty program, in the same round.
const FLOOR: Metric = Metric::fact("floor", "ns/packet");

/// Runs of the wrapper per measurement.
const REPEAT: u32 = 100_000;
const REPEAT_TINY: u32 = 10_000;
/// Source addresses, in turn, so that a look-up does not find the last packet's cache lines by chance.
const FLOWS: u32 = 1024;
/// 131 072: half of the flow table.
const FLOWS_MANY: u32 = 1 << 17;
/// Half of a core's insert budget of a tick.
const FLOWS_WRITTEN: u32 = INSERTS_PER_TICK / 2;
/// 1 048 576: more than any core's caches hold a line for.
const FLOWS_MILLION: u32 = 1 << 20;

/// First byte of a QUIC v1 packet with a short header (RFC 9000, 17.3.1): the fixed bit, and a packet number of
/// one byte. The destination connection id follows.
const QUIC_SHORT: u8 = 0x40;
/// The same of an Initial packet (RFC 9000, 17.2.2): a long header with version, and connection ids by length.
const QUIC_INITIAL: [u8; 6] = [0xc0, 0, 0, 0, 1, 8];
/// Least length of a datagram with an Initial packet (RFC 9000, 14.1).
const QUIC_INITIAL_LEN: usize = 1200;

/// The backend id of a slot that names none.
const NO_BACKEND: u16 = 0;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// One kind of packet, and what has to become of it.
struct Case {
    name: &'static str,
    program: Program,
    packet: Packet,
    frame: Vec<u8>,
    maps: Maps,
    flows: u32,
    /// Records that stand before: one for each flow.
    is_remembered: bool,
    /// Translated flows that stand before, one for each flow: how their packets leave, and which way.
    translated: Option<(Packet, Way)>,
    turns: Turns,
    expected: Expected,
}

/// Which packets of its flows a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turns {
    /// Those after the first: all flows have been here once.
    Settled,
    /// The first of each, and no other.
    First,
}

struct Expected {
    verdict: u32,
    reason: Option<Reason>,
    event: Option<FlowEvent>,
}

impl Named for Case {
    fn name(&self) -> String {
        self.name.to_owned()
    }
}

impl Scenario for L4Program {
    fn name(&self) -> &'static str {
        "l4-program"
    }

    fn description(&self) -> &'static str {
        "what the XDP program costs per packet, above an empty one and above sending it back"
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        // On a thread of its own: its network namespace ends with it.
        std::thread::scope(|scope| match scope.spawn(|| measure(context)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

fn measure(context: &mut Context<'_>) -> Result<()> {
    let mut bench = Bench::load(&directory())?;
    let repeat = if context.depth == Depth::Tiny { REPEAT_TINY } else { REPEAT };
    let (empty, swap) = (floor(Program::Empty, XDP_PASS), floor(Program::Swap, XDP_TX));
    context.samples.note(format!(
        "test runs in a network namespace with static neighbours; {FLOWS} source addresses in turn, \
         {repeat} runs per measurement; a round's floors stand next to each case"
    ));
    context.samples.note(
        "131k and 1M flows: 131 072 and 1 048 576 source addresses, all of which were here once before; a settled \
         slot keeps no flow, so more of them touch more slots of the table and nothing else",
    );
    context.samples.note(
        "1M denied: a deny list of 1 048 576 prefixes of three lengths, 16 MiB in all. Elsewhere: nothing of a source's \
         /24 is listed, so one bit is read of 2 MiB (the sources' bits share a cache line); one beside: a host is, so \
         that three buckets are read per packet (384 of them in turn, 24 KiB)",
    );
    context.samples.note(
        "QUIC: a VIP without `quic` forwards by hash like any other datagram to 443/udp; only \"known id\" has it",
    );
    context.rounds(&cases(), |case| {
        let empty_ns = once(&mut bench, &empty, repeat)?;
        let swap_ns = once(&mut bench, &swap, repeat)?;
        let case_ns = once(&mut bench, case, repeat)?;
        Ok(Sample::new()
            .with(ABOVE_EMPTY, case_ns - empty_ns)
            .with(ABOVE_SWAP, case_ns - swap_ns)
            .with(FLOOR, empty_ns))
    })
}

/// Nanoseconds per run. Void unless every run was counted under the case's reason and flow event.
fn once(bench: &mut Bench, case: &Case, repeat: u32) -> Result<f64> {
    if case.program == Program::Ingress {
        bench.write(&case.maps)?;
        bench.forget_flows();
        bench.renew_budget()?;
        if case.is_remembered {
            bench.remember(&case.packet, case.flows, OTHER.id)?;
        }
        if case.maps.forward == FORWARD_NAT {
            bench.forget_translated()?;
        }
        if let Some((leaves, way)) = &case.translated {
            bench.translate(&case.packet, leaves, *way, case.flows)?;
        }
    }
    bench.aim(case.program, &case.packet, &case.frame, case.flows)?;
    let repeat = match case.turns {
        Turns::First => case.flows,
        Turns::Settled => {
            // Once around, so that caches and flow records are as they stay.
            bench.run(&case.frame, case.flows)?;
            repeat
        }
    };
    let before = counted(bench, &case.expected)?;
    let (ns, verdict) = bench.run(&case.frame, repeat)?;
    let after = counted(bench, &case.expected)?;
    ensure!(verdict == case.expected.verdict, "{}: verdict {verdict}", case.name);
    let moved = (after.0 - before.0, after.1 - before.1);
    let runs = u64::from(repeat);
    let due = (case.expected.reason.map_or(0, |_| runs), case.expected.event.map_or(0, |_| runs));
    // What the budgets of two ticks on two cores take is not refused.
    let spared = if case.expected.event == Some(FlowEvent::BudgetSpent) { 4 * INSERTS_PER_TICK } else { 0 };
    let is_due = moved.0 == due.0 && (due.1.saturating_sub(u64::from(spared))..=due.1).contains(&moved.1);
    ensure!(is_due, "{}: counted {moved:?} packets and flow events of {due:?}", case.name);
    Ok(ns)
}

fn counted(bench: &mut Bench, expected: &Expected) -> Result<(u64, u64)> {
    let reason = expected.reason.map_or(Ok(0), |reason| bench.reason(reason))?;
    let event = expected.event.map_or(Ok(0), |event| bench.event(event))?;
    Ok((reason, event))
}

fn tcp(flags: u8) -> Packet {
    Packet::tcp("198.51.100.0:40000", "192.0.2.1:80", flags).macs(LB0_MAC, ROUTER_MAC)
}

fn tcp_v6(flags: u8) -> Packet {
    Packet::tcp("[2001:db8:ffff::]:40000", "[2001:db8::1]:80", flags).macs(LB0_MAC, ROUTER_MAC)
}

/// A short header with an id that names a server.
fn known_id() -> Packet {
    Packet::udp("198.51.100.0:40000", "192.0.2.1:53").macs(LB0_MAC, ROUTER_MAC).content(&short_header())
}

fn cases() -> Vec<Case> {
    let udp = Packet::udp("198.51.100.0:40000", "192.0.2.1:53").macs(LB0_MAC, ROUTER_MAC);
    let other = Packet::tcp("198.51.100.0:40000", "192.0.2.7:80", ACK).macs(LB0_MAC, ROUTER_MAC);
    let denied = format!("{}:40000", std::net::Ipv4Addr::from(DENIED_V4));
    let denied = Packet::tcp(&denied, "192.0.2.1:80", ACK).macs(LB0_MAC, ROUTER_MAC);
    let denied = stopped("denied source", denied, XDP_DROP, Reason::Denied).deny();
    let beside = format!("{}:40000", std::net::Ipv4Addr::from(BESIDE_DENIED_V4));
    let beside = Packet::tcp(&beside, "192.0.2.1:80", ACK).macs(LB0_MAC, ROUTER_MAC);
    let mut malformed = stopped("malformed IP header", tcp(ACK), XDP_DROP, Reason::MalformedIp);
    malformed.frame[malformed.packet.ip_at()] = 0x43;
    vec![
        forwarded("4in4, TCP", tcp(ACK)),
        forwarded("4in4, TCP, SYN", tcp(SYN)),
        forwarded("4in4, TCP, 131k flows", tcp(ACK)).flows(FLOWS_MANY),
        forwarded("4in4, TCP, 1M flows", tcp(ACK)).flows(FLOWS_MILLION),
        forwarded("4in4, UDP", udp),
        quic("4in4, QUIC short header", 64, &[QUIC_SHORT]),
        quic("4in4, QUIC Initial", QUIC_INITIAL_LEN, &QUIC_INITIAL),
        forwarded("4in4, TCP, 1M denied elsewhere", tcp(ACK)).deny(),
        forwarded("4in4, TCP, 1M denied, one beside", beside).flows(128).deny(),
        forwarded("4in4, TCP, by source", tcp(ACK)).by(FORWARD_IPIP | HASH_SOURCE),
        // Each to the one table there is, after a look.
        forwarded("4in4, TCP, by prefix of 131k", tcp(ACK)).by(FORWARD_IPIP | SOURCES),
        // No slot leads anywhere: only the id does.
        forwarded("4in4, QUIC, known id", known_id()).by(FORWARD_IPIP | QUIC).to(0),
        forwarded("6in4, TCP", tcp_v6(ACK)),
        forwarded("6in6, TCP", tcp_v6(ACK)).to(NEAR_V6.id),
        Case {
            expected: Expected { verdict: XDP_REDIRECT, ..forwarded("", tcp(ACK)).expected },
            ..forwarded("6in6, TCP, other interface", tcp_v6(ACK)).to(FAR_V6.id)
        },
        forwarded("GUE, 4in4, TCP", tcp(ACK)).by(FORWARD_GUE),
        forwarded("GUE, 4in6, TCP", tcp(ACK)).by(FORWARD_GUE).to(NEAR_V6.id),
        forwarded("GUE, 6in6, TCP", tcp_v6(ACK)).by(FORWARD_GUE).to(NEAR_V6.id),
        forwarded("layer 2, TCP", tcp(ACK)).by(FORWARD_L2DSR),
        open("4in4, TCP, open slot, record found", tcp(ACK), FlowEvent::Followed),
        Case {
            is_remembered: true,
            ..open("4in4, TCP, open, found, 131k flows", tcp(ACK), FlowEvent::Followed).flows(FLOWS_MANY)
        },
        open("4in4, SYN, open slot, record written", tcp(SYN), FlowEvent::Recorded)
            .flows(FLOWS_WRITTEN)
            .first(),
        open("4in4, ACK, open, budget spent", tcp(ACK), FlowEvent::BudgetSpent).flows(FLOWS_MANY).first(),
        open("4in4, SYN, open, budget spent", tcp(SYN), FlowEvent::BudgetSpent).flows(FLOWS_MANY).first(),
        closed("4in4, TCP, closed slot, unrecorded", tcp(ACK)),
        there("nat, TCP, there", tcp(ACK)),
        there("nat, TCP, there, 131k flows", tcp(ACK)).flows(FLOWS_MANY),
        back("nat, TCP, back", ACK),
        forwarded("nat, SYN, opens a flow", tcp(SYN)).by(FORWARD_NAT).flows(FLOWS_WRITTEN).first(),
        stopped("miss: VIP without a backend", tcp(ACK), XDP_DROP, Reason::NoBackend).to(NO_BACKEND),
        stopped("not a VIP", other, XDP_PASS, Reason::NotOurs),
        denied.flows(256),
        stopped("impossible TCP flags", tcp(SYN | FIN), XDP_DROP, Reason::MalformedTcp),
        malformed,
    ]
}

fn floor(program: Program, verdict: u32) -> Case {
    let case = stopped("floor", tcp(ACK), verdict, Reason::NotOurs);
    Case { program, expected: Expected { reason: None, ..case.expected }, ..case }
}

fn forwarded(name: &'static str, packet: Packet) -> Case {
    stopped(name, packet, XDP_TX, Reason::Forwarded)
}

fn open(name: &'static str, packet: Packet, event: FlowEvent) -> Case {
    let mut case = forwarded(name, packet);
    case.maps.slots = Slots::Open { owner: NEAR.id, previous: OTHER.id };
    case.expected.event = Some(event);
    case
}

/// A client's packets of known translated flows.
fn there(name: &'static str, packet: Packet) -> Case {
    let source = format!("{NAT_SOURCE}:1024");
    let leaves = packet.clone().ends(&source, &format!("{}:80", NEAR.address));
    Case { translated: Some((leaves, Way::There)), ..forwarded(name, packet).by(FORWARD_NAT) }
}

/// Replies of a thousand backends to one client, which is a neighbour here.
fn back(name: &'static str, flags: u8) -> Case {
    let packet = Packet::tcp("10.4.0.0:80", &format!("{NAT_SOURCE}:1024"), flags).macs(LB0_MAC, ROUTER_MAC);
    let leaves = packet.clone().ends("192.0.2.1:80", &format!("{}:40000", OTHER.address));
    let case = stopped(name, packet, XDP_TX, Reason::NatReturned).by(FORWARD_NAT);
    Case { translated: Some((leaves, Way::Back)), ..case }
}

/// A datagram to 443/udp that begins with these bytes.
fn quic(name: &'static str, len: usize, begin: &[u8]) -> Case {
    let packet = Packet::udp("198.51.100.0:40000", "192.0.2.1:443").macs(LB0_MAC, ROUTER_MAC).payload(len);
    let mut case = forwarded(name, packet);
    let udp_at = case.packet.ip_at() + 20;
    // The sum is left out (RFC 768), as it would not be of these bytes.
    case.frame[udp_at + 6..udp_at + 8].fill(0);
    case.frame[udp_at + 8..][..begin.len()].copy_from_slice(begin);
    case
}

fn closed(name: &'static str, packet: Packet) -> Case {
    let mut case = forwarded(name, packet);
    case.maps.slots = Slots::Closed(NEAR.id);
    case.expected.event = Some(FlowEvent::UnrecordedToOwner);
    case
}

fn stopped(name: &'static str, packet: Packet, verdict: u32, reason: Reason) -> Case {
    Case {
        name,
        program: Program::Ingress,
        frame: packet.build(),
        packet,
        maps: Maps { forward: FORWARD_IPIP, slots: Slots::Settled(NEAR.id), deny: false },
        flows: FLOWS,
        is_remembered: false,
        translated: None,
        turns: Turns::Settled,
        expected: Expected { verdict, reason: Some(reason), event: None },
    }
}

impl Case {
    fn by(mut self, forward: u32) -> Self {
        self.maps.forward = forward;
        self
    }

    fn to(mut self, backend: u16) -> Self {
        self.maps.slots = Slots::Settled(backend);
        self
    }

    fn flows(mut self, flows: u32) -> Self {
        self.flows = flows;
        self
    }

    fn first(mut self) -> Self {
        self.turns = Turns::First;
        self
    }

    fn deny(mut self) -> Self {
        self.maps.deny = true;
        self
    }
}
