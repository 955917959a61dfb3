//! Sources that open flows too fast. The meter is armed by its first SYN unless a row says otherwise: rows on the
//! kernel run in whatever tick it is.

use lb_abi::{
    limit::{Allowance, FLOW, Limits},
    meta::FLAG_LIMITED,
    reason::Reason,
};

use super::{Row, Way::Ipip, arriving, ipip, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, Packet, SYN},
    xdp::world::{DEAD, NEAR, World, address},
};

const BURST: u32 = 4 * FLOW;
const V4: &str = "198.51.100.7";
/// The network of 2001:db8:f::7.
const V6: &str = "2001:db8:f::";

pub(super) fn rows(now: u32) -> Vec<Row> {
    [armed(now), others(now)].concat()
}

/// Nothing flows into allowances: what is in them does not depend on when a row runs.
fn limited(now: u32) -> World {
    let mut world = ipip(now);
    world.meta.flags |= FLAG_LIMITED;
    world.limits = Limits { armed_above: 0, refill: 0, burst: BURST, pad: 0 };
    world
}

fn holding(mut world: World, source: &str, level: u32) -> World {
    let tick = world.now;
    world.allowances.push((address(source), Allowance { tick, level }));
    world
}

fn leaves(mut row: Row, source: &str, level: u32) -> Row {
    row.expected.allowances.retain(|(other, _)| *other != address(source));
    row.expected.allowances.push((address(source), level));
    row.expected.allowances.sort();
    row
}

fn armed(now: u32) -> Vec<Row> {
    let syn = tcp(SYN);
    let neighbour = arriving(Packet::tcp("[2001:db8:f::9:9]:1", "[2001:db8::1]:80", SYN));
    let sent = |name, world: &World, packet: &Packet| {
        row(name, world, packet).forwarded(packet, &NEAR, Ipip).new_flow()
    };
    let one = holding(limited(now), V4, FLOW);
    let none = holding(limited(now), V4, FLOW - 1);
    let mut refilled = none.clone();
    // As long ago as an ordinary clock goes back.
    (refilled.limits.refill, refilled.allowances[0].1.tick) = (1 << 20, now.wrapping_sub(1 << 10));
    let other = holding(holding(limited(now), V4, 0), "198.51.100.8", FLOW);
    vec![
        leaves(sent("limited: a source's first flow", &limited(now), &syn), V4, BURST - FLOW),
        leaves(sent("limited: its last one", &one, &syn), V4, 0),
        leaves(row("limited: one too many", &none, &syn).dropped(Reason::RateLimited), V4, FLOW - 1),
        leaves(sent("limited: later again", &refilled, &syn), V4, BURST - FLOW),
        leaves(
            sent(
                "limited: another source",
                &other,
                &arriving(Packet::tcp("198.51.100.8:9", "192.0.2.1:80", SYN)),
            ),
            "198.51.100.8",
            0,
        ),
        leaves(sent("limited: IPv6, the first flow", &limited(now), &tcp_v6(SYN)), V6, BURST - FLOW),
        leaves(
            row("limited: IPv6, the whole network", &holding(limited(now), V6, 0), &neighbour)
                .dropped(Reason::RateLimited),
            V6,
            0,
        ),
        leaves(
            row("limited: before a backend is chosen", &none.clone().owner(DEAD.id), &syn)
                .dropped(Reason::RateLimited),
            V4,
            FLOW - 1,
        ),
    ]
}

fn others(now: u32) -> Vec<Row> {
    let empty = holding(limited(now), V4, 0);
    let mut calm = empty.clone();
    calm.limits.armed_above = 1000;
    let mut unflagged = empty.clone();
    unflagged.meta.flags = 0;
    let passes =
        |name, world: &World, packet: &Packet| row(name, world, packet).forwarded(packet, &NEAR, Ipip);
    let elsewhere = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.2:80", SYN));
    vec![
        passes("limited: a segment opens no flow", &empty, &tcp(ACK)),
        passes("limited: a SYN-ACK opens no flow", &empty, &tcp(SYN | ACK)),
        passes("limited: a datagram is not looked at", &empty, &udp()),
        passes("limited: no source is looked at while there is no flood", &calm, &tcp(SYN)).new_flow(),
        passes("limited: no source is looked at without the flag", &unflagged, &tcp(SYN)).new_flow(),
        row("limited: what is not ours passes", &empty, &elsewhere),
    ]
}
