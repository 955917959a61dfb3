//! Clients whose prefix has a pool of its own. The VIP's own table is [`NEAR`]'s; a table that lies behind it, of one
//! slot per backend, is where prefixes lead.

use lb_abi::{
    slot::Slot,
    source::{OWN, SourceKey, SourceTree, first_set, other, truncate},
    vip::{FORWARD_IPIP, HASH_SOURCE, SOURCES},
};

use super::{Row, Way::Ipip, arriving, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, Packet},
    xdp::world::{Backend, FAR, NEAR, OTHER, VIP, World, address},
};

/// Tables of one slot in the VIP's own table of seven, of which the first four are its own.
pub(super) const OTHERS: u32 = 5;
const FARS: u32 = 6;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [lengths(now), families(now), sets(now)].concat()
}

fn world_with(now: u32, flags: u32) -> World {
    let mut world = World::new(now).forward(flags);
    // A table of one slot: whatever the hash is, it is that slot.
    world.vips.iter_mut().for_each(|(_, entry)| entry.table_len = 1);
    world.slots[OTHERS as usize] = Slot::settled(OTHER.id, 0, now);
    world.slots[FARS as usize] = Slot::settled(FAR.id, 0, now);
    world.sets.push((VIP, first_set(VIP)));
    world
}

pub(super) fn world(now: u32, tree: SourceTree, prefixes: &[(&str, u32, u32)]) -> World {
    of_set(world_with(now, FORWARD_IPIP | SOURCES), first_set(VIP), tree, prefixes)
}

pub(super) fn of_set(mut world: World, set: u32, tree: SourceTree, prefixes: &[(&str, u32, u32)]) -> World {
    world.trees.push((set, tree));
    for &(prefix, length, table) in prefixes {
        let prefix = truncate(address(prefix), length);
        world.sources.push((SourceKey { set, length, prefix }, table));
    }
    world
}

pub(super) fn v4(lengths: &[(usize, u8)]) -> SourceTree {
    let mut tree = SourceTree::default();
    lengths.iter().for_each(|(node, length)| tree.v4[*node] = 96 + length);
    tree
}

fn v6(lengths: &[(usize, u8)]) -> SourceTree {
    let mut tree = SourceTree::default();
    lengths.iter().for_each(|(node, length)| tree.v6[*node] = *length);
    tree
}

fn sent(name: &'static str, world: &World, packet: &Packet, backend: &Backend) -> Row {
    row(name, world, packet).forwarded(packet, backend, Ipip)
}

/// The client is 198.51.100.7.
fn lengths(now: u32) -> Vec<Row> {
    let one = v4(&[(0, 24)]);
    let three = v4(&[(0, 24), (1, 16), (2, 32)]);
    let elsewhere = arriving(Packet::tcp("198.51.101.7:40000", "192.0.2.1:80", ACK));
    let covering = [("198.51.100.0", 96 + 24, OTHERS), ("198.51.0.0", 96 + 16, FARS)];
    let marked = [("198.51.100.0", 96 + 24, OWN), ("198.51.100.9", 96 + 32, OTHERS)];
    let marked_covered =
        [("198.51.0.0", 96 + 16, FARS), ("198.51.100.0", 96 + 24, FARS), ("198.51.100.9", 96 + 32, OTHERS)];
    let host = [("198.51.100.0", 96 + 24, FARS), ("198.51.100.7", 96 + 32, OTHERS)];
    let mut deep = SourceTree::default();
    // Every step to the right, down to the seventh.
    for (level, length) in (0..7).zip([96 + 1, 96 + 2, 96 + 3, 96 + 4, 96 + 5, 96 + 6, 96 + 32]) {
        deep.v4[(1 << (level + 1)) - 2] = length;
    }
    let path: Vec<_> = (1..=6).map(|length| ("198.51.100.7", 96 + length, OWN)).collect();
    let deepest = [&path[..], &[("198.51.100.7", 96 + 32, OTHERS)]].concat();
    vec![
        sent("sources: a client with a prefix", &world(now, one, &covering), &tcp(ACK), &OTHER),
        sent("sources: its datagrams, too", &world(now, one, &covering), &udp(), &OTHER),
        sent("sources: a client without one", &world(now, one, &covering), &elsewhere, &NEAR),
        sent("sources: the longer prefix wins", &world(now, three, &covering), &tcp(ACK), &OTHER),
        sent("sources: the shorter one has the rest", &world(now, three, &covering), &elsewhere, &FAR),
        sent("sources: a single address", &world(now, three, &host), &tcp(ACK), &OTHER),
        sent("sources: a marker alone is the vip's own", &world(now, three, &marked), &tcp(ACK), &NEAR),
        sent("sources: a marker says what covers it", &world(now, three, &marked_covered), &tcp(ACK), &FAR),
        sent("sources: at the bottom of the tree", &world(now, deep, &deepest), &tcp(ACK), &OTHER),
        sent("sources: no prefix at all", &world(now, SourceTree::default(), &[]), &tcp(ACK), &NEAR),
    ]
}

/// The client is 2001:db8:f::7.
fn families(now: u32) -> Vec<Row> {
    let tree = v6(&[(0, 48), (2, 64), (1, 32), (6, 128)]);
    let prefixes = [
        ("2001:db8:f::", 48, OTHERS),
        ("2001:db8::", 32, FARS),
        ("2001:db8:e::", 48, FARS),
        ("2001:db8:e:1::", 64, OTHERS),
        ("2001:db8:e:1::9", 128, FARS),
    ];
    let client = |source: &str| arriving(Packet::tcp(source, "[2001:db8::1]:80", ACK));
    // The same bits in both families are not the same client.
    let mapped = v6(&[(0, 96 + 24)]);
    vec![
        sent("sources: IPv6", &world(now, tree, &prefixes), &tcp_v6(ACK), &OTHER),
        sent(
            "sources: IPv6, the shorter prefix",
            &world(now, tree, &prefixes),
            &client("[2001:db8:d::7]:1"),
            &FAR,
        ),
        sent(
            "sources: IPv6, a longer one",
            &world(now, tree, &prefixes),
            &client("[2001:db8:e:1::7]:1"),
            &OTHER,
        ),
        sent("sources: IPv6, all bits", &world(now, tree, &prefixes), &client("[2001:db8:e:1::9]:1"), &FAR),
        sent("sources: IPv6, no prefix", &world(now, tree, &prefixes), &client("[2001:db9::7]:1"), &NEAR),
        sent(
            "sources: IPv4 goes by its own tree",
            &world(now, mapped, &[("198.51.100.0", 96 + 24, OTHERS)]),
            &tcp(ACK),
            &NEAR,
        ),
    ]
}

fn sets(now: u32) -> Vec<Row> {
    let tree = v4(&[(0, 24)]);
    let prefix = |table| [("198.51.100.0", 96 + 24, table)];
    let both = of_set(world(now, tree, &prefix(OTHERS)), other(first_set(VIP)), tree, &prefix(FARS));
    let mut turned = both.clone();
    turned.sets = vec![(VIP, other(first_set(VIP)))];
    let unlooked = of_set(world_with(now, FORWARD_IPIP), first_set(VIP), tree, &prefix(OTHERS));
    let group =
        of_set(world_with(now, FORWARD_IPIP | SOURCES | HASH_SOURCE), first_set(VIP), tree, &prefix(OTHERS));
    vec![
        sent("sources: the set that is read", &both, &tcp(ACK), &OTHER),
        sent("sources: the other one, when it is", &turned, &tcp(ACK), &FAR),
        sent("sources: not looked at without the flag", &unlooked, &tcp(ACK), &NEAR),
        sent("sources: with a VIP that hashes by source", &group, &tcp(ACK), &OTHER),
    ]
}
