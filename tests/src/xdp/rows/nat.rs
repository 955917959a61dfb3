//! Translated flows: what opens them, what they become, both ways.
//!
//! The client is the host of `FAR`, so that the world knows a way back to it.

use lb_abi::{
    backend::BackendEntry,
    flow::FlowKey,
    meta::FLAG_NAT,
    nat::{
        ANSWERED, CLOSING_TICKS, FIN, FORWARD, GRACE_TICKS, HEARD, NatEntry, NatEvent, OPENING_REUSE_TICKS,
        OPENING_TICKS, RST as RESET, TCP_TICKS, UDP_TICKS,
    },
    reason::Reason,
};
use lb_ebpf::verdict::Verdict;

use super::{Row, big, frame, row};
use crate::{
    packet::{ACK, FIN as FINISH, Packet, RST, SYN},
    xdp::{
        row::{Moved, NatLeft, edited},
        world::{
            Backend, DEAD, FAR, FAR_V6, LB0, LB0_MAC, LB1, LB1_MAC, NEAR, NEAR_V6, OTHER, ROUTER_MAC, SILENT,
            VIP, World, flow,
        },
    },
};

mod ended;
mod errors;
mod led;
mod listeners;
mod opening;
mod ways;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [
        opening::rows(now),
        led::rows(now),
        half_open(now),
        established(now),
        ended::rows(now),
        back(now),
        errors::rows(now),
        ways::rows(now),
        listeners::rows(now),
    ]
    .concat()
}

/// Rows of long frames, for an MTU of 9000 at `lb0`.
pub(super) fn jumbo(now: u32) -> Vec<Row> {
    ways::jumbo(now)
}

/// Ticks ago that an entry of a live flow was seen.
const AGO: u32 = 5;
/// The number that a packet built here acknowledges, less one: what a SYN-ACK built here makes of its own.
const EXPECTED: u32 = 8;

/// A flow, as its four ends.
#[derive(Clone, Copy)]
struct Flow {
    protocol: u8,
    client: &'static str,
    vip: &'static str,
    source: &'static str,
    server: &'static str,
    backend: Backend,
    /// Where the client is.
    host: Backend,
}

const TCP: Flow = Flow {
    protocol: 6,
    client: "10.0.1.12:40000",
    vip: "192.0.2.1:80",
    source: "10.0.9.1:1024",
    server: "10.0.0.11:80",
    backend: NEAR,
    host: FAR,
};
const UDP: Flow = Flow { protocol: 17, vip: "192.0.2.1:53", server: "10.0.0.11:53", ..TCP };
const TCP_V6: Flow = Flow {
    protocol: 6,
    client: "[fd01::12]:40000",
    vip: "[2001:db8::1]:80",
    source: "[fd00:9::1]:1024",
    server: "[fd00::11]:80",
    backend: NEAR_V6,
    host: FAR_V6,
};
const UDP_V6: Flow = Flow { protocol: 17, vip: "[2001:db8::1]:53", server: "[fd00::11]:53", ..TCP_V6 };

impl Flow {
    fn packet(&self, source: &str, destination: &str, flags: u8) -> Packet {
        if self.protocol == 6 {
            Packet::tcp(source, destination, flags)
        } else {
            Packet::udp(source, destination)
        }
    }

    /// From the client.
    fn there(&self, flags: u8) -> Packet {
        self.packet(self.client, self.vip, flags).macs(LB0_MAC, ROUTER_MAC)
    }

    /// From the backend.
    fn reply(&self, flags: u8) -> Packet {
        self.packet(self.server, self.source, flags).macs(LB0_MAC, ROUTER_MAC)
    }

    fn forward_key(&self) -> FlowKey {
        flow(&self.packet(self.client, self.vip, 0))
    }

    fn reverse_key(&self) -> FlowKey {
        flow(&self.packet(self.server, self.source, 0))
    }

    /// Its entries, forward and reverse: flags, ticks since last seen, the number expected.
    fn pair(&self, now: u32, flags: [u32; 2], ago: [u32; 2], expected: u32) -> [(FlowKey, NatEntry); 2] {
        let entry = |leaves: FlowKey, flags, ago| NatEntry {
            source: leaves.source,
            destination: leaves.destination,
            source_port: leaves.source_port,
            destination_port: leaves.destination_port,
            backend: self.backend.id,
            vip: VIP as u16,
            generation: 1,
            expected: 0,
            flags,
            seen: now.wrapping_sub(ago),
        };
        let forward = entry(flow(&self.packet(self.source, self.server, 0)), flags[0] | FORWARD, ago[0]);
        let reverse = entry(flow(&self.packet(self.vip, self.client, 0)), flags[1], ago[1]);
        [(self.forward_key(), forward), (self.reverse_key(), NatEntry { expected, ..reverse })]
    }
}

/// Both VIP addresses translate, to one of two sources.
fn world(now: u32) -> World {
    World::new(now).nat(&["10.0.9.1", "10.0.9.2"])
}

fn world_v6(now: u32) -> World {
    World::new(now).nat(&["fd00:9::1", "fd00:9::2"]).owner(NEAR_V6.id)
}

fn of(flow: &Flow, now: u32) -> World {
    if flow.host.address.contains(':') { world_v6(now) } else { world(now) }
}

impl World {
    fn opening(mut self, entries: impl IntoIterator<Item = (FlowKey, NatEntry)>) -> Self {
        self.nat.opening.extend(entries);
        self
    }

    fn flows(mut self, entries: impl IntoIterator<Item = (FlowKey, NatEntry)>) -> Self {
        self.nat.flows.extend(entries);
        self
    }
}

impl Row {
    /// Sent out with other ends, one hop older.
    fn translated(mut self, packet: &Packet, source: &str, destination: &str, to: &Backend) -> Self {
        self.expected.frame = leaving(&packet.clone().ends(source, destination), to).build();
        self.out_to(to)
    }

    /// With other ends, and else as it came: the kernel finds the way.
    fn handed_on(mut self, packet: &Packet, source: &str, destination: &str) -> Self {
        self.expected.frame = packet.clone().ends(source, destination).build();
        self.expected.verdict = Verdict::Pass;
        self
    }

    fn out_to(mut self, to: &Backend) -> Self {
        let is_near = to.neighbour.is_some_and(|(_, interface)| interface == LB0);
        self.expected.verdict =
            if is_near { Verdict::Transmit } else { Verdict::Redirect { interface: LB1 } };
        self
    }

    /// Forward, by this flow.
    fn there(mut self, packet: &Packet, flow: &Flow) -> Self {
        let bytes = self.frame.len() as u64;
        self.expected.moved = vec![Moved { vip: VIP, backend: flow.backend.id, bytes, new_flows: 0 }];
        self.passed(Reason::Forwarded).translated(packet, flow.source, flow.server, &flow.backend)
    }

    /// Back, by this flow.
    fn back(self, packet: &Packet, flow: &Flow) -> Self {
        self.passed(Reason::NatReturned).translated(packet, flow.vip, flow.client, &flow.host)
    }

    /// What it leaves half-open and established.
    fn leaving(mut self, opening: &[(FlowKey, NatEntry)], flows: &[(FlowKey, NatEntry)]) -> Self {
        let events = std::mem::take(&mut self.expected.nat.events);
        let left = NatLeft { opening: opening.to_vec(), flows: flows.to_vec(), events };
        self.expected.nat = left.normal(self.world.now);
        self
    }

    fn nat_events(mut self, events: &[NatEvent]) -> Self {
        self.expected.nat.events = events.to_vec();
        self
    }
}

/// The packet on its way out to a neighbour.
fn leaving(packet: &Packet, to: &Backend) -> Packet {
    let packet = packet.clone().aged();
    match to.neighbour {
        Some((mac, LB0)) => packet.macs(mac, LB0_MAC),
        Some((mac, _)) => packet.macs(mac, LB1_MAC).untagged(),
        None => packet,
    }
}

/// Packets of flows that are half-open.
fn half_open(now: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for (flow, names) in [
        (TCP, ["nat: a SYN again", "nat: SYN-ACK", "nat: the client's ACK establishes"]),
        (TCP_V6, ["nat v6: a SYN again", "nat v6: SYN-ACK", "nat v6: the client's ACK establishes"]),
    ] {
        let half = of(&flow, now).opening(flow.pair(now, [0, 0], [AGO, AGO], 0));
        let heard = of(&flow, now).opening(flow.pair(now, [0, ANSWERED], [AGO, AGO], EXPECTED));
        let (syn, answer, ack) = (flow.there(SYN), flow.reply(SYN | ACK), flow.there(ACK));
        rows.push(
            row(names[0], &half, &syn).there(&syn, &flow).leaving(&flow.pair(now, [0, 0], [AGO, 0], 0), &[]),
        );
        rows.push(
            row(names[1], &half, &answer)
                .back(&answer, &flow)
                .leaving(&flow.pair(now, [0, ANSWERED], [AGO, 0], EXPECTED), &[]),
        );
        rows.push(
            row(names[2], &heard, &ack)
                .there(&ack, &flow)
                .nat_events(&[NatEvent::Established])
                .leaving(&[], &flow.pair(now, [0, ANSWERED | HEARD], [0, 0], EXPECTED)),
        );
    }
    [rows, unheard(now), datagrams(now), crowded(now)].concat()
}

/// What does not establish.
fn unheard(now: u32) -> Vec<Row> {
    let half = world(now).opening(TCP.pair(now, [0, 0], [AGO, AGO], 0));
    let with = |expected| world(now).opening(TCP.pair(now, [0, ANSWERED], [AGO, AGO], expected));
    let refused = world(now).opening(TCP.pair(now, [0, RESET], [AGO, AGO], 0));
    let elsewhere = Flow { source: "10.0.9.1:1030", ..TCP };
    let lone = world(now).opening([elsewhere.pair(now, [0, 0], [AGO, AGO], 0)[0]]);
    let old = world(now).opening(elsewhere.pair(now, [0, ANSWERED], [OPENING_TICKS + 9; 2], EXPECTED));
    let (syn, ack, reset) = (TCP.there(SYN), TCP.there(ACK), TCP.there(RST));
    let refusal = TCP.reply(RST | ACK);
    let anew = |name, world: &World, left: &[(FlowKey, NatEntry)]| {
        let opening = [left, &TCP.pair(now, [0, 0], [0, 0], 0)].concat();
        row(name, world, &syn)
            .there(&syn, &TCP)
            .new_flow()
            .nat_events(&[NatEvent::Opened, NatEvent::Reopened])
            .leaving(&opening, &[])
    };
    vec![
        row("nat: an ACK before the answer", &half, &ack).dropped(Reason::NatUnknown),
        row("nat: a SYN-ACK from the client", &half, &TCP.there(SYN | ACK)).dropped(Reason::NatUnknown),
        row("nat: an ACK of less than the answer", &with(10), &ack).dropped(Reason::NatUnknown),
        row("nat: an ACK of far more", &with(8u32.wrapping_sub(1 << 20)), &ack).dropped(Reason::NatUnknown),
        row("nat: an RST on a half-open flow establishes nothing", &with(EXPECTED), &reset)
            .there(&reset, &TCP)
            .leaving(&TCP.pair(now, [0, ANSWERED], [AGO, 0], EXPECTED), &[]),
        row("nat: the backend refuses", &half, &refusal)
            .back(&refusal, &TCP)
            .leaving(&TCP.pair(now, [0, RESET], [AGO, 0], 0), &[]),
        // Its port is still held by the reverse entry: the second place has the other address.
        {
            let again = Flow { source: "10.0.9.2:1024", ..TCP };
            let opening =
                [&[TCP.pair(now, [0, RESET], [AGO, AGO], 0)[1]][..], &again.pair(now, [0, 0], [0, 0], 0)];
            row("nat: a SYN after a refusal", &refused, &syn)
                .there(&syn, &again)
                .new_flow()
                .nat_events(&[NatEvent::Opened, NatEvent::Reopened])
                .leaving(&opening.concat(), &[])
        },
        anew("nat: a SYN whose reverse entry was pushed out", &lone, &[]),
        row("nat: an ACK whose reverse entry was pushed out", &lone, &ack).dropped(Reason::NatUnknown),
        anew(
            "nat: a SYN after half a minute",
            &old,
            &[elsewhere.pair(now, [0, ANSWERED], [OPENING_TICKS + 9; 2], EXPECTED)[1]],
        ),
        row("nat: an answer after half a minute", &old, &elsewhere.reply(SYN | ACK))
            .dropped(Reason::NatUnknown),
    ]
}

fn datagrams(now: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for (flow, names) in [
        (
            UDP,
            [
                "nat: a datagram before an answer",
                "nat: a datagram back",
                "nat: a second datagram establishes",
            ],
        ),
        (
            UDP_V6,
            [
                "nat v6: a datagram before an answer",
                "nat v6: a datagram back",
                "nat v6: a second datagram establishes",
            ],
        ),
    ] {
        let half = of(&flow, now).opening(flow.pair(now, [0, 0], [AGO, AGO], 0));
        let heard = of(&flow, now).opening(flow.pair(now, [0, ANSWERED], [AGO, AGO], 0));
        let (there, reply) = (flow.there(0), flow.reply(0));
        rows.push(
            row(names[0], &half, &there)
                .there(&there, &flow)
                .leaving(&flow.pair(now, [0, 0], [AGO, 0], 0), &[]),
        );
        rows.push(
            row(names[1], &half, &reply)
                .back(&reply, &flow)
                .leaving(&flow.pair(now, [0, ANSWERED], [AGO, 0], 0), &[]),
        );
        rows.push(
            row(names[2], &heard, &there)
                .there(&there, &flow)
                .nat_events(&[NatEvent::Established])
                .leaving(&[], &flow.pair(now, [0, ANSWERED | HEARD], [0, 0], 0)),
        );
    }
    rows
}

/// No room among the established.
fn crowded(now: u32) -> Vec<Row> {
    let others = ["10.0.1.12:1", "10.0.1.12:2"].into_iter().zip(["10.0.9.1:2000", "10.0.9.1:2002"]);
    let others: Vec<_> = others
        .flat_map(|(client, source)| Flow { client, source, ..TCP }.pair(now, [0, HEARD], [AGO, AGO], 1))
        .collect();
    let full = |flags, expected| {
        world(now).opening(TCP.pair(now, [0, flags], [AGO, AGO], expected)).flows(others.clone())
    };
    let ack = TCP.there(ACK);
    let mut one_left = full(ANSWERED, EXPECTED);
    one_left.nat.flows.pop();
    let others_left = one_left.nat.flows.clone();
    let left = TCP.pair(now, [0, ANSWERED | HEARD], [AGO, 0], EXPECTED);
    vec![
        row("nat: no room: it stays half-open, and goes on", &full(ANSWERED, EXPECTED), &ack)
            .there(&ack, &TCP)
            .nat_events(&[NatEvent::Refused])
            .leaving(&left, &others),
        row("nat: room for half a pair is none", &one_left, &ack)
            .there(&ack, &TCP)
            .nat_events(&[NatEvent::Refused])
            .leaving(&left, &others_left),
        row("nat: who was heard once need not be again", &full(ANSWERED | HEARD, 1 << 30), &ack)
            .there(&ack, &TCP)
            .nat_events(&[NatEvent::Refused])
            .leaving(&TCP.pair(now, [0, ANSWERED | HEARD], [AGO, 0], 1 << 30), &others),
    ]
}

/// Packets of established flows.
fn established(now: u32) -> Vec<Row> {
    let live = |flow: &Flow, flags, ago| of(flow, now).flows(flow.pair(now, flags, ago, EXPECTED));
    let mut rows = Vec::new();
    for (flow, names) in [
        (TCP, ["nat: there", "nat: back"]),
        (TCP_V6, ["nat v6: there", "nat v6: back"]),
        (UDP, ["nat: there, UDP", "nat: back, UDP"]),
        (UDP_V6, ["nat v6: there, UDP", "nat v6: back, UDP"]),
    ] {
        let world = live(&flow, [0, HEARD], [AGO, AGO]);
        let (there, reply) = (flow.there(ACK), flow.reply(ACK));
        rows.push(
            row(names[0], &world, &there)
                .there(&there, &flow)
                .leaving(&[], &flow.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
        );
        rows.push(
            row(names[1], &world, &reply)
                .back(&reply, &flow)
                .leaving(&[], &flow.pair(now, [0, HEARD], [AGO, 0], EXPECTED)),
        );
    }
    let world = live(&TCP, [0, HEARD], [AGO, AGO]);
    let marks = |name, packet: &Packet, flags: [u32; 2], ago| {
        let left = TCP.pair(now, [flags[0], HEARD | flags[1]], ago, EXPECTED);
        match ago {
            [0, _] => row(name, &world, packet).there(packet, &TCP).leaving(&[], &left),
            _ => row(name, &world, packet).back(packet, &TCP).leaving(&[], &left),
        }
    };
    rows.extend([
        marks("nat: the client is done", &TCP.there(FINISH | ACK), [FIN, 0], [0, AGO]),
        marks("nat: the backend is done", &TCP.reply(FINISH | ACK), [0, FIN], [AGO, 0]),
        marks("nat: the client resets", &TCP.there(RST), [RESET, 0], [0, AGO]),
        marks("nat: the backend resets", &TCP.reply(RST | ACK), [0, RESET], [AGO, 0]),
        marks("nat: a SYN on a live flow goes where it goes", &TCP.there(SYN), [0, 0], [0, AGO]),
        marks("nat: a class is kept", &TCP.there(ACK).class(0xb9), [0, 0], [0, AGO]),
        marks("nat: a tag stays", &TCP.there(ACK).tag(0x8100, 7), [0, 0], [0, AGO]),
        marks("nat: a tag goes", &TCP.reply(ACK).tag(0x8100, 7), [0, 0], [AGO, 0]),
        marks("nat: two tags go", &TCP.reply(ACK).tag(0x88a8, 9).tag(0x8100, 7), [0, 0], [AGO, 0]),
        marks("nat: as long as can be", &TCP.there(ACK).payload(1460), [0, 0], [0, AGO]),
        marks("nat: an odd length", &TCP.there(ACK).payload(3), [0, 0], [0, AGO]),
        row("nat: longer than the way out", &world, &TCP.there(ACK).payload(1461))
            .dropped(Reason::Mtu)
            .leaving(&[], &TCP.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
    ]);
    rows.extend(too_big(now));
    // A checksum of UDP that is not there stays so.
    let bare =
        |packet: &Packet| edited(packet, |frame| frame[packet.ip_at() + 26..packet.ip_at() + 28].fill(0));
    let packet = UDP.there(0);
    let mut without = frame("nat: UDP without a checksum", &live(&UDP, [0, 0], [AGO, AGO]), bare(&packet))
        .there(&packet, &UDP)
        .leaving(&[], &UDP.pair(now, [0, 0], [0, AGO], EXPECTED));
    without.expected.frame = bare(&leaving(&packet.ends(UDP.source, UDP.server), &NEAR));
    rows.push(without);
    rows
}

/// Translation changes no length, so a packet is too long only for a way out that takes less than the way in.
fn too_big(now: u32) -> Vec<Row> {
    let told = |name, flow: &Flow, packet: Packet, ago: [u32; 2]| {
        let world = of(flow, now).flows(flow.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
        row(name, &world, &packet)
            .transmitted(Reason::TooBig, big::error(&packet, 1500).build())
            .leaving(&[], &flow.pair(now, [0, HEARD], ago, EXPECTED))
    };
    vec![
        told("nat: too big there", &TCP, TCP.there(ACK).payload(1461).dont_fragment(), [0, AGO]),
        told("nat: too big back", &UDP, UDP.reply(0).payload(1473).dont_fragment(), [AGO, 0]),
        told("nat v6: too big there", &UDP_V6, UDP_V6.there(0).payload(1453), [0, AGO]),
        told("nat v6: too big back", &TCP_V6, TCP_V6.reply(ACK).payload(1441), [AGO, 0]),
    ]
}

/// What comes for our sources, or for nobody.
fn back(now: u32) -> Vec<Row> {
    let live = world(now).flows(TCP.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let mut off = live.clone();
    off.meta.flags &= !FLAG_NAT;
    let stranger = Flow { server: "10.0.0.14:80", ..TCP };
    let other_port = Flow { source: "10.0.9.1:1026", ..TCP };
    let elsewhere = Flow { source: "10.0.0.77:1024", ..TCP };
    let seen_back = TCP.pair(now, [0, HEARD], [AGO, 0], EXPECTED);
    let seen_there = TCP.pair(now, [0, HEARD], [0, AGO], EXPECTED);
    let ping = Packet::echo_request("10.0.0.11:0", "10.0.9.1:0").macs(LB0_MAC, ROUTER_MAC);
    let fragment = edited(&TCP.reply(ACK), |frame| {
        frame[20] |= 0x20;
        crate::packet::seal(&mut frame[14..34]);
    });
    let impossible = TCP.reply(SYN | FINISH);
    let mut rows = vec![
        row("nat: another host's packet for our source", &live, &stranger.reply(ACK))
            .dropped(Reason::NatUnknown),
        row("nat: for a port that nobody has", &live, &other_port.reply(ACK)).dropped(Reason::NatUnknown),
        row("nat: a datagram for our source", &live, &UDP.reply(0)).dropped(Reason::NatUnknown),
        row("nat: impossible flags for our source", &live, &impossible).dropped(Reason::NatUnknown),
        frame("nat: a fragment for our source", &live, fragment).dropped(Reason::Fragment),
        row("nat: what is for others passes", &live, &elsewhere.reply(ACK)),
        row("nat: a ping of our source passes", &live, &ping),
        row("nat: without the flag nothing is looked up", &off, &TCP.reply(ACK)),
        row("nat: the last hop there", &live, &TCP.there(ACK).ttl(1)).dropped(Reason::Ttl),
        row("nat: the last hop back", &live, &TCP.reply(ACK).ttl(1))
            .dropped(Reason::Ttl)
            .leaving(&[], &seen_back),
        row("nat: the last hop but one", &live, &TCP.there(ACK).ttl(2)).there(&TCP.there(ACK).ttl(2), &TCP),
    ];
    if let Some(last) = rows.pop() {
        rows.push(last.leaving(&[], &seen_there));
    }
    // Its VIP has left the config: the flow drains.
    let mut without = live.clone();
    without.vips.retain(|(key, _)| key.port.0 == 0);
    let ack = TCP.there(ACK);
    rows.push(
        row("nat: a flow whose VIP has left goes on", &without, &ack)
            .passed(Reason::NatReturned)
            .translated(&ack, TCP.source, TCP.server, &NEAR)
            .leaving(&[], &seen_there),
    );
    let moved = Flow { client: "10.0.0.14:40000", host: OTHER, ..TCP };
    let reply = moved.reply(ACK);
    rows.push(
        row(
            "nat: back out the way it came",
            &world(now).flows(moved.pair(now, [0, 0], [AGO, AGO], 0)),
            &reply,
        )
        .back(&reply, &moved)
        .leaving(&[], &moved.pair(now, [0, 0], [AGO, 0], 0)),
    );
    let silent = Flow { client: "10.0.0.99:40000", host: SILENT, ..TCP };
    let reply = TCP.reply(ACK);
    rows.push(
        row(
            "nat: the kernel finds a client that is not known yet",
            &world(now).flows(silent.pair(now, [0, 0], [AGO, AGO], 0)),
            &reply,
        )
        .passed(Reason::NatReturned)
        .handed_on(&reply, silent.vip, silent.client)
        .leaving(&[], &silent.pair(now, [0, 0], [AGO, 0], 0)),
    );
    let lost = Flow { client: "203.0.113.9:40000", ..TCP };
    rows.push(
        row(
            "nat: no way back to the client",
            &world(now).flows(lost.pair(now, [0, 0], [AGO, AGO], 0)),
            &reply,
        )
        .dropped(Reason::NoRoute)
        .leaving(&[], &lost.pair(now, [0, 0], [AGO, 0], 0)),
    );
    rows
}

/// Ticks after which nobody minds if a port is given away.
const GIVEN_UP: [u32; 2] = [OPENING_REUSE_TICKS + 9, TCP_TICKS + GRACE_TICKS + 9];
