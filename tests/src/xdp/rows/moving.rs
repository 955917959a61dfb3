//! Slots that move: what is followed, what is recorded, and where the rest goes. The slot moves from
//! [`OTHER`] to [`NEAR`] unless a row says otherwise.

use lb_abi::{
    bounds::INSERTS_PER_TICK,
    counter::FlowEvent::{
        BudgetSpent, Followed, InsertPaused, InsertRefused, Recorded, RepickedDown, RepickedGone,
        UnrecordedToOwner, UnrecordedToPrevious,
    },
    flow::CLOSING,
    reason::Reason,
    slot::Phase::{Closed, Open, Sweeping},
    vip::{FLOWS_NONE, FORWARD_IPIP},
};

use super::{Row, Way::Ipip, ipip, row, tcp, tcp_v6, udp};
use crate::{
    packet::{ACK, FIN, Packet, RST, SYN},
    xdp::{
        row::Place,
        world::{DEAD, IDLE, NEAR, NOBODY, OTHER, OVER, World, flow},
    },
};

const EPOCH: u8 = 5;

pub(super) fn rows(now: u32) -> Vec<Row> {
    [
        open(now),
        open_refused(now),
        open_recorded(now),
        open_without(now),
        datagrams(now),
        closed(now),
        sweeping(now),
        spent(now),
        none(now),
    ]
    .concat()
}

fn opened(now: u32) -> World {
    ipip(now).moving(NEAR.id, OTHER.id, Open, 3)
}

fn open(now: u32) -> Vec<Row> {
    let world = opened(now);
    let (syn, ack) = (tcp(SYN), tcp(ACK));
    let unrecorded = |name, packet: &Packet| {
        row(name, &world, packet).forwarded(packet, &OTHER, Ipip).events(&[UnrecordedToPrevious])
    };
    vec![
        row("open: a SYN goes to the owner and is recorded", &world, &syn)
            .forwarded(&syn, &NEAR, Ipip)
            .new_flow()
            .events(&[Recorded])
            .leaves(&syn, &NEAR, 0),
        row("open: an unrecorded segment goes to previous and is recorded", &world, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&ack, &OTHER, 0),
        row("open: the same over IPv6", &world, &tcp_v6(ACK))
            .forwarded(&tcp_v6(ACK), &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&tcp_v6(ACK), &OTHER, 0),
        unrecorded("open: an unrecorded FIN goes to previous, not recorded", &tcp(FIN | ACK)),
        unrecorded("open: an unrecorded RST goes to previous, not recorded", &tcp(RST)),
        unrecorded("open: an unrecorded SYN-ACK goes to previous, not recorded", &tcp(SYN | ACK)),
    ]
}

/// The table is full of other flows.
fn open_refused(now: u32) -> Vec<Row> {
    let (syn, ack) = (tcp(SYN), tcp(ACK));
    let full = |world: World| world.crowded(flow(&ack));
    let world = full(opened(now));
    let dead = full(ipip(now).moving(NEAR.id, DEAD.id, Open, 3));
    vec![
        row("open, full: a SYN goes to previous", &world, &syn)
            .forwarded(&syn, &OTHER, Ipip)
            .new_flow()
            .events(&[InsertRefused]),
        row("open, full: a segment goes to previous", &world, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[UnrecordedToPrevious, InsertRefused]),
        row("open, full, previous down: a SYN goes to the owner", &dead, &syn)
            .forwarded(&syn, &NEAR, Ipip)
            .new_flow()
            .events(&[InsertRefused]),
    ]
}

fn open_recorded(now: u32) -> Vec<Row> {
    let key = flow(&tcp(ACK));
    let with = |backend, epoch, state, ago| opened(now).record(key, backend, epoch, state, ago);
    let (syn, ack, fin, rst) = (tcp(SYN), tcp(ACK), tcp(FIN | ACK), tcp(RST));
    let live = with(OTHER.id, EPOCH, 0, 10);
    let follows = |name, packet: &Packet, state| {
        row(name, &live, packet)
            .forwarded(packet, &OTHER, Ipip)
            .events(&[Followed])
            .leaves(packet, &OTHER, state)
    };
    let replaced = |name, world: &World| {
        row(name, world, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&ack, &OTHER, 0)
    };
    let closing = with(OTHER.id, EPOCH, CLOSING, 10);
    vec![
        follows("open: a segment follows its record", &ack, 0),
        follows("open: a FIN follows and is remembered", &fin, CLOSING),
        follows("open: an RST follows and is remembered", &rst, CLOSING),
        follows("open: a SYN follows a live record", &syn, 0).new_flow(),
        row("open: a SYN after a FIN goes to the owner", &closing, &syn)
            .forwarded(&syn, &NEAR, Ipip)
            .new_flow()
            .events(&[Recorded])
            .leaves(&syn, &NEAR, 0),
        row("open: a segment after a FIN still follows", &closing, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Followed])
            .leaves(&ack, &OTHER, CLOSING),
        row("open: a record just not too old is followed", &with(OTHER.id, EPOCH, 0, IDLE - 100), &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Followed])
            .leaves(&ack, &OTHER, 0),
        replaced("open: a record of another epoch is absent", &with(NEAR.id, EPOCH - 1, 0, 10)),
        replaced("open: a record too old is absent", &with(NEAR.id, EPOCH, 0, IDLE + 1)),
        row("open: a segment leaves a backend that is down", &with(DEAD.id, EPOCH, 0, 10), &ack)
            .forwarded(&ack, &NEAR, Ipip)
            .events(&[RepickedDown])
            .leaves(&ack, &NEAR, 0),
        row("open: a SYN leaves a backend that is down", &with(DEAD.id, EPOCH, 0, 10), &syn)
            .forwarded(&syn, &NEAR, Ipip)
            .new_flow()
            .events(&[RepickedDown])
            .leaves(&syn, &NEAR, 0),
        row("open: a FIN leaves a backend that is gone", &with(NOBODY, EPOCH, 0, 10), &fin)
            .forwarded(&fin, &NEAR, Ipip)
            .events(&[RepickedGone])
            .leaves(&fin, &NEAR, CLOSING),
    ]
}

/// Owner or previous are down or absent.
fn open_without(now: u32) -> Vec<Row> {
    let (syn, ack) = (tcp(SYN), tcp(ACK));
    let key = flow(&ack);
    let moving = |owner, previous| ipip(now).moving(owner, previous, Open, 3);
    vec![
        row("open: previous is down: the owner, recorded", &moving(NEAR.id, DEAD.id), &ack)
            .forwarded(&ack, &NEAR, Ipip)
            .events(&[Recorded, RepickedDown])
            .leaves(&ack, &NEAR, 0),
        row("open: there is no previous: the owner, recorded", &moving(NEAR.id, 0), &ack)
            .forwarded(&ack, &NEAR, Ipip)
            .events(&[Recorded, UnrecordedToOwner])
            .leaves(&ack, &NEAR, 0),
        row(
            "open: a SYN to an owner that is down is dropped, not recorded",
            &moving(DEAD.id, OTHER.id),
            &syn,
        )
        .dropped(Reason::BackendDown),
        row("open: a SYN to no owner is dropped, not recorded", &moving(0, OTHER.id), &syn)
            .dropped(Reason::NoBackend),
        row("open: an old flow outlives its pool's last owner", &moving(0, OTHER.id), &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&ack, &OTHER, 0),
        row(
            "open: all are down: dropped, the record stays",
            &moving(DEAD.id, OTHER.id).record(key, DEAD.id, EPOCH, 0, 10),
            &ack,
        )
        .dropped(Reason::BackendDown)
        .leaves(&ack, &DEAD, 0),
        row(
            "open: a SYN after a FIN stays where it was if the owner is down",
            &moving(DEAD.id, OTHER.id).record(key, OTHER.id, EPOCH, CLOSING, 10),
            &syn,
        )
        .forwarded(&syn, &OTHER, Ipip)
        .new_flow()
        .events(&[Followed])
        .leaves(&syn, &OTHER, CLOSING),
    ]
}

fn datagrams(now: u32) -> Vec<Row> {
    let opened = |ago| ipip(now).moving(NEAR.id, OTHER.id, Open, ago);
    let packet = udp();
    let full = |world: World| world.crowded(flow(&packet));
    let to_previous = |name, world: &World| {
        row(name, world, &packet)
            .forwarded(&packet, &OTHER, Ipip)
            .new_flow()
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&packet, &OTHER, 0)
    };
    vec![
        to_previous("open, UDP: unrecorded goes to previous and is recorded", &opened(3)),
        to_previous("open, UDP: just within the window", &opened(IDLE - 100)),
        to_previous("open, UDP: control's clock is ahead", &opened(0u32.wrapping_sub(50))),
        row("open, UDP: after the window unrecorded goes to the owner, recorded", &opened(OVER), &packet)
            .forwarded(&packet, &NEAR, Ipip)
            .new_flow()
            .events(&[Recorded, UnrecordedToOwner])
            .leaves(&packet, &NEAR, 0),
        row("open, UDP, full: after the window still previous", &full(opened(OVER)), &packet)
            .forwarded(&packet, &OTHER, Ipip)
            .events(&[UnrecordedToOwner, InsertRefused]),
        to_previous(
            "open, UDP: a refusal begins the window anew",
            &World { refused_at: now, ..opened(OVER) },
        ),
        row(
            "open, UDP: after the window a record is still followed",
            &opened(OVER).record(flow(&packet), OTHER.id, EPOCH, 0, 10),
            &packet,
        )
        .forwarded(&packet, &OTHER, Ipip)
        .events(&[Followed])
        .leaves(&packet, &OTHER, 0),
    ]
}

fn closed(now: u32) -> Vec<Row> {
    let world = ipip(now).moving(NEAR.id, OTHER.id, Closed, 3);
    let (syn, ack) = (tcp(SYN), tcp(ACK));
    let key = flow(&ack);
    let to_owner = |name, world: &World, packet: &Packet| {
        row(name, world, packet).forwarded(packet, &NEAR, Ipip).events(&[UnrecordedToOwner])
    };
    vec![
        to_owner("closed: an unrecorded SYN goes to the owner, not recorded", &world, &syn).new_flow(),
        to_owner("closed: an unrecorded segment goes to the owner, not recorded", &world, &ack),
        to_owner("closed: unrecorded UDP goes to the owner, not recorded", &world, &udp()),
        to_owner(
            "closed: a record of another epoch is absent",
            &world.clone().record(key, OTHER.id, 4, 0, 10),
            &ack,
        ),
        to_owner(
            "closed: a record too old is absent",
            &world.clone().record(key, OTHER.id, EPOCH, 0, IDLE + 1),
            &ack,
        ),
        row("closed: a stray is followed", &world.clone().record(key, OTHER.id, EPOCH, 0, 10), &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Followed])
            .leaves(&ack, &OTHER, 0),
        row("closed: a SYN follows a stray", &world.clone().record(key, OTHER.id, EPOCH, 0, 10), &syn)
            .forwarded(&syn, &OTHER, Ipip)
            .new_flow()
            .events(&[Followed])
            .leaves(&syn, &OTHER, 0),
        row(
            "closed: a SYN after a FIN goes to the owner, and the record with it",
            &world.record(key, OTHER.id, EPOCH, CLOSING, 10),
            &syn,
        )
        .forwarded(&syn, &NEAR, Ipip)
        .new_flow()
        .events(&[Recorded])
        .leaves(&syn, &NEAR, 0),
    ]
}

/// Nothing is recorded, what is recorded is followed, and the rest is as in an open slot that cannot record.
fn sweeping(now: u32) -> Vec<Row> {
    let world = ipip(now).moving(NEAR.id, OTHER.id, Sweeping, OVER);
    let (syn, ack, packet) = (tcp(SYN), tcp(ACK), udp());
    let ended = world.clone().record(flow(&ack), NEAR.id, EPOCH, 0, IDLE + 1);
    vec![
        row("sweeping: a SYN goes to previous", &world, &syn)
            .forwarded(&syn, &OTHER, Ipip)
            .new_flow()
            .events(&[InsertPaused]),
        row("sweeping: an ended record stays as it is", &ended, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[UnrecordedToPrevious, InsertPaused]),
        row("sweeping: UDP goes to previous, whatever the age", &world, &packet)
            .forwarded(&packet, &OTHER, Ipip)
            .events(&[UnrecordedToPrevious, InsertPaused]),
        row("sweeping: a record is followed", &world.record(flow(&ack), NEAR.id, EPOCH, 0, 10), &ack)
            .forwarded(&ack, &NEAR, Ipip)
            .events(&[Followed])
            .leaves(&ack, &NEAR, 0),
    ]
}

/// This core's inserts of the tick are spent.
fn spent(now: u32) -> Vec<Row> {
    let world = World { spent: INSERTS_PER_TICK, ..opened(now) };
    let (syn, ack) = (tcp(SYN), tcp(ACK));
    let ended = world.clone().record(flow(&ack), NEAR.id, EPOCH, 0, IDLE + 1);
    let place = Place::HostOnly("a tick may pass between the writing of the maps and the run");
    let rows = [
        row("budget spent: a SYN goes to previous", &world, &syn)
            .forwarded(&syn, &OTHER, Ipip)
            .new_flow()
            .events(&[BudgetSpent]),
        row("budget spent: a segment goes to previous", &world, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[UnrecordedToPrevious, BudgetSpent]),
        row("budget spent: an ended record's place costs none", &ended, &ack)
            .forwarded(&ack, &OTHER, Ipip)
            .events(&[Recorded, UnrecordedToPrevious])
            .leaves(&ack, &OTHER, 0),
    ];
    rows.map(|row| Row { place, ..row }).into()
}

/// Where no record is looked at.
fn none(now: u32) -> Vec<Row> {
    let ack = tcp(ACK);
    let forgetful = World::new(now)
        .forward(FORWARD_IPIP | FLOWS_NONE)
        .moving(NEAR.id, OTHER.id, Open, 3)
        .record(flow(&ack), OTHER.id, EPOCH, 0, 10);
    let settled = ipip(now).record(flow(&ack), OTHER.id, 0, 0, 10);
    vec![
        row("flows = none: the owner, whatever is recorded", &forgetful, &ack).forwarded(&ack, &NEAR, Ipip),
        row("settled: the owner, whatever is recorded", &settled, &ack).forwarded(&ack, &NEAR, Ipip),
    ]
}
