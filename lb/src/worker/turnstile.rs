//! So many at a time: what costs much is begun only so often in one turn, in the order in which it was asked for.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

#[derive(Debug)]
pub(super) struct Turnstile {
    per_turn: usize,
    left: Cell<usize>,
    waiting: RefCell<VecDeque<Weak<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    may_pass: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turnstile {
    pub(super) fn new(per_turn: usize) -> Self {
        Self { per_turn, left: Cell::new(per_turn), waiting: RefCell::default() }
    }

    /// Waits for its turn. Dropped early, it takes none.
    pub(super) async fn pass(&self) {
        if self.left.get() > 0 {
            return self.left.set(self.left.get() - 1);
        }
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::downgrade(&waiter));
        poll_fn(|task| {
            if waiter.may_pass.get() {
                return Poll::Ready(());
            }
            waiter.waker.replace(Some(task.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// A turn begins. Whether others wait for the next one.
    pub(super) fn turn(&self) -> bool {
        let mut left = self.per_turn;
        let mut waiting = self.waiting.borrow_mut();
        while left > 0
            && let Some(next) = waiting.pop_front()
        {
            let Some(waiter) = next.upgrade() else { continue };
            left -= 1;
            waiter.may_pass.set(true);
            waiter.waker.take().into_iter().for_each(Waker::wake);
        }
        self.left.set(left);
        !waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::Context,
    };

    use super::*;

    type Waits<'t> = Pin<Box<dyn Future<Output = ()> + 't>>;

    fn waits(turnstile: &Turnstile) -> Waits<'_> {
        Box::pin(turnstile.pass())
    }

    #[test]
    fn so_many_pass_in_a_turn_and_the_first_first() {
        let turnstile = Turnstile::new(2);
        let mut task = Context::from_waker(Waker::noop());
        let mut all: Vec<_> = (0..7).map(|_| Some(waits(&turnstile))).collect();
        let mut look = |all: &mut Vec<Option<Waits<'_>>>| {
            let mut passed = Vec::new();
            for (at, place) in all.iter_mut().enumerate() {
                if place.as_mut().is_some_and(|future| future.as_mut().poll(&mut task).is_ready()) {
                    passed.push(at);
                    *place = None;
                }
            }
            passed
        };
        assert_eq!(look(&mut all), [0, 1]);
        assert!(look(&mut all).is_empty());
        // Who gives up takes nobody's place.
        all[3] = None;
        assert!(turnstile.turn());
        assert_eq!(look(&mut all), [2, 4]);
        assert!(!turnstile.turn());
        assert_eq!(look(&mut all), [5, 6]);
        assert!(!turnstile.turn());
        assert_eq!(pin!(turnstile.pass()).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }
}
