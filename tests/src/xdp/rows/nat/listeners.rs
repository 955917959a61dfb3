//! Packets for listeners where others are translated: `lb_nat` knows them last, and hands them on as `lb_ingress` would.

use lb_abi::{bounds::SYNS_PER_TICK, steer::STEER_COOKIES};

use super::*;
use crate::xdp::world::{COOKIE, SOCKETS};

const SERVICE: &str = "10.0.0.1:8080";
const SERVICE_V6: &str = "[fd00::1]:8080";

fn to(service: &str, flags: u8) -> Packet {
    let client = if service.contains('[') { "[2001:db8:f::7]:40000" } else { "198.51.100.7:40000" };
    Packet::tcp(client, service, flags).macs(LB0_MAC, ROUTER_MAC).payload(0)
}

/// Every socket takes cookies.
fn listening(world: World) -> World {
    SOCKETS.iter().fold(world, |world, at| world.listener(at, STEER_COOKIES))
}

fn moved(mut row: Row) -> Row {
    row.expected.verdict = Verdict::Moved;
    row.passed(Reason::Spread)
}

pub(super) fn rows(now: u32) -> Vec<Row> {
    let there = world(now).spread(&[1]);
    let flood = listening(there.clone().flooded(SYNS_PER_TICK));
    let calm = listening(there.clone().flooded(SYNS_PER_TICK - 1));
    let answer = |packet: &Packet, mss| packet.clone().syn_ack(COOKIE, 64_240, mss).build();
    let (syn, syn_v6) = (to(SERVICE, SYN), to(SERVICE_V6, SYN));
    let datagram = Packet::udp("198.51.100.7:40000", SERVICE).macs(LB0_MAC, ROUTER_MAC);
    let mut rows = vec![
        moved(row("nat: for a listener", &there, &to(SERVICE, ACK).payload(900))),
        moved(row("nat: for a listener over IPv6", &there, &to(SERVICE_V6, ACK))),
        moved(row("nat: impossible flags for a listener", &there, &to(SERVICE, SYN | FINISH))),
        row("nat: for a listener whose worker is on this core", &world(now).spread(&[0]), &syn),
        row("nat: a datagram for a listener's port", &there, &datagram),
        moved(row("nat: the last SYN for a listener that is no flood yet", &calm, &syn)),
        moved(row("nat: an ACK for a listener in a flood", &flood, &to(SERVICE, ACK))),
        moved(row("nat: SYN of a flood that is not answered", &there.clone().flooded(SYNS_PER_TICK), &syn)),
        row("nat: SYN of a flood for a listener", &flood, &syn)
            .transmitted(Reason::SynCookie, answer(&syn, 1460)),
        row("nat: SYN of a flood for a listener over IPv6", &flood, &syn_v6)
            .transmitted(Reason::SynCookie, answer(&syn_v6, 1440)),
        row("nat: SYN of a flood for our source", &flood, &TCP.packet(TCP.server, "10.0.9.1:8080", SYN))
            .dropped(Reason::NatUnknown),
    ];
    // The port that the flow was given is also a listener's.
    let flow = Flow { source: "10.0.9.1:8080", ..TCP };
    let live =
        listening(there.flows(flow.pair(now, [0, HEARD], [AGO, AGO], EXPECTED)).flooded(SYNS_PER_TICK));
    let left = flow.pair(now, [0, HEARD], [AGO, 0], EXPECTED);
    let reply = flow.reply(ACK);
    rows.push(
        row("nat: a reply to a listener's port", &live, &reply).back(&reply, &flow).leaving(&[], &left),
    );
    rows
}
