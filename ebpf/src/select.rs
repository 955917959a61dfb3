//! From a slot to a backend: flow records are read and written only while the slot moves.
//!
//! ```text
//!                     live record             no live record
//!  settled            -                       owner
//!  open, SYN          follow *                owner, recorded; not recordable: previous while it is up
//!  open, other        follow                  previous, recorded (RST, FIN, SYN-ACK: not recorded)
//!  open, UDP          follow                  previous, recorded, until the flow idle time has passed; then
//! owner
//!  closed             follow *                owner
//! ```
//! `*`: a SYN re-homes a flow that was seen closing. A flow whose backend is down is re-homed by any packet. A record
//! lives if its epoch is the slot's and its last packet is no older than the VIP's flow idle time.

use lb_abi::{
    backend::{BackendEntry, DOWN, PRESENT},
    counter::FlowEvent,
    flow::{CLOSING, FlowKey, FlowRecord},
    hash,
    reason::Reason,
    slot::{CHANGED_AT_MASK, Phase, Slot},
    vip::{FLOWS_NONE, VipEntry},
};

use crate::{
    address::Address,
    env::{Env, FlowCell},
    parse::TcpFlags,
};

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP: SYN alone.
    Opening,
    /// TCP: SYN-ACK. It never begins a record: clients do not send it to a service.
    Answering,
    /// TCP: FIN or RST. It ends a record and never begins one.
    Closing,
    /// TCP: anything else.
    Running,
    /// UDP, which does not say.
    Datagram,
}

impl Stage {
    /// Of a possible set of flags.
    #[inline(always)]
    pub const fn of(flags: TcpFlags) -> Self {
        if flags.0 & (TcpFlags::FIN | TcpFlags::RST) != 0 {
            Self::Closing
        } else if flags.0 & TcpFlags::SYN == 0 {
            Self::Running
        } else if flags.0 & TcpFlags::ACK == 0 {
            Self::Opening
        } else {
            Self::Answering
        }
    }

    /// Whether a packet without a record may begin one.
    #[inline(always)]
    const fn records(self) -> bool {
        matches!(self, Self::Opening | Self::Running | Self::Datagram)
    }
}

/// The backend of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Id.
    pub id: u16,
    /// Where it is.
    pub address: Address,
    /// Which backend of that id.
    pub generation: u32,
    /// Counted as a new flow.
    pub new_flow: bool,
}

/// What a backend id stands for at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    Down,
    Absent,
}

#[inline(always)]
fn standing(entry: Option<&BackendEntry>) -> Standing {
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

/// Picks the backend of a packet whose flow hashes to `hash`.
#[inline(always)]
pub fn select<E: Env>(
    env: &E,
    vip: &VipEntry,
    flow: &FlowKey,
    stage: Stage,
    hash: u32,
) -> Result<Choice, Reason> {
    let index = vip.table.wrapping_add(hash::slot(hash, vip.table_len));
    let slot = env.slot(index).ok_or(Reason::NoBackend)?;
    env.touch(index);
    let still = matches!(slot.phase(), Phase::Settled) || vip.flags & FLOWS_NONE != 0;
    let Pick { id, recorded } =
        if still { Pick::of(slot.owner()) } else { pick_moving(env, vip, flow, stage, slot) };
    let entry = env.backend(id);
    match (standing(entry), entry) {
        (Standing::Up, Some(entry)) => Ok(Choice {
            id,
            address: Address::new(entry.address),
            generation: entry.generation,
            new_flow: matches!(stage, Stage::Opening) || (matches!(stage, Stage::Datagram) && recorded),
        }),
        (Standing::Down, _) => Err(Reason::BackendDown),
        _ => Err(Reason::NoBackend),
    }
}

/// A backend id that may yet turn out to be down or absent.
struct Pick {
    id: u16,
    recorded: bool,
}

impl Pick {
    #[inline(always)]
    const fn of(id: u16) -> Self {
        Self { id, recorded: false }
    }
}

#[inline(always)]
fn pick_moving<E: Env>(env: &E, vip: &VipEntry, flow: &FlowKey, stage: Stage, slot: Slot) -> Pick {
    let now = env.now_ticks();
    if let Some(cell) = env.flow(flow) {
        let record = cell.load();
        if record.epoch == slot.epoch() && fresh(record, now, vip.flow_idle_ticks) {
            let (id, next) = follow(env, record, stage, slot, now);
            cell.store(next);
            return Pick::of(id);
        }
    }
    begin(env, vip, flow, stage, slot, now)
}

/// The record's last packet is no older than `idle` ticks. Another core's clock may be a tick ahead of ours.
#[inline(always)]
const fn fresh(record: FlowRecord, now: u32, idle: u32) -> bool {
    let age = now.wrapping_sub(record.seen);
    age <= idle || age > u32::MAX / 2
}

/// A live record: the backend to take, and the record to leave behind.
#[inline(always)]
fn follow<E: Env>(env: &E, record: FlowRecord, stage: Stage, slot: Slot, now: u32) -> (u16, FlowRecord) {
    let closing = if matches!(stage, Stage::Closing) { CLOSING } else { 0 };
    let lost = !is_up(env, record.backend);
    let reopened = matches!(stage, Stage::Opening) && record.state & CLOSING != 0;
    let owner = slot.owner();
    let owner_up = is_up(env, owner);
    // A reopened flow stays where it was if its new owner takes nothing.
    let rehomed = lost || (reopened && owner_up);
    if !rehomed {
        env.count_flow(FlowEvent::Followed);
        return (record.backend, FlowRecord { state: record.state | closing, seen: now, ..record });
    }
    // Nobody takes over: the record stays as it was, for when its backend returns; the packet is the owner's
    // loss.
    if !owner_up {
        return (owner, FlowRecord { seen: now, ..record });
    }
    env.count_flow(if lost { FlowEvent::RepickedDown } else { FlowEvent::Recorded });
    (owner, FlowRecord { backend: owner, state: closing, seen: now, ..record })
}

/// No live record.
#[inline(always)]
fn begin<E: Env>(env: &E, vip: &VipEntry, flow: &FlowKey, stage: Stage, slot: Slot, now: u32) -> Pick {
    let open = match slot.phase() {
        Phase::Open => !matches!(stage, Stage::Datagram) || age(slot, now) < vip.flow_idle_ticks,
        Phase::Settled | Phase::Closed => false,
    };
    if !open {
        env.count_flow(FlowEvent::UnrecordedToOwner);
        return Pick::of(slot.owner());
    }
    let previous = standing(env.backend(slot.previous()));
    let id = if matches!(stage, Stage::Opening) {
        slot.owner()
    } else {
        match previous {
            Standing::Up => {
                env.count_flow(FlowEvent::UnrecordedToPrevious);
                slot.previous()
            }
            Standing::Down => {
                env.count_flow(FlowEvent::RepickedDown);
                slot.owner()
            }
            Standing::Absent => {
                env.count_flow(FlowEvent::UnrecordedToOwner);
                slot.owner()
            }
        }
    };
    if !stage.records() || !is_up(env, id) {
        return Pick::of(id);
    }
    let record = FlowRecord { backend: id, epoch: slot.epoch(), state: 0, seen: now };
    if env.record(flow, record).is_some() {
        env.count_flow(FlowEvent::Recorded);
        return Pick { id, recorded: true };
    }
    env.count_flow(FlowEvent::InsertRefused);
    // Its later packets will find no record and go to `previous`: begin there.
    let id = if matches!((stage, previous), (Stage::Opening, Standing::Up)) { slot.previous() } else { id };
    Pick::of(id)
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
        assert_eq!(Stage::of(TcpFlags(0x02)), Stage::Opening);
        assert_eq!(Stage::of(TcpFlags(0xc2)), Stage::Opening);
        assert_eq!(Stage::of(TcpFlags(0x12)), Stage::Answering);
        assert_eq!(Stage::of(TcpFlags(0x11)), Stage::Closing);
        assert_eq!(Stage::of(TcpFlags(0x14)), Stage::Closing);
        assert_eq!(Stage::of(TcpFlags(0x18)), Stage::Running);
    }

    #[test]
    fn a_clock_a_tick_ahead_makes_nothing_old() {
        let record = FlowRecord { seen: 101, ..FlowRecord::default() };
        assert!(fresh(record, 100, 10));
        assert!(fresh(record, 111, 10));
        assert!(!fresh(record, 112, 10));
        let slot = Slot::new(1, 2, Phase::Open, 0, 101);
        assert_eq!(age(slot, 100), 0);
        assert_eq!(age(slot, 105), 4);
    }
}
