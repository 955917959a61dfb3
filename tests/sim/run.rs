//! One run: a queue of what happens when, on a clock of its own.
//!
//! Everything that happens may happen in the middle of something else: cores and control [pause](Run::pause) before
//! every access to what they share, and while one pauses, what comes next in the queue is done, by other cores or by
//! control. So all interleavings of whole accesses can occur, within the one limit that the packet path is built on:
//! nothing takes longer than a grace.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
};

use lb_abi::{
    meta::FLAG_MOVING,
    slot::{Phase, TICK_SHIFT},
};

use crate::{
    clients::{Clients, Packet},
    maps::Maps,
    mutant::Mutant,
    operator::Operator,
    rng::Rng,
};

/// Longest time that passes while something pauses: with the next event half a grace at most.
const PAUSE_MS_MAX: u64 = 400;
/// How deep things happen within one another.
const DEPTH_MAX: u32 = 4;
/// Before the first event: ticks that a machine has been up for. Slots' 24-bit times wrap during the run.
const BOOT_MS: u64 = ((1 << 24) * (1 << TICK_SHIFT)) / 1_000_000 - 60_000;
/// Virtual time with change and traffic, then with traffic of honest clients alone, then without.
const CHANGE_MS: u64 = 240_000;
const CALM_MS: u64 = 120_000;
const REST_MS: u64 = 150_000;
/// Records that all clients together have room in.
const FLOWS_ENOUGH: usize = 400;

/// What happens.
pub(crate) enum Event {
    /// A client does what it does next.
    Client(usize),
    /// A packet arrives at a core.
    Packet(Packet),
    /// A SYN-ACK arrives at a client, from a backend, for one of its connections.
    Answer(usize, u32, u64),
    /// Somebody forges packets.
    Forgery,
    /// Control lets time pass.
    Tick,
    /// Somebody changes something.
    Change,
    /// The daemon starts again.
    Start,
}

struct Due {
    at_ms: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.number).cmp(&(other.at_ms, other.number))
    }
}

/// A world and what happens in it.
pub(crate) struct Run {
    pub(crate) rng: Rng,
    pub(crate) maps: Maps,
    pub(crate) clients: Clients,
    pub(crate) operator: Operator,
    pub(crate) mutant: Option<Mutant>,
    /// Per core.
    pub(crate) inserts_per_tick: u32,
    now_ms: Cell<u64>,
    queue: RefCell<BinaryHeap<Reverse<Due>>>,
    number: Cell<u64>,
    depth: Cell<u32>,
    /// Nothing may happen later than this before what pauses goes on.
    pause_until: Cell<u64>,
    failure: RefCell<Option<String>>,
}

impl Run {
    /// Runs `seed` to its end; what went wrong first, if anything did.
    pub(crate) fn of(seed: u64, mutant: Option<Mutant>) -> (Self, Option<String>) {
        let rng = Rng::new(seed);
        let flows_len = rng.pick(&[60, 150, 400, 4000]) as usize;
        let inserts_per_tick = rng.pick(&[2, 8, 100, 8000]) as u32;
        let run = Self {
            maps: Maps::new(flows_len),
            clients: Clients::new(&rng),
            operator: Operator::new(),
            rng,
            mutant,
            inserts_per_tick,
            now_ms: Cell::new(BOOT_MS),
            queue: RefCell::default(),
            number: Cell::new(0),
            depth: Cell::new(0),
            pause_until: Cell::new(0),
            failure: RefCell::new(None),
        };
        run.go();
        let failure = run.failure.borrow_mut().take();
        (run, failure)
    }

    fn go(&self) {
        self.operator.start(self);
        for client in 0..self.clients.len() {
            self.after(self.rng.within(0, 20_000), Event::Client(client));
        }
        self.after(1000, Event::Tick);
        self.after(3000, Event::Change);
        self.after(5000, Event::Forgery);
        while self.is_changing() && self.next(u64::MAX) {}
        self.operator.calm(self);
        while self.is_busy() && self.next(u64::MAX) {}
        self.check_calm();
        while self.now_ms.get() < BOOT_MS + CHANGE_MS + CALM_MS + REST_MS && self.next(u64::MAX) {}
        if !self.has_failed() {
            self.check_rest();
        }
    }

    /// Whether anything changes, and anybody forges packets.
    pub(crate) fn is_changing(&self) -> bool {
        self.now_ms.get() < BOOT_MS + CHANGE_MS
    }

    /// Whether clients do anything.
    pub(crate) fn is_busy(&self) -> bool {
        self.now_ms.get() < BOOT_MS + CHANGE_MS + CALM_MS
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The coarse clock.
    pub(crate) fn ticks(&self) -> u32 {
        ((self.now_ms.get() * 1_000_000) >> TICK_SHIFT) as u32
    }

    /// A number that later ones are above.
    pub(crate) fn moment(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    pub(crate) fn after(&self, ms: u64, event: Event) {
        let due = Due { at_ms: self.now_ms.get() + ms, number: self.moment(), event };
        self.queue.borrow_mut().push(Reverse(due));
    }

    /// The first thing that goes wrong is told.
    pub(crate) fn fail(&self, what: String) {
        let at_ms = self.now_ms.get() - BOOT_MS;
        self.failure.borrow_mut().get_or_insert_with(|| format!("at {at_ms} ms: {what}"));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Others act, or not.
    pub(crate) fn pause(&self) {
        while self.depth.get() < DEPTH_MAX && self.rng.one_in(24) && self.next(self.pause_until.get()) {}
    }

    /// What comes next, unless it comes later than `until_ms`.
    fn next(&self, until_ms: u64) -> bool {
        let is_due = self.queue.borrow().peek().is_some_and(|Reverse(due)| due.at_ms <= until_ms);
        if !is_due || self.has_failed() {
            return false;
        }
        let Some(Reverse(Due { at_ms, event, .. })) = self.queue.borrow_mut().pop() else { return false };
        self.now_ms.set(self.now_ms.get().max(at_ms));
        if self.depth.get() == 0 {
            self.pause_until.set(self.now_ms.get() + PAUSE_MS_MAX);
        }
        self.depth.set(self.depth.get() + 1);
        match event {
            Event::Client(client) => self.clients.act(self, client),
            Event::Packet(packet) => self.clients.arrive(self, &packet),
            Event::Answer(client, connection, from) => self.clients.hear(self, client, connection, from),
            Event::Forgery => self.clients.forge(self),
            Event::Tick => self.operator.tick(self),
            Event::Change => self.operator.change(self),
            Event::Start => self.operator.start(self),
        }
        self.depth.set(self.depth.get() - 1);
        true
    }

    /// After nothing has changed for long enough, while clients go on. What they need has room; what forgers left
    /// has ended.
    fn check_calm(&self) {
        let is_open = |phase| matches!(phase, Phase::Open | Phase::Sweeping);
        let open = self.maps.slots_in_use().filter(|slot| is_open(slot.phase())).count();
        if open > 0 && self.maps.flows.capacity() >= FLOWS_ENOUGH && self.inserts_per_tick >= 100 {
            self.fail(format!("{open} slots do not close"));
        }
    }

    /// After all have been silent and nothing has changed for long enough.
    fn check_rest(&self) {
        let moving = self.maps.slots_in_use().filter(|slot| slot.phase() != Phase::Settled);
        let moving: Vec<_> = moving.map(|slot| (slot, slot.phase())).collect();
        if let Some(first) = moving.first() {
            self.fail(format!("{} slots do not settle, such as {first:?}", moving.len()));
        }
        if self.maps.flows.len() > 0 {
            self.fail(format!("{} records stand for ever", self.maps.flows.len()));
        }
        if self.maps.meta.get().flags & FLAG_MOVING != 0 {
            self.fail("FLAG_MOVING stands for ever".to_owned());
        }
        if let Some(lingering) = self.operator.lingering(self) {
            self.fail(format!("backend {lingering:?} lingers for ever"));
        }
    }
}
