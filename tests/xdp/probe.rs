//! `lb_probe_out` and `lb_probe_in` through `BPF_PROG_TEST_RUN`: frames in, frames out.
#![expect(clippy::unwrap_used, reason = "a test target: helpers fail the test they help")]

use std::net::{IpAddr, Ipv6Addr};

use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, maps::Array, programs::SchedClassifier};
use lb_abi::{
    names,
    probe::{PROBE_IPIP, PROBE_MARK, ProbeEntry, port_index},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    xdp::kernel,
};

/// TC_ACT_UNSPEC.
const NEXT: u32 = u32::MAX;
/// The probes' socket has this port.
const PORT: u16 = 40_000;

const OWN: [&str; 2] = ["10.0.0.1:40000", "[fd00::1]:40000"];
const VIP: [&str; 2] = ["192.0.2.1:80", "[2001:db8::1]:80"];
const BACKEND: [&str; 2] = ["10.0.0.11:80", "[fd00::11]:80"];
const OUTER: [&str; 2] = ["10.0.0.2", "fd00::2"];

struct Bench(Ebpf);

fn bytes(address: &str) -> [u8; 16] {
    let ip = match address.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => address.parse().unwrap(),
    };
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Bench {
    /// Probes 0 and 1 are IPIP over IPv4 and IPv6, 2 and 3 have no outer header.
    fn new() -> Option<Self> {
        if let Some(why) = kernel::unavailable() {
            eprintln!("skipped: {why}");
            return None;
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::MAP_SLOTS, 1)
            .map_max_entries(names::MAP_FLOWS, 1)
            .load_file(kernel::object())
            .unwrap();
        for name in [names::PROGRAM_PROBE_OUT, names::PROGRAM_PROBE_IN] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        let mut probes = Array::<_, ProbeEntry>::try_from(ebpf.map_mut(names::MAP_PROBES).unwrap()).unwrap();
        for number in 0..4 {
            let family = number as usize % 2;
            let flags = if number < 2 { PROBE_IPIP } else { 0 };
            let (vip, backend, outer) = (bytes(VIP[family]), bytes(BACKEND[family]), bytes(OUTER[family]));
            probes.set(number, ProbeEntry { vip, backend, outer, flags, pad: 0 }, 0).unwrap();
        }
        Some(Self(ebpf))
    }

    fn expect(&mut self, number: Option<u32>) {
        let mut ports = Array::<_, u32>::try_from(self.0.map_mut(names::MAP_PROBE_PORTS).unwrap()).unwrap();
        for is_udp in [false, true] {
            ports.set(port_index(PORT, is_udp), number.map_or(0, |number| number + 1), 0).unwrap();
        }
    }

    /// Only of one protocol.
    fn expect_of(&mut self, is_udp: bool, number: u32) {
        self.expect(None);
        let mut ports = Array::<_, u32>::try_from(self.0.map_mut(names::MAP_PROBE_PORTS).unwrap()).unwrap();
        ports.set(port_index(PORT, is_udp), number + 1, 0).unwrap();
    }

    fn run(&self, name: &str, frame: &[u8], mark: u32) -> (u32, Vec<u8>) {
        let program: &SchedClassifier = self.0.program(name).unwrap().try_into().unwrap();
        // struct __sk_buff: len, pkt_type, mark.
        let context = [0, 0, mark].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    fn out(&self, packet: &Packet, mark: u32) -> (u32, Vec<u8>) {
        self.run(names::PROGRAM_PROBE_OUT, &packet.build(), mark)
    }

    fn back(&self, packet: &Packet) -> (u32, Vec<u8>) {
        self.run(names::PROGRAM_PROBE_IN, &packet.build(), 0)
    }
}

fn unmapped(address: &str) -> String {
    Ipv6Addr::from(bytes(address)).to_canonical().to_string()
}

#[test]
fn a_marked_packet_goes_to_the_vip_on_its_backend() {
    let Some(bench) = Bench::new() else { return };
    for number in 0..4 {
        let family = number as usize % 2;
        for flags in [SYN, ACK] {
            let sent = Packet::tcp(OWN[family], BACKEND[family], flags).class(0xb8);
            let mut expected = Packet::tcp(OWN[family], VIP[family], flags).class(0xb8);
            if number < 2 {
                expected = expected.inside(OUTER[family], &unmapped(BACKEND[family]), 0);
            }
            assert_eq!(bench.out(&sent, PROBE_MARK | number), (NEXT, expected.build()), "probe {number}");
        }
        let sent = Packet::udp(OWN[family], BACKEND[family]).payload(20);
        let mut expected = Packet::udp(OWN[family], VIP[family]).payload(20);
        if number < 2 {
            expected = expected.inside(OUTER[family], &unmapped(BACKEND[family]), 0);
        }
        assert_eq!(bench.out(&sent, PROBE_MARK | number), (NEXT, expected.build()), "probe {number}, UDP");
    }
}

#[test]
fn whatever_is_no_probe_leaves_as_it_is() {
    let Some(bench) = Bench::new() else { return };
    for family in 0..2 {
        let number = family as u32;
        let elsewhere = ["10.0.0.12:80", "[fd00::12]:80"][family];
        let packet = |to| Packet::tcp(OWN[family], to, SYN);
        for (packet, mark, why) in [
            (packet(BACKEND[family]), 0, "no mark"),
            (packet(BACKEND[family]), 0x1234_0000 | number, "another's mark"),
            (packet(BACKEND[family]), PROBE_MARK | 0xffff, "no such probe"),
            (packet(BACKEND[family]), PROBE_MARK | (1 - number), "a probe of the other family"),
            (packet(elsewhere), PROBE_MARK | number, "another destination"),
        ] {
            assert_eq!(bench.out(&packet, mark), (NEXT, packet.build()), "{why}, family {family}");
        }
    }
}

#[test]
fn an_answer_comes_from_the_backend() {
    let Some(mut bench) = Bench::new() else { return };
    for number in 0..4 {
        let family = number as usize % 2;
        let answer = Packet::tcp(VIP[family], OWN[family], SYN | ACK);
        bench.expect(None);
        assert_eq!(bench.back(&answer), (NEXT, answer.build()), "nobody expects it");
        bench.expect(Some(number));
        let home = Packet::tcp(BACKEND[family], OWN[family], SYN | ACK);
        assert_eq!(bench.back(&answer), (NEXT, home.build()), "probe {number}");
        let other_port = ["10.0.0.1:40001", "[fd00::1]:40001"][family];
        let other_source = ["192.0.2.2:80", "[2001:db8::2]:80"][family];
        for (packet, why) in [
            (Packet::tcp(VIP[family], other_port, ACK), "another port"),
            (Packet::tcp(other_source, OWN[family], ACK), "another source"),
            (Packet::tcp(BACKEND[family], OWN[family], ACK), "the backend itself"),
        ] {
            assert_eq!(bench.back(&packet), (NEXT, packet.build()), "{why}, probe {number}");
        }
        let datagram = Packet::udp(VIP[family], OWN[family]).payload(64);
        let home_datagram = Packet::udp(BACKEND[family], OWN[family]).payload(64);
        bench.expect_of(true, number);
        assert_eq!(bench.back(&answer), (NEXT, answer.build()), "a datagram is expected");
        assert_eq!(bench.back(&datagram), (NEXT, home_datagram.build()), "probe {number}, UDP");
        bench.expect_of(false, number);
        assert_eq!(bench.back(&answer), (NEXT, home.build()), "a segment is expected");
        assert_eq!(bench.back(&datagram), (NEXT, datagram.build()), "a segment is expected");
    }
}

/// However short a frame and whatever is in it: nothing of it changes that is not a whole answer.
#[test]
fn cut_frames_pass() {
    let Some(mut bench) = Bench::new() else { return };
    for number in 0..2 {
        bench.expect(Some(number));
        let family = number as usize;
        let frame = Packet::tcp(VIP[family], OWN[family], ACK).payload(0).build();
        // The kernel runs nothing on less than an IP header.
        let least = if family == 0 { 14 + 20 } else { 14 + 40 };
        for len in least..frame.len() - 2 {
            let (action, out) = bench.run(names::PROGRAM_PROBE_IN, &frame[..len], 0);
            assert!(out == frame[..len] || action == 2, "{len} bytes: {action} {out:02x?}");
        }
    }
}
