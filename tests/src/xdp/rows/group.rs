//! VIPs that hash by less than the flow: what leads to one backend, what is remembered, and fragments.

use lb_abi::{
    counter::FlowEvent::{Followed, Recorded, RepickedDown, UnrecordedToOwner, UnrecordedToPrevious},
    flow::FlowKey,
    reason::Reason,
    slot::{
        Phase::{Closed, Open},
        Slot,
    },
    subject,
    vip::{FORWARD_IPIP, FORWARD_L2DSR, FRAGMENTS, HASH_PORT, HASH_SOURCE, VipEntry},
};

use super::{Row, Way::Ipip, Way::Layer2, arriving, frame, ipip, row, tcp, tcp_v6, udp, udp_v6};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN},
    xdp::{
        row::{Left, edited},
        world::{DEAD, IDLE, NEAR, NEAR_V6, OTHER, OVER, VIP, World, flow},
    },
};

const EPOCH: u8 = 5;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [by_source(now), by_port(now), moving(now), fragments(now), wide_fragments(now), refused_fragments(now)]
        .concat()
}

/// What a VIP with these flags remembers a packet as.
pub(super) fn group(packet: &Packet, flags: u32) -> FlowKey {
    subject::of(&VipEntry { vip: VIP, flags, ..VipEntry::default() }, &flow(packet))
}

pub(super) fn source(now: u32) -> World {
    World::new(now).forward(FORWARD_IPIP | HASH_SOURCE)
}

/// A client's slot is its own, and nobody else's: every other slot is [`NEAR`]'s.
fn by_source(now: u32) -> Vec<Row> {
    let world = source(now).owner_of(&group(&tcp(SYN), HASH_SOURCE), OTHER.id);
    let world_v6 = source(now).owner_of(&group(&tcp_v6(SYN), HASH_SOURCE), OTHER.id);
    let port = arriving(Packet::tcp("198.51.100.7:40001", "192.0.2.1:80", ACK));
    let stranger = arriving(Packet::tcp("198.51.100.12:40000", "192.0.2.1:80", ACK));
    let neighbour_v6 = arriving(Packet::tcp("[2001:db8:f::c]:40000", "[2001:db8::1]:80", ACK));
    let sent = |name, world: &World, packet: &Packet, backend| {
        row(name, world, packet).forwarded(packet, backend, Ipip)
    };
    vec![
        sent("by source: a SYN", &world, &tcp(SYN), &OTHER).new_flow(),
        sent("by source: another port of the client", &world, &port, &OTHER),
        sent("by source: another protocol and port of the VIP", &world, &udp(), &OTHER),
        sent("by source: another client", &world, &stranger, &NEAR),
        sent("by source: IPv6", &world_v6, &tcp_v6(ACK), &OTHER),
        sent("by source: IPv6, another protocol and port", &world_v6, &udp_v6(), &OTHER),
        sent("by source: IPv6, another client of that network", &world_v6, &neighbour_v6, &NEAR),
    ]
}

fn by_port(now: u32) -> Vec<Row> {
    let world = |packet: &Packet| {
        World::new(now).forward(FORWARD_IPIP | HASH_PORT).owner_of(&group(packet, HASH_PORT), OTHER.id)
    };
    let stranger = arriving(Packet::tcp("203.0.113.5:1", "192.0.2.1:80", ACK));
    let sent = |name, world: &World, packet: &Packet, backend| {
        row(name, world, packet).forwarded(packet, backend, Ipip)
    };
    vec![
        sent("by port: a SYN", &world(&tcp(SYN)), &tcp(SYN), &OTHER).new_flow(),
        sent("by port: another client", &world(&tcp(SYN)), &stranger, &OTHER),
        sent("by port: another address of the VIP", &world(&tcp(SYN)), &tcp_v6(ACK), &OTHER),
        sent("by port: another port", &world(&tcp(SYN)), &udp(), &NEAR),
        sent("by port: that one's own slot", &world(&udp()), &udp_v6(), &OTHER),
    ]
}

/// The record that a group's packet leaves.
fn leaves(mut row: Row, key: FlowKey, backend: u16) -> Row {
    row.expected.records = vec![Left { key, backend, epoch: EPOCH, state: 0, fresh: true }];
    row
}

/// From [`OTHER`] to [`NEAR`].
fn moving(now: u32) -> Vec<Row> {
    let opened = |ago| source(now).moving(NEAR.id, OTHER.id, Open, ago);
    let (syn, fin) = (tcp(SYN), tcp(FIN | ACK));
    let key = group(&syn, HASH_SOURCE);
    let stays = |name, packet: &Packet| {
        let row = row(name, &opened(3), packet)
            .forwarded(packet, &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious]);
        leaves(row, key, OTHER.id)
    };
    let followed = |name, world: &World, packet: &Packet| {
        let row = row(name, world, packet).forwarded(packet, &OTHER, Ipip).events(&[Followed]);
        leaves(row, key, OTHER.id)
    };
    let recorded = opened(3).record(key, OTHER.id, EPOCH, 0, 10);
    let late = opened(IDLE).record(key, OTHER.id, EPOCH, 0, 10);
    let port_key = group(&syn, HASH_PORT);
    let by_port = World::new(now).forward(FORWARD_IPIP | HASH_PORT).moving(NEAR.id, OTHER.id, Open, 3);
    vec![
        stays("by source, open: a client stays, and is recorded once", &udp()).new_flow(),
        stays("by source, open: it stays with its next SYN", &syn).new_flow(),
        stays("by source, open: an RST says nothing of a client", &tcp(RST)),
        followed("by source, open: a recorded client stays", &recorded, &udp()),
        followed("by source, open: a SYN follows, too", &recorded, &syn).new_flow(),
        followed("by source, open: a FIN does not end a client", &recorded, &fin),
        followed("by source, open: after the idle time the record holds", &late, &syn).new_flow(),
        leaves(
            row(
                "by source, open: after the window a new client goes to the owner, recorded",
                &opened(OVER),
                &syn,
            )
            .forwarded(&syn, &NEAR, Ipip)
            .new_flow()
            .events(&[Recorded, UnrecordedToOwner]),
            key,
            NEAR.id,
        ),
        row(
            "by source, closed: a new client goes to the owner, not recorded",
            &source(now).moving(NEAR.id, OTHER.id, Closed, 3),
            &syn,
        )
        .forwarded(&syn, &NEAR, Ipip)
        .new_flow()
        .events(&[UnrecordedToOwner]),
        leaves(
            row(
                "by source: a client whose backend is down is picked anew, whatever it sends",
                &source(now).moving(NEAR.id, DEAD.id, Open, 3).record(key, DEAD.id, EPOCH, 0, 10),
                &tcp(ACK),
            )
            .forwarded(&tcp(ACK), &NEAR, Ipip)
            .events(&[RepickedDown]),
            key,
            NEAR.id,
        ),
        leaves(
            row("by port, open: a port stays, and is recorded", &by_port, &syn)
                .forwarded(&syn, &OTHER, Ipip)
                .new_flow()
                .events(&[Recorded, UnrecordedToPrevious]),
            port_key,
            OTHER.id,
        ),
    ]
}

fn fragments(now: u32) -> Vec<Row> {
    let client = group(&udp(), HASH_SOURCE);
    let client_v6 = group(&udp_v6(), HASH_SOURCE);
    let accepting = || source(now).fragments(FORWARD_IPIP | HASH_SOURCE);
    let world = accepting().owner_of(&client, OTHER.id);
    let world_v6 = accepting().owner_of(&client_v6, OTHER.id);
    let opened = accepting().moving(NEAR.id, OTHER.id, Open, 3).record(client, OTHER.id, EPOCH, 0, 10);
    let layer2 =
        World::new(now).fragments(FORWARD_L2DSR | HASH_SOURCE).slots(Slot::settled(NEAR_V6.id, 0, now));
    let foreign = arriving(Packet::udp("198.51.100.7:40000", "192.0.2.1:7"));
    let sent =
        |name, world: &World, packet: &Packet| row(name, world, packet).forwarded(packet, &OTHER, Ipip);
    let later = udp().fragment(1480, false);
    vec![
        sent("a first fragment goes by source", &world, &udp().fragment(0, true)),
        sent("a later fragment goes where the first went", &world, &later),
        sent("a fragment of TCP does, too", &world, &tcp(ACK).fragment(8, true)),
        sent("a fragment to any port does", &world, &foreign.fragment(0, true)),
        sent("a first fragment, IPv6", &world_v6, &udp_v6().fragment(0, true)),
        sent("a later fragment, IPv6", &world_v6, &udp_v6().fragment(1448, false)),
        sent("an atomic fragment, IPv6", &world_v6, &udp_v6().fragment(0, false)),
        leaves(
            sent("a fragment follows its client's record", &opened, &later).events(&[Followed]),
            client,
            OTHER.id,
        ),
        row("a fragment by layer 2", &layer2, &udp_v6().fragment(8, true)).forwarded(
            &udp_v6().fragment(8, true),
            &NEAR_V6,
            Layer2,
        ),
        row("a fragment on its last hop", &world, &later.clone().ttl(1)).dropped(Reason::Ttl),
    ]
}

/// A VIP of a whole prefix, in which an address is another VIP's as well.
fn wide_fragments(now: u32) -> Vec<Row> {
    let by_source = FORWARD_IPIP | HASH_SOURCE;
    let (net, net_v6) = ("192.0.2.0", "2001:db8::");
    let taking = |protocol: u8, vip, host_bits| {
        let of = [u16::from(protocol); 2];
        source(now)
            .wide(vip, host_bits, [0, 65535], protocol, by_source)
            .wide(vip, host_bits, of, FRAGMENTS, by_source)
    };
    let world = taking(17, net, 8).owner_of(&group(&udp(), HASH_SOURCE), OTHER.id);
    let world_v6 = taking(17, net_v6, 64).owner_of(&group(&udp_v6(), HASH_SOURCE), OTHER.id);
    let elsewhere = arriving(Packet::udp("198.51.100.7:40000", "192.0.2.77:9"));
    let elsewhere_v6 = arriving(Packet::udp("[2001:db8:f::7]:40000", "[2001:db8::77]:9"));
    let shared = world.clone().vip("192.0.2.1", 17, FRAGMENTS, 0);
    let sent =
        |name, world: &World, packet: &Packet| row(name, world, packet).forwarded(packet, &OTHER, Ipip);
    vec![
        sent("a fragment to a prefix by source", &world, &elsewhere.clone().fragment(1480, false)),
        sent("a fragment to a prefix by source, IPv6", &world_v6, &elsewhere_v6.fragment(1480, false)),
        sent("a fragment beside what is shared in a prefix", &shared, &elsewhere.fragment(1480, true)),
        row("a fragment to what is shared in a prefix", &shared, &udp().fragment(0, true))
            .dropped(Reason::Fragment),
    ]
}

fn refused_fragments(now: u32) -> Vec<Row> {
    let later = udp().fragment(1480, false);
    let tcp_only = source(now).vip("192.0.2.1", 6, FRAGMENTS, FORWARD_IPIP | HASH_SOURCE);
    let cut = |world: &World, name| {
        frame(
            name,
            world,
            edited(&udp_v6().fragment(8, true), |frame| {
                frame.truncate(54);
                frame[18..20].fill(0);
            }),
        )
    };
    let accepting = source(now).fragments(FORWARD_IPIP | HASH_SOURCE);
    let elsewhere = arriving(Packet::udp("[2001:db8:f::7]:40000", "[2001:db8::2]:53"));
    vec![
        row("a fragment where several VIPs have the address", &source(now), &later).dropped(Reason::Fragment),
        row("a fragment of a protocol that the VIP has not", &tcp_only, &later).dropped(Reason::Fragment),
        row("a fragment where no VIP hashes by source", &ipip(now), &later).dropped(Reason::Fragment),
        row(
            "a fragment of ICMPv6",
            &accepting,
            &arriving(Packet::echo_request("[2001:db8:f::7]:0", "[2001:db8::1]:0").fragment(0, true)),
        )
        .dropped(Reason::Fragment),
        cut(&accepting, "a fragment without its header").dropped(Reason::Fragment),
        row("a fragment to another address, IPv6", &accepting, &elsewhere.fragment(0, true)),
    ]
}
