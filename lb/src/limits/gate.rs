//! Who waits for a backend of one pool, over all workers, so that one which is free goes to who has waited longest.
//!
//! Each worker has a line of its own, and says here which ticket stands first in it. Touched only by who waits, and by who
//! frees what somebody waits for: then this says whom to wake. Whoever comes in says so before it looks for something
//! free, and whoever frees something does so before it looks here; both in one order over all threads (`SeqCst`), so that
//! they cannot miss each other.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::model::WorkerId;

const NOBODY: u64 = u64::MAX;

/// Shared by all workers.
#[derive(Debug)]
pub struct Gate {
    waiting: AtomicU32,
    tickets: AtomicU64,
    /// By worker: the ticket that stands first in its line.
    first: Box<[AtomicU64]>,
}

impl Gate {
    /// Nobody waits.
    pub fn new(workers: usize) -> Self {
        Self {
            waiting: AtomicU32::new(0),
            tickets: AtomicU64::new(0),
            first: (0..workers).map(|_| AtomicU64::new(NOBODY)).collect(),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// One more waits, with a ticket later than all others; `None`: `most` do already.
    pub fn enter(&self, most: u32) -> Option<u64> {
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(self.tickets.fetch_add(1, Ordering::SeqCst))
    }

    /// One of them waits no more.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Says which ticket stands first in a worker's line.
    pub fn set_first(&self, worker: WorkerId, ticket: Option<u64>) {
        if let Some(first) = self.first.get(worker.index()) {
            first.store(ticket.unwrap_or(NOBODY), Ordering::SeqCst);
        }
    }

    /// The worker with the earliest ticket of all.
    pub fn longest(&self) -> Option<WorkerId> {
        self.earliest(|_| true)
    }

    /// The worker whose first ticket is the next after this one.
    pub fn longest_after(&self, ticket: u64) -> Option<WorkerId> {
        self.earliest(|first| first > ticket)
    }

    fn earliest(&self, counts: impl Fn(u64) -> bool) -> Option<WorkerId> {
        let firsts = self.first.iter().map(|first| first.load(Ordering::SeqCst)).zip(0..);
        let (ticket, worker) = firsts.filter(|(ticket, _)| counts(*ticket)).min()?;
        (ticket != NOBODY).then_some(WorkerId(worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_is_named() {
        let (gate, [a, b]) = (Gate::new(2), [WorkerId(0), WorkerId(1)]);
        assert_eq!((gate.longest(), gate.waiting()), (None, 0));
        let tickets: Vec<_> = (0..3).map(|_| gate.enter(3).unwrap()).collect();
        assert_eq!((gate.enter(3), gate.waiting()), (None, 3));
        gate.set_first(b, Some(tickets[0]));
        gate.set_first(a, Some(tickets[1]));
        assert_eq!(gate.longest(), Some(b));
        assert_eq!((gate.longest_after(tickets[0]), gate.longest_after(tickets[1])), (Some(a), None));
        gate.leave();
        gate.set_first(b, Some(tickets[2]));
        assert_eq!(gate.longest(), Some(a));
        gate.set_first(a, None);
        assert_eq!(gate.longest(), Some(b));
        assert!(gate.enter(3).is_some());
    }
}
