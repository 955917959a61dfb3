//! QUIC VIPs: what is led by its connection id, and why the rest is not. Every slot is [`OTHER`]'s, and the ids
//! name [`NEAR`] unless a row says otherwise.

use lb_abi::{
    counter::FlowEvent::{Recorded, UnrecordedToPrevious},
    quic::{
        Id, QuicEntry,
        QuicEvent::{self, ById, InvalidId, Opening, ServerDown, UnknownServer},
        Server,
    },
    slot::Phase::Open,
    vip::{FORWARD_IPIP, HASH_SOURCE, QUIC},
};

use super::{Row, Way::Ipip, row, udp, udp_v6};
use crate::{
    packet::Packet,
    xdp::world::{Backend, DEAD, FAR, NEAR, NOBODY, OTHER, VIP, World},
};

const KEY: [u64; 2] = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888];
/// Config id 3 has [`KEY`].
const FIRST: u8 = 3 << 5 | 11;
const POOL: u32 = 0x0a0b_0c0d;
const OTHER_POOL: u32 = 0x0a0b_0c0e;
const NONCE: [u8; 5] = [9, 8, 7, 6, 5];
/// What a short header begins with.
const SHORT: u8 = 0x40;
const V1: [u8; 4] = [0, 0, 0, 1];
const V2: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];

pub(super) fn rows(now: u32) -> Vec<Row> {
    [led(now), opening(now), invalid(now), nobody(now), beside_slots(now)].concat()
}

fn world_with(now: u32, flags: u32) -> World {
    let mut world = World::new(now).forward(flags).owner(OTHER.id);
    let mut entry = QuicEntry { configs: 1 << 3, ..QuicEntry::default() };
    entry.keys[3] = KEY;
    entry.pools[1] = POOL;
    world.quic.push((VIP, entry));
    let server = |backend, pool| Server { backend, generation: 1, pool };
    world.servers.extend([
        (0x0123, server(NEAR.id, POOL)),
        (2, server(FAR.id, POOL)),
        (3, server(DEAD.id, POOL)),
        (4, server(NOBODY, POOL)),
        (5, server(NEAR.id, OTHER_POOL)),
        (6, Server { generation: 2, ..server(NEAR.id, POOL) }),
        // Nobody's pool is no pool, though the entry has room for more.
        (7, server(NEAR.id, 0)),
        (8, Server::default()),
        (4095, server(NEAR.id, POOL)),
    ]);
    world
}

pub(super) fn world(now: u32) -> World {
    world_with(now, FORWARD_IPIP | QUIC)
}

pub(super) fn id(server: u16) -> [u8; 12] {
    Id::new(KEY, FIRST, server, NONCE).to_bytes()
}

fn short(packet: Packet, id: &[u8]) -> Packet {
    packet.content(&[&[SHORT], id].concat())
}

/// A long header of a type, by its number.
fn long(packet: Packet, kind: u8, version: [u8; 4], id: &[u8]) -> Packet {
    packet.content(&[&[0xc0 | kind << 4], &version[..], &[id.len() as u8], id, &[0]].concat())
}

fn sent(name: &'static str, world: &World, packet: &Packet, backend: &Backend, event: QuicEvent) -> Row {
    row(name, world, packet).forwarded(packet, backend, Ipip).quic(event)
}

fn led(now: u32) -> Vec<Row> {
    let world = world(now);
    let near = id(0x0123);
    let led = |name, packet: &Packet, backend| sent(name, &world, packet, backend, ById);
    let mut greased = short(udp(), &near);
    greased = greased.content(&[&[0][..], &near].concat());
    let long_id = [&near[..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
    vec![
        led("QUIC: a short header goes to its server", &short(udp(), &near), &NEAR),
        led("QUIC: to another server, by the other interface", &short(udp(), &id(2)), &FAR),
        led("QUIC: IPv6", &short(udp_v6(), &near), &NEAR),
        led("QUIC: the last server id", &short(udp(), &id(4095)), &NEAR),
        led("QUIC: a greased fixed bit", &greased, &NEAR),
        led("QUIC: behind two tags", &short(udp(), &near).tag(0x88a8, 9).tag(0x8100, 7), &NEAR),
        led("QUIC: a Handshake packet, version 1", &long(udp(), 2, V1, &near), &NEAR),
        led("QUIC: a Handshake packet, version 2", &long(udp(), 3, V2, &near), &NEAR),
        led("QUIC: a Handshake packet, IPv6", &long(udp_v6(), 2, V1, &near), &NEAR),
        led("QUIC: a longer id", &long(udp(), 2, V1, &long_id), &NEAR),
        led("QUIC: no longer than its id", &short(udp().payload(0), &near).payload(14), &NEAR),
    ]
}

fn opening(now: u32) -> Vec<Row> {
    let world = world(now);
    let hashed =
        |name, kind, version| sent(name, &world, &long(udp(), kind, version, &id(0x0123)), &OTHER, Opening);
    vec![
        hashed("QUIC: Initial, version 1", 0, V1),
        hashed("QUIC: 0-RTT, version 1", 1, V1),
        hashed("QUIC: Retry, version 1, which no client sends", 3, V1),
        hashed("QUIC: Initial, version 2", 1, V2),
        hashed("QUIC: 0-RTT, version 2", 2, V2),
        hashed("QUIC: Retry, version 2", 0, V2),
        hashed("QUIC: a version to come", 2, [0, 0, 0, 2]),
        hashed("QUIC: version negotiation", 2, [0; 4]),
    ]
}

fn invalid(now: u32) -> Vec<Row> {
    let world = world(now);
    let near = id(0x0123);
    let hashed = |name, packet: &Packet| sent(name, &world, packet, &OTHER, InvalidId);
    let bent = |at: usize| {
        let mut bent = near;
        bent[at] ^= 1;
        bent
    };
    let made = |key, first| Id::new(key, first, 0x0123, NONCE).to_bytes();
    let mut unconfigured = world.clone();
    unconfigured.quic.clear();
    // Rows share the kernel's maps: what is not written stays.
    unconfigured.quic.push((VIP, QuicEntry::default()));
    vec![
        hashed("QUIC: another server's id under these check bits", &short(udp(), &bent(2))),
        hashed("QUIC: a nonce bent", &short(udp(), &bent(7))),
        hashed("QUIC: check bits bent", &short(udp(), &bent(11))),
        hashed("QUIC: a Handshake packet bent", &long(udp(), 2, V1, &bent(8))),
        hashed("QUIC: the key of another", &short(udp(), &made([1, 2], FIRST))),
        hashed("QUIC: a config id without key", &short(udp(), &made(KEY, 4 << 5))),
        hashed("QUIC: a config id without key, under key zero", &short(udp(), &made([0; 2], 4 << 5))),
        hashed("QUIC: the config id that means not routable", &short(udp(), &made(KEY, 0xff))),
        hashed("QUIC: an id too short in a long header", &long(udp(), 2, V1, &near[..11])),
        hashed("QUIC: no id in a long header", &long(udp(), 2, V1, &[])),
        hashed("QUIC: a datagram of five bytes", &udp().payload(5).content(&[SHORT, 1, 2, 3, 4])),
        hashed("QUIC: an empty datagram", &udp().payload(0)),
        hashed("QUIC: a short header cut in its id", &short(udp().payload(0), &near[..11])),
        hashed(
            "QUIC: a long header cut in its id",
            &udp().payload(0).content(&[&[0xe0], &V1[..], &[12], &near[..10]].concat()),
        ),
        sent("QUIC: a VIP without keys", &unconfigured, &short(udp(), &near), &OTHER, InvalidId),
    ]
}

fn nobody(now: u32) -> Vec<Row> {
    let world = world(now);
    let hashed = |name, server, event| sent(name, &world, &short(udp(), &id(server)), &OTHER, event);
    vec![
        hashed("QUIC: a server that is down", 3, ServerDown),
        hashed("QUIC: a server whose backend left", 4, UnknownServer),
        hashed("QUIC: a server of another VIP's pool", 5, UnknownServer),
        hashed("QUIC: a backend id that means another now", 6, UnknownServer),
        hashed("QUIC: a server of no pool", 7, UnknownServer),
        hashed("QUIC: a server id of nobody", 8, UnknownServer),
        hashed("QUIC: server id 0", 0, UnknownServer),
        hashed("QUIC: a server id beyond the map", 4096, UnknownServer),
        hashed("QUIC: the largest server id", 0xffff, UnknownServer),
    ]
}

fn beside_slots(now: u32) -> Vec<Row> {
    let near = short(udp(), &id(0x0123));
    let opened = world(now).moving(FAR.id, OTHER.id, Open, 3);
    let initial = long(udp(), 0, V1, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let by_source = world_with(now, FORWARD_IPIP | QUIC | HASH_SOURCE);
    vec![
        sent("QUIC: no record is read or written for an id", &opened, &near, &NEAR, ById),
        sent("QUIC: what goes by hash is recorded as ever", &opened, &initial, &OTHER, Opening)
            .new_flow()
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&initial, &OTHER, 0),
        sent("QUIC: an id goes before the source", &by_source, &near, &NEAR, ById),
        sent("QUIC: else by source", &by_source, &initial, &OTHER, Opening),
        row("without its flag no id is looked at", &world_with(now, FORWARD_IPIP), &near)
            .forwarded(&near, &OTHER, Ipip),
    ]
}
