//! Ways out that the routing table does not name as XDP needs them: VLAN devices, bonds, a gateway.
//!
//! The interfaces are the two there are: the table's answer "by `lb1`" is taken for one by a VLAN device, and `lb0`
//! for a port of bond `lb1`.

use lb_abi::{link::LinkEntry, reason::Reason, vip::FORWARD_L2DSR};
use lb_ebpf::verdict::Verdict;

use super::{Row, Way, ipip, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, Mac, Packet},
    xdp::{
        row::Result,
        world::{Backend, FAR, FAR_V6, LB0, LB0_MAC, LB1, LB1_MAC, LOST, NEAR, SILENT, World},
    },
};

const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 0xfd];
const ONE: [u32; 2] = [u32::from_ne_bytes([0x81, 0x00, 0, 7]), 0];
const TWO: [u32; 2] = [u32::from_ne_bytes([0x88, 0xa8, 0, 9]), ONE[0]];

pub(super) fn rows(now: u32) -> Vec<Row> {
    [vlans(now), bonds(now), gateways(now)].concat()
}

fn vlan(lower: u32, tags: [u32; 2]) -> LinkEntry {
    LinkEntry { lower, tags, ..LinkEntry::default() }
}

fn one(packet: Packet) -> Packet {
    packet.untagged().tag(0x8100, 7)
}

fn two(packet: Packet) -> Packet {
    packet.untagged().tag(0x88a8, 9).tag(0x8100, 7)
}

fn mac(backend: &Backend) -> Mac {
    backend.neighbour.map_or([0; 6], |(mac, _)| mac)
}

/// By IPIP to a backend, that is behind `lb1`; sent out by `verdict` with these tags.
fn sent(
    name: &'static str,
    world: &World,
    packet: &Packet,
    backend: &Backend,
    verdict: Verdict,
    tags: fn(Packet) -> Packet,
) -> Row {
    row(name, &world.clone().owner(backend.id), packet).forwarded(packet, backend, Way::Ipip).by(
        verdict,
        packet,
        |packet| tags(packet.macs(mac(backend), LB1_MAC)),
    )
}

fn vlans(now: u32) -> Vec<Row> {
    let to = |lower, tags| ipip(now).link(LB1, vlan(lower, tags));
    let redirect = Verdict::Redirect { interface: LB1 };
    let tagged = tcp(ACK).tag(0x8100, 100);
    let twice = tcp_v6(ACK).tag(0x88a8, 200).tag(0x8100, 100);
    let layer2 = World::new(now).forward(FORWARD_L2DSR).owner(FAR.id).link(LB1, vlan(LB0, ONE));
    let mut by_layer2 = row("VLAN: layer 2", &layer2, &udp()).forwarded(&udp(), &FAR, Way::Layer2);
    by_layer2.expected = Result {
        verdict: Verdict::Transmit,
        frame: one(udp().aged().macs(mac(&FAR), LB1_MAC)).build(),
        ..by_layer2.expected
    };
    vec![
        sent("VLAN: a tag is set", &to(LB0, ONE), &tcp(ACK), &FAR, Verdict::Transmit, one),
        sent("VLAN: two tags are set", &to(LB0, TWO), &tcp(ACK), &FAR, Verdict::Transmit, two),
        sent("VLAN: a tag becomes another", &to(LB0, ONE), &tagged, &FAR, Verdict::Transmit, one),
        sent("VLAN: a tag becomes two", &to(LB0, TWO), &tagged, &FAR_V6, Verdict::Transmit, two),
        sent("VLAN: two tags become one", &to(LB0, ONE), &twice, &FAR, Verdict::Transmit, one),
        sent("VLAN: out the other interface", &to(LB1, ONE), &twice, &FAR_V6, redirect, one),
        by_layer2,
    ]
}

fn bonds(now: u32) -> Vec<Row> {
    let port = |entry| ipip(now).link(LB0, LinkEntry { upper: LB1, ..entry });
    let bond = port(LinkEntry::default());
    let keep = |packet: Packet| packet;
    let tagged = tcp(ACK).tag(0x8100, 100);
    // The table says "by lb0", which stands here for a VLAN device over the bond that lb0 is a port of.
    let over = port(vlan(LB1, ONE)).owner(NEAR.id);
    let over = row("bond: out by a VLAN device over it", &over, &tagged)
        .forwarded(&tagged, &NEAR, Way::Ipip)
        .by(Verdict::Transmit, &tagged, |packet| one(packet.macs(mac(&NEAR), LB0_MAC)));
    vec![
        sent("bond: out by the port it came in by", &bond, &tcp(ACK), &FAR, Verdict::Transmit, keep),
        sent("bond: tags stay", &bond, &tagged, &FAR_V6, Verdict::Transmit, keep),
        over,
    ]
}

fn gateways(now: u32) -> Vec<Row> {
    let bytes = [GATEWAY_MAC, LB0_MAC].concat();
    let gateway = std::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]));
    let by = |gateway_mtu| LinkEntry { gateway, gateway_mtu, ..LinkEntry::default() };
    let world = ipip(now).link(LB0, by(1400));
    let layer2 = World::new(now).forward(FORWARD_L2DSR).link(LB0, by(1400));
    let sent = |name, packet: &Packet, backend: &Backend| {
        // As to a neighbour, and then to the gateway instead.
        let near = Backend { neighbour: NEAR.neighbour, ..*backend };
        row(name, &world.clone().owner(backend.id), packet).forwarded(packet, &near, Way::Ipip).by(
            Verdict::Transmit,
            packet,
            |packet| packet.macs(GATEWAY_MAC, LB0_MAC),
        )
    };
    let long = udp().payload(1381 - 28);
    vec![
        sent("gateway: no route", &tcp(ACK), &LOST),
        sent("gateway: no neighbour", &tcp_v6(ACK), &SILENT),
        sent("gateway: tags stay", &tcp(ACK).tag(0x8100, 5), &LOST),
        sent("gateway: just fits", &udp().payload(1380 - 28), &LOST),
        row("gateway: too long for it", &world.clone().owner(LOST.id), &long).dropped(Reason::Mtu),
        row("gateway: the table comes first", &world, &tcp(ACK)).forwarded(&tcp(ACK), &NEAR, Way::Ipip),
        row("gateway: not by layer 2", &layer2.clone().owner(LOST.id), &udp()).dropped(Reason::NoRoute),
        row("gateway: not by layer 2, no neighbour", &layer2.owner(SILENT.id), &udp())
            .dropped(Reason::NoNeighbour),
    ]
}
