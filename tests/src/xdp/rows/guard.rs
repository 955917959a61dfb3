//! Deny and allow lists: the longest prefix that covers the source decides.

use std::{net::Ipv4Addr, sync::OnceLock};

use lb_abi::{
    guard::{WAYS, buckets, fingerprint},
    meta::{FLAG_DENY_V4, FLAG_DENY_V6},
    reason::Reason,
};

use super::{Row, Way, ipip, row, tcp, tcp_v6};
use crate::{
    packet::{ACK, Packet},
    xdp::world::{GUARD_KEY, NEAR, World},
};

pub(super) fn rows(now: u32) -> Vec<Row> {
    [longest(now), full_buckets(now)].concat()
}

fn let_in(name: &'static str, world: &World, packet: &Packet) -> Row {
    row(name, world, packet).forwarded(packet, &NEAR, Way::Ipip)
}

fn denied(name: &'static str, world: &World, packet: &Packet) -> Row {
    row(name, world, packet).dropped(Reason::Denied)
}

fn longest(now: u32) -> Vec<Row> {
    let v4 = |prefix, bits| ipip(now).deny(prefix, bits, FLAG_DENY_V4);
    let v6 = |prefix, bits| ipip(now).deny(prefix, bits, FLAG_DENY_V6);
    let (v4_packet, v6_packet) = (tcp(ACK), tcp_v6(ACK));
    vec![
        denied("a denied host, IPv4", &v4("198.51.100.7", 32), &v4_packet),
        let_in("a denied host beside it, IPv4", &v4("198.51.100.6", 32), &v4_packet),
        denied("a denied prefix in the middle of a byte, IPv4", &v4("198.51.100.4", 30), &v4_packet),
        let_in("the prefix beside that, IPv4", &v4("198.51.100.8", 30), &v4_packet),
        denied("a short denied prefix, IPv4", &v4("198.48.0.0", 13), &v4_packet),
        let_in(
            "an allowed host in a denied prefix, IPv4",
            &v4("198.48.0.0", 13).allow("198.51.100.7", 32),
            &v4_packet,
        ),
        denied(
            "a denied host in an allowed prefix, IPv4",
            &v4("198.51.100.7", 32).allow("198.51.100.0", 24),
            &v4_packet,
        ),
        denied(
            "a denied prefix between two allowed ones, IPv4",
            &v4("198.51.100.0", 29).allow("198.51.100.0", 24).allow("198.51.100.0", 30),
            &v4_packet,
        ),
        denied("a denied host, IPv6", &v6("2001:db8:f::7", 128), &v6_packet),
        let_in("a denied host beside it, IPv6", &v6("2001:db8:f::6", 128), &v6_packet),
        denied("a denied prefix longer than half, IPv6", &v6("2001:db8:f::", 96), &v6_packet),
        denied("a denied prefix as long as half, IPv6", &v6("2001:db8:f::", 64), &v6_packet),
        denied("a short denied prefix, IPv6", &v6("2001:c00::", 23), &v6_packet),
        let_in(
            "an allowed prefix in a denied one, IPv6",
            &v6("2001:c00::", 23).allow("2001:db8:f::", 48),
            &v6_packet,
        ),
        denied(
            "a denied host in an allowed prefix, IPv6",
            &v6("2001:db8:f::7", 128).allow("2001:db8::", 32),
            &v6_packet,
        ),
    ]
}

/// IPv4 hosts whose words belong in the bucket where that of the rows' client belongs.
fn neighbours() -> &'static [Ipv4Addr] {
    static FOUND: OnceLock<Vec<Ipv4Addr>> = OnceLock::new();
    fn bucket(address: Ipv4Addr) -> u32 {
        let low = u64::from(address.to_bits().to_be()) << 32 | 0xffff_0000;
        buckets(fingerprint(GUARD_KEY, 0, low, 0))[0]
    }
    FOUND.get_or_init(|| {
        let own = bucket(Ipv4Addr::new(198, 51, 100, 7));
        (0x0a00_0000..).map(Ipv4Addr::from_bits).filter(|other| bucket(*other) == own).take(WAYS).collect()
    })
}

fn full_buckets(now: u32) -> Vec<Row> {
    let full =
        neighbours().iter().fold(ipip(now), |world, other| world.deny(&other.to_string(), 32, FLAG_DENY_V4));
    let packet = tcp(ACK);
    vec![
        let_in("a host that none of a full bucket's is", &full.clone().deny("198.51.100.6", 32, 0), &packet),
        denied("a host that its bucket had no room for", &full.deny("198.51.100.7", 32, 0), &packet),
    ]
}
