//! Packets of listeners, given to the core of the worker that owns their flow.

use lb_abi::{bounds::SYNS_PER_TICK, hash, reason::Reason, steer::STEER_COOKIES};
use lb_ebpf::verdict::Verdict;

use super::{Row, Way, arriving, frame, ipip, row, tcp};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN, seal},
    xdp::{
        row::edited,
        world::{COOKIE, HASH_KEY, NEAR, SOCKETS, flow},
    },
};

fn v4(flags: u8) -> Packet {
    arriving(Packet::tcp("198.51.100.7:40000", "10.0.0.1:8080", flags))
}

fn v6(flags: u8) -> Packet {
    arriving(Packet::tcp("[2001:db8:f::7]:40000", "[fd00::1]:8080", flags))
}

impl Row {
    /// Given to the other core, untouched.
    fn spread(mut self) -> Self {
        self.expected.verdict = Verdict::Moved;
        self.passed(Reason::Spread)
    }
}

pub(super) fn rows(now: u32) -> Vec<Row> {
    let (there, here) = (ipip(now).spread(&[1]), ipip(now).spread(&[0]));
    let mut rows = vec![
        row("spread: SYN", &there, &v4(SYN)).spread(),
        row("spread: SYN over IPv6", &there, &v6(SYN)).spread(),
        row("spread: ACK with data", &there, &v4(ACK).payload(900)).spread(),
        row("spread: FIN", &there, &v6(FIN | ACK)).spread(),
        row("spread: RST", &there, &v4(RST)).spread(),
        row("spread: with a tag", &there, &v4(ACK).tag(0x8100, 5)).spread(),
        row("spread: with two tags", &there, &v6(ACK).tag(0x88a8, 5).tag(0x8100, 6)).spread(),
        row("spread: the worker is on this core", &here, &v4(SYN)),
        row("spread: the same over IPv6", &here, &v6(ACK)),
        row("spread: there is no worker", &ipip(now).spread(&[]), &v4(SYN)),
    ];
    rows.extend(by_hash(now));
    rows.extend(not_spread(now));
    let flood = SOCKETS
        .iter()
        .fold(there.clone().flooded(SYNS_PER_TICK), |world, at| world.listener(at, STEER_COOKIES));
    let mut shut = flood.clone();
    shut.listeners.clear();
    let answer = v4(SYN).payload(0).syn_ack(COOKIE, 64_240, 1460);
    rows.extend([
        row("spread: SYN of a flood that is answered", &flood, &v4(SYN))
            .transmitted(Reason::SynCookie, answer.build()),
        row("spread: SYN of a flood that is not", &shut, &v4(SYN)).spread(),
        row("spread: ACK in a flood", &flood, &v6(ACK)).spread(),
    ]);
    rows
}

/// One worker on each core: every flow has its own.
fn by_hash(now: u32) -> Vec<Row> {
    const FLOWS: [(&str, &str); 6] = [
        ("spread: flow 1 of 6", "198.51.100.7:40001"),
        ("spread: flow 2 of 6", "198.51.100.7:40002"),
        ("spread: flow 3 of 6", "198.51.100.8:40001"),
        ("spread: flow 4 of 6", "198.51.100.9:9"),
        ("spread: flow 5 of 6", "203.0.113.77:40001"),
        ("spread: flow 6 of 6", "203.0.113.78:40001"),
    ];
    let world = ipip(now).spread(&[0, 1]);
    let rows = FLOWS.map(|(name, source)| {
        let packet = arriving(Packet::tcp(source, "10.0.0.1:8081", ACK));
        let row = row(name, &world, &packet);
        match hash::slot(hash::flow(HASH_KEY, &flow(&packet)), 2) {
            0 => row,
            _ => row.spread(),
        }
    });
    let moved = rows.iter().filter(|row| row.expected.reasons == [Reason::Spread]).count();
    assert!(moved > 0 && moved < rows.len(), "these flows go to both cores");
    rows.into()
}

fn not_spread(now: u32) -> Vec<Row> {
    let there = ipip(now).spread(&[1]);
    let mut off = there.clone();
    off.meta.flags = 0;
    let udp = arriving(Packet::udp("198.51.100.7:40000", "10.0.0.1:8080"));
    let answer = arriving(Packet::tcp("10.0.0.11:8080", "10.0.0.1:40000", ACK));
    let sent = Packet::tcp("192.0.2.1:8080", "198.51.100.7:40000", ACK).build();
    let error = arriving(Packet::icmp_error("203.0.113.77:0", "192.0.2.1:0", (3, 1, 0), &sent[14..42]));
    vec![
        row("spread: it is off", &off, &v4(SYN)),
        row("spread: a datagram to a listener's port", &there, &udp),
        row("spread: an answer from a backend", &there, &answer),
        row("spread: an error about a packet from a listener's port", &there, &error),
        row("spread: to a VIP", &there, &tcp(SYN)).forwarded(&tcp(SYN), &NEAR, Way::Ipip).new_flow(),
        frame(
            "spread: a fragment",
            &there,
            edited(&v4(ACK), |frame| {
                frame[20] = 0x20;
                seal(&mut frame[14..34]);
            }),
        ),
    ]
}
