//! Who waits on this worker for a backend of one pool: in order, first come first served. The lines of all workers
//! hang together by the pool's [`Gate`].

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::siblings::Siblings;
use crate::{limits::Gate, model::WorkerId};

/// One worker's line of one pool.
pub(super) struct Line {
    gate: Arc<Gate>,
    worker: WorkerId,
    siblings: Arc<Siblings>,
    waiting: RefCell<VecDeque<Waiter>>,
}

struct Waiter {
    ticket: u64,
    /// It may look whether something is free.
    may_try: bool,
    waker: Option<Waker>,
}

/// What came of looking.
pub(super) enum Look<T> {
    /// It has it.
    Got(T),
    /// Nothing is free.
    Full,
    /// Something is, but nothing that this one takes.
    NotForMe,
}

impl Line {
    fn new(gate: Arc<Gate>, worker: WorkerId, siblings: Arc<Siblings>) -> Self {
        Self { gate, worker, siblings, waiting: RefCell::default() }
    }

    /// Whether anybody waits, on any worker: then a newcomer stands in line, too.
    pub(super) fn is_wanted(&self) -> bool {
        self.gate.waiting() > 0
    }

    /// Something was freed: wakes who has waited longest.
    pub(super) fn freed(&self) {
        match self.gate.longest() {
            Some(worker) if worker == self.worker => self.wake(0),
            Some(worker) => self.siblings.ring(worker),
            None => {}
        }
    }

    /// What is free goes to the next one, on whatever worker that is.
    fn pass_on(&self, ticket: u64) {
        let (first, after, len) = {
            let waiting = self.waiting.borrow();
            let first = waiting.front().map_or(ticket, |waiter| waiter.ticket);
            (first, waiting.partition_point(|waiter| waiter.ticket <= ticket), waiting.len())
        };
        if after < len {
            self.wake(after);
        } else if let Some(worker) = self.gate.longest_after(first) {
            self.siblings.ring(worker);
        }
    }

    fn wake(&self, at: usize) {
        let waker = self.waiting.borrow_mut().get_mut(at).and_then(|waiter| {
            waiter.may_try = true;
            waiter.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits until `look` has found something; the first in line looks first. `None`: `most` wait already. Dropped
    /// early, it leaves the line. `is_any_free`: something is, though others wait, who then look once more.
    pub(super) fn wait<T, F: FnMut() -> Look<T> + Unpin>(
        &self,
        most: u32,
        is_any_free: bool,
        look: F,
    ) -> Option<Wait<'_, F>> {
        let ticket = self.gate.enter(most)?;
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(Waiter { ticket, may_try: false, waker: None });
        if waiting.len() == 1 {
            self.gate.set_first(self.worker, Some(ticket));
            // Something may have been freed since it was found taken.
            waiting[0].may_try = self.gate.longest() == Some(self.worker);
        }
        let is_next = waiting.back().is_some_and(|last| last.may_try);
        drop(waiting);
        if is_any_free && !is_next {
            self.freed();
        }
        Some(Wait { line: self, ticket, look })
    }

    fn leave(&self, ticket: u64) {
        let mut waiting = self.waiting.borrow_mut();
        let Ok(at) = waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket) else { return };
        waiting.remove(at);
        if at == 0 {
            self.gate.set_first(self.worker, waiting.front().map(|waiter| waiter.ticket));
        }
        self.gate.leave();
        let is_empty = waiting.is_empty();
        drop(waiting);
        // There may be more of it, or it had been woken for something that it did not take.
        if !is_empty {
            self.wake(at);
        } else if self.is_wanted() {
            self.freed();
        }
    }
}

/// See [`Line::wait`].
pub(super) struct Wait<'a, F> {
    line: &'a Line,
    ticket: u64,
    look: F,
}

impl<F> Wait<'_, F> {
    /// Lets it look if it is the first: time has passed, and backends may have come up.
    pub(super) fn nudge(&self) {
        if let Some(first) = self.line.waiting.borrow_mut().front_mut() {
            first.may_try |= first.ticket == self.ticket;
        }
    }
}

impl<T, F: FnMut() -> Look<T> + Unpin> Future for Wait<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let (line, ticket) = (self.line, self.ticket);
        let may_try = {
            let mut waiting = line.waiting.borrow_mut();
            let Ok(at) = waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket) else {
                return Poll::Pending;
            };
            waiting[at].waker = Some(context.waker().clone());
            std::mem::take(&mut waiting[at].may_try)
        };
        if !may_try {
            return Poll::Pending;
        }
        match (self.look)() {
            Look::Got(found) => {
                line.leave(ticket);
                Poll::Ready(found)
            }
            Look::Full => Poll::Pending,
            Look::NotForMe => {
                line.pass_on(ticket);
                Poll::Pending
            }
        }
    }
}

impl<F> Drop for Wait<'_, F> {
    fn drop(&mut self) {
        self.line.leave(self.ticket);
    }
}

/// All lines of a worker, by the names of pools: they outlive a config.
pub(super) struct Lines {
    worker: WorkerId,
    siblings: Arc<Siblings>,
    by_pool: RefCell<HashMap<Arc<str>, Rc<Line>>>,
}

impl Lines {
    pub(super) fn new(worker: WorkerId, siblings: Arc<Siblings>) -> Self {
        Self { worker, siblings, by_pool: RefCell::default() }
    }

    pub(super) fn of(&self, pool: &Arc<str>) -> Rc<Line> {
        let new = || {
            let gate = self.siblings.permits().gate(pool);
            Rc::new(Line::new(gate, self.worker, self.siblings.clone()))
        };
        self.by_pool.borrow_mut().entry(pool.clone()).or_insert_with(new).clone()
    }

    /// Somebody rang: the first of each line looks.
    pub(super) fn wake(&self) {
        self.by_pool.borrow().values().for_each(|line| line.wake(0));
    }

    /// Whatever was kept is free: as [`Line::freed`], where somebody waits.
    pub(super) fn freed(&self) {
        self.by_pool.borrow().values().filter(|line| line.is_wanted()).for_each(|line| line.freed());
    }
}
