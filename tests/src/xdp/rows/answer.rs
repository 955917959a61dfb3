//! ICMP for a VIP.

use lb_abi::reason::Reason;

use super::{Row, arriving, frame, ipip, row};
use crate::{packet::Packet, xdp::row::edited};

pub(super) fn rows(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let silent = ipip(now).vip("192.0.2.1", 0, 1, 0).vip("2001:db8::1", 0, 58, 0);
    let v4 = arriving(Packet::echo_request("198.51.100.7:0", "192.0.2.1:0"));
    let v6 = arriving(Packet::echo_request("[2001:db8:f::7]:0", "[2001:db8::1]:0"));
    let answered = |name, packet: &Packet| {
        row(name, &world, packet).transmitted(Reason::Echo, packet.clone().reply().build())
    };
    vec![
        answered("echo over IPv4", &v4),
        answered("echo over IPv6", &v6),
        answered("echo of an odd length", &v4.clone().payload(33)),
        answered("echo without data", &v6.clone().payload(0)),
        answered("echo with a tag", &v4.clone().tag(0x8100, 5)),
        answered("echo with two tags", &v6.clone().tag(0x88a8, 5).tag(0x8100, 6)),
        answered("echo with its last hop", &v4.clone().ttl(1)),
        frame("echo of nothing but zeros", &world, zeros(&v4, 8, [0xf7, 0xff]))
            .transmitted(Reason::Echo, zeros(&v4.clone().reply(), 0, [0xff, 0xff])),
        row("echo is off, IPv4", &silent, &v4),
        row("echo is off, IPv6", &silent, &v6),
        row(
            "echo to another address",
            &world,
            &arriving(Packet::echo_request("198.51.100.7:0", "192.0.2.2:0")),
        ),
        row(
            "an echo reply to a VIP",
            &world,
            &arriving(Packet::echo_request("192.0.2.1:0", "192.0.2.1:0").reply()),
        ),
        frame("another ICMP type", &world, edited(&v4, |frame| frame[34] = 13)),
        frame("an echo request with a code", &world, edited(&v4, |frame| frame[35] = 1)),
        frame("ICMPv6 over IPv4", &world, edited(&v4, |frame| frame[23] = 58)),
    ]
}

/// An ICMP message of a type and a checksum, and zeros behind them.
fn zeros(packet: &Packet, kind: u8, check: [u8; 2]) -> Vec<u8> {
    edited(packet, |frame| {
        frame[34..].fill(0);
        frame[34] = kind;
        frame[36..38].copy_from_slice(&check);
    })
}
