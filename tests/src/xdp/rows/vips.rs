//! Which VIP a packet is for.

use lb_abi::{
    be::Be16,
    directory::{WAYS, bucket_of},
    reason::Reason,
    vip::{ECHO, FORWARD_IPIP, VipKey},
};

use super::{Row, Way, arriving, frame, ipip, row};
use crate::{
    packet::{ACK, Packet},
    xdp::{
        row::edited,
        world::{ANY, NEAR, World, address},
    },
};

pub(super) fn rows(now: u32) -> Vec<Row> {
    [full_buckets(now), ports(now), prefixes(now)].concat()
}

fn to(port: u16) -> Packet {
    arriving(Packet::tcp("198.51.100.7:40000", &format!("192.0.2.1:{port}"), ACK))
}

/// Addresses and TCP ports that share a bucket of the directory, the first VIP's among them as the first.
fn neighbours(count: usize) -> Vec<(String, u16)> {
    let bucket = |address: &str, port| {
        bucket_of(&VipKey {
            address: self::address(address),
            port: Be16::new(port),
            protocol: 6,
            host_bits: 0,
        })
    };
    let full = bucket("192.0.2.1", 80);
    let addresses = (1..255).map(|last| format!("192.0.2.{last}"));
    let all = addresses.flat_map(|address| (1..u16::MAX).map(move |port| (address.clone(), port)));
    let others = all.filter(|(address, port)| bucket(address, *port) == full);
    let first = ("192.0.2.1".to_owned(), 80);
    [first.clone()].into_iter().chain(others.filter(|key| *key != first)).take(count).collect()
}

fn full_buckets(now: u32) -> Vec<Row> {
    // One more than fits, and one that is in no map.
    let keys = neighbours(WAYS + 2);
    let packet = |at: usize| {
        let (address, port) = &keys[at];
        arriving(Packet::tcp("198.51.100.7:40000", &format!("{address}:{port}"), ACK))
    };
    let with = |count: usize| {
        keys[1..count]
            .iter()
            .fold(ipip(now), |world, (address, port)| world.vip(address, *port, 6, FORWARD_IPIP))
    };
    let (whole, full) = (with(WAYS), with(WAYS + 1));
    let sent = |name, world, at| row(name, world, &packet(at)).forwarded(&packet(at), &NEAR, Way::Ipip);
    vec![
        sent("the first key of a whole bucket", &whole, 0),
        sent("the last key of a whole bucket", &whole, WAYS - 1),
        row("a whole bucket, and no key of it", &whole, &packet(WAYS)),
        sent("the first key of a bucket that is too full", &full, 0),
        sent("a key that the bucket had no room for", &full, WAYS),
        row("a bucket that is too full, and no key of it", &full, &packet(WAYS + 1)),
    ]
}

/// Ports of one address: a port of its own before a range before any port.
fn ports(now: u32) -> Vec<Row> {
    let sent = |name, world: &World, port| row(name, world, &to(port)).forwarded(&to(port), &NEAR, Way::Ipip);
    let is_none = |name, world: &World, port| row(name, world, &to(port));
    let only = |ports| bare(now).wide("192.0.2.1", 0, ports, 6, FORWARD_IPIP);
    let range = only([8000, 8100]);
    let ranges = range.clone().wide("192.0.2.1", 0, [9000, 9001], 6, FORWARD_IPIP);
    let any = only(ANY);
    // What is forwarded by none of them passes, so that it shows which one was found.
    let inside = range.clone().vip("192.0.2.1", 8050, 6, 0);
    let around = only(ANY).wide("192.0.2.1", 0, [8000, 8100], 6, 0);
    let mut unlooked = range.clone();
    unlooked.meta.flags = 0;
    let udp = arriving(Packet::udp("198.51.100.7:40000", "192.0.2.1:8050"));
    vec![
        sent("the first port of a range", &range, 8000),
        sent("a port inside a range", &range, 8050),
        sent("the last port of a range", &range, 8100),
        is_none("the port before a range", &range, 7999),
        is_none("the port behind a range", &range, 8101),
        row("a range is of its protocol", &range, &udp),
        sent("another range of the same address", &ranges, 9001),
        is_none("a port between two ranges", &ranges, 8500),
        sent("any port", &any, 1),
        sent("any port, the highest", &any, 65_535),
        row("any port of another protocol", &any, &udp),
        is_none("a port of its own before a range", &inside, 8050),
        sent("beside a port of its own, the range", &inside, 8051),
        is_none("a range before any port", &around, 8050),
        sent("outside the range, any port", &around, 8101),
        is_none("a range is not looked for without its flag", &unlooked, 8050),
    ]
}

/// Prefixes as addresses: the longest counts, whatever its ports, if it has the packet's at all.
fn prefixes(now: u32) -> Vec<Row> {
    let tcp = |address: &str| arriving(Packet::tcp("198.51.100.7:40000", &format!("{address}:80"), ACK));
    let tcp_v6 =
        |address: &str| arriving(Packet::tcp("[2001:db8:f::7]:40000", &format!("[{address}]:80"), ACK));
    let sent =
        |name, world: &World, packet: &Packet| row(name, world, packet).forwarded(packet, &NEAR, Way::Ipip);
    let with = |vip, host_bits, ports, flags| bare(now).wide(vip, host_bits, ports, 6, flags);
    let v4 = with("203.0.113.0", 8, [80, 80], FORWARD_IPIP);
    let any = with("203.0.113.0", 8, ANY, FORWARD_IPIP);
    let range = with("203.0.113.0", 8, [70, 90], FORWARD_IPIP);
    let v6 = with("2001:db8:5::", 80, [80, 80], FORWARD_IPIP);
    let everything = with("::", 128, [80, 80], FORWARD_IPIP);
    let nested = any.clone().wide("203.0.113.64", 6, ANY, 6, ECHO);
    let shorter = any.clone().wide("203.0.113.64", 6, [81, 81], 6, 0);
    let exact = any.clone().vip("203.0.113.7", 80, 6, 0);
    let echo = v4.clone().wide("203.0.113.0", 8, [0, 0], 1, ECHO);
    let ping = arriving(Packet::echo_request("198.51.100.7:0", "203.0.113.9:0"));
    let fragment = edited(&tcp("203.0.113.9"), |frame| frame[20] = 0x20);
    vec![
        sent("an address of a prefix, IPv4", &v4, &tcp("203.0.113.7")),
        sent("the last address of a prefix, IPv4", &v4, &tcp("203.0.113.255")),
        row("the address behind a prefix, IPv4", &v4, &tcp("203.0.114.0")),
        sent("an address of a prefix, IPv6", &v6, &tcp_v6("2001:db8:5:1::1")),
        row("the address behind a prefix, IPv6", &v6, &tcp_v6("2001:db8:6::")),
        sent("every address", &everything, &tcp_v6("2001:db8:6::")),
        row("every IPv6 address is no IPv4 address", &everything, &tcp("203.0.113.7")),
        sent("any port of a prefix", &any, &tcp("203.0.113.7")),
        sent("a range of a prefix", &range, &tcp("203.0.113.7")),
        row("the longer of two prefixes", &nested, &tcp("203.0.113.65")),
        sent("the shorter one, outside the longer", &nested, &tcp("203.0.113.63")),
        sent("the shorter one, where the longer has not the port", &shorter, &tcp("203.0.113.65")),
        row("an address before its prefix", &exact, &tcp("203.0.113.7")),
        row("echo to a prefix", &echo, &ping).transmitted(Reason::Echo, ping.clone().reply().build()),
        row("no echo to a prefix", &v4, &ping),
        frame("a fragment to a prefix", &echo, fragment.clone()).dropped(Reason::Fragment),
        frame("a fragment to no prefix", &v4, fragment),
    ]
}

/// A world of no VIPs but what the first addresses have for ICMP.
fn bare(now: u32) -> World {
    World::new(now)
}
