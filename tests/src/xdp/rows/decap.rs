//! `lb_decap`: what the balancer put on comes off.

use lb_abi::{reason::Reason, vip::DECAP};

use super::{Row, arriving, frame, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, Packet, SYN, seal},
    xdp::{
        row::{Program, edited},
        world::{ROUTER_MAC, World},
    },
};

const HERE_V4: &str = "10.0.0.11";
const HERE_V6: &str = "fd00::11";

/// A backend that takes every kind of tunnel at both of its addresses.
pub(crate) fn world(now: u32) -> World {
    World::new(now)
        .vip(HERE_V4, 0, 4, DECAP)
        .vip(HERE_V4, 0, 41, DECAP)
        .vip(HERE_V6, 0, 4, DECAP)
        .vip(HERE_V6, 0, 41, DECAP)
        .vip(HERE_V4, 6080, 17, DECAP)
        .vip(HERE_V6, 6080, 17, DECAP)
}

fn v4(packet: Packet) -> Packet {
    packet.inside("10.0.0.1", HERE_V4, 0)
}

fn v6(packet: Packet) -> Packet {
    packet.inside("fd00::1", HERE_V6, 0x1_2345)
}

pub(super) fn rows(now: u32) -> Vec<Row> {
    let mut rows =
        [taken_off(now), out_of_udp(now), congestion(now), left_on(now), udp_left_on(now)].concat();
    rows.iter_mut().for_each(|row| row.program = Program::Decap);
    rows
}

fn taken(name: &'static str, world: &World, packet: &Packet, inner: &Packet) -> Row {
    let mut row = row(name, world, packet).passed(Reason::Decapsulated);
    row.expected.frame = inner.build();
    row
}

fn taken_off(now: u32) -> Vec<Row> {
    let world = world(now);
    let blank = World { now, ..World::default() };
    let elsewhere = tcp(ACK).inside("10.0.0.1", "10.0.0.12", 0);
    let two = udp().tag(0x88a8, 9).tag(0x8100, 7);
    vec![
        taken("decap: 4in4", &world, &v4(tcp(ACK)), &tcp(ACK)),
        taken("decap: 6in4", &world, &v4(tcp_v6(ACK)), &tcp_v6(ACK)),
        taken("decap: 4in6", &world, &v6(tcp(SYN)), &tcp(SYN)),
        taken("decap: 6in6", &world, &v6(tcp_v6(SYN)), &tcp_v6(SYN)),
        taken("decap: maps that nobody wrote: every tunnel", &blank, &elsewhere, &tcp(ACK)),
        taken("decap: a tag stays", &world, &v4(udp().tag(0x8100, 7)), &udp().tag(0x8100, 7)),
        taken("decap: two tags stay", &world, &v6(two.clone()), &two),
    ]
}

fn out_of_udp(now: u32) -> Vec<Row> {
    let world = world(now);
    let blank = World { now, ..World::default() };
    let v4 = |packet| v4(packet).over_udp(0xc123);
    let v6 = |packet| v6(packet).over_udp(0xffff);
    let elsewhere = tcp(ACK).inside("10.0.0.1", "10.0.0.12", 0).over_udp(1);
    let one = udp().tag(0x8100, 7);
    let mark = tcp(ACK).class(3);
    let echo = arriving(Packet::echo_request("198.51.100.7:0", "192.0.2.1:0"));
    let echo_v6 = arriving(Packet::echo_request("[2001:db8:f::7]:0", "[2001:db8::1]:0"));
    let bare = |packet: Vec<u8>| {
        let mut packet = packet;
        let at = packet.len() - 34;
        packet[at..at + 2].fill(0);
        packet
    };
    // A sender that sums all bytes may sum a packet without a checksum, too.
    let mut unsaid = frame("decap: GUE with a sum that nobody can check", &world, bare(v6(udp()).build()))
        .passed(Reason::Decapsulated);
    unsaid.expected.frame = bare(udp().build());
    vec![
        taken("decap: GUE, 4in4", &world, &v4(tcp(ACK)), &tcp(ACK)),
        taken("decap: GUE, 6in4", &world, &v4(tcp_v6(ACK)), &tcp_v6(ACK)),
        taken("decap: GUE, 4in6", &world, &v6(tcp(SYN)), &tcp(SYN)),
        taken("decap: GUE, 6in6", &world, &v6(tcp_v6(SYN)), &tcp_v6(SYN)),
        taken("decap: GUE, UDP in IPv6", &world, &v6(udp()), &udp()),
        taken("decap: GUE, ICMP in IPv6", &world, &v6(echo.clone()), &echo),
        taken("decap: GUE, ICMPv6 in IPv6", &world, &v6(echo_v6.clone()), &echo_v6),
        taken("decap: GUE without a checksum over IPv6", &world, &v6(tcp(ACK)).unsummed(), &tcp(ACK)),
        taken("decap: GUE, maps that nobody wrote", &blank, &elsewhere, &tcp(ACK)),
        taken("decap: GUE, a tag stays", &world, &v6(one.clone()), &one),
        taken("decap: GUE, a mark is carried over", &world, &v6(tcp(ACK).class(2)).outer_class(0xbb), &mark),
        unsaid,
    ]
}

fn udp_left_on(now: u32) -> Vec<Row> {
    let here = world(now);
    let v6 = |packet| v6(packet).over_udp(0xc123);
    let elsewhere = tcp(ACK).inside("10.0.0.1", "10.0.0.12", 0).over_udp(1);
    let broken = |name, packet: Packet, edit: fn(&mut Vec<u8>)| frame(name, &here, edited(&packet, edit));
    let other = arriving(Packet::udp("198.51.100.7:1", "10.0.0.11:6081"));
    // The outer IPv6 header ends at 54, UDP's at 62.
    vec![
        row("decap: GUE to another address", &here, &elsewhere),
        row("decap: UDP to another port", &here, &other),
        broken("decap: GUE variant 0", v6(tcp(ACK)), |frame| frame[62] = 0x04),
        broken("decap: GUE, nothing inside", v6(tcp(ACK)), |frame| {
            frame.truncate(62);
            frame[18..20].copy_from_slice(&[0, 8]);
        }),
        broken("decap: GUE, cut inside the inner header", v6(tcp(ACK)), |frame| {
            frame.truncate(62 + 19);
            frame[18..20].copy_from_slice(&[0, 27]);
        })
        .dropped(Reason::MalformedIp),
        broken("decap: GUE shorter than its packet", v6(tcp(ACK)), |frame| frame[59] -= 1)
            .dropped(Reason::MalformedUdp),
        broken("decap: GUE with a wrong checksum", v6(tcp(ACK)), |frame| frame[61] ^= 1)
            .dropped(Reason::MalformedUdp),
        broken("decap: GUE from a bent source", v6(tcp_v6(ACK)), |frame| frame[30] ^= 1)
            .dropped(Reason::MalformedUdp),
        broken("decap: GUE around a bent address", v6(tcp(ACK)), |frame| frame[62 + 13] ^= 1)
            .dropped(Reason::MalformedUdp),
    ]
}

fn congestion(now: u32) -> Vec<Row> {
    let world = world(now);
    let marked = |packet: Packet| packet.outer_class(0xbb);
    let mark = |packet: Packet| packet.class(0x03);
    vec![
        taken("decap: a mark is carried over, IPv4", &world, &marked(v4(tcp(ACK).class(2))), &mark(tcp(ACK))),
        taken(
            "decap: a mark is carried over, IPv6",
            &world,
            &marked(v6(tcp_v6(ACK).class(1))),
            &mark(tcp_v6(ACK)),
        ),
        taken("decap: a mark is there already", &world, &marked(v4(tcp(ACK).class(3))), &mark(tcp(ACK))),
        row("decap: a mark cannot be carried, IPv4", &world, &marked(v4(tcp(ACK))))
            .dropped(Reason::MalformedIp),
        row("decap: a mark cannot be carried, IPv6", &world, &marked(v6(tcp_v6(ACK))))
            .dropped(Reason::MalformedIp),
    ]
}

fn left_on(now: u32) -> Vec<Row> {
    let here = world(now);
    let unflagged = World::new(now).vip(HERE_V4, 0, 4, 0);
    let mut foreign = here.clone();
    foreign.meta.abi = lb_abi::ABI_VERSION + 1;
    let elsewhere = tcp(ACK).inside("10.0.0.1", "10.0.0.12", 0);
    let broken = |name, edit: fn(&mut Vec<u8>)| frame(name, &here, edited(&v4(tcp(ACK)), edit));
    vec![
        row("decap: a tunnel to another address", &here, &elsewhere),
        row("decap: a key without the flag", &unflagged, &v4(tcp(ACK))),
        row("decap: maps of another version", &foreign, &v4(tcp(ACK))).passed(Reason::Abi),
        row("decap: to a group address", &here, &v4(tcp(ACK)).macs([1, 0, 0x5e, 0, 0, 1], ROUTER_MAC)),
        row("decap: not a tunnel", &here, &arriving(Packet::tcp("198.51.100.7:1", "10.0.0.11:80", SYN))),
        broken("decap: a fragment of a tunnel", |frame| {
            frame[20] = 0x20;
            seal(&mut frame[14..34]);
        }),
        broken("decap: malformed outside", |frame| frame[14] = 0x44),
        broken("decap: another version inside", |frame| frame[34] = 0x65).dropped(Reason::MalformedIp),
        broken("decap: cut inside the inner header", |frame| {
            frame.truncate(34 + 19);
            frame[16..18].copy_from_slice(&[0, 39]);
            seal(&mut frame[14..34]);
        })
        .dropped(Reason::MalformedIp),
        broken("decap: nothing inside", |frame| {
            frame.truncate(34);
            frame[16..18].copy_from_slice(&[0, 20]);
            seal(&mut frame[14..34]);
        })
        .dropped(Reason::MalformedIp),
    ]
}
