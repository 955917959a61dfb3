//! Settled slots: the owner, by either way, over every pair of families and tags.

use lb_abi::{
    backend::LOCAL,
    counter::FlowEvent,
    hash,
    slot::{Phase, Slot},
    vip::FORWARD_L2DSR,
};

use super::{Row, Way, frame, gue, ipip, row, tcp, tcp_v6, udp, udp_v6};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN, seal},
    xdp::{
        row::edited,
        world::{FAR, FAR_V6, HASH_KEY, NEAR, NEAR_V6, OTHER, TABLE_LEN, World, address, flow},
    },
};

pub(super) fn rows(now: u32) -> Vec<Row> {
    [
        by_ipip(now),
        varied(now),
        by_gue(now),
        unsummed(now),
        by_layer2(now),
        tagged(now),
        lengths(now),
        to_itself(now),
    ]
    .concat()
}

fn by_ipip(now: u32) -> Vec<Row> {
    let near = ipip(now);
    let far = ipip(now).owner(FAR.id);
    let near_v6 = ipip(now).owner(NEAR_V6.id);
    let far_v6 = ipip(now).owner(FAR_V6.id);
    let sent = |name, world: &World, packet: &_, backend| {
        row(name, world, packet).forwarded(packet, backend, Way::Ipip)
    };
    let mut elsewhere = ipip(now);
    let slot = hash::slot(hash::flow(HASH_KEY, &flow(&tcp(ACK))), TABLE_LEN);
    elsewhere.slots[slot as usize] = Slot::settled(OTHER.id, 0, now);
    vec![
        sent("4in4: a SYN out the way it came, a new flow", &near, &tcp(SYN), &NEAR).new_flow(),
        sent("4in4: out the other interface", &far, &tcp(ACK), &FAR),
        sent("6in4", &near, &tcp_v6(ACK), &NEAR),
        sent("6in4: out the other interface", &far, &tcp_v6(SYN), &FAR).new_flow(),
        sent("4in6", &near_v6, &tcp(ACK), &NEAR_V6),
        sent("4in6: out the other interface", &far_v6, &tcp(SYN), &FAR_V6).new_flow(),
        sent("6in6", &near_v6, &tcp_v6(ACK), &NEAR_V6),
        sent("6in6: out the other interface", &far_v6, &tcp_v6(ACK), &FAR_V6),
        sent("UDP over IPv4", &near, &udp(), &NEAR),
        sent("UDP over IPv6", &near_v6, &udp_v6(), &NEAR_V6),
        sent("a FIN is like any other", &near, &tcp(FIN | ACK), &NEAR),
        sent("an RST is like any other", &near, &tcp(RST), &NEAR),
        sent("SYN-ACK is no new flow", &near, &tcp(SYN | ACK), &NEAR),
        sent("SYN with ECE and CWR is a SYN", &near, &tcp(SYN | 0xc0), &NEAR).new_flow(),
        sent("class is copied: 4in4", &near, &tcp(ACK).class(0xb9), &NEAR),
        sent("class is copied: 4in6", &near_v6, &tcp(ACK).class(0xb9), &NEAR_V6),
        sent("class is copied: 6in4", &near, &tcp_v6(ACK).class(0xba), &NEAR),
        sent("class is copied: 6in6", &near_v6, &tcp_v6(ACK).class(0xbb), &NEAR_V6),
        sent("the last hop but one", &near, &tcp(ACK).ttl(2), &NEAR),
        sent("the hash names the slot", &elsewhere, &tcp(ACK), &OTHER),
    ]
}

/// The outer source is the prefix's first address, and in its last bits the flow's hash.
fn varied(now: u32) -> Vec<Row> {
    let few = |world: World| world.varied(0xff, 0xffff);
    let sent = |name, world: &World, packet: &crate::packet::Packet, backend: &_, way| {
        let mut row = row(name, world, packet).forwarded(packet, backend, way);
        let hash = hash::flow(HASH_KEY, &flow(packet)).to_be_bytes();
        let is_ipip = matches!(way, Way::Ipip);
        // Behind 14 bytes of Ethernet: IPv4's source at 12, IPv6's at 8.
        match row.expected.frame[14] >> 4 {
            4 => row.expected.frame[26..30].copy_from_slice(&[198, 18, 0, if is_ipip { hash[3] } else { 0 }]),
            _ => {
                row.expected.frame[22..38].copy_from_slice(&address("2001:db8:9::"));
                let last = if is_ipip { &hash[2..] } else { &[0, 0] };
                row.expected.frame[36..38].copy_from_slice(last);
            }
        }
        seal(&mut row.expected.frame[14..]);
        row
    };
    let v6 = few(ipip(now)).owner(NEAR_V6.id);
    vec![
        sent("a varied source: 4in4", &few(ipip(now)), &tcp(ACK), &NEAR, Way::Ipip),
        sent("a varied source: 4in4, another flow", &few(ipip(now)), &udp(), &NEAR, Way::Ipip),
        sent("a varied source: 6in4", &few(ipip(now)), &tcp_v6(ACK), &NEAR, Way::Ipip),
        sent("a varied source: 4in6", &v6, &udp(), &NEAR_V6, Way::Ipip),
        sent("a varied source: 6in6", &v6, &tcp_v6(ACK), &NEAR_V6, Way::Ipip),
        sent("a varied source is not GUE's", &few(gue(now)), &tcp(ACK), &NEAR, Way::Gue),
    ]
}

fn by_gue(now: u32) -> Vec<Row> {
    let near = gue(now);
    let far = gue(now).owner(FAR.id);
    let near_v6 = gue(now).owner(NEAR_V6.id);
    let far_v6 = gue(now).owner(FAR_V6.id);
    let sent = |name, world: &World, packet: &_, backend| {
        row(name, world, packet).forwarded(packet, backend, Way::Gue)
    };
    let two = |packet: crate::packet::Packet| packet.tag(0x88a8, 200).tag(0x8100, 100);
    // IPv4 and UDP are 28 bytes, IPv6 and UDP 48.
    vec![
        sent("GUE: 4in4, a SYN", &near, &tcp(SYN), &NEAR).new_flow(),
        sent("GUE: 4in4, out the other interface", &far, &tcp(ACK), &FAR),
        sent("GUE: 6in4", &near, &tcp_v6(ACK), &NEAR),
        sent("GUE: 4in6, TCP", &near_v6, &tcp(ACK), &NEAR_V6),
        sent("GUE: 4in6, UDP, out the other interface", &far_v6, &udp(), &FAR_V6),
        sent("GUE: 4in6, an odd length", &near_v6, &udp().payload(33), &NEAR_V6),
        sent("GUE: 6in6, TCP", &near_v6, &tcp_v6(SYN), &NEAR_V6).new_flow(),
        sent("GUE: 6in6, UDP", &near_v6, &udp_v6(), &NEAR_V6),
        sent("GUE: class is copied: 6in6", &near_v6, &tcp_v6(ACK).class(0xbb), &NEAR_V6),
        sent("GUE: the last hop but one", &near_v6, &tcp(ACK).ttl(2), &NEAR_V6),
        sent("GUE: two tags stay", &near_v6, &two(tcp(ACK)), &NEAR_V6),
        sent("GUE: two tags go", &far_v6, &two(tcp_v6(ACK)), &FAR_V6),
        sent("GUE: just fits with 28 bytes more", &near, &udp().payload(1472 - 28), &NEAR),
        sent("GUE: just fits with 48 bytes more", &near_v6, &udp_v6().payload(1452 - 48), &NEAR_V6),
    ]
}

/// Packets whose own headers do not say what they sum to.
fn unsummed(now: u32) -> Vec<Row> {
    let near_v6 = gue(now).owner(NEAR_V6.id);
    let sent = |name, packet: crate::packet::Packet, edit: fn(&mut [u8])| {
        let mut row = frame(name, &near_v6, edited(&packet, |frame| edit(&mut frame[14..])));
        row = row.forwarded(&packet, &NEAR_V6, Way::GueUnsummed);
        edit(&mut row.expected.frame[14 + 48..]);
        row
    };
    vec![
        sent("GUE: 4in6, UDP without a checksum", udp(), |packet| packet[26..28].fill(0)),
        sent("GUE: 6in6, UDP without a checksum", udp_v6(), |packet| packet[46..48].fill(0)),
        sent("GUE: 4in6, UDP shorter than its packet", udp(), |packet| packet[25] -= 4),
    ]
}

fn by_layer2(now: u32) -> Vec<Row> {
    let world = |owner| World::new(now).forward(FORWARD_L2DSR).owner(owner);
    let sent = |name, owner, packet: &_, backend| {
        row(name, &world(owner), packet).forwarded(packet, backend, Way::Layer2)
    };
    vec![
        sent("layer 2: IPv4", NEAR.id, &tcp(SYN), &NEAR).new_flow(),
        sent("layer 2: IPv4, the other interface", FAR.id, &tcp(ACK), &FAR),
        sent("layer 2: IPv6", NEAR_V6.id, &tcp_v6(ACK), &NEAR_V6),
        sent("layer 2: IPv6, the other interface", FAR_V6.id, &udp_v6(), &FAR_V6),
        sent("layer 2: UDP", NEAR.id, &udp(), &NEAR),
        sent("layer 2: a tag stays", NEAR.id, &udp().tag(0x8100, 7), &NEAR),
        sent("layer 2: two tags go", FAR.id, &udp().tag(0x88a8, 9).tag(0x8100, 7), &FAR),
        sent("layer 2: IPv4 VIP, backend known by IPv6", NEAR_V6.id, &udp(), &NEAR_V6),
    ]
}

fn tagged(now: u32) -> Vec<Row> {
    let near = ipip(now);
    let far = ipip(now).owner(FAR.id);
    let near_v6 = ipip(now).owner(NEAR_V6.id);
    let far_v6 = ipip(now).owner(FAR_V6.id);
    let sent = |name, world: &World, packet: &_, backend| {
        row(name, world, packet).forwarded(packet, backend, Way::Ipip)
    };
    let one = |packet: crate::packet::Packet| packet.tag(0x8100, 100);
    let two = |packet: crate::packet::Packet| packet.tag(0x88a8, 200).tag(0x8100, 100);
    vec![
        sent("one tag stays", &near, &one(tcp(ACK)), &NEAR),
        sent("two tags stay", &near, &two(tcp(ACK)), &NEAR),
        sent("one tag stays, IPv6", &near_v6, &one(tcp_v6(ACK)), &NEAR_V6),
        sent("two tags stay, 4in6", &near_v6, &two(tcp(ACK)), &NEAR_V6),
        sent("one tag goes", &far, &one(tcp(ACK)), &FAR),
        sent("two tags go", &far, &two(tcp_v6(ACK)), &FAR),
        sent("two tags go, 6in6", &far_v6, &two(tcp_v6(ACK)), &FAR_V6),
    ]
}

fn lengths(now: u32) -> Vec<Row> {
    let near = ipip(now);
    let near_v6 = ipip(now).owner(NEAR_V6.id);
    // IPv4 and UDP are 28 bytes, IPv6 and UDP 48.
    let fits_v4 = udp().payload(1480 - 28);
    let fits_v6 = udp_v6().payload(1460 - 48);
    let padded = udp().payload(2);
    let pad = |frame: &mut Vec<u8>| frame.extend([0; 16]);
    let mut trailer = super::frame("Ethernet padding stays behind the packet", &near, edited(&padded, pad))
        .forwarded(&padded, &NEAR, Way::Ipip);
    pad(&mut trailer.expected.frame);
    vec![
        row("just fits with 20 bytes more", &near, &fits_v4).forwarded(&fits_v4, &NEAR, Way::Ipip),
        row("just fits with 40 bytes more", &near_v6, &fits_v6).forwarded(&fits_v6, &NEAR_V6, Way::Ipip),
        trailer,
    ]
}

/// A backend that is this box itself: the packet passes as it came, and counts as sent there.
fn to_itself(now: u32) -> Vec<Row> {
    let local = |mut world: World| {
        world
            .backends
            .iter_mut()
            .filter(|(id, _)| *id == NEAR.id)
            .for_each(|(_, entry)| entry.flags |= LOCAL);
        world
    };
    let passed = |name, world: &World, packet: &Packet| row(name, world, packet).kept_here(&NEAR);
    let opened = local(ipip(now)).moving(NEAR.id, OTHER.id, Phase::Open, 10);
    vec![
        passed("a backend that is the box itself", &local(ipip(now)), &tcp(ACK)),
        passed("it, by layer 2", &local(ipip(now).forward(FORWARD_L2DSR)), &tcp_v6(ACK)),
        passed("it, with the last hop", &local(ipip(now)), &tcp(ACK).ttl(1)),
        passed("a SYN to it is a new flow", &local(ipip(now)), &tcp(SYN)).new_flow(),
        passed("a SYN to it is recorded while its slot moves", &opened, &tcp(SYN))
            .new_flow()
            .events(&[FlowEvent::Recorded])
            .leaves(&tcp(SYN), &NEAR, 0),
    ]
}
