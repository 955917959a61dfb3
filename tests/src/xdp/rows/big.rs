//! What does not fit the way to its backend: the sender is told, or why not.

use super::{Row, arriving, gue, ipip, row, tcp, udp, udp_v6};
use crate::{
    packet::{ACK, Packet},
    xdp::world::{LB0_MAC, NEAR_V6, ROUTER_MAC, World},
};
use lb_abi::{reason::Reason, vip::FORWARD_L2DSR};

/// Bytes of IPv4 and UDP.
const V4_LEN: usize = 28;
/// Bytes of IPv6 and UDP.
const V6_LEN: usize = 48;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [told(now), untold(now)].concat()
}

/// Packets of every length that is a little too long, over both IPs.
pub(super) fn of_every_length(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let told = |packet: Packet| {
        row("too big, of every length", &world, &packet)
            .transmitted(Reason::TooBig, error(&packet, 1480).build())
    };
    let v4 = (1481..1600).map(|bytes| udp().payload(bytes - V4_LEN).dont_fragment().class(bytes as u8));
    let v6 = (1481..1600).map(|bytes| udp_v6().payload(bytes - V6_LEN).class(bytes as u8));
    v4.chain(v6).map(told).collect()
}

/// The error about a packet, from its VIP: 548 bytes are quoted of IPv4, 1232 of IPv6.
pub(super) fn error(asked: &Packet, fits: u32) -> Packet {
    let (source, destination) = (asked.destination().to_string(), asked.source().to_string());
    let ip = &asked.build()[asked.ip_at()..];
    let packet = match asked.source().is_ipv4() {
        true => {
            Packet::icmp_error(&source, &destination, (3, 4, fits), &ip[..548]).class(0xc0).dont_fragment()
        }
        false => Packet::icmp_error(&source, &destination, (2, 0, fits), &ip[..1232]),
    };
    packet.ttl(64).macs(ROUTER_MAC, LB0_MAC)
}

fn told(now: u32) -> Vec<Row> {
    let v4 = |bytes: usize| udp().payload(bytes - V4_LEN).dont_fragment();
    let v6 = |bytes: usize| udp_v6().payload(bytes - V6_LEN);
    let layer2 = World::new(now).forward(FORWARD_L2DSR);
    let answer = |name, world: &World, packet: Packet, fits| {
        let error = error(&packet, fits).build();
        row(name, world, &packet).transmitted(Reason::TooBig, error)
    };
    let mut tagged = row("too big: tags stay", &ipip(now), &v4(1500).tag(0x88a8, 9).tag(0x8100, 7));
    let error = error(&v4(1500).tag(0x88a8, 9).tag(0x8100, 7), 1480).tag(0x88a8, 9).tag(0x8100, 7);
    tagged = tagged.transmitted(Reason::TooBig, error.build());
    vec![
        answer("too big: 20 bytes more", &ipip(now), v4(1481), 1480),
        answer("too big: 28 bytes more", &gue(now), v4(1473), 1472),
        answer("too big: 40 bytes more", &ipip(now).owner(NEAR_V6.id), v4(1500), 1460),
        answer("too big: 48 bytes more", &gue(now).owner(NEAR_V6.id), v4(1500), 1452),
        answer("too big by layer 2", &layer2, v4(1501), 1500),
        answer("too big, IPv6: 20 bytes more", &ipip(now), v6(1500), 1480),
        answer("too big, IPv6: 40 bytes more", &ipip(now).owner(NEAR_V6.id), v6(1461), 1460),
        answer("too big, IPv6: 48 bytes more", &gue(now).owner(NEAR_V6.id), v6(1453), 1452),
        answer("too big, IPv6: layer 2", &layer2, v6(1501), 1500),
        answer("too big, IPv6: an odd length and a class", &ipip(now), v6(1499).class(0xb9), 1480),
        tagged,
    ]
}

fn untold(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let from =
        |source: &str| arriving(Packet::udp(source, "192.0.2.1:53")).payload(1481 - V4_LEN).dont_fragment();
    let from_v6 = |source: &str| arriving(Packet::udp(source, "[2001:db8::1]:53")).payload(1500 - V6_LEN);
    let answered = tcp(ACK).answered().build();
    let quote = [&answered[14..], &[0; 1440][..]].concat();
    let icmp =
        arriving(Packet::icmp_error("203.0.113.77:0", "192.0.2.1:0", (11, 0, 0), &quote)).dont_fragment();
    let dropped = |name, world: &World, packet: &Packet| row(name, world, packet).dropped(Reason::Mtu);
    let mut spent = world.clone();
    spent.answers_left = 0;
    let mut cramped = row("too big: no room for the error", &world, &from("198.51.100.7:1"))
        .dropped(Reason::EncapHeadroom)
        .host_only("the kernel's test runs always have 256 bytes of headroom");
    cramped.headroom = 27;
    vec![
        dropped("too big: it allows fragments", &world, &udp().payload(1481 - V4_LEN)),
        dropped("too big: an ICMP error", &world, &icmp),
        dropped("too big: from a group", &world, &from("224.0.0.1:1")),
        dropped("too big: from this network", &world, &from("0.0.0.0:1")),
        dropped("too big: from loopback", &world, &from("127.0.0.1:1")),
        dropped("too big: from a group, IPv6", &world, &from_v6("[ff02::1]:1")),
        dropped("too big: from nowhere, IPv6", &world, &from_v6("[::]:1")),
        dropped("too big: the budget is spent", &spent, &from("198.51.100.7:1"))
            .host_only("the kernel's budget is one of ticks"),
        cramped,
        row("too big: its last hop", &world, &from("198.51.100.7:1").ttl(1)).dropped(Reason::Ttl),
    ]
}
