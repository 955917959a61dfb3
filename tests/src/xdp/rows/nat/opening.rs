//! What opens a flow, with which source.

use super::*;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [plain(now), refused(now), walks(now)].concat()
}

/// A packet of no flow opens one, half.
pub(super) fn opens(name: &'static str, world: &World, packet: &Packet, flow: &Flow) -> Row {
    let opening = [&world.nat.opening[..], &flow.pair(world.now, [0, 0], [0, 0], 0)].concat();
    row(name, world, packet)
        .there(packet, flow)
        .new_flow()
        .nat_events(&[NatEvent::Opened])
        .leaving(&opening, &world.nat.flows)
}

fn plain(now: u32) -> Vec<Row> {
    let far = Flow { server: "10.0.1.12:80", backend: FAR, client: "10.0.0.14:40000", host: OTHER, ..TCP };
    let far_v6 = Flow { server: "[fd01::12]:80", backend: FAR_V6, client: "[fd00::11]:40000", ..TCP_V6 };
    let mapped = Flow { server: "10.0.0.11:8080", ..TCP };
    let mapped_v6 = Flow { server: "[fd00::11]:5353", ..UDP_V6 };
    let tagged = TCP.there(SYN).tag(0x8100, 100);
    vec![
        opens("nat: a SYN", &world(now), &TCP.there(SYN), &TCP),
        opens("nat: a SYN out the other interface", &world(now).owner(FAR.id), &far.there(SYN), &far),
        opens("nat: a datagram", &world(now), &UDP.there(0), &UDP),
        opens("nat: another port", &world(now).port(NEAR.id, 8080), &TCP.there(SYN), &mapped),
        opens("nat v6: a SYN", &world_v6(now), &TCP_V6.there(SYN), &TCP_V6),
        opens(
            "nat v6: out the other interface",
            &world_v6(now).owner(FAR_V6.id),
            &far_v6.there(SYN),
            &far_v6,
        ),
        opens(
            "nat v6: another port, UDP",
            &world_v6(now).port(NEAR_V6.id, 5353),
            &UDP_V6.there(0),
            &mapped_v6,
        ),
        opens("nat: a SYN under a tag", &world(now), &tagged, &TCP),
        opens("nat: a SYN with ECE and CWR", &world(now), &TCP.there(SYN | 0xc0), &TCP),
    ]
}

fn refused(now: u32) -> Vec<Row> {
    let world = world(now);
    let mut empty = world.clone();
    empty.nat.pool.count = 0;
    let mut foreign = world.clone();
    foreign.nat.sources = vec![[0; 16]; 2];
    let mut drops = Vec::new();
    for (name, flags) in [
        ("nat: an ACK of no flow", ACK),
        ("nat: a FIN of no flow", FINISH | ACK),
        ("nat: an RST of no flow", RST),
        ("nat: a SYN-ACK of no flow", SYN | ACK),
    ] {
        drops.push(row(name, &world, &TCP.there(flags)).dropped(Reason::NatUnknown));
    }
    drops.extend([
        row("nat: no sources at all", &empty, &TCP.there(SYN)).dropped(Reason::NatPortsExhausted),
        row("nat: no source where the pool says", &foreign, &TCP.there(SYN))
            .dropped(Reason::NatPortsExhausted),
        row("nat: a backend of the other family", &world.clone().owner(NEAR_V6.id), &TCP.there(SYN))
            .dropped(Reason::NoBackend),
        row("nat: nobody owns the slot", &world.clone().owner(0), &TCP.there(SYN)).dropped(Reason::NoBackend),
        row("nat: the owner is down", &world.clone().owner(DEAD.id), &TCP.there(SYN))
            .dropped(Reason::BackendDown),
        row("nat: impossible flags", &world, &TCP.there(SYN | RST)).dropped(Reason::MalformedTcp),
    ]);
    drops
}

/// Another client's flow to the same backend, by this source.
fn other(source: &'static str) -> Flow {
    Flow { client: "10.0.1.12:7", source, ..TCP }
}

/// The walk through the ports of a core's own part.
fn walks(now: u32) -> Vec<Row> {
    let syn = TCP.there(SYN);
    let [reuse, expired] = super::GIVEN_UP;
    let first = other("10.0.9.1:1024");
    let second = Flow { source: "10.0.9.2:1024", ..TCP };
    let with =
        |opening: &[_], flows: &[_]| world(now).opening(opening.iter().copied()).flows(flows.iter().copied());
    let mut moved = world(now);
    moved.nat.position = 5;
    let mut around = world(now);
    around.nat.position = u32::MAX;
    // 32 256 ports of each address are the core's own, so the last of 2^31 rounds comes to its 8192nd.
    let last = Flow { source: "10.0.9.2:17406", ..TCP };
    let fifth = Flow { source: "10.0.9.2:1028", ..TCP };
    let half = |ago| first.pair(now, [0, 0], [ago, ago], 0);
    let full = |flags, ago| first.pair(now, flags, [ago, ago], EXPECTED);
    let taken: Vec<_> = [
        "10.0.9.1:1024",
        "10.0.9.2:1024",
        "10.0.9.1:1026",
        "10.0.9.2:1026",
        "10.0.9.1:1028",
        "10.0.9.2:1028",
        "10.0.9.1:1030",
        "10.0.9.2:1030",
    ]
    .map(|source| other(source).pair(now, [0, 0], [AGO, AGO], 0)[1])
    .to_vec();
    let elsewhere = Flow { server: "10.0.0.14:80", backend: OTHER, ..first };
    // What a reused port leaves: nothing of the old flow, where it was whole.
    let gives = |name, world: &World, left: &[(FlowKey, NatEntry)]| {
        row(name, world, &syn)
            .there(&syn, &TCP)
            .new_flow()
            .nat_events(&[NatEvent::Opened, NatEvent::Reused])
            .leaving(&[left, &TCP.pair(now, [0, 0], [0, 0], 0)].concat(), &[])
    };
    vec![
        opens("nat: a core goes on where it was", &moved, &syn, &fifth),
        opens("nat: the walk wraps", &around, &syn, &last),
        opens("nat: a port of a half-open flow is taken", &with(&half(AGO), &[]), &syn, &second),
        opens("nat: so it is for a while after that", &with(&half(OPENING_TICKS + 9), &[]), &syn, &second),
        opens(
            "nat: a port of an established flow is taken",
            &with(&[], &full([0, HEARD], AGO)),
            &syn,
            &second,
        ),
        opens(
            "nat: so it is for a while after its end",
            &with(&[], &full([0, HEARD], TCP_TICKS + 9)),
            &syn,
            &second,
        ),
        opens(
            "nat: a port may serve two backends",
            &with(&elsewhere.pair(now, [0, 0], [AGO, AGO], 0), &[]),
            &syn,
            &TCP,
        ),
        gives("nat: a half-open flow gives its port up", &with(&half(reuse), &[]), &[half(reuse)[0]]),
        gives("nat: an established flow gives its port up", &with(&[], &full([0, HEARD], expired)), &[]),
        gives(
            "nat: a closed flow gives its port up sooner",
            &with(&[], &full([FIN, FIN], CLOSING_TICKS + GRACE_TICKS + 9)),
            &[],
        ),
        gives(
            "nat: so does one whose forward entry is gone",
            &with(&[], &[full([0, 0], CLOSING_TICKS)[1]]),
            &[],
        ),
        row("nat: eight tries find nothing", &with(&taken, &[]), &syn).dropped(Reason::NatPortsExhausted),
    ]
}
