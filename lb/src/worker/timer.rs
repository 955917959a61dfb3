//! Deadlines: one per connection, on a coarse wheel that the worker turns. Never reads the clock.
//! Public for its micro-benchmark alone.
//!
//! Moving a deadline later costs one store: its entry stays where it is queued and is queued again when that
//! tick comes. Moving it earlier queues it a second time; stale places are skipped by what they find.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::model::BackendId;

/// Length of a tick. Deadlines are met late by at most two of these, never early.
const TICK: Duration = Duration::from_millis(16);
/// Places of the wheel: one round is 8 s; what is due later goes round again.
const PLACES: usize = 512;
/// Most entries that an empty place keeps room for.
const PLACE_KEPT_MAX: usize = 64;
const NEVER: u64 = u64::MAX;
/// What a missing deadline is, where one is needed.
pub(super) const FOR_EVER: Duration = Duration::from_secs(1 << 20);
/// Places in one word of [`Wheel::occupied`].
const WORD: usize = u64::BITS as usize;

struct Entry {
    due: u64,
    /// The tick whose place holds this entry; [`NEVER`]: none.
    queued: u64,
    waker: Option<Waker>,
    fired: bool,
    /// It has fired for good.
    cut: bool,
    idle: Idle,
    /// Whom it waits with; 0: nobody.
    backend: BackendId,
}

/// What may end a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Nothing.
    No,
    /// A drain.
    UntilDrain,
    /// A drain, and a shortage of memory: a connection that waits for what may come.
    Waiting,
}

struct Wheel {
    start: Instant,
    now: u64,
    entries: slab::Slab<Entry>,
    places: Box<[Vec<usize>]>,
    /// A bit per place: whether anything is queued there. Looked at every turn.
    occupied: [u64; PLACES / WORD],
}

/// All deadlines of one worker.
#[derive(Clone)]
pub struct Timers(Rc<RefCell<Wheel>>);

impl Timers {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(RefCell::new(Wheel {
            start: now,
            now: 0,
            entries: slab::Slab::new(),
            places: (0..PLACES).map(|_| Vec::new()).collect(),
            occupied: [0; PLACES / WORD],
        })))
    }

    /// A deadline that is not set.
    pub fn deadline(&self) -> Deadline {
        let entry = Entry {
            due: NEVER,
            queued: NEVER,
            waker: None,
            fired: false,
            cut: false,
            idle: Idle::No,
            backend: BackendId(0),
        };
        Deadline { timers: self.clone(), key: self.0.borrow_mut().entries.insert(entry) }
    }

    /// Turns the wheel to `now` and wakes whoever is due.
    pub fn advance(&self, now: Instant) {
        let mut wakers = Vec::new();
        self.0.borrow_mut().advance(now, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How long the worker may sleep at most from `now` on; at least a tick.
    pub fn sleep_max(&self, now: Instant) -> Duration {
        let wheel = self.0.borrow();
        let Some(ahead) = wheel.next_occupied() else { return TICK * PLACES as u32 };
        let at = wheel.start + Duration::from_millis((wheel.now + ahead + 1) * TICK.as_millis() as u64);
        at.saturating_duration_since(now).max(Duration::from_millis(1))
    }

    /// Fires every deadline that is marked idle: a drain begins.
    pub fn fire_idle(&self) {
        self.fire_where(|entry| entry.idle != Idle::No);
    }

    /// Fires those of connections that wait for what may come.
    pub fn fire_waiting(&self) {
        self.fire_where(|entry| entry.idle == Idle::Waiting);
    }

    /// Fires those of listening sockets.
    pub fn fire_listening(&self) {
        self.fire_where(|entry| entry.idle == Idle::UntilDrain);
    }

    /// Fires for good, however they are set, those of whoever waits with one of these backends.
    pub fn cut_off(&self, is_one: impl Fn(BackendId) -> bool) {
        for (_, entry) in &mut self.0.borrow_mut().entries {
            entry.cut |= entry.backend != BackendId(0) && is_one(entry.backend);
        }
        self.fire_where(|entry| entry.cut);
    }

    /// Fires every deadline: patience has ended.
    pub fn fire_all(&self) {
        self.fire_where(|_| true);
    }

    fn fire_where(&self, matches: impl Fn(&Entry) -> bool) {
        let mut wakers = Vec::new();
        for (_, entry) in &mut self.0.borrow_mut().entries {
            if matches(entry) {
                entry.fired = true;
                wakers.extend(entry.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wheel {
    fn tick_of(&self, at: Instant) -> u64 {
        // Rounded up, so that nothing fires early.
        let since = at.saturating_duration_since(self.start);
        (since.as_millis() as u64).div_ceil(TICK.as_millis() as u64)
    }

    fn queue(&mut self, key: usize, tick: u64) {
        let place = (tick % PLACES as u64) as usize;
        self.places[place].push(key);
        self.occupied[place / WORD] |= 1 << (place % WORD);
        self.entries[key].queued = tick;
    }

    /// Ticks from now to the next place where anything is queued: 1 ..= PLACES.
    fn next_occupied(&self) -> Option<u64> {
        let first = ((self.now + 1) % PLACES as u64) as usize;
        // The word of `first` comes twice: from there on, and at the end of the round up to it.
        (0..=self.occupied.len()).find_map(|round| {
            let word = (first / WORD + round) % self.occupied.len();
            let from_first = u64::MAX << (first % WORD);
            let bits = self.occupied[word]
                & match round {
                    0 => from_first,
                    last if last == self.occupied.len() => !from_first,
                    _ => u64::MAX,
                };
            let place = word * WORD + bits.trailing_zeros() as usize;
            (bits != 0).then(|| ((place + PLACES - first) % PLACES) as u64 + 1)
        })
    }

    fn advance(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        let target = now.saturating_duration_since(self.start).as_millis() as u64 / TICK.as_millis() as u64;
        while self.now < target {
            self.now += 1;
            let place = (self.now % PLACES as u64) as usize;
            if self.places[place].is_empty() {
                continue;
            }
            self.occupied[place / WORD] &= !(1 << (place % WORD));
            let mut keys = std::mem::take(&mut self.places[place]);
            for key in keys.drain(..) {
                let Some(entry) = self.entries.get_mut(key) else { continue };
                if entry.queued > self.now {
                    // Either a later round of this place, or a stale place of a moved deadline.
                    if entry.queued != NEVER && entry.queued % PLACES as u64 == place as u64 {
                        let tick = entry.queued;
                        self.queue(key, tick);
                    }
                    continue;
                }
                let due = entry.due;
                if due <= self.now {
                    entry.queued = NEVER;
                    entry.fired = true;
                    wakers.extend(entry.waker.take());
                } else if due == NEVER {
                    entry.queued = NEVER;
                } else {
                    self.queue(key, due);
                }
            }
            // Its memory serves the next round, where it is little.
            if self.places[place].capacity() == 0 && keys.capacity() <= PLACE_KEPT_MAX {
                self.places[place] = keys;
            }
        }
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timers({} deadlines)", self.0.borrow().entries.len())
    }
}

/// The deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// One deadline; gone on drop.
#[derive(Debug)]
pub struct Deadline {
    timers: Timers,
    key: usize,
}

impl Deadline {
    /// Due at `at`; forgets that it fired before.
    pub fn set(&self, at: Instant) {
        let mut wheel = self.timers.0.borrow_mut();
        let due = wheel.tick_of(at).max(wheel.now + 1);
        let entry = &mut wheel.entries[self.key];
        entry.due = due;
        entry.fired = false;
        if entry.queued > due {
            wheel.queue(self.key, due);
        }
    }

    /// Not set any more, and as if it had never fired.
    pub fn forget(&self) {
        let entry = &mut self.timers.0.borrow_mut().entries[self.key];
        (entry.due, entry.fired) = (NEVER, false);
    }

    /// Says what may end the wait, until it is said anew.
    pub fn set_idle(&self, idle: Idle) {
        self.timers.0.borrow_mut().entries[self.key].idle = idle;
    }

    /// Says whom it waits with from now on; `BackendId(0)`: nobody.
    pub fn set_backend(&self, backend: BackendId) {
        self.timers.0.borrow_mut().entries[self.key].backend = backend;
    }

    /// Whether it fired for good.
    pub fn is_cut(&self) -> bool {
        self.timers.0.borrow().entries[self.key].cut
    }

    /// Whether its time has come, whoever fired it.
    pub fn is_due(&self) -> bool {
        let wheel = self.timers.0.borrow();
        wheel.entries[self.key].due <= wheel.now
    }

    /// Whether it has fired.
    #[cfg(test)]
    fn has_fired(&self) -> bool {
        self.timers.0.borrow().entries[self.key].fired
    }

    /// `future`, or [`Expired`] when the deadline passes first; the future is then dropped, which cancels it.
    pub fn guard<F: Future + Unpin>(&self, future: F) -> impl Future<Output = Result<F::Output, Expired>> {
        // No `async fn`, which would have room for `future` twice.
        Guard { deadline: self, future }
    }

    fn poll_expired(&self, context: &mut Context<'_>) -> bool {
        let mut wheel = self.timers.0.borrow_mut();
        let entry = &mut wheel.entries[self.key];
        if entry.fired || entry.cut {
            return true;
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            entry.waker = Some(context.waker().clone());
        }
        false
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let removed = self.timers.0.borrow_mut().entries.try_remove(self.key);
        drop(removed);
    }
}

struct Guard<'a, F> {
    deadline: &'a Deadline,
    future: F,
}

impl<F: Future + Unpin> Future for Guard<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(context) {
            return Poll::Ready(Ok(output));
        }
        if self.deadline.poll_expired(context) { Poll::Ready(Err(Expired)) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn fires_late_by_at_most_two_ticks_and_never_early() {
        let start = Instant::now();
        for due in [1, 16, 17, 500, 8191, 8192, 8193, 60_000] {
            let timers = Timers::new(start);
            let deadline = timers.deadline();
            deadline.set(start + MS(due));
            timers.advance(start + MS(due) - MS(1));
            assert!(!deadline.has_fired(), "{due} early");
            timers.advance(start + MS(due) + TICK * 2);
            assert!(deadline.has_fired(), "{due} late");
        }
    }

    #[test]
    fn a_jump_of_hours_fires_all_that_is_due_and_nothing_else() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let (soon, late) = (timers.deadline(), timers.deadline());
        soon.set(start + MS(60_000));
        late.set(start + MS(10 * 3_600_000));
        let woken = start + MS(9 * 3_600_000);
        timers.advance(woken);
        assert!(soon.has_fired() && !late.has_fired());
        assert!(timers.sleep_max(woken) <= TICK * (PLACES as u32 + 2), "it looks again every round at least");
        timers.advance(start + MS(10 * 3_600_000) + TICK * 2);
        assert!(late.has_fired());
    }

    #[test]
    fn sleeps_stay_long_after_years() {
        let start = Instant::now();
        let timers = Timers::new(start);
        // Beyond 2^32 ticks.
        let now = start + Duration::from_secs(3 * 366 * 86_400);
        timers.0.borrow_mut().now = now.duration_since(start).as_millis() as u64 / TICK.as_millis() as u64;
        let deadline = timers.deadline();
        deadline.set(now + MS(5_000));
        let sleep = timers.sleep_max(now);
        assert!(sleep >= MS(5_000) && sleep <= MS(5_000) + TICK * 3, "{sleep:?}");
    }

    /// 100 000 deadlines that move with every exchange: a move is a store, and a second of the wheel looks at an
    /// eighth of them.
    #[test]
    fn many_deadlines_are_cheap() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let deadlines: Vec<_> = (0..100_000).map(|_| timers.deadline()).collect();
        for second in 0..60 {
            let now = start + MS(second * 1_000);
            deadlines.iter().for_each(|deadline| deadline.set(now + MS(60_000)));
            timers.advance(now);
            let queued: usize = timers.0.borrow().places.iter().map(Vec::len).sum();
            assert_eq!(queued, deadlines.len(), "each stands in one place");
        }
        assert!(deadlines.iter().all(|deadline| !deadline.has_fired()));
    }

    #[test]
    fn a_drain_fires_only_the_idle() {
        let timers = Timers::new(Instant::now());
        let (busy, idle, waiting) = (timers.deadline(), timers.deadline(), timers.deadline());
        idle.set_idle(Idle::UntilDrain);
        waiting.set_idle(Idle::Waiting);
        timers.fire_waiting();
        assert!(waiting.has_fired() && !idle.has_fired() && !busy.has_fired());
        timers.fire_idle();
        assert!(idle.has_fired() && !busy.has_fired());
        timers.fire_all();
        assert!(busy.has_fired());
    }

    proptest! {
        /// However deadlines are moved, each fires exactly when its last setting says.
        #[test]
        fn moves_lose_nothing(
            moves in prop::collection::vec((0usize..4, 1u64..30_000, 0u64..3_000), 1..60),
        ) {
            let start = Instant::now();
            let timers = Timers::new(start);
            let deadlines: Vec<_> = (0..4).map(|_| timers.deadline()).collect();
            let mut due = [None; 4];
            let mut at = 0;
            for (which, ahead, pass) in moves {
                due[which] = Some(at + ahead);
                deadlines[which].set(start + MS(at + ahead));
                at += pass;
                timers.advance(start + MS(at));
                for (deadline, due) in deadlines.iter().zip(due) {
                    let Some(due) = due else { continue };
                    if at < due {
                        prop_assert!(!deadline.has_fired(), "early at {}, due {}", at, due);
                    } else if at >= due + 32 {
                        prop_assert!(deadline.has_fired(), "late at {}, due {}", at, due);
                    }
                }
            }
        }

        /// The worker never sleeps past a deadline by more than the promised lateness.
        #[test]
        fn sleeping_as_told_meets_every_deadline(due in 1u64..40_000) {
            let start = Instant::now();
            let timers = Timers::new(start);
            let deadline = timers.deadline();
            deadline.set(start + MS(due));
            let mut now = start;
            while !deadline.has_fired() {
                now += timers.sleep_max(now);
                timers.advance(now);
                prop_assert!(now <= start + MS(due) + TICK * 3);
            }
            prop_assert!(now >= start + MS(due));
        }
    }
}
