//! Established flows whose backends are down or gone, and flows that are over.

use super::*;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [backends(now), ended(now)].concat()
}

/// Established flows and the state of their backends.
fn backends(now: u32) -> Vec<Row> {
    let silent = Flow { server: "10.0.0.99:80", backend: SILENT, ..TCP };
    let dead = Flow { server: "10.0.0.13:80", source: "10.0.9.1:1030", backend: DEAD, ..TCP };
    let lost = world(now).flows(dead.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let half = world(now).opening(dead.pair(now, [0, ANSWERED], [AGO, AGO], EXPECTED));
    let dead_udp = Flow { protocol: 17, vip: UDP.vip, server: "10.0.0.13:53", ..dead };
    let lost_udp = world(now).flows(dead_udp.pair(now, [0, HEARD], [AGO, AGO], 0));
    let drained = world(now).owner(OTHER.id).flows(TCP.pair(now, [0, HEARD], [AGO, AGO], EXPECTED));
    let mut gone = drained.clone();
    gone.backends.iter_mut().filter(|(id, _)| *id == NEAR.id).for_each(|(_, entry)| {
        *entry = BackendEntry::default();
    });
    let (syn, ack, datagram) = (TCP.there(SYN), TCP.there(ACK), UDP.there(0));
    let reopened = [NatEvent::Opened, NatEvent::Reopened];
    let goes_on = TCP.pair(now, [0, HEARD], [0, AGO], EXPECTED);
    vec![
        row("nat: a flow whose backend is down", &lost, &ack).dropped(Reason::BackendDown),
        row(
            "nat: the kernel finds a backend that is not known yet",
            &world(now).flows(silent.pair(now, [0, HEARD], [AGO, AGO], EXPECTED)),
            &ack,
        )
        .there(&ack, &silent)
        .handed_on(&ack, silent.source, silent.server)
        .leaving(&[], &silent.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
        row("nat: a half-open one whose backend is down", &half, &ack).dropped(Reason::BackendDown),
        row("nat: a new SYN leaves the backend that is down", &lost, &syn)
            .there(&syn, &TCP)
            .new_flow()
            .nat_events(&reopened)
            .leaving(
                &TCP.pair(now, [0, 0], [0, 0], 0),
                &[dead.pair(now, [0, HEARD], [AGO, AGO], EXPECTED)[1]],
            ),
        row("nat: a datagram leaves the backend that is down", &lost_udp, &datagram)
            .there(&datagram, &UDP)
            .new_flow()
            .nat_events(&reopened)
            .leaving(&UDP.pair(now, [0, 0], [0, 0], 0), &[dead_udp.pair(now, [0, HEARD], [AGO, AGO], 0)[1]]),
        row("nat: a flow stays with a backend that owns no slot", &drained, &ack)
            .there(&ack, &TCP)
            .leaving(&[], &goes_on),
        row("nat: a flow stays with a backend that has left", &gone, &ack)
            .there(&ack, &TCP)
            .leaving(&[], &goes_on),
    ]
}

/// Flows that are over.
fn ended(now: u32) -> Vec<Row> {
    let old = Flow { source: "10.0.9.1:1030", ..TCP };
    let old_udp = Flow { source: "10.0.9.1:1030", ..UDP };
    let with = |flow: &Flow, flags, ago| world(now).flows(flow.pair(now, flags, ago, EXPECTED));
    let (syn, ack, datagram) = (TCP.there(SYN), TCP.there(ACK), UDP.there(0));
    let anew = |name, flags: [u32; 2], ago| {
        row(name, &with(&old, flags, ago), &syn)
            .there(&syn, &TCP)
            .new_flow()
            .nat_events(&[NatEvent::Opened, NatEvent::Reopened])
            .leaving(&TCP.pair(now, [0, 0], [0, 0], 0), &[old.pair(now, flags, ago, EXPECTED)[1]])
    };
    let long = [TCP_TICKS + 9; 2];
    let quiet = [UDP_TICKS + 9; 2];
    vec![
        anew("nat: a SYN after both are done", [FIN, FIN], [AGO, AGO]),
        anew("nat: a SYN after an RST there", [RESET, HEARD], [AGO, AGO]),
        anew("nat: a SYN after an RST back", [0, RESET], [AGO, AGO]),
        anew("nat: a SYN after two hours", [0, HEARD], long),
        row("nat: an ACK after two hours", &with(&old, [0, HEARD], long), &ack).dropped(Reason::NatUnknown),
        row("nat: a reply after two hours", &with(&old, [0, HEARD], long), &old.reply(ACK))
            .dropped(Reason::NatUnknown),
        row("nat: an ACK long after both are done", &with(&old, [FIN, FIN], [CLOSING_TICKS + 9; 2]), &ack)
            .dropped(Reason::NatUnknown),
        row("nat: the last ACK after both are done", &with(&old, [FIN, FIN], [AGO, AGO]), &ack)
            .there(&ack, &old)
            .leaving(&[], &old.pair(now, [FIN, FIN], [0, AGO], EXPECTED)),
        row("nat: silent one way for long", &with(&old, [0, HEARD], [TCP_TICKS + 9, AGO]), &ack)
            .there(&ack, &old)
            .leaving(&[], &old.pair(now, [0, HEARD], [0, AGO], EXPECTED)),
        row("nat: quiet for minutes", &with(&old, [0, HEARD], quiet), &ack)
            .there(&ack, &old)
            .leaving(&[], &old.pair(now, [0, HEARD], [0, UDP_TICKS + 9], EXPECTED)),
        row("nat: a datagram after minutes", &with(&old_udp, [0, HEARD], quiet), &datagram)
            .there(&datagram, &UDP)
            .new_flow()
            .nat_events(&[NatEvent::Opened, NatEvent::Reopened])
            .leaving(&UDP.pair(now, [0, 0], [0, 0], 0), &[old_udp.pair(now, [0, HEARD], quiet, EXPECTED)[1]]),
    ]
}
