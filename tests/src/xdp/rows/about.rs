//! ICMP errors about a VIP's packets: they go where the flow goes that they quote.

use lb_abi::{
    counter::FlowEvent,
    flow::FlowKey,
    reason::Reason,
    slot::{Phase, Slot},
    vip::{FORWARD_IPIP, FORWARD_L2DSR, HASH_PORT, HASH_SOURCE},
};

use super::{
    Row, Way, arriving, frame,
    group::{group, source},
    gue, ipip,
    quic::{id, world as quic},
    row,
    source::{OTHERS, v4, world as by_prefix},
    tcp, tcp_v6, udp, udp_v6,
};
use crate::{
    packet::{ACK, Packet},
    xdp::{
        row::edited,
        world::{FAR_V6, NEAR, NEAR_V6, OTHER, TABLE_LEN, World, flow},
    },
};

/// A router on the way to the client, over either IP.
const ROUTER: [&str; 2] = ["203.0.113.77:0", "[2001:db8:77::1]:0"];
const VIP: [&str; 2] = ["192.0.2.1:0", "[2001:db8::1]:0"];
/// ICMP's: type, code and second word.
const FRAGMENTATION_NEEDED: (u8, u8, u32) = (3, 4, 1400);
/// ICMPv6's.
const TOO_BIG: (u8, u8, u32) = (2, 0, 1400);

/// The beginning of the packet from the VIP that answers one from the client: IP header and `len` bytes.
fn answer(asked: &Packet, len: usize) -> Vec<u8> {
    let packet = asked.clone().answered().ttl(3).build();
    let header_len = if asked.source().is_ipv4() { 20 } else { 40 };
    packet[14..14 + header_len + len].to_vec()
}

/// An error about a quote, from the router.
fn error(kind: (u8, u8, u32), quote: &[u8]) -> Packet {
    let at = usize::from(quote[0] >> 4 != 4);
    arriving(Packet::icmp_error(ROUTER[at], VIP[at], kind, quote))
}

/// An error about the answer to a packet, which quotes its first eight bytes.
fn about(kind: (u8, u8, u32), asked: &Packet) -> Packet {
    error(kind, &answer(asked, 8))
}

pub(super) fn rows(now: u32) -> Vec<Row> {
    [kinds(now), ways(now), led(now), while_moving(now), not_followed(now), malformed(now)].concat()
}

fn kinds(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let v4 = |name, kind, asked: Packet| {
        let packet = about(kind, &asked);
        row(name, &world, &packet).forwarded_as(&flow(&asked), &packet, &NEAR, Way::Ipip)
    };
    let mut elsewhere = ipip(now);
    let slot =
        lb_abi::hash::slot(lb_abi::hash::flow(crate::xdp::world::HASH_KEY, &flow(&tcp(ACK))), TABLE_LEN);
    elsewhere.slots[slot as usize] = Slot::settled(OTHER.id, 0, now);
    let packet = about(FRAGMENTATION_NEEDED, &tcp(ACK));
    vec![
        v4("an error: fragmentation needed, TCP", FRAGMENTATION_NEEDED, tcp(ACK)),
        v4("an error: port unreachable, UDP", (3, 3, 0), udp()),
        v4("an error: time exceeded", (11, 0, 0), tcp(ACK)),
        v4("an error: parameter problem", (12, 0, 0), tcp(ACK)),
        v4("an error: too big, ICMPv6", TOO_BIG, tcp_v6(ACK)),
        v4("an error: unreachable, ICMPv6", (1, 4, 0), udp_v6()),
        v4("an error: time exceeded, ICMPv6", (3, 0, 0), tcp_v6(ACK)),
        v4("an error: parameter problem, ICMPv6", (4, 1, 40), tcp_v6(ACK)),
        row("an error goes to the slot of the flow", &elsewhere, &packet).forwarded_as(
            &flow(&tcp(ACK)),
            &packet,
            &OTHER,
            Way::Ipip,
        ),
    ]
}

fn ways(now: u32) -> Vec<Row> {
    let gue_v6 = gue(now).owner(NEAR_V6.id);
    let gue_far = gue(now).owner(FAR_V6.id);
    let layer2 = World::new(now).forward(FORWARD_L2DSR);
    let sent = |name, world: &World, asked: Packet, packet: Packet, backend, way| {
        row(name, world, &packet).forwarded_as(&flow(&asked), &packet, backend, way)
    };
    let long = error(TOO_BIG, &answer(&udp_v6().payload(601), 609));
    vec![
        sent(
            "an error by GUE, ICMP",
            &gue_v6,
            tcp(ACK),
            about(FRAGMENTATION_NEEDED, &tcp(ACK)),
            &NEAR_V6,
            Way::Gue,
        ),
        sent(
            "an error by GUE, ICMPv6",
            &gue_v6,
            tcp_v6(ACK),
            about(TOO_BIG, &tcp_v6(ACK)),
            &NEAR_V6,
            Way::Gue,
        ),
        sent("an error by GUE, long and odd", &gue_far, udp_v6(), long, &FAR_V6, Way::Gue),
        sent(
            "an error by layer 2",
            &layer2,
            udp(),
            about((3, 3, 0), &udp()).tag(0x8100, 5),
            &NEAR,
            Way::Layer2,
        ),
    ]
}

/// An error goes the way of the packets that it is about, whatever leads these.
fn led(now: u32) -> Vec<Row> {
    let sent = |name, world: &World, asked: &Packet, kind, backend| {
        let packet = about(kind, asked);
        row(name, world, &packet).forwarded_as(&flow(asked), &packet, backend, Way::Ipip)
    };
    let of_client = |asked: &Packet| source(now).owner_of(&group(asked, HASH_SOURCE), OTHER.id);
    let port = arriving(Packet::tcp("198.51.100.7:40001", "192.0.2.1:80", ACK));
    let stranger = arriving(Packet::tcp("198.51.100.12:40000", "192.0.2.1:80", ACK));
    let by_port =
        World::new(now).forward(FORWARD_IPIP | HASH_PORT).owner_of(&group(&port, HASH_PORT), OTHER.id);
    let client = group(&port, HASH_SOURCE);
    let moving = source(now).moving(NEAR.id, OTHER.id, Phase::Open, 5);
    let known = moving.clone().record(client, OTHER.id, 5, 0, 7);
    let by_prefix = by_prefix(now, v4(&[(0, 24)]), &[("198.51.100.0", 96 + 24, OTHERS)]);
    let with_id = udp().content(&[&[0x40][..], &id(0x0123)].concat());
    let needed = FRAGMENTATION_NEEDED;
    vec![
        sent("an error by source: its client's slot", &of_client(&tcp(ACK)), &port, needed, &OTHER),
        sent("an error by source: another client's", &of_client(&tcp(ACK)), &stranger, needed, &NEAR),
        sent("an error by source, IPv6", &of_client(&udp_v6()), &tcp_v6(ACK), TOO_BIG, &OTHER),
        sent("an error by port", &by_port, &stranger, needed, &OTHER),
        sent("an error by port: another port's", &by_port, &udp(), (3, 3, 0), &NEAR),
        sent("an error by source follows a record and leaves it alone", &known, &port, needed, &OTHER)
            .events(&[FlowEvent::Followed]),
        sent("an error by source leaves no record", &moving, &port, needed, &OTHER)
            .events(&[FlowEvent::UnrecordedToPrevious]),
        sent("an error about a client with a prefix", &by_prefix, &tcp(ACK), needed, &OTHER),
        // Where every slot is OTHER's.
        sent(
            "an error about QUIC goes by hash, and no id is looked for",
            &quic(now),
            &with_id,
            needed,
            &OTHER,
        ),
    ]
}

/// The flow's record says where to; the error leaves it as it was.
fn while_moving(now: u32) -> Vec<Row> {
    let key: FlowKey = flow(&tcp(ACK));
    let moving = |phase| ipip(now).moving(NEAR.id, OTHER.id, phase, 5);
    let packet = about(FRAGMENTATION_NEEDED, &tcp(ACK));
    let sent = |name, world: &World, backend| {
        row(name, world, &packet).forwarded_as(&key, &packet, backend, Way::Ipip)
    };
    let known = moving(Phase::Open).record(key, OTHER.id, 5, 0, 7);
    vec![
        sent("an error follows a record and leaves it alone", &known, &OTHER).events(&[FlowEvent::Followed]),
        sent("an error in an open slot leaves no record", &moving(Phase::Open), &OTHER)
            .events(&[FlowEvent::UnrecordedToPrevious]),
        sent("an error in a closed slot", &moving(Phase::Closed), &NEAR)
            .events(&[FlowEvent::UnrecordedToOwner]),
    ]
}

fn not_followed(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let other_port = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.1:81", ACK));
    let echo = arriving(Packet::echo_request("198.51.100.7:0", "192.0.2.1:0"));
    let elsewhere = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.2:80", ACK));
    let to_other =
        arriving(Packet::icmp_error(ROUTER[0], "192.0.2.2:0", (3, 4, 1400), &answer(&elsewhere, 8)));
    vec![
        row("an error to another address", &world, &to_other),
        row("an error about another port", &world, &about(FRAGMENTATION_NEEDED, &other_port)),
        row("an error about an echo reply", &world, &about((3, 1, 0), &echo)),
        frame("source quench", &world, edited(&about((4, 0, 0), &tcp(ACK)), |_| {})),
        row("an error with its last hop", &world, &about((3, 4, 0), &tcp(ACK)).ttl(1)).dropped(Reason::Ttl),
    ]
}

fn malformed(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let v4 = |name, edit: fn(&mut Vec<u8>)| {
        let mut quote = answer(&tcp(ACK), 8);
        edit(&mut quote);
        row(name, &world, &error(FRAGMENTATION_NEEDED, &quote)).dropped(Reason::MalformedIcmp)
    };
    let v6 = |name, edit: fn(&mut Vec<u8>)| {
        let mut quote = answer(&tcp_v6(ACK), 8);
        edit(&mut quote);
        // A quote that is not IPv6 any more is ICMPv6's all the same.
        let packet = arriving(Packet::icmp_error(ROUTER[1], VIP[1], TOO_BIG, &quote));
        row(name, &world, &packet).dropped(Reason::MalformedIcmp)
    };
    let empty = arriving(Packet::icmp_error(ROUTER[0], VIP[0], FRAGMENTATION_NEEDED, &[]));
    let mut padded = frame(
        "an error whose quote is only padding",
        &world,
        edited(&empty, |frame| frame.extend(answer(&tcp(ACK), 8))),
    );
    padded = padded.dropped(Reason::MalformedIcmp);
    vec![
        row("an error without a quote", &world, &empty).dropped(Reason::MalformedIcmp),
        padded,
        v4("an error whose quote is cut in the ports", |quote| quote.truncate(20 + 7)),
        v4("an error whose quote is no IPv4", |quote| quote[0] = 0x65),
        v4("an error whose quote has a short header", |quote| quote[0] = 0x44),
        v4("an error about somebody else's packet", |quote| quote[15] ^= 1),
        v4("an error about a packet with options", |quote| quote[0] = 0x46).dropped(Reason::IpOptions),
        v4("an error about a later fragment", |quote| quote[7] = 1).dropped(Reason::Fragment),
        v6("an error whose quote is cut, ICMPv6", |quote| quote.truncate(40 + 7)),
        v6("an error whose quote is no IPv6", |quote| quote[0] = 0x45),
        v6("an error about somebody else's packet, ICMPv6", |quote| quote[23] ^= 1),
        v6("an error about an extension header", |quote| quote[6] = 0).dropped(Reason::IpOptions),
        v6("an error about a fragment, ICMPv6", |quote| quote[6] = 44).dropped(Reason::Fragment),
    ]
}
