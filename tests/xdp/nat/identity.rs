//! There and back is the identity, and every checksum is what a full computation gives.

use std::{net::SocketAddr, rc::Rc};

use lb_abi::reason::Reason;
use lb_ebpf::verdict::Verdict;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    xdp::{
        host,
        nat::Book,
        world::{LB0_MAC, NEAR, NEAR_V6, ROUTER_MAC, World},
    },
};
use proptest::prelude::*;

const NOW: u32 = 77_777;

/// One flow's ends. Its client is on a link whose neighbours are not known, so the kernel gets what is translated,
/// one hop as old as it came.
#[derive(Clone, Debug)]
struct Case {
    is_v4: bool,
    is_tcp: bool,
    client: u16,
    client_port: u16,
    source: u32,
    server_port: u16,
    payload: [usize; 2],
    ttl: u8,
    class: u8,
}

fn cases() -> impl Strategy<Value = Case> {
    let ports = (1u16.., 1u16..);
    let lengths = [0usize..1400, 0usize..1400];
    (any::<[bool; 2]>(), 100u16..250, ports, any::<u32>(), lengths, 3u8.., any::<u8>()).prop_map(
        |([is_v4, is_tcp], client, (client_port, server_port), source, payload, ttl, class)| Case {
            is_v4,
            is_tcp,
            client,
            client_port,
            source,
            server_port,
            payload,
            ttl,
            class,
        },
    )
}

impl Case {
    fn client(&self) -> String {
        match self.is_v4 {
            true => format!("10.0.0.{}:{}", self.client, self.client_port),
            false => format!("[fd00::{:x}:1]:{}", self.client, self.client_port),
        }
    }

    fn vip(&self) -> &'static str {
        match (self.is_v4, self.is_tcp) {
            (true, true) => "192.0.2.1:80",
            (true, false) => "192.0.2.1:53",
            (false, true) => "[2001:db8::1]:80",
            (false, false) => "[2001:db8::1]:53",
        }
    }

    fn server(&self) -> String {
        let address = if self.is_v4 { NEAR.address.to_owned() } else { format!("[{}]", NEAR_V6.address) };
        format!("{address}:{}", self.server_port)
    }

    fn source(&self) -> String {
        let [a, b, c, d] = self.source.to_be_bytes();
        match self.is_v4 {
            // Whatever it is, not a mapped or unspecified one.
            true => format!("{}.{b}.{c}.{d}", a | 1),
            false => format!("fd77:{:x}::{:x}", self.source >> 16, self.source & 0xffff),
        }
    }

    fn world(&self) -> World {
        let id = if self.is_v4 { NEAR.id } else { NEAR_V6.id };
        World::new(NOW).nat(&[&self.source()]).owner(id).port(id, self.server_port)
    }

    fn packet(&self, source: &str, destination: &str, flags: u8, payload: usize) -> Packet {
        let packet = match self.is_tcp {
            true => Packet::tcp(source, destination, flags),
            false => Packet::udp(source, destination),
        };
        packet.macs(LB0_MAC, ROUTER_MAC).ttl(self.ttl).class(self.class).payload(payload)
    }

    /// What the backend takes for the client.
    fn given(&self) -> String {
        let source = self.source();
        let ip = if self.is_v4 { source } else { format!("[{source}]") };
        format!("{ip}:1024")
    }
}

fn gone_to_backend(packet: &Packet, case: &Case) -> Vec<u8> {
    let backend = if case.is_v4 { NEAR } else { NEAR_V6 };
    let Some((mac, _)) = backend.neighbour else { panic!("a backend that is known") };
    packet.clone().aged().macs(mac, LB0_MAC).build()
}

proptest! {
    #[test]
    fn there_and_back(case in cases()) {
        let world = case.world();
        let nat = Rc::new(Book::new(&world.nat));
        let (client, vip, server, given) = (case.client(), case.vip(), case.server(), case.given());

        let there = case.packet(&client, vip, SYN, case.payload[0]);
        let out = host::pass(&world, &nat, 0, &there.build());
        prop_assert_eq!((out.reason, out.verdict), (Reason::Forwarded, Verdict::Transmit));
        let expected = case.packet(&given, &server, SYN, case.payload[0]);
        prop_assert_eq!(out.frame, gone_to_backend(&expected, &case));

        // The backend answers what it got, end for end; the client sees the VIP it spoke to.
        let reply = case.packet(&server, &given, SYN | ACK, case.payload[1]);
        let back = host::pass(&world, &nat, 0, &reply.build());
        prop_assert_eq!((back.reason, back.verdict), (Reason::NatReturned, Verdict::Pass));
        prop_assert_eq!(back.frame, case.packet(vip, &client, SYN | ACK, case.payload[1]).build());

        let again = host::pass(&world, &nat, 0, &case.packet(&client, vip, ACK, case.payload[0]).build());
        prop_assert_eq!(again.reason, Reason::Forwarded);
        let expected = case.packet(&given, &server, ACK, case.payload[0]);
        prop_assert_eq!(again.frame, gone_to_backend(&expected, &case));
        let left = nat.left();
        prop_assert_eq!((left.opening.len(), left.flows.len()), (0, 2));
    }

    /// An error about any part of a packet, either way.
    #[test]
    fn errors_there_and_back(case in cases(), quoted in 8usize..100) {
        let world = case.world();
        let nat = Rc::new(Book::new(&world.nat));
        let (client, vip, server, given) = (case.client(), case.vip(), case.server(), case.given());
        host::pass(&world, &nat, 0, &case.packet(&client, vip, SYN, 4).build());
        let header = if case.is_v4 { 20 } else { 40 };
        let kind = if case.is_v4 { (3, 3, 0) } else { (1, 4, 0) };
        let of = |end: &str| {
            let mut end: SocketAddr = end.parse().expect("an end");
            end.set_port(0);
            end.to_string()
        };
        // Half a checksum cannot be changed with what it sums up: it stays as it was sent.
        let is_half = case.is_tcp && quoted == 17;
        let error = |source: &str, destination: &str, about: &Packet, sent: &Packet| {
            let mut quote = about.build().split_off(about.ip_at());
            if is_half {
                quote[header + 16] = sent.build()[sent.ip_at() + header + 16];
            }
            quote.truncate(header + quoted);
            Packet::icmp_error(&of(source), &of(destination), kind, &quote)
                .macs(LB0_MAC, ROUTER_MAC)
                .ttl(case.ttl)
        };
        // What went there, as the backend got it and as the client sent it.
        let sent = case.packet(&given, &server, SYN, case.payload[0]);
        let original = case.packet(&client, vip, SYN, case.payload[0]);
        let out = host::pass(&world, &nat, 0, &error(&server, &given, &sent, &sent).build());
        prop_assert_eq!((out.reason, out.verdict), (Reason::NatError, Verdict::Pass));
        prop_assert_eq!(out.frame, error(vip, &client, &original, &sent).build());
        // What came back.
        let sent = case.packet(vip, &client, ACK, case.payload[1]);
        let original = case.packet(&server, &given, ACK, case.payload[1]);
        let out = host::pass(&world, &nat, 0, &error(&client, vip, &sent, &sent).build());
        prop_assert_eq!((out.reason, out.verdict), (Reason::NatError, Verdict::Transmit));
        prop_assert_eq!(out.frame, gone_to_backend(&error(&given, &server, &original, &sent), &case));
    }
}
