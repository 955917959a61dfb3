//! Translated flows by VLAN devices and gateways, to VIPs that are whole prefixes, in long frames; and those that are
//! not translated, since their backend is this box itself.

use lb_abi::{
    backend::LOCAL,
    link::LinkEntry,
    vip::{FLOWS_NONE, FORWARD_NAT},
};

use super::{opening::opens, *};
use crate::packet::Mac;

const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 0xfd];

pub(super) fn rows(now: u32) -> Vec<Row> {
    [here(now), links(now), wide(now)].concat()
}

/// The client's packets pass as they came, and nothing is remembered.
fn here(now: u32) -> Vec<Row> {
    let local = |mut world: World| {
        let of = world.backends.iter_mut().filter(|(id, _)| *id == NEAR.id);
        of.for_each(|(_, entry)| entry.flags |= LOCAL);
        world
    };
    let world = local(world(now));
    let live = local(super::world(now).owner(OTHER.id));
    let passed = |name, world: &World, packet: &Packet| row(name, world, packet).kept_here(&NEAR);
    let other = Flow { server: "10.0.0.14:80", backend: OTHER, ..TCP };
    vec![
        passed("nat: a SYN for the box itself", &world, &TCP.there(SYN)).new_flow(),
        passed("nat: an ACK for it", &world, &TCP.there(ACK)),
        passed("nat: a datagram for it", &world, &UDP.there(0)).new_flow(),
        passed("nat: a packet for it with the last hop", &world, &TCP.there(ACK).ttl(1)),
        opens("nat: another owner beside it", &live, &TCP.there(SYN), &other),
    ]
}

fn links(now: u32) -> Vec<Row> {
    const TAG: u32 = u32::from_ne_bytes([0x81, 0x00, 0, 7]);
    // What the table says is by `lb1` goes by VLAN 7 of `lb0`.
    let device = LinkEntry { lower: LB0, tags: [TAG, 0], ..LinkEntry::default() };
    let far = Flow { server: "10.0.1.12:80", backend: FAR, client: "10.0.0.14:40000", host: OTHER, ..TCP };
    let live = |flow: &Flow| world(now).flows(flow.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let tagged = |mut row: Row, packet: &Packet, source, destination| {
        let packet = packet.clone().ends(source, destination).aged().untagged().tag(0x8100, 7);
        let mac = FAR.neighbour.map_or([0; 6], |(mac, _)| mac);
        row.expected.frame = packet.macs(mac, LB1_MAC).build();
        row.expected.verdict = Verdict::Transmit;
        row
    };
    let (there, reply) = (far.there(ACK), TCP.reply(ACK));
    let by_device = row("nat: there by a VLAN device", &live(&far).link(LB1, device), &there)
        .there(&there, &far)
        .leaving(&[], &far.pair(now, [0, HEARD], [0, AGO], EXPECTED));
    let back_by_device = row("nat: back by a VLAN device", &live(&TCP).link(LB1, device), &reply)
        .back(&reply, &TCP)
        .leaving(&[], &TCP.pair(now, [0, HEARD], [AGO, 0], EXPECTED));
    let mut rows = vec![
        tagged(by_device, &there, far.source, far.server),
        tagged(back_by_device, &reply, TCP.vip, TCP.client),
    ];
    // Nobody knows the way to this client but the gateway.
    let [a, b, c, d, e, f] = GATEWAY_MAC;
    let [g, h, i, j, k, l] = LB0_MAC;
    let gateway = [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]].map(u16::from_ne_bytes);
    let gateway = LinkEntry { gateway, gateway_mtu: 1500, ..LinkEntry::default() };
    let away = Flow { client: "203.0.113.77:40000", ..TCP };
    let reply = away.reply(ACK);
    let left = |ago| away.pair(now, [0, HEARD], ago, EXPECTED);
    let mut by_gateway = row("nat: back by the gateway", &live(&away).link(LB0, gateway), &reply)
        .back(&reply, &away)
        .leaving(&[], &left([AGO, 0]));
    let packet = reply.clone().ends(away.vip, away.client).aged();
    by_gateway.expected.frame = packet.macs(GATEWAY_MAC, LB0_MAC).build();
    by_gateway.expected.verdict = Verdict::Transmit;
    rows.push(by_gateway);
    rows.push(
        row("nat: back to nowhere", &live(&away), &reply)
            .dropped(Reason::NoRoute)
            .leaving(&[], &left([AGO, 0])),
    );
    rows
}

/// The VIP is a prefix, and its ports are a range: each address and port is the flow's own.
fn wide(now: u32) -> Vec<Row> {
    let wide = Flow { vip: "203.0.113.7:8050", server: "10.0.0.11:8050", ..TCP };
    let world = world(now).wide("203.0.113.0", 8, [8000, 8100], 6, FORWARD_NAT | FLOWS_NONE);
    let mapped = Flow { server: "10.0.0.11:9000", ..wide };
    let live = world.clone().flows(wide.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let reply = wide.reply(ACK);
    vec![
        opens("nat: a SYN to an address of a prefix", &world, &wide.there(SYN), &wide),
        opens(
            "nat: the same, to another port",
            &world.clone().port(NEAR.id, 9000),
            &wide.there(SYN),
            &mapped,
        ),
        row("nat: back from an address of a prefix", &live, &reply)
            .back(&reply, &wide)
            .leaving(&[], &wide.pair(now, [0, HEARD], [AGO, 0], EXPECTED)),
    ]
}

pub(super) fn jumbo(now: u32) -> Vec<Row> {
    let near = Flow { client: "10.0.0.14:40000", host: OTHER, ..TCP };
    let live = |flow: &Flow| of(flow, now).flows(flow.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let (there, reply) = (near.there(ACK).payload(8960), near.reply(ACK).payload(8959));
    vec![
        row("jumbo: nat, there", &live(&near), &there)
            .there(&there, &near)
            .leaving(&[], &near.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
        row("jumbo: nat, back", &live(&near), &reply)
            .back(&reply, &near)
            .leaving(&[], &near.pair(now, [0, HEARD], [AGO, 0], EXPECTED)),
    ]
}
