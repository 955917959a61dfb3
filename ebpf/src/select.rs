//! From a slot to a backend: flow records are read and written only while the slot moves.
//!
//! ```text
//!                  live record   no live record
//!  settled         -             owner
//!  open, SYN       follow *      owner, recorded; not recordable: previous while it is up
//!  open, other     follow        previous, recorded (RST, FIN, SYN-ACK: not recorded); previous not up: owner
//!  open, UDP       follow        within the window as other, after it as a SYN
//!  sweeping        follow *      as open, nothing recordable
//!  closed          follow *      owner
//! ```
//! `*`: a SYN re-homes a flow that was seen closing. A flow whose backend is down or gone is re-homed by any packet.
//! A record lives if its epoch is the slot's and its last packet is no older than the VIP's flow idle time. The
//! window is over when flow idle time and grace have passed since the slot opened and since any flow could not be
//! recorded.
//!
//! # Why this is right
//!
//! The claim: packets of one flow that come within its idle time meet one backend, as long as that backend stays up.
//! Each row leaves behind what the next packet needs to decide alike:
//!
//! - In a settled or closed slot an unrecorded flow is the owner's. When control opens the slot it writes that owner
//!   into `previous`, in the same word: there is no moment at which an unrecorded flow could be somebody else's.
//! - In an open slot every flow of `previous` that still lives is heard of before the window is over, and recorded; a
//!   new one is recorded with the owner, whoever that is at the time. Where one cannot be recorded it goes to
//!   `previous`, new or old, and the window begins anew, for packets (`refused_at`) as for control. So when the slot
//!   closes, unrecorded flows of `previous` are ones that were silent for too long.
//! - UDP does not tell new from old. Within the window both are `previous`'s. After it a datagram begins a flow and is
//!   recorded like a SYN: the slot may be open for longer, for TCP's sake, and its owner may change again meanwhile.
//!
//! # Races
//!
//! A program reads the slot once, the record once, and ends within [`GRACE_TICKS`]. Cores and control may do anything
//! between its steps; no lock and no atomic read-modify-write is needed, because:
//!
//! - *An old word of the slot* is as good as the new one. Settled or closed on A, while control opens it: A either way.
//!   Open, while control changes the owner, or back, or closes: what is recorded by the old word carries its epoch,
//!   which is the slot's until it has settled, and control settles a slot only when it was closed for a grace *and
//!   then* finds no stray: a record written late is found.
//! - *A record of an older epoch* cannot be followed: a slot that settled and opened again has another epoch. Control
//!   takes such records away before the slot settles again, so that at most two epochs have records and the six bits
//!   may wrap.
//! - *Two cores with one flow* (its core changed, packets overtake each other) write the same record, or one begins
//!   it and the other follows (an insert never replaces). A core that saw a packet stores the time alone, so it does
//!   not undo what another core re-homed. Packets that overlap in time may meet two backends once, where the word
//!   changed between them.
//! - *A record's place* is given to another flow once control has deleted it, and a program that still held it would
//!   write into that flow's record. Control deletes only what no program stores to: dead records of slots that are
//!   settled, closed or sweeping for longer than a grace (`lb::steering::settle`).
//! - *A backend's flag* goes up after the slots have left it, and down before they return. A program between the two
//!   drops the packet as for a backend that is down; the client sends it again.
//! - *Clocks*: cores and control read one coarse clock; one tick of difference, and a control that is slow by less
//!   than a grace between reading it and storing, are allowed for.
//! - *The daemon dies* between any two stores: each word is right by itself. Nobody closes or settles: new flows go on
//!   being recorded until the table is full, and then to `previous`.
//!
//! What is not promised: a SYN that is forged or repeated just when the slot has opened, for a flow not yet heard of
//! since, looks like a new flow. It is followed by whoever is first recorded. And a flow of which nothing but a FIN, an
//! RST or a SYN-ACK is heard while its slot is open has not been heard of.

use lb_abi::{
    backend::{BackendEntry, DOWN, PRESENT},
    bounds::INSERTS_PER_TICK,
    counter::FlowEvent,
    flow::{CLOSING, FlowKey, FlowRecord, Inserts},
    slot::{CHANGED_AT_MASK, GRACE_TICKS, Phase, Slot},
    tag::FlowTag,
};

use crate::{
    env::{Env, FlowCell},
    parse::TcpFlags,
};

/// What a packet says about its flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// TCP: SYN alone.
    #[default]
    Opening = 0,
    /// TCP: SYN-ACK. It never begins a record: clients do not send it to a service.
    Answering,
    /// TCP: FIN or RST. It ends a record and never begins one.
    Closing,
    /// TCP: anything else.
    Running,
    /// UDP, which does not say.
    Datagram,
    /// An ICMP error about the flow. It follows a record, and neither begins nor changes one.
    Reported,
}

impl Stage {
    /// Of a set of flags; none of an impossible one.
    #[inline(always)]
    pub const fn of(flags: TcpFlags) -> Option<Self> {
        Some(if !flags.possible() {
            return None;
        } else if flags.0 & (TcpFlags::FIN | TcpFlags::RST) != 0 {
            Self::Closing
        } else if flags.0 & TcpFlags::SYN == 0 {
            Self::Running
        } else if flags.0 & TcpFlags::ACK == 0 {
            Self::Opening
        } else {
            Self::Answering
        })
    }

    /// The stage of a number; what is none is what never changes anything.
    #[inline(always)]
    pub const fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Answering,
            2 => Self::Closing,
            3 => Self::Running,
            4 => Self::Datagram,
            _ => Self::Reported,
        }
    }

    /// Whether a packet without a record may begin one.
    #[inline(always)]
    pub const fn records(self) -> bool {
        matches!(self, Self::Opening | Self::Running | Self::Datagram)
    }
}

/// What a backend id stands for at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Up,
    Down,
    Absent,
}

#[inline(always)]
pub(crate) fn standing(entry: Option<&BackendEntry>) -> Standing {
    match entry {
        Some(entry) if entry.flags & PRESENT == 0 => Standing::Absent,
        Some(entry) if entry.flags & DOWN != 0 => Standing::Down,
        Some(_) => Standing::Up,
        None => Standing::Absent,
    }
}

#[inline(always)]
fn is_up<E: Env>(env: &E, id: u16) -> bool {
    standing(env.backend(id)) == Standing::Up
}

/// A backend id that may yet turn out to be down or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Of the backend.
    pub id: u16,
    /// The packet began a record.
    pub recorded: bool,
}

impl Pick {
    /// Of a packet that began none.
    #[inline(always)]
    pub(crate) const fn of(id: u16) -> Self {
        Self { id, recorded: false }
    }
}

/// The backend of a packet whose slot moves. `idle`: ticks that the VIP remembers a flow without packets.
#[inline(always)]
pub fn pick_moving<E: Env>(
    env: &E,
    flow: &FlowKey,
    tag: FlowTag,
    idle: u32,
    stage: Stage,
    slot: Slot,
) -> Pick {
    let cell = env.flow(flow, tag);
    if cell.is_none() && matches!(slot.phase(), Phase::Closed) {
        // As below, without a look at the clock.
        env.count_flow(FlowEvent::UnrecordedToOwner);
        return Pick::of(slot.owner());
    }
    let now = env.now_ticks();
    if let Some(cell) = &cell {
        let record = cell.load();
        if lives(record, slot, idle, now) {
            return follow(env, cell, record, stage, slot, now);
        }
    }
    begin(env, (flow, tag), idle, stage, slot, now, cell)
}

/// There is a record, it is of the slot's epoch, and its last packet no older than the idle time. Another core's clock
/// may be a tick ahead of ours.
#[inline(always)]
const fn lives(record: FlowRecord, slot: Slot, idle: u32, now: u32) -> bool {
    record.backend != 0 && record.epoch == slot.epoch() && since(record.seen, now) <= idle
}

/// Ticks since `then`; 0 where the clock that said so is ahead of ours.
#[inline(always)]
const fn since(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// A live record: the backend to take. Only what changes is stored, each field by itself, so that a core which
/// re-homes the flow at this moment is not overruled by one that merely saw a packet.
#[inline(always)]
fn follow<E: Env>(
    env: &E,
    cell: &impl FlowCell,
    record: FlowRecord,
    stage: Stage,
    slot: Slot,
    now: u32,
) -> Pick {
    let is_closing = matches!(stage, Stage::Closing);
    if is_closing && record.state & CLOSING == 0 {
        cell.close();
    }
    let home = standing(env.backend(record.backend));
    let reopened = matches!(stage, Stage::Opening) && record.state & CLOSING != 0;
    let owner = slot.owner();
    // A reopened flow stays where it was if its new owner takes nothing.
    let stays = matches!(home, Standing::Up) && (!reopened || !is_up(env, owner));
    if stays || !is_up(env, owner) {
        if record.seen != now && !matches!(stage, Stage::Reported) {
            cell.touch(now);
        }
        if stays {
            env.count_flow(FlowEvent::Followed);
            return Pick::of(record.backend);
        }
        // Nobody takes over: the record stays as it is, for when its backend returns; the packet is the owner's loss.
        return Pick::of(owner);
    }
    env.count_flow(match home {
        Standing::Up => FlowEvent::Recorded,
        Standing::Down => FlowEvent::RepickedDown,
        Standing::Absent => FlowEvent::RepickedGone,
    });
    if matches!(stage, Stage::Reported) {
        return Pick::of(owner);
    }
    let state = if is_closing { CLOSING } else { 0 };
    cell.store(FlowRecord { backend: owner, epoch: record.epoch, state, seen: now });
    Pick::of(owner)
}

/// No live record: the flow begins, or was silent since the slot moved.
#[inline(always)]
fn begin<E: Env>(
    env: &E,
    (flow, tag): (&FlowKey, FlowTag),
    idle: u32,
    stage: Stage,
    slot: Slot,
    now: u32,
    cell: Option<impl FlowCell>,
) -> Pick {
    let owner = slot.owner();
    if matches!(slot.phase(), Phase::Settled | Phase::Closed) {
        env.count_flow(FlowEvent::UnrecordedToOwner);
        return Pick::of(owner);
    }
    let previous = standing(env.backend(slot.previous()));
    let opens = match stage {
        Stage::Opening => true,
        // Whoever had it before was heard of within the idle time, or is heard of no more.
        Stage::Datagram => !is_window_open(env, idle, slot, now),
        Stage::Answering | Stage::Closing | Stage::Running | Stage::Reported => false,
    };
    let id = match previous {
        Standing::Up if !opens => slot.previous(),
        _ => owner,
    };
    if !matches!(stage, Stage::Opening) {
        env.count_flow(match previous {
            _ if opens => FlowEvent::UnrecordedToOwner,
            Standing::Up => FlowEvent::UnrecordedToPrevious,
            Standing::Down => FlowEvent::RepickedDown,
            Standing::Absent => FlowEvent::UnrecordedToOwner,
        });
    }
    if !stage.records() || !is_up(env, id) {
        return Pick::of(id);
    }
    let record = FlowRecord { backend: id, epoch: slot.epoch(), state: 0, seen: now };
    let refused = match write(env, flow, tag, slot, record, cell) {
        Ok(()) => {
            env.count_flow(FlowEvent::Recorded);
            return Pick { id, recorded: true };
        }
        Err(refused) => refused,
    };
    if matches!(refused, FlowEvent::InsertRefused)
        && let Some(cell) = env.flow(flow, tag)
    {
        // Another core was faster with a packet of the same flow, in this very moment: its record is as fresh as ours.
        let record = cell.load();
        if record.epoch == slot.epoch() && is_up(env, record.backend) {
            env.count_flow(FlowEvent::Followed);
            return Pick::of(record.backend);
        }
    }
    env.count_flow(refused);
    if env.refused_at() != now {
        env.keep_refused_at(now);
    }
    // Its later packets will find no record and go to `previous`: begin there.
    let id = if opens && matches!(previous, Standing::Up) { slot.previous() } else { id };
    Pick::of(id)
}

/// Whether flows of `previous` that are not recorded may still live, by this VIP's idle time: since the slot
/// opened, and since some flow could not be recorded.
#[inline(always)]
fn is_window_open<E: Env>(env: &E, idle: u32, slot: Slot, now: u32) -> bool {
    let end = idle.saturating_add(GRACE_TICKS);
    matches!(slot.phase(), Phase::Sweeping) || age(slot, now) <= end || since(env.refused_at(), now) <= end
}

/// Records a flow that has no live record: over its dead one, which needs no room, or in a new place.
#[inline(always)]
fn write<E: Env>(
    env: &E,
    flow: &FlowKey,
    tag: FlowTag,
    slot: Slot,
    record: FlowRecord,
    cell: Option<impl FlowCell>,
) -> Result<(), FlowEvent> {
    if matches!(slot.phase(), Phase::Sweeping) {
        return Err(FlowEvent::InsertPaused);
    }
    if let Some(cell) = cell {
        if cell.load().backend == 0 {
            return if cell.begin(record) { Ok(()) } else { Err(FlowEvent::InsertRefused) };
        }
        cell.store(record);
        return Ok(());
    }
    let tick = record.seen;
    let kept = env.inserts();
    let spent = if kept.tick == tick { kept.spent } else { 0 };
    if spent >= INSERTS_PER_TICK {
        return Err(FlowEvent::BudgetSpent);
    }
    env.keep_inserts(Inserts { tick, spent: spent + 1 });
    env.record(flow, tag, record).ok_or(FlowEvent::InsertRefused)
}

/// Ticks since the slot changed; 0 where control's clock is ahead of ours.
///
/// Half of the range counts as ahead: a slot that nobody closes for 13 days (2^23 ticks) reads as just opened
/// again, which is slower, and still right.
#[inline(always)]
const fn age(slot: Slot, now: u32) -> u32 {
    let age = slot.age(now);
    if age > CHANGED_AT_MASK / 2 { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages() {
        assert_eq!(Stage::of(TcpFlags(0x02)), Some(Stage::Opening));
        assert_eq!(Stage::of(TcpFlags(0xc2)), Some(Stage::Opening));
        assert_eq!(Stage::of(TcpFlags(0x12)), Some(Stage::Answering));
        assert_eq!(Stage::of(TcpFlags(0x11)), Some(Stage::Closing));
        assert_eq!(Stage::of(TcpFlags(0x14)), Some(Stage::Closing));
        assert_eq!(Stage::of(TcpFlags(0x18)), Some(Stage::Running));
        assert_eq!(Stage::of(TcpFlags(0x03)), None);
    }

    #[test]
    fn a_clock_a_tick_ahead_makes_nothing_old() {
        let record = FlowRecord { backend: 1, seen: 101, ..FlowRecord::default() };
        let slot = Slot::new(1, 2, Phase::Open, 0, 101);
        assert!(lives(record, slot, 10, 100));
        assert!(lives(record, slot, 10, 111));
        assert!(!lives(record, slot, 10, 112));
        assert!(!lives(FlowRecord { epoch: 1, ..record }, slot, 10, 100));
        assert_eq!(age(slot, 100), 0);
        assert_eq!(age(slot, 105), 4);
    }
}
