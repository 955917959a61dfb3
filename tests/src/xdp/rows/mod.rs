//! The rows.
#![expect(clippy::expect_used, reason = "a row that cannot be written is a failed test")]

use lb_abi::{
    counter::FlowEvent,
    hash,
    quic::QuicEvent,
    reason::Reason,
    vip::{DECAP, FORWARD_IPIP},
};
use lb_ebpf::verdict::Verdict;

use crate::{
    packet::{Packet, SYN},
    xdp::{
        row::{Left, Moved, Place, Program, Result, Row},
        world::{
            Backend, FAR, FAR_V6, HASH_KEY, LB0, LB0_MAC, LB1, LB1_MAC, NEAR, NEAR_V6, OUTER_V4, OUTER_V6,
            ROUTER_MAC, VIP, World, flow,
        },
    },
};

mod answer;
mod decap;
mod forward;
mod group;
mod limit;
mod moving;
mod quic;
mod refuse;
mod source;

/// All rows, for a world that is at tick `now`.
pub fn all(now: u32) -> Vec<Row> {
    [
        forward::rows(now),
        moving::rows(now),
        group::rows(now),
        quic::rows(now),
        source::rows(now),
        limit::rows(now),
        refuse::rows(now),
        answer::rows(now),
        decap::rows(now),
    ]
    .concat()
}

/// Worlds in which a frame is encapsulated for a backend that decapsulates: the world, the frame in, and the
/// frame that the backend's kernel should get.
pub fn round_trips(now: u32) -> Vec<(World, Vec<u8>, Vec<u8>)> {
    let mut trips = Vec::new();
    for backend in [NEAR, FAR, NEAR_V6, FAR_V6] {
        for packet in [tcp(SYN), udp_v6()] {
            let world = ipip(now).owner(backend.id).vip(backend.address, 0, 4, DECAP).vip(
                backend.address,
                0,
                41,
                DECAP,
            );
            let (mac, interface) = backend.neighbour.expect("a backend that can be reached");
            let own = if interface == LB0 { LB0_MAC } else { LB1_MAC };
            trips.push((world, packet.build(), packet.aged().macs(mac, own).build()));
        }
    }
    trips
}

/// How a packet gets to its backend.
#[derive(Clone, Copy)]
enum Way {
    Ipip,
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
        buckets: world.buckets.iter().map(|(source, bucket)| (*source, bucket.level)).collect(),
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
    fn forwarded(mut self, packet: &Packet, backend: &Backend, way: Way) -> Self {
        let (mac, interface) = backend.neighbour.expect("a backend that can be reached");
        let label = hash::flow(HASH_KEY, &flow(packet));
        let packet = packet.clone().aged();
        let packet = match way {
            Way::Ipip if backend.address.contains(':') => packet.inside(OUTER_V6, backend.address, label),
            Way::Ipip => packet.inside(OUTER_V4, backend.address, label),
            Way::Layer2 => packet,
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

/// Both VIP addresses by IPIP.
fn ipip(now: u32) -> World {
    World::new(now).forward(FORWARD_IPIP)
}
