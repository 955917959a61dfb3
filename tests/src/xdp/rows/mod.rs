//! The rows.
#![expect(clippy::expect_used, reason = "a row that cannot be written is a failed test")]

use lb_abi::{
    counter::FlowEvent,
    flow::FlowKey,
    hash,
    quic::QuicEvent,
    reason::Reason,
    vip::{DECAP, FORWARD_GUE, FORWARD_IPIP},
};
use lb_ebpf::verdict::Verdict;

use crate::{
    packet::{Packet, SYN},
    xdp::{
        row::{Left, Moved, NatLeft, Place, Program, Result, Row},
        world::{
            BACKENDS, Backend, FAR, FAR_V6, HASH_KEY, LB0, LB0_MAC, LB1, LB1_MAC, NEAR, NEAR_V6, OUTER_V4,
            OUTER_V6, ROUTER_MAC, VIP, World, flow,
        },
    },
};

mod about;
mod answer;
mod big;
mod cookie;
mod decap;
mod forward;
mod group;
mod guard;
mod limit;
mod links;
mod moving;
mod nat;
mod quic;
mod refuse;
mod source;
mod spread;
mod vips;

/// All rows, for a world that is at tick `now`.
pub fn all(now: u32) -> Vec<Row> {
    [
        forward::rows(now),
        vips::rows(now),
        moving::rows(now),
        group::rows(now),
        quic::rows(now),
        source::rows(now),
        limit::rows(now),
        guard::rows(now),
        refuse::rows(now),
        answer::rows(now),
        about::rows(now),
        big::rows(now),
        links::rows(now),
        decap::rows(now),
        nat::rows(now),
        cookie::rows(now),
        spread::rows(now),
    ]
    .concat()
}

/// Worlds in which a frame is encapsulated for a backend that decapsulates: the world, the frame in, and the
/// frame that the backend's kernel should get.
pub fn round_trips(now: u32) -> Vec<(World, Vec<u8>, Vec<u8>)> {
    let mut trips = Vec::new();
    for backend in [NEAR, FAR, NEAR_V6, FAR_V6] {
        let ways = [FORWARD_IPIP, FORWARD_GUE];
        for (packet, way) in [tcp(SYN), udp_v6()].iter().flat_map(|packet| ways.map(|way| (packet, way))) {
            let world = World::new(now)
                .forward(way)
                .owner(backend.id)
                .vip(backend.address, 0, 4, DECAP)
                .vip(backend.address, 0, 41, DECAP)
                .vip(backend.address, 6080, 17, DECAP);
            let (mac, interface) = backend.neighbour.expect("a backend that can be reached");
            let own = if interface == LB0 { LB0_MAC } else { LB1_MAC };
            trips.push((world, packet.build(), packet.clone().aged().macs(mac, own).build()));
        }
    }
    trips
}

/// Packets of every length that is a little too long; more than a core tells of in a tick.
pub fn too_big(now: u32) -> Vec<Row> {
    big::of_every_length(now)
}

/// Rows of long frames, for an MTU of 9000.
pub fn jumbo(now: u32) -> Vec<Row> {
    let v6 = gue(now).owner(NEAR_V6.id);
    let long = udp_v6().payload(8952 - 48);
    let longer = udp_v6().payload(8953 - 48);
    let cut = |packet: &Packet, bytes: usize| {
        let mut frame = packet.build();
        frame.truncate(frame.len() - bytes);
        frame
    };
    let rows = vec![
        row("jumbo: GUE, just fits", &v6, &long).forwarded(&long, &NEAR_V6, Way::Gue),
        row("jumbo: IPIP", &ipip(now), &long).forwarded(&long, &NEAR, Way::Ipip),
        row("jumbo: too big", &v6, &longer).transmitted(Reason::TooBig, big::error(&longer, 8952).build()),
        frame("jumbo: a byte short", &v6, cut(&long, 1)).dropped(Reason::MalformedIp),
    ];
    [rows, nat::jumbo(now)].concat()
}

/// How a packet gets to its backend.
#[derive(Clone, Copy)]
enum Way {
    Ipip,
    Gue,
    /// As `Gue`, and over IPv6 without a checksum.
    GueUnsummed,
    Layer2,
}

/// A frame that passes untouched and is not ours; the methods below say otherwise.
fn frame(name: &'static str, world: &World, frame: Vec<u8>) -> Row {
    let records = world.flows.iter().map(|(key, record)| Left {
        key: *key,
        backend: record.backend,
        epoch: record.epoch,
        state: record.state,
        fresh: false,
    });
    let expected = Result {
        verdict: Verdict::Pass,
        frame: frame.clone(),
        reasons: vec![Reason::NotOurs],
        events: Vec::new(),
        quic: Vec::new(),
        moved: Vec::new(),
        records: records.collect(),
        allowances: world.allowances.iter().map(|(source, allowance)| (*source, allowance.level)).collect(),
        nat: NatLeft {
            opening: world.nat.opening.clone(),
            flows: world.nat.flows.clone(),
            events: Vec::new(),
        }
        .normal(world.now),
    };
    Row {
        name,
        program: Program::Ingress,
        place: Place::Both,
        headroom: 128,
        world: world.clone(),
        frame,
        expected,
    }
}

fn row(name: &'static str, world: &World, packet: &Packet) -> Row {
    frame(name, world, packet.build())
}

impl Row {
    fn passed(mut self, reason: Reason) -> Self {
        self.expected.reasons = vec![reason];
        self
    }

    fn dropped(mut self, reason: Reason) -> Self {
        self.expected.verdict = Verdict::Drop;
        self.passed(reason)
    }

    fn transmitted(mut self, reason: Reason, frame: Vec<u8>) -> Self {
        self.expected.verdict = Verdict::Transmit;
        self.expected.frame = frame;
        self.passed(reason)
    }

    /// Forwarded to a backend, one hop older; tags stay only on the interface the packet came in by.
    fn forwarded(self, packet: &Packet, backend: &Backend, way: Way) -> Self {
        self.forwarded_as(&flow(packet), packet, backend, way)
    }

    /// The same for a packet that goes the way of a flow.
    fn forwarded_as(mut self, flow: &FlowKey, packet: &Packet, backend: &Backend, way: Way) -> Self {
        let (mac, interface) = backend.neighbour.expect("a backend that can be reached");
        let label = hash::flow(HASH_KEY, flow);
        let packet = packet.clone().aged();
        let packet = match way {
            Way::Layer2 => packet,
            _ if backend.address.contains(':') => packet.inside(OUTER_V6, backend.address, label),
            _ => packet.inside(OUTER_V4, backend.address, label),
        };
        let packet = match way {
            Way::Ipip | Way::Layer2 => packet,
            Way::Gue => packet.over_udp(0xc000 | label as u16),
            Way::GueUnsummed => packet.over_udp(0xc000 | label as u16).unsummed(),
        };
        let packet =
            if interface == LB0 { packet.macs(mac, LB0_MAC) } else { packet.macs(mac, LB1_MAC).untagged() };
        self.expected.verdict =
            if interface == LB0 { Verdict::Transmit } else { Verdict::Redirect { interface: LB1 } };
        self.expected.frame = packet.build();
        let bytes = self.frame.len() as u64;
        self.expected.moved = vec![Moved { vip: VIP, backend: backend.id, bytes, new_flows: 0 }];
        self.passed(Reason::Forwarded)
    }

    /// The same, but by another way out: what becomes of the packet, its Ethernet addresses and its tags.
    fn by(mut self, verdict: Verdict, packet: &Packet, frame: impl FnOnce(Packet) -> Packet) -> Self {
        let label = hash::flow(HASH_KEY, &flow(packet));
        let id = self.expected.moved[0].backend;
        let backend = BACKENDS.iter().find(|backend| backend.id == id).expect("a backend");
        let source = if backend.address.contains(':') { OUTER_V6 } else { OUTER_V4 };
        self.expected.verdict = verdict;
        self.expected.frame = frame(packet.clone().aged().inside(source, backend.address, label)).build();
        self
    }

    /// Passed to this box itself as the backend.
    fn kept_here(mut self, backend: &Backend) -> Self {
        let bytes = self.frame.len() as u64;
        self.expected.moved = vec![Moved { vip: VIP, backend: backend.id, bytes, new_flows: 0 }];
        self.passed(Reason::Local)
    }

    /// And counted as a new flow.
    fn new_flow(mut self) -> Self {
        self.expected.moved.iter_mut().for_each(|moved| moved.new_flows = 1);
        self
    }

    /// Flow events, in index order.
    fn events(mut self, events: &[FlowEvent]) -> Self {
        self.expected.events = events.to_vec();
        self
    }

    /// What led it.
    fn quic(mut self, event: QuicEvent) -> Self {
        self.expected.quic = vec![event];
        self
    }

    /// The one record left behind, written or seen by this packet.
    fn leaves(mut self, packet: &Packet, backend: &Backend, state: u8) -> Self {
        let left = Left { key: flow(packet), backend: backend.id, epoch: 5, state, fresh: true };
        self.expected.records = vec![left];
        self
    }

    fn host_only(mut self, why: &'static str) -> Self {
        self.place = Place::HostOnly(why);
        self
    }
}

fn arriving(packet: Packet) -> Packet {
    packet.macs(LB0_MAC, ROUTER_MAC)
}

/// TCP to the IPv4 VIP.
fn tcp(flags: u8) -> Packet {
    arriving(Packet::tcp("198.51.100.7:40000", "192.0.2.1:80", flags))
}

/// TCP to the IPv6 VIP.
fn tcp_v6(flags: u8) -> Packet {
    arriving(Packet::tcp("[2001:db8:f::7]:40000", "[2001:db8::1]:80", flags))
}

/// UDP to the IPv4 VIP.
fn udp() -> Packet {
    arriving(Packet::udp("198.51.100.7:40000", "192.0.2.1:53"))
}

/// UDP to the IPv6 VIP.
fn udp_v6() -> Packet {
    arriving(Packet::udp("[2001:db8:f::7]:40000", "[2001:db8::1]:53"))
}

/// Both VIP addresses by GUE.
fn gue(now: u32) -> World {
    World::new(now).forward(FORWARD_GUE)
}

/// Both VIP addresses by IPIP.
fn ipip(now: u32) -> World {
    World::new(now).forward(FORWARD_IPIP)
}
