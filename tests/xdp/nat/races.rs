//! Two cores at once: one's packet comes in between any two steps of the other's.

use std::{cell::RefCell, rc::Rc};

use lb_abi::{
    flow::FlowKey,
    nat::{NatEntry, NatEvent},
    reason::Reason,
};
use lb_tests::{
    packet::{ACK, FIN, Packet, SYN},
    xdp::{
        host::{self, Passed},
        nat::Book,
        row::NatLeft,
        world::{LB0_MAC, ROUTER_MAC, World},
    },
};

const NOW: u32 = 100_000;
const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.0.1.12:40000";
const SERVER: &str = "10.0.0.11:80";

/// Each core has so few ports that two flows of one core often want the same: four.
fn world() -> World {
    let mut world = World::new(NOW).nat(&["10.0.9.1"]);
    world.nat.pool.cores = 64_512 / 4;
    world
}

fn from_client(client: &str, flags: u8) -> Vec<u8> {
    Packet::tcp(client, VIP, flags).macs(LB0_MAC, ROUTER_MAC).build()
}

fn from_server(source: &str, flags: u8) -> Vec<u8> {
    Packet::tcp(SERVER, source, flags).macs(LB0_MAC, ROUTER_MAC).build()
}

/// Source address and port of an IPv4 frame without tags.
fn source(frame: &[u8]) -> String {
    let port = u16::from_be_bytes([frame[34], frame[35]]);
    format!("{}.{}.{}.{}:{port}", frame[26], frame[27], frame[28], frame[29])
}

/// Destination of the same.
fn destination(frame: &[u8]) -> String {
    let port = u16::from_be_bytes([frame[36], frame[37]]);
    format!("{}.{}.{}.{}:{port}", frame[30], frame[31], frame[32], frame[33])
}

/// Runs `first` on core 0 with `second` on core 1 before each of its steps in turn, each time in a world that
/// `prepare` has made; `check` sees the two and what is left.
fn interleave(
    prepare: impl Fn(&World, &Rc<Book>),
    first: &[u8],
    second: &[u8],
    cores: [u32; 2],
    mut check: impl FnMut(&Passed, &Passed, &NatLeft, usize),
) {
    let mut steps = 0;
    loop {
        let world = world();
        let nat = Rc::new(Book::new(&world.nat).bounds(64, 64));
        prepare(&world, &nat);
        let other: Rc<RefCell<Option<Passed>>> = Rc::default();
        nat.let_in(steps, {
            let (world, nat, other, second) = (world.clone(), nat.clone(), other.clone(), second.to_vec());
            Box::new(move || *other.borrow_mut() = Some(host::pass(&world, &nat, cores[1], &second)))
        });
        let one = host::pass(&world, &nat, cores[0], first);
        let Some(two) = other.borrow_mut().take() else {
            assert!(steps > 1, "only {steps} steps");
            return;
        };
        check(&one, &two, &nat.left(), steps);
        steps += 1;
    }
}

/// Both entries of the client's flow, wherever they are: they belong together.
fn pairs(left: &NatLeft) -> Vec<((FlowKey, NatEntry), (FlowKey, NatEntry))> {
    let mut pairs = Vec::new();
    for table in [&left.opening, &left.flows] {
        for (key, entry) in table {
            if let Some(peer) =
                table.iter().find(|(other, peer)| *other == entry.peer(6) && peer.peer(6) == *key)
                && entry.flags & lb_abi::nat::FORWARD != 0
            {
                pairs.push(((*key, *entry), *peer));
            }
        }
    }
    pairs
}

fn handshake(world: &World, nat: &Rc<Book>, client: &str, core: u32) -> String {
    let out = host::pass(world, nat, core, &from_client(client, SYN));
    assert_eq!(out.reason, Reason::Forwarded);
    let given = source(&out.frame);
    let back = host::pass(world, nat, core, &from_server(&given, SYN | ACK));
    assert_eq!((back.reason, destination(&back.frame)), (Reason::NatReturned, client.to_owned()));
    given
}

fn establish(world: &World, nat: &Rc<Book>, client: &str, core: u32) -> String {
    let given = handshake(world, nat, client, core);
    let out = host::pass(world, nat, core, &from_client(client, ACK));
    assert_eq!((out.reason, source(&out.frame)), (Reason::Forwarded, given.clone()));
    given
}

#[test]
fn two_syns_of_one_flow_take_one_port() {
    let syn = from_client(CLIENT, SYN);
    interleave(
        |_, _| {},
        &syn,
        &syn,
        [0, 1],
        |one, two, left, steps| {
            assert_eq!((one.reason, two.reason), (Reason::Forwarded, Reason::Forwarded), "step {steps}");
            assert_eq!(source(&one.frame), source(&two.frame), "step {steps}");
            assert_eq!((left.opening.len(), pairs(left).len()), (2, 1), "step {steps}: {left:?}");
            let opened = left.events.iter().filter(|event| **event == NatEvent::Opened).count();
            assert_eq!(opened, 1, "step {steps}");
        },
    );
}

/// Both find an old flow of the same client to replace.
#[test]
fn two_syns_of_a_closed_flow_leave_a_whole_one() {
    let syn = from_client(CLIENT, SYN);
    let close = |world: &World, nat: &Rc<Book>| {
        let given = establish(world, nat, CLIENT, 0);
        host::pass(world, nat, 0, &from_client(CLIENT, FIN | ACK));
        host::pass(world, nat, 0, &from_server(&given, FIN | ACK));
    };
    interleave(close, &syn, &syn, [0, 1], |one, two, left, steps| {
        assert_eq!((one.reason, two.reason), (Reason::Forwarded, Reason::Forwarded), "step {steps}");
        let pairs = pairs(left);
        assert_eq!(pairs.len(), 1, "step {steps}: {left:?}");
        // Whichever way each SYN has left, what comes back that way reaches this client.
        for frame in [&one.frame, &two.frame] {
            let world = world();
            let nat = Rc::new(Book::new(&lb_tests::xdp::world::Nat {
                opening: left.opening.clone(),
                flows: left.flows.clone(),
                ..world.nat.clone()
            }));
            let back = host::pass(&world, &nat, 0, &from_server(&source(frame), SYN | ACK));
            assert_eq!((back.reason, destination(&back.frame)), (Reason::NatReturned, CLIENT.to_owned()));
        }
    });
}

#[test]
fn two_cores_establish_one_flow_once() {
    let ack = from_client(CLIENT, ACK);
    let half = |world: &World, nat: &Rc<Book>| _ = handshake(world, nat, CLIENT, 0);
    interleave(half, &ack, &ack, [0, 1], |one, two, left, steps| {
        let reasons = [one.reason, two.reason];
        // Between two removals of the first core, the second sees half of the old pair: one packet is lost.
        let lost = reasons.iter().filter(|reason| **reason == Reason::NatUnknown).count();
        assert!(lost <= 1 && reasons.contains(&Reason::Forwarded), "step {steps}: {reasons:?}");
        assert_eq!(
            (left.opening.len(), left.flows.len(), pairs(left).len()),
            (0, 2, 1),
            "step {steps}: {left:?}"
        );
        let established = left.events.iter().filter(|event| **event == NatEvent::Established).count();
        assert_eq!(established, 1, "step {steps}");
    });
}

/// A reply while the flow is being established is never lost, whichever of the two comes in between.
#[test]
fn a_reply_meets_the_flow_in_one_table_or_the_other() {
    let (ack, client) = (from_client(CLIENT, ACK), CLIENT.to_owned());
    let half = |world: &World, nat: &Rc<Book>| _ = handshake(world, nat, CLIENT, 0);
    let given = handshake(&world(), &Rc::new(Book::new(&world().nat)), CLIENT, 0);
    let reply = from_server(&given, ACK);
    for (first, second) in [(&ack, &reply), (&reply, &ack)] {
        interleave(half, first, second, [0, 1], |one, two, left, steps| {
            assert_eq!(pairs(left).len(), 1, "step {steps}");
            let back = if one.reason == Reason::NatReturned { one } else { two };
            assert_eq!(
                (back.reason, destination(&back.frame)),
                (Reason::NatReturned, client.clone()),
                "step {steps}"
            );
        });
    }
}

/// A core tries the port of a flow that another core is just establishing: the port stays the first flow's.
#[test]
fn a_port_is_not_given_away_while_its_flow_is_established() {
    const OTHER: &str = "10.0.1.12:50000";
    let (ack, syn) = (from_client(CLIENT, ACK), from_client(OTHER, SYN));
    // Three other flows of the core's four ports are there, and its walk is back at the first one's.
    let crowded = |world: &World, nat: &Rc<Book>| {
        handshake(world, nat, CLIENT, 0);
        for port in 1..4 {
            establish(world, nat, &format!("10.0.1.12:{port}"), 0);
        }
    };
    let free = |world: &World, nat: &Rc<Book>| _ = handshake(world, nat, CLIENT, 0);
    for (first, second, cores) in [(&ack, &syn, [1, 0]), (&syn, &ack, [0, 1])] {
        interleave(crowded, first, second, cores, |one, two, left, steps| {
            let (acked, opened) = if cores[0] == 1 { (one, two) } else { (two, one) };
            assert_eq!(acked.reason, Reason::Forwarded, "step {steps}");
            assert_eq!(opened.reason, Reason::NatPortsExhausted, "step {steps}");
            assert_eq!((left.opening.len(), left.flows.len()), (0, 8), "step {steps}: {left:?}");
        });
        interleave(free, first, second, cores, |one, two, left, steps| {
            assert_eq!((one.reason, two.reason), (Reason::Forwarded, Reason::Forwarded), "step {steps}");
            assert_ne!(source(&one.frame), source(&two.frame), "step {steps}");
            assert_eq!(pairs(left).len(), 2, "step {steps}: {left:?}");
        });
    }
}
