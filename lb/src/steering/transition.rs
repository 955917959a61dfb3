//! What becomes of a slot: the rules of `lb_abi::slot`'s diagram, one word in, one word out.
//!
//! `previous` is the owner when the slot was last closed or settled; a later change in the window never
//! overwrites it. The epoch is bumped at settled -> open only: until the slot is settled again, the records
//! written since must stay readable. A backend that takes nothing any more leaves nothing to remember.
//! A slot that is swept is open in all but recording.

use lb_abi::slot::{GRACE_TICKS, Phase, Slot};

use crate::model::BackendId;

/// The slot after its owner became `owner` (perhaps the one it was), at `now` ticks.
///
/// `serves` says whether a backend's old flows can still be served: known, and not down.
pub(super) fn change(slot: Slot, owner: BackendId, serves: impl Fn(BackendId) -> bool, now: u32) -> Slot {
    let owner = owner.0;
    let old = BackendId(slot.owner());
    let previous = BackendId(slot.previous());
    let epoch = slot.epoch();
    let closed = Slot::new(owner, owner, Phase::Closed, epoch, now);
    match slot.phase() {
        Phase::Settled if old.0 == owner => slot,
        Phase::Settled if serves(old) => Slot::new(owner, old.0, Phase::Open, epoch.wrapping_add(1), now),
        Phase::Settled => Slot::settled(owner, epoch, now),
        // Whatever else was given out while it was open stands in records.
        Phase::Open | Phase::Sweeping if previous.0 == owner || !serves(previous) => closed,
        Phase::Open | Phase::Sweeping if old.0 == owner => slot,
        Phase::Open | Phase::Sweeping => Slot::new(owner, previous.0, slot.phase(), epoch, slot.changed_at()),
        Phase::Closed if old.0 == owner => slot,
        Phase::Closed if serves(old) => Slot::new(owner, old.0, Phase::Open, epoch, now),
        Phase::Closed => closed,
    }
}

/// The slot after time passed: an open one closes when every flow of `previous` that still lives has been
/// seen, and could be recorded: the last one that could not was `quiet_ticks` ago.
pub(super) fn close(slot: Slot, flow_memory_ticks: u32, quiet_ticks: u32, now: u32) -> Slot {
    let window = flow_memory_ticks.saturating_add(GRACE_TICKS);
    if slot.phase() == Phase::Open && slot.age(now) > window && quiet_ticks > window {
        Slot::new(slot.owner(), slot.owner(), Phase::Closed, slot.epoch(), now)
    } else {
        slot
    }
}

/// The slot when the table is full: an open one in which records may have ended is swept. Its window begins anew
/// when that is done.
pub(super) fn sweep(slot: Slot, shortest_idle_ticks: u32, now: u32) -> Slot {
    if slot.phase() == Phase::Open && slot.age(now) > shortest_idle_ticks.saturating_add(GRACE_TICKS) {
        Slot::new(slot.owner(), slot.previous(), Phase::Sweeping, slot.epoch(), now)
    } else {
        slot
    }
}

/// The slot after a look through the records that began when it [was still](is_still) and found no stray of it.
pub(super) fn looked_through(slot: Slot, now: u32) -> Slot {
    match slot.phase() {
        Phase::Closed => Slot::settled(slot.owner(), slot.epoch(), now),
        Phase::Sweeping => Slot::new(slot.owner(), slot.previous(), Phase::Open, slot.epoch(), now),
        Phase::Settled | Phase::Open => slot,
    }
}

/// Whether no program records a flow of this slot any more, so that what is found of it is all there is, and a
/// record that has ended stays so.
pub(super) fn is_still(slot: Slot, now: u32) -> bool {
    slot.phase() != Phase::Open && slot.age(now) > GRACE_TICKS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn everyone(_: BackendId) -> bool {
        true
    }

    fn moved(slot: Slot, owner: u16, now: u32) -> Slot {
        change(slot, BackendId(owner), everyone, now)
    }

    #[test]
    fn a_change_opens_with_a_new_epoch() {
        let slot = moved(Slot::settled(1, 63, 5), 2, 9);
        assert_eq!(slot, Slot::new(2, 1, Phase::Open, 0, 9));
    }

    #[test]
    fn a_change_back_closes() {
        let slot = moved(moved(Slot::settled(1, 3, 5), 2, 9), 1, 10);
        assert_eq!(slot, Slot::new(1, 1, Phase::Closed, 4, 10));
    }

    #[test]
    fn a_later_change_keeps_previous_epoch_and_age() {
        let slot = moved(moved(Slot::settled(1, 3, 5), 2, 9), 3, 10);
        assert_eq!(slot, Slot::new(3, 1, Phase::Open, 4, 9));
    }

    #[test]
    fn the_dead_leave_nothing_to_remember() {
        let but = |dead| move |id: BackendId| id.0 != dead;
        let at_once = change(Slot::settled(1, 3, 5), BackendId(2), but(1), 9);
        assert_eq!(at_once, Slot::settled(2, 3, 9));
        assert_eq!(moved(Slot::settled(0, 0, 0), 2, 9).phase(), Phase::Open, "id 0 is for `serves` to deny");
        // `previous` dies while the slot is open: what the owner took meanwhile is recorded, so it closes.
        let open = Slot::new(2, 1, Phase::Open, 4, 9);
        assert_eq!(change(open, BackendId(2), but(1), 12), Slot::new(2, 2, Phase::Closed, 4, 12));
        // The owner dies while it is open: `previous` is still there for its own.
        assert_eq!(change(open, BackendId(3), but(2), 12), Slot::new(3, 1, Phase::Open, 4, 9));
        let closed = Slot::new(2, 2, Phase::Closed, 4, 9);
        assert_eq!(change(closed, BackendId(3), but(2), 12), Slot::new(3, 3, Phase::Closed, 4, 12));
        // From closed, records of the epoch still count: it stays.
        assert_eq!(change(closed, BackendId(3), but(9), 12), Slot::new(3, 2, Phase::Open, 4, 12));
    }

    #[test]
    fn closing_waits_for_the_memory_and_for_room() {
        let open = Slot::new(2, 1, Phase::Open, 4, 100);
        let over = 111 + GRACE_TICKS;
        assert_eq!(close(open, 10, u32::MAX, over - 1), open);
        assert_eq!(close(open, 10, 10 + GRACE_TICKS, over), open);
        let closed = close(open, 10, 11 + GRACE_TICKS, over);
        assert_eq!(closed, Slot::new(2, 2, Phase::Closed, 4, over));
        assert!(!is_still(closed, over + GRACE_TICKS));
        assert!(is_still(closed, over + GRACE_TICKS + 1));
        assert!(!is_still(open, 1000));
        assert_eq!(looked_through(closed, 500), Slot::settled(2, 4, 500));
    }

    #[test]
    fn a_sweep_begins_the_window_anew() {
        let open = Slot::new(2, 1, Phase::Open, 4, 100);
        let over = 111 + GRACE_TICKS;
        assert_eq!(sweep(open, 10, over - 1), open);
        let swept = sweep(open, 10, over);
        assert_eq!(swept, Slot::new(2, 1, Phase::Sweeping, 4, over));
        assert_eq!(close(swept, 10, u32::MAX, 9999), swept, "it opens first");
        assert_eq!(moved(swept, 3, 9999), Slot::new(3, 1, Phase::Sweeping, 4, over));
        assert_eq!(moved(swept, 1, 9999), Slot::new(1, 1, Phase::Closed, 4, 9999));
        assert!(is_still(swept, over + GRACE_TICKS + 1));
        assert_eq!(looked_through(swept, 500), Slot::new(2, 1, Phase::Open, 4, 500));
    }

    proptest! {
        /// Whatever happens: the owner is the wanted one, an open slot has a live `previous` that is not its
        /// owner, and nobody's epoch changes but at settled -> open.
        #[test]
        fn invariants(steps in proptest::collection::vec((1u16..5, proptest::collection::btree_set(1u16..5, 0..4)), 1..40)) {
            let mut slot = Slot::settled(1, 0, 0);
            for ((owner, down), now) in steps.into_iter().zip(1u32..) {
                let serves = |id: BackendId| !down.contains(&id.0);
                let next = change(slot, BackendId(owner), serves, now);
                prop_assert_eq!(next.owner(), owner);
                match next.phase() {
                    Phase::Open | Phase::Sweeping => {
                        prop_assert!(serves(BackendId(next.previous())));
                        prop_assert_ne!(next.previous(), owner);
                    }
                    Phase::Settled | Phase::Closed => prop_assert_eq!(next.previous(), owner),
                }
                let opened = slot.phase() == Phase::Settled && next.phase() == Phase::Open;
                prop_assert_eq!(next.epoch(), (slot.epoch() + u8::from(opened)) % 64);
                prop_assert_eq!(change(next, BackendId(owner), serves, now), next, "a second time changes nothing");
                slot = if now % 5 == 0 { sweep(next, 0, next.changed_at() + 100) } else { next };
            }
        }
    }
}
