//! New flows that something beside their own hash leads to a backend, or that their source may not open. A flow that is
//! known goes where it goes.

use lb_abi::{
    limit::{Allowance, FLOW, Limits},
    meta::FLAG_LIMITED,
    quic::QuicEvent,
    slot::Slot,
    source::first_set,
    vip::{FORWARD_NAT, HASH_PORT, HASH_SOURCE, QUIC, SOURCES},
};

use super::{super::group::group, super::quic, super::source, opening::opens, *};
use crate::xdp::world::address;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [by_group(now), by_prefix(now), by_id(now), limited(now)].concat()
}

/// The VIPs that translate have these flags, too.
fn led(mut world: World, flags: u32) -> World {
    let translating = world.vips.iter_mut().filter(|(_, entry)| entry.flags & FORWARD_NAT != 0);
    translating.for_each(|(_, entry)| entry.flags |= flags);
    world
}

/// To [`OTHER`].
const ELSEWHERE: Flow = Flow { server: "10.0.0.14:80", backend: OTHER, ..TCP };
const ELSEWHERE_UDP: Flow = Flow { server: "10.0.0.14:53", backend: OTHER, ..UDP };

fn by_group(now: u32) -> Vec<Row> {
    let syn = TCP.there(SYN);
    let [source, port] =
        [HASH_SOURCE, HASH_PORT].map(|flags| led(world(now), flags).owner_of(&group(&syn, flags), OTHER.id));
    vec![
        opens("nat: by source", &source, &syn, &ELSEWHERE),
        opens("nat: by source, its datagrams too", &source, &UDP.there(0), &ELSEWHERE_UDP),
        opens("nat: by port", &port, &syn, &ELSEWHERE),
        opens("nat: by port, another one", &port, &UDP.there(0), &UDP),
        row("nat: by source, a fragment is dropped by name", &source, &UDP.there(0).fragment(1480, false))
            .dropped(Reason::Fragment),
    ]
}

fn by_prefix(now: u32) -> Vec<Row> {
    let of = |prefix| {
        let mut world = led(world(now), SOURCES);
        // A table of one slot: whatever the hash is, it is that slot.
        world.vips.iter_mut().for_each(|(_, entry)| entry.table_len = 1);
        world.slots[source::OTHERS as usize] = Slot::settled(OTHER.id, 0, now);
        world.sets.push((VIP, first_set(VIP)));
        source::of_set(world, first_set(VIP), source::v4(&[(0, 24)]), &[(prefix, 96 + 24, source::OTHERS)])
    };
    vec![
        opens("nat: a client with a prefix", &of("10.0.1.0"), &TCP.there(SYN), &ELSEWHERE),
        opens("nat: a client without one", &of("10.0.2.0"), &TCP.there(SYN), &TCP),
    ]
}

/// Slots are [`OTHER`]'s.
fn by_id(now: u32) -> Vec<Row> {
    let world = led(quic::world(now).nat(&["10.0.9.1", "10.0.9.2"]), QUIC);
    let short = |server| UDP.there(0).content(&[&[0x40][..], &quic::id(server)].concat());
    let live = world.clone().flows(UDP.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let other_way = short(2);
    vec![
        opens("nat: a connection id leads to its server", &world, &short(0x0123), &UDP).quic(QuicEvent::ById),
        opens("nat: a server that is down", &world, &short(3), &ELSEWHERE_UDP).quic(QuicEvent::ServerDown),
        row("nat: a flow goes where it goes, whatever its id says", &live, &other_way)
            .there(&other_way, &UDP)
            .leaving(&[], &UDP.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
    ]
}

fn limited(now: u32) -> Vec<Row> {
    let syn = TCP.there(SYN);
    let client = address("10.0.1.12");
    let with = |level| {
        let mut world = world(now);
        world.meta.flags |= FLAG_LIMITED;
        world.limits = Limits { armed_above: 0, refill: 0, burst: 4 * FLOW, pad: 0 };
        world.allowances.push((client, Allowance { tick: now, level }));
        world
    };
    let mut last = opens("nat: a source's last flow", &with(FLOW), &syn, &TCP);
    last.expected.allowances = vec![(client, 0)];
    vec![
        last,
        row("nat: one flow too many", &with(0), &syn).dropped(Reason::RateLimited),
        opens("nat: a datagram is not looked at", &with(0), &UDP.there(0), &UDP),
    ]
}
