//! SYNs of a flood, for listeners of this box.

use lb_abi::{bounds::SYNS_PER_TICK, meta::FLAG_DENY_V4, reason::Reason, steer::STEER_COOKIES};

use super::{Row, arriving, frame, ipip, row, tcp};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN},
    xdp::{
        row::edited,
        rows::Way,
        world::{COOKIE, NEAR, SOCKETS, World},
    },
};

/// What a Linux client sends: MSS 1460, selective acknowledgements, timestamps, a window scale.
const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const WINDOW: u16 = 64_240;
const MSS_V4: u16 = 1460;
const MSS_V6: u16 = 1440;

fn v4(flags: u8) -> Packet {
    arriving(Packet::tcp("198.51.100.7:40000", "10.0.0.1:8080", flags)).payload(0)
}

fn v6(flags: u8) -> Packet {
    arriving(Packet::tcp("[2001:db8:f::7]:40000", "[fd00::1]:8080", flags)).payload(0)
}

/// Every socket is a listener that takes cookies, and this core has seen its share of SYNs.
fn flood(now: u32) -> World {
    SOCKETS.iter().fold(ipip(now).flooded(SYNS_PER_TICK), |world, at| world.listener(at, STEER_COOKIES))
}

pub(super) fn rows(now: u32) -> Vec<Row> {
    let world = flood(now);
    let answered = |name, packet: &Packet| {
        let mss = if packet.source().is_ipv4() { MSS_V4 } else { MSS_V6 };
        let answer = packet.clone().syn_ack(COOKIE, WINDOW, mss);
        row(name, &world, packet).transmitted(Reason::SynCookie, answer.build())
    };
    let padded = edited(&v4(SYN), |frame| frame.resize(60, 0));
    let mut rows = vec![
        answered("flood: SYN over IPv4", &v4(SYN).options(&LINUX)),
        answered("flood: SYN over IPv6", &v6(SYN).options(&LINUX)),
        answered("flood: SYN without options, which is shorter than its answer", &v4(SYN)),
        answered("flood: the same over IPv6, by 4 bytes", &v6(SYN)),
        answered("flood: SYN with an MSS alone", &v4(SYN).options(&LINUX[..4])),
        answered("flood: SYN with as many options as there can be", &v6(SYN).options(&[1; 40])),
        answered("flood: SYN with data", &v4(SYN).options(&LINUX).payload(512)),
        answered("flood: SYN with the last sequence number", &v4(SYN).sequence(u32::MAX)),
        answered("flood: SYN that offers ECN", &v4(SYN | 0xc0).class(0xb9)),
        answered("flood: SYN with its last hop", &v6(SYN).ttl(1)),
        answered("flood: SYN with a tag", &v4(SYN).options(&LINUX).tag(0x8100, 5)),
        answered("flood: SYN with two tags", &v6(SYN).tag(0x88a8, 5).tag(0x8100, 6)),
        frame("flood: SYN in a padded frame", &world, padded)
            .transmitted(Reason::SynCookie, v4(SYN).syn_ack(COOKIE, WINDOW, MSS_V4).build()),
    ];
    rows.extend(refused(now, &world));
    rows.extend(elsewhere(now, &world));
    let to = |destination| arriving(Packet::tcp("198.51.100.7:40000", destination, SYN));
    rows.extend([
        answered("flood: listener at all addresses, IPv4", &to("10.0.1.1:8081")),
        answered(
            "flood: listener at all addresses, IPv6",
            &arriving(Packet::tcp("[2001:db8:f::7]:9", "[fd01::1]:8081", SYN)),
        ),
    ]);
    rows
}

/// To a listener, and left to the kernel.
fn refused(now: u32, world: &World) -> Vec<Row> {
    let calm = SOCKETS
        .iter()
        .fold(ipip(now).flooded(SYNS_PER_TICK - 1), |world, at| world.listener(at, STEER_COOKIES));
    let mut off = world.clone();
    off.meta.flags = 0;
    let mut shut = world.clone();
    shut.listeners.iter_mut().for_each(|(_, entry)| entry.flags = 0);
    let from = |source| arriving(Packet::tcp(source, "10.0.0.1:8080", SYN));
    let from_v6 = |source| arriving(Packet::tcp(source, "[fd00::1]:8080", SYN));
    let mut cramped = row("flood: no room for the answer", world, &v4(SYN))
        .host_only("the kernel's frames have room in front");
    cramped.headroom = 0;
    vec![
        row("flood: the last SYN that is none yet", &calm, &v4(SYN)),
        row("flood: cookies are off", &off, &v4(SYN)),
        row("flood: cookies of this listener are off", &shut, &v4(SYN)),
        row("flood: cookies of this listener are off, over IPv6", &shut, &v6(SYN)),
        row("flood: ACK", world, &v4(ACK)),
        row("flood: SYN-ACK", world, &v4(SYN | ACK)),
        row("flood: RST", world, &v6(RST)),
        row("flood: SYN with FIN", world, &v4(SYN | FIN)),
        row("flood: SYN with RST", world, &v4(SYN | RST)),
        row("flood: from a group", world, &from("224.0.0.1:9")),
        row("flood: from everybody", world, &from("255.255.255.255:9")),
        row("flood: from loopback", world, &from("127.0.0.1:9")),
        row("flood: from nowhere", world, &from("0.0.0.0:9")),
        row("flood: from ourselves", world, &from("10.0.0.1:8080")),
        row("flood: from a group of IPv6", world, &from_v6("[ff02::1]:9")),
        row("flood: from nowhere in IPv6", world, &from_v6("[::]:9")),
        frame(
            "flood: a fragment",
            world,
            edited(&v4(SYN), |frame| {
                frame[20] = 0x20;
                crate::packet::seal(&mut frame[14..34]);
            }),
        ),
        cramped,
    ]
}

/// To something else, while listeners are flooded.
fn elsewhere(now: u32, world: &World) -> Vec<Row> {
    let to = |destination| arriving(Packet::tcp("198.51.100.7:40000", destination, SYN));
    let strangers = ipip(now).flooded(SYNS_PER_TICK);
    let denied = world.clone().deny("198.51.100.0", 24, FLAG_DENY_V4);
    vec![
        row("flood: to a port where nobody listens", world, &to("10.0.0.1:9999")),
        row("flood: to a socket that is no listener of ours", &strangers, &v4(SYN)),
        row("flood: to an address that is only routed by this box", world, &to("10.0.0.11:8081")),
        row("flood: datagram", world, &arriving(Packet::udp("198.51.100.7:40000", "10.0.0.1:8080"))),
        row("flood: from a denied source", &denied, &v4(SYN)).dropped(Reason::Denied),
        row("flood: to a VIP", world, &tcp(SYN)).forwarded(&tcp(SYN), &NEAR, Way::Ipip).new_flow(),
    ]
}
