//! ICMP errors about translated flows.

use super::*;

/// Port unreachable, time exceeded, packet too big, and their like in IPv6.
const PORT: [u8; 2] = [3, 3];
const EXCEEDED: [u8; 2] = [11, 0];
const PORT_V6: [u8; 2] = [1, 4];
const TOO_BIG_V6: [u8; 2] = [2, 0];

pub(super) fn rows(now: u32) -> Vec<Row> {
    [to_client(now), to_backend(now), unknown(now)].concat()
}

fn live(flow: &Flow, now: u32) -> World {
    of(flow, now).flows(flow.pair(now, [0, HEARD], [AGO, AGO], EXPECTED))
}

/// An address of an end, as the source or destination of an error.
fn host(end: &str) -> String {
    let (address, _) = end.rsplit_once(':').unwrap_or((end, ""));
    format!("{address}:0")
}

fn error(source: &str, destination: &str, kind: [u8; 2], quoted: &Packet, bytes: usize) -> Packet {
    Packet::error(&host(source), &host(destination), kind, quoted, bytes).macs(LB0_MAC, ROUTER_MAC)
}

/// A router or the backend answers what we sent there.
fn to_client(now: u32) -> Vec<Row> {
    let case = |name, flow: &Flow, world: &World, from: &str, kind, bytes| {
        let arrives = error(from, flow.source, kind, &flow.packet(flow.source, flow.server, ACK), bytes);
        let leaves = error(flow.vip, flow.client, kind, &flow.packet(flow.client, flow.vip, ACK), bytes);
        let mut row = row(name, world, &arrives).passed(Reason::NatError).out_to(&flow.host);
        row.expected.frame = super::leaving(&leaves, &flow.host).build();
        row
    };
    let half = world(now).opening(TCP.pair(now, [0, 0], [AGO, AGO], 0));
    let (tcp, udp) = (live(&TCP, now), live(&UDP, now));
    let (tcp_v6, udp_v6) = (live(&TCP_V6, now), live(&UDP_V6, now));
    vec![
        case("nat error: about TCP, whole", &TCP, &tcp, TCP.server, PORT, 72),
        case("nat error: about TCP, eight bytes of it", &TCP, &tcp, "10.0.0.254:0", EXCEEDED, 28),
        case("nat error: about TCP, just with its checksum", &TCP, &tcp, TCP.server, PORT, 38),
        case("nat error: about UDP", &UDP, &udp, UDP.server, PORT, 28),
        case("nat error: about a half-open flow", &TCP, &half, TCP.server, PORT, 40),
        case("nat error v6: about TCP", &TCP_V6, &tcp_v6, TCP_V6.server, TOO_BIG_V6, 92),
        case("nat error v6: about TCP, eight bytes of it", &TCP_V6, &tcp_v6, "[fd00::fe]:0", PORT_V6, 48),
        case("nat error v6: about UDP", &UDP_V6, &udp_v6, UDP_V6.server, PORT_V6, 48),
    ]
}

/// A router or the client answers what we sent back.
fn to_backend(now: u32) -> Vec<Row> {
    let case = |name, flow: &Flow, from: &str, kind, bytes| {
        let arrives = error(from, flow.vip, kind, &flow.packet(flow.vip, flow.client, ACK), bytes);
        let leaves =
            error(flow.source, flow.server, kind, &flow.packet(flow.server, flow.source, ACK), bytes);
        let mut row = row(name, &live(flow, now), &arrives).passed(Reason::NatError).out_to(&flow.backend);
        row.expected.frame = super::leaving(&leaves, &flow.backend).build();
        row
    };
    vec![
        case("nat error: of the client about TCP", &TCP, TCP.client, PORT, 72),
        case("nat error: of a router about UDP", &UDP, "10.0.1.254:0", EXCEEDED, 28),
        case("nat error v6: of the client about UDP", &UDP_V6, UDP_V6.client, PORT_V6, 60),
        case("nat error v6: of a router about TCP", &TCP_V6, "[fd01::fe]:0", TOO_BIG_V6, 48),
    ]
}

fn unknown(now: u32) -> Vec<Row> {
    let world = live(&TCP, now);
    let other = Packet::tcp("10.0.9.1:4000", TCP.server, ACK);
    let others = Packet::tcp(TCP.vip, "10.0.1.12:4000", ACK);
    let echo = Packet::echo_request("10.0.9.1:0", "10.0.0.11:0");
    let ours = Packet::tcp(TCP.source, TCP.server, ACK);
    let about = |quoted: &Packet, bytes| error(TCP.server, TCP.source, PORT, quoted, bytes);
    let to_vip = |quoted: &Packet| error(TCP.client, TCP.vip, PORT, quoted, 28);
    vec![
        row("nat error: about no flow of ours", &world, &about(&other, 28)).dropped(Reason::NatUnknown),
        row("nat error: to a VIP about no flow of ours", &world, &to_vip(&others))
            .dropped(Reason::NatUnknown),
        row("nat error: to a VIP about what it never sent", &world, &to_vip(&other))
            .dropped(Reason::MalformedIcmp),
        row("nat error: about what has no ports passes", &world, &about(&echo, 28)),
        row("nat error: with too little of a quote", &world, &about(&ours, 27))
            .dropped(Reason::MalformedIcmp),
        row(
            "nat error: one of another kind passes",
            &world,
            &error(TCP.server, TCP.source, [5, 1], &ours, 28),
        ),
        row("nat error: its last hop", &world, &about(&ours, 28).ttl(1)).dropped(Reason::Ttl),
    ]
}
