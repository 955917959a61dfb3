//! What is dropped, each by its name, and what passes because it is not ours.

use lb_abi::{
    meta::{FLAG_DENY_V4, FLAG_DENY_V6},
    reason::Reason,
    slot::Slot,
    vip::FORWARD_L2DSR,
};

use super::{Row, Way::Ipip, arriving, frame, gue, ipip, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN, seal},
    xdp::{
        row::edited,
        world::{DEAD, LOST, NEAR, NEAR_V6, NOBODY, ROUTER_MAC, SILENT, TABLE_LEN, World},
    },
};

pub(super) fn rows(now: u32) -> Vec<Row> {
    [
        no_way(now),
        malformed_ip(now),
        malformed_transport(now),
        fragments_and_options(now),
        denied(now),
        foreign_maps(now),
        not_ours(now),
    ]
    .concat()
}

fn no_way(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let owned = |owner| ipip(now).owner(owner);
    let mut homeless = ipip(now);
    homeless.meta.outer_v4 = [0; 4];
    homeless.meta.outer_v6 = [0; 16];
    let homeless_v6 = homeless.clone().owner(NEAR_V6.id);
    let mut beyond = ipip(now);
    beyond.vips.iter_mut().for_each(|(_, entry)| entry.table = TABLE_LEN);
    let layer2 = World::new(now).forward(FORWARD_L2DSR);
    let mut cramped = row("no room for the outer header", &world, &tcp(ACK)).dropped(Reason::EncapHeadroom);
    cramped.headroom = 19;
    vec![
        row("the slot names nobody", &world.clone().slots(Slot(0)), &tcp(SYN)).dropped(Reason::NoBackend),
        row("the slot names a stranger", &owned(NOBODY), &tcp(SYN)).dropped(Reason::NoBackend),
        row("the table lies beyond the array", &beyond, &tcp(SYN)).dropped(Reason::NoBackend),
        row("the owner is down", &owned(DEAD.id), &tcp(SYN)).dropped(Reason::BackendDown),
        row("no route to the backend", &owned(LOST.id), &tcp(SYN)).dropped(Reason::NoRoute),
        row("no outer source, IPv4", &homeless, &tcp(SYN)).dropped(Reason::NoRoute),
        row("no outer source, IPv6", &homeless_v6, &tcp(SYN)).dropped(Reason::NoRoute),
        row("the next hop is not known yet", &owned(SILENT.id), &tcp(SYN)).dropped(Reason::NoNeighbour),
        row("too long with 20 bytes more", &world, &udp().payload(1481 - 28)).dropped(Reason::Mtu),
        row("too long with 28 bytes more", &gue(now), &udp().payload(1473 - 28)).dropped(Reason::Mtu),
        row("too long by layer 2", &layer2, &udp().payload(1501 - 28)).dropped(Reason::Mtu),
        row("its last hop, IPv4", &world, &tcp(ACK).ttl(1)).dropped(Reason::Ttl),
        row("its last hop, IPv6", &world, &tcp_v6(ACK).ttl(1)).dropped(Reason::Ttl),
        row("no hop left", &world, &tcp(ACK).ttl(0)).dropped(Reason::Ttl),
        cramped.host_only("the kernel's test runs always have 256 bytes of headroom"),
    ]
}

fn malformed_ip(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let broken = |name, packet: &Packet, edit: fn(&mut Vec<u8>)| {
        frame(name, &world, edited(packet, edit)).dropped(Reason::MalformedIp)
    };
    let tagged = udp().tag(0x8100, 1).tag(0x8100, 2);
    let cut = |name, len| {
        frame(name, &world, edited(&tagged, |frame| frame.truncate(len))).dropped(Reason::MalformedEthernet)
    };
    vec![
        cut("cut inside the Ethernet header", 13)
            .host_only("the kernel's test runs take no less than 14 bytes"),
        cut("cut inside the first tag", 15),
        cut("cut inside the second tag", 20),
        broken("cut inside the IPv4 header", &tcp(ACK), |frame| frame.truncate(14 + 19)),
        broken("cut inside the IPv6 header", &tcp_v6(ACK), |frame| frame.truncate(14 + 39)),
        broken("IPv4 of version 6", &tcp(ACK), |frame| frame[14] = 0x65),
        broken("IPv6 of version 4", &tcp_v6(ACK), |frame| frame[14] = 0x45),
        broken("IPv4 header of 16 bytes", &tcp(ACK), |frame| frame[14] = 0x44),
        broken("IPv4 longer than its frame", &tcp(ACK), |frame| frame[16..18].copy_from_slice(&[2, 0])),
        broken("IPv4 shorter than its header", &tcp(ACK), |frame| frame[16..18].copy_from_slice(&[0, 19])),
        broken("IPv6 longer than its frame", &tcp_v6(ACK), |frame| frame[18..20].copy_from_slice(&[2, 0])),
        broken("IPv6 from a mapped address", &tcp_v6(ACK), |frame| {
            frame[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        }),
    ]
}

fn malformed_transport(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let flags = |name, flags| row(name, &world, &tcp(flags)).dropped(Reason::MalformedTcp);
    let broken = |name, packet: &Packet, reason, edit: fn(&mut Vec<u8>)| {
        frame(name, &world, edited(packet, edit)).dropped(reason)
    };
    let elsewhere = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.2:80", SYN | FIN));
    let shorten = |frame: &mut Vec<u8>| {
        frame.truncate(34 + 12);
        frame[16..18].copy_from_slice(&[0, 32]);
        seal(&mut frame[14..34]);
    };
    vec![
        flags("no flags", 0),
        flags("SYN and FIN", SYN | FIN),
        flags("SYN and RST", SYN | RST),
        flags("FIN and RST", FIN | RST | ACK),
        flags("FIN alone", FIN),
        flags("FIN, PSH and URG", 0x29),
        flags("all flags", 0xff),
        row("impossible flags, IPv6", &world, &tcp_v6(SYN | FIN)).dropped(Reason::MalformedTcp),
        row("impossible flags to another address", &world, &elsewhere),
        broken("TCP header of 16 bytes", &tcp(ACK), Reason::MalformedTcp, |frame| frame[46] = 0x40),
        broken("TCP header longer than its packet", &tcp(ACK), Reason::MalformedTcp, |frame| {
            frame[46] = 0xf0
        }),
        broken("TCP cut inside its header", &tcp(ACK), Reason::MalformedTcp, shorten),
        frame("TCP cut short, to another address", &world, edited(&elsewhere, shorten)),
        broken("UDP shorter than its header", &udp(), Reason::MalformedUdp, |frame| frame[39] = 7),
        broken("UDP longer than its packet", &udp(), Reason::MalformedUdp, |frame| frame[38] = 1),
        broken("UDP cut inside its header", &udp(), Reason::MalformedUdp, |frame| {
            frame.truncate(34 + 6);
            frame[16..18].copy_from_slice(&[0, 26]);
            seal(&mut frame[14..34]);
        }),
    ]
}

fn fragments_and_options(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let elsewhere = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.2:80", ACK));
    let first = |frame: &mut Vec<u8>| {
        frame[20] = 0x20;
        seal(&mut frame[14..34]);
    };
    let later = |frame: &mut Vec<u8>| {
        frame[21] = 0x10;
        seal(&mut frame[14..34]);
    };
    let options = |frame: &mut Vec<u8>| {
        // Router alert (RFC 2113) between header and TCP.
        frame.splice(34..34, [0x94, 4, 0, 0]);
        frame[14] = 0x46;
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        seal(&mut frame[14..38]);
    };
    let extended = |kind: u8| {
        edited(&tcp_v6(ACK), |frame| {
            frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
            frame[20] = kind;
            let payload = (frame.len() - 54) as u16;
            frame[18..20].copy_from_slice(&payload.to_be_bytes());
        })
    };
    vec![
        frame("a first fragment", &world, edited(&tcp(ACK), first)).dropped(Reason::Fragment),
        frame("a later fragment", &world, edited(&tcp(ACK), later)).dropped(Reason::Fragment),
        frame("a fragment, IPv6", &world, extended(44)).dropped(Reason::Fragment),
        frame("a fragment to another address", &world, edited(&elsewhere, later)),
        frame("IPv4 options", &world, edited(&tcp(ACK), options)).dropped(Reason::IpOptions),
        frame("IPv6 hop-by-hop options", &world, extended(0)).dropped(Reason::IpOptions),
        frame("IPv6 destination options", &world, extended(60)).dropped(Reason::IpOptions),
        frame("IPv6 routing header", &world, extended(43)).dropped(Reason::IpOptions),
        frame("IPv4 options to another address", &world, edited(&elsewhere, options)),
    ]
}

fn denied(now: u32) -> Vec<Row> {
    let v4 = ipip(now).deny("198.51.100.0", 24, FLAG_DENY_V4);
    let v6 = ipip(now).deny("2001:db8:f::", 48, FLAG_DENY_V6);
    let unlooked = ipip(now).deny("198.51.100.0", 24, FLAG_DENY_V6);
    let other = ipip(now).deny("198.51.100.8", 32, FLAG_DENY_V4);
    let elsewhere = arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.2:80", ACK));
    vec![
        row("denied, IPv4", &v4, &tcp(SYN)).dropped(Reason::Denied),
        row("denied, IPv6", &v6, &tcp_v6(SYN)).dropped(Reason::Denied),
        row("denied, whomever it is for", &v4, &elsewhere).dropped(Reason::Denied),
        row("denied before it is judged otherwise", &v4, &tcp(SYN | FIN)).dropped(Reason::Denied),
        row("the list is not looked at without its flag", &unlooked, &tcp(ACK)).forwarded(
            &tcp(ACK),
            &NEAR,
            Ipip,
        ),
        row("another source is not denied, IPv4", &other, &tcp(ACK)).forwarded(&tcp(ACK), &NEAR, Ipip),
        row(
            "another source is not denied, IPv6",
            &v6,
            &arriving(Packet::tcp("[2001:db8:e::7]:1", "[2001:db8::1]:81", ACK)),
        ),
    ]
}

fn foreign_maps(now: u32) -> Vec<Row> {
    let abi = |abi| {
        let mut world = ipip(now).deny("198.51.100.0", 24, FLAG_DENY_V4);
        world.meta.abi = abi;
        world
    };
    vec![
        row("maps that nobody wrote", &abi(0), &tcp(SYN)).passed(Reason::Abi),
        row("maps of another version", &abi(lb_abi::ABI_VERSION + 1), &tcp(SYN)).passed(Reason::Abi),
    ]
}

fn not_ours(now: u32) -> Vec<Row> {
    let world = ipip(now);
    let to =
        |name, destination| row(name, &world, &arriving(Packet::tcp("198.51.100.7:40000", destination, SYN)));
    let mut arp = udp().build();
    arp[12..14].copy_from_slice(&[8, 6]);
    let inner = tcp(ACK).inside("198.51.100.7", "192.0.2.1", 0);
    vec![
        to("another address", "192.0.2.2:80"),
        to("another port", "192.0.2.1:81"),
        row("another protocol", &world, &arriving(Packet::udp("198.51.100.7:40000", "192.0.2.1:80"))),
        row("a tunnel to a VIP", &world, &inner),
        row("a key that forwards nothing", &ipip(now).vip("192.0.2.1", 80, 6, 0), &tcp(SYN)),
        row("a group address", &world, &tcp(SYN).macs([1, 0, 0x5e, 0, 0, 1], ROUTER_MAC)),
        row("three tags", &world, &tcp(SYN).tag(0x88a8, 1).tag(0x8100, 2).tag(0x8100, 3)),
        frame("ARP", &world, arp),
    ]
}
