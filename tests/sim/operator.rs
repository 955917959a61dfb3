//! The other side: the daemon with the real steering code, and whoever changes its config, kills backends, kills it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lb::{
    balance::maglev::Table,
    config::{Forward, HashBy, Transport, VipPort},
    model::{BackendId, Generation},
    steering::{self, Desired, DesiredBackend, DesiredPool, DesiredVip, Sync},
};
use lb_abi::{backend::PRESENT, slot::Slot};

use crate::{
    maps::IDS,
    mutant::Mutant,
    run::{Event, Run},
    store::Hand,
};

/// Last bytes of VIP addresses. TCP and UDP; its pool changes.
pub(crate) const VIP_ONE: u8 = 1;
/// UDP, of pool b; comes and goes.
pub(crate) const VIP_TWO: u8 = 2;
/// UDP that is not remembered, of pool a.
pub(crate) const FLOWLESS: u8 = 3;

pub(crate) const IDLE_TCP_MS: u64 = 25_000;
pub(crate) const IDLE_UDP_MS: u64 = 8_000;

/// Ids of pool a, then those of b.
const POOL_IDS: [std::ops::Range<u16>; 2] = [1..11, 11..21];
const POOLS: [&str; 2] = ["a", "b"];

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    generation: u64,
    /// Weight by id; 0: drained.
    members: [BTreeMap<u16, u16>; 2],
    /// Pool of [`VIP_ONE`].
    one_in: usize,
    has_two: bool,
}

pub(crate) struct Operator {
    /// The daemon, unless it is dead or at work.
    daemon: RefCell<Option<Sync>>,
    is_at_work: Cell<bool>,
    spec: RefCell<Spec>,
    down: RefCell<BTreeSet<BackendId>>,
    /// Config or health did not reach the maps whole.
    is_behind: Cell<bool>,
    /// Tables in the state directory.
    kept: RefCell<BTreeMap<Arc<str>, Arc<Table>>>,
    /// How often an id was given to another backend.
    reused: RefCell<[u8; IDS]>,
    /// Until when a backend was down, or perhaps; [`u64::MAX`]: still.
    trouble_until: RefCell<[u64; IDS]>,
    two_away_until: Cell<u64>,
    two_left_at_ms: Cell<u64>,
    /// Begun and ended operations.
    changes: Cell<u64>,
    pub(crate) deaths: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Died,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let members = [&[1u16, 2, 3, 4][..], &[11, 12, 13]];
        let spec = Spec {
            generation: 1,
            members: members.map(|ids| ids.iter().map(|id| (*id, 1)).collect()),
            one_in: 0,
            has_two: true,
        };
        Self {
            daemon: RefCell::new(None),
            is_at_work: Cell::new(false),
            spec: RefCell::new(spec),
            down: RefCell::default(),
            is_behind: Cell::new(true),
            kept: RefCell::default(),
            reused: RefCell::new([0; IDS]),
            trouble_until: RefCell::new([0; IDS]),
            two_away_until: Cell::new(0),
            two_left_at_ms: Cell::new(0),
            changes: Cell::new(0),
            deaths: Cell::new(0),
        }
    }

    /// Odd while one is under way.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Whether a backend was down at any time since a moment.
    pub(crate) fn was_in_trouble(&self, id: u16, since: u64) -> bool {
        self.trouble_until.borrow()[usize::from(id)] >= since
    }

    /// Whether a VIP was not there at any time since a moment.
    pub(crate) fn vip_was_away(&self, vip: u8, since: u64) -> bool {
        vip == VIP_TWO && self.two_away_until.get() >= since
    }

    /// Whether a backend answers.
    pub(crate) fn answers(&self, run: &Run, id: u16) -> bool {
        !self.down.borrow().contains(&BackendId(id)) && !run.rng.one_in(10)
    }

    /// Whether a packet to a VIP must find a backend.
    pub(crate) fn serves_surely(&self, _: &Run, vip: u8) -> bool {
        let spec = self.spec.borrow();
        let pool = match vip {
            VIP_ONE => spec.one_in,
            VIP_TWO => 1,
            _ => 0,
        };
        let down = self.down.borrow();
        let is_up = |(id, weight): (&u16, &u16)| *weight > 0 && !down.contains(&BackendId(*id));
        // An id that was given to another backend is down until the daemon is told of it.
        let is_told = self.daemon.borrow().as_ref().is_some_and(|daemon| *daemon.down() == *down);
        !self.is_behind.get() && is_told && spec.members[pool].iter().any(is_up)
    }

    /// A backend that is there and should not be.
    pub(crate) fn lingering(&self, run: &Run) -> Option<u16> {
        let spec = self.spec.borrow();
        let is_wanted = |id: u16| spec.members.iter().any(|pool| pool.contains_key(&id));
        (0..IDS as u16)
            .find(|id| run.maps.backends[usize::from(*id)].get().flags & PRESENT != 0 && !is_wanted(*id))
    }

    /// The daemon starts, on maps as they are.
    pub(crate) fn start(&self, run: &Run) {
        if self.daemon.borrow().is_some() || self.is_at_work.get() {
            return;
        }
        self.is_at_work.set(true);
        let adopted = Sync::adopt(&Hand::new(run));
        self.is_at_work.set(false);
        let Ok(daemon) = adopted else {
            return run.fail("maps cannot be adopted".to_owned());
        };
        self.is_behind.set(true);
        *self.down.borrow_mut() = daemon.down().clone();
        *self.daemon.borrow_mut() = Some(daemon);
        self.catch_up(run);
    }

    /// Applies config and health whole.
    fn catch_up(&self, run: &Run) {
        if self.apply(run) == Outcome::Done {
            self.tell_health(run);
        }
    }

    /// Does something with the daemon, in which it may die or be refused a write.
    fn work(
        &self,
        run: &Run,
        what: impl FnOnce(&mut Sync, &mut Hand<'_>) -> steering::Result<()>,
    ) -> Outcome {
        let Some(mut daemon) = self.daemon.borrow_mut().take() else { return Outcome::Died };
        let mut hand = Hand::new(run);
        if run.is_changing() {
            let steps = run.rng.within(1, 30) as u32;
            match run.rng.within(0, 60) {
                0 => hand.dies_after.set(Some(steps)),
                1 => hand.refused_after.set(Some(steps)),
                _ => {}
            }
        }
        self.is_at_work.set(true);
        self.changes.set(self.changes.get() + 1);
        let result = what(&mut daemon, &mut hand);
        self.changes.set(self.changes.get() + 1);
        self.is_at_work.set(false);
        if hand.is_dead() {
            self.deaths.set(self.deaths.get() + 1);
            self.is_behind.set(true);
            let ms = run.rng.pick(&[0, 200, 3000, 40_000]);
            run.after(ms, Event::Start);
            return Outcome::Died;
        }
        *self.daemon.borrow_mut() = Some(daemon);
        if result.is_ok() { Outcome::Done } else { Outcome::Refused }
    }

    /// The config reaches the maps.
    fn apply(&self, run: &Run) -> Outcome {
        let (spec, now) = (self.spec.borrow().clone(), run.ticks());
        let desired = self.desired(&spec);
        if !spec.has_two {
            self.two_away_until.set(u64::MAX);
        }
        self.is_behind.set(true);
        let outcome = self.work(run, |daemon, hand| daemon.sync(hand, &desired, now));
        if outcome == Outcome::Done {
            if let Some(daemon) = &*self.daemon.borrow() {
                let tables =
                    daemon.tables.iter().map(|(name, table)| (name.clone(), Arc::new(table.clone())));
                self.kept.borrow_mut().extend(tables);
            }
            if spec.has_two && self.two_away_until.get() == u64::MAX {
                self.two_away_until.set(run.moment());
            }
            self.is_behind.set(false);
        }
        outcome
    }

    /// Health reaches the maps.
    fn tell_health(&self, run: &Run) -> Outcome {
        let (down, now) = (self.down.borrow().clone(), run.ticks());
        down.iter().for_each(|id| self.trouble_until.borrow_mut()[id.index()] = u64::MAX);
        let was_behind = self.is_behind.replace(true);
        let outcome = self.work(run, |daemon, hand| daemon.set_down(hand, &down, now));
        if outcome == Outcome::Done {
            self.is_behind.set(was_behind);
            let moment = run.moment();
            for (id, until) in (0u16..).zip(self.trouble_until.borrow_mut().iter_mut()) {
                if *until == u64::MAX && !down.contains(&BackendId(id)) {
                    *until = moment;
                }
            }
        }
        outcome
    }

    fn desired(&self, spec: &Spec) -> Desired {
        let reused = self.reused.borrow();
        let pool = |at: usize| DesiredPool {
            name: POOLS[at].into(),
            table_key: [3, at as u64],
            backends: spec.members[at]
                .iter()
                .map(|(&id, &weight)| DesiredBackend {
                    id: BackendId(id),
                    address: [10, reused[usize::from(id)], 0, id as u8].into(),
                    port: None,
                    weight,
                })
                .collect(),
            lineage: self.kept.borrow().get(POOLS[at]).cloned(),
        };
        let vip = |name: &str, last: u8, port, transport, idle_ms, pool: usize| DesiredVip {
            name: name.into(),
            addresses: vec![[192, 0, 2, last].into()],
            prefixes: vec![],
            ports: vec![VipPort::one(port, transport)],
            forward: Forward::Ipip,
            pool: POOLS[pool].into(),
            nat_source: vec![],
            flows_none: last == FLOWLESS,
            hash: HashBy::Flow,
            flow_idle: Duration::from_millis(idle_ms),
            hash_key: [u64::from(last), 9],
        };
        let mut vips = vec![
            vip("one", VIP_ONE, 80, Transport::Tcp, IDLE_TCP_MS, spec.one_in),
            vip("one", VIP_ONE, 443, Transport::Udp, IDLE_UDP_MS, spec.one_in),
            vip("none", FLOWLESS, 53, Transport::Udp, IDLE_UDP_MS, 0),
        ];
        if spec.has_two {
            vips.push(vip("two", VIP_TWO, 443, Transport::Udp, IDLE_UDP_MS, 1));
        }
        Desired {
            generation: Generation(spec.generation),
            vips,
            pools: vec![pool(0), pool(1)],
            ..Desired::default()
        }
    }

    /// A tick of the daemon: about once a second, unless it is held up.
    pub(crate) fn tick(&self, run: &Run) {
        if self.is_at_work.get() {
            return run.after(100, Event::Tick);
        }
        if self.is_behind.get() {
            self.catch_up(run);
        }
        let now = run.ticks();
        self.work(run, |daemon, hand| daemon.tick(hand, now));
        let held_up_ms = if run.is_changing() && run.rng.one_in(30) { run.rng.within(0, 15_000) } else { 0 };
        run.after(1000 + held_up_ms, Event::Tick);
    }

    /// Something changes: config, health, or more than one thing one after the other.
    pub(crate) fn change(&self, run: &Run) {
        if !run.is_changing() {
            return;
        }
        let pause_ms = run.rng.pick(&[10, 200, 900, 2500, 6000, 15_000, 45_000]);
        if self.is_at_work.get() {
            return run.after(50, Event::Change);
        }
        match run.rng.within(0, 20) {
            0..=8 => {
                let flips = run.rng.within(1, 4);
                (0..flips).for_each(|_| self.flip_health(run));
                self.tell_health(run);
            }
            9..=12 => self.remove_alone(run),
            13 => {
                // The daemon is killed between two operations.
                self.deaths.set(self.deaths.get() + 1);
                *self.daemon.borrow_mut() = None;
                run.after(run.rng.pick(&[0, 5000, 60_000]), Event::Start);
            }
            _ => {
                let changes = run.rng.within(1, 4);
                (0..changes).for_each(|_| self.edit(run));
                self.spec.borrow_mut().generation += 1;
                self.apply(run);
            }
        }
        run.after(pause_ms, Event::Change);
    }

    fn flip_health(&self, run: &Run) {
        let members: Vec<u16> = self.spec.borrow().members.iter().flat_map(BTreeMap::keys).copied().collect();
        let id = BackendId(run.rng.pick(&members));
        let mut down = self.down.borrow_mut();
        if !down.remove(&id) {
            down.insert(id);
        }
    }

    /// One edit of the config.
    fn edit(&self, run: &Run) {
        let rng = &run.rng;
        let at = rng.within(0, 2) as usize;
        let mut spec = self.spec.borrow_mut();
        let members: Vec<u16> = spec.members[at].keys().copied().collect();
        match rng.within(0, 12) {
            0..=3 => {
                let id = rng.within(POOL_IDS[at].start.into(), POOL_IDS[at].end.into()) as u16;
                let is_free = run.maps.backends[usize::from(id)].get().flags & PRESENT == 0;
                let is_new = spec.members[at].insert(id, rng.pick(&[1, 1, 1, 2, 5])).is_none();
                if is_new && (is_free || run.mutant == Some(Mutant::IdsReusedEarly)) {
                    self.reused.borrow_mut()[usize::from(id)] += 1;
                    self.down.borrow_mut().remove(&BackendId(id));
                }
            }
            4..=6 if members.len() > 2 => {
                spec.members[at].remove(&rng.pick(&members));
            }
            7 | 8 => {
                spec.members[at].insert(rng.pick(&members), rng.pick(&[0, 0, 1, 2, 5]));
            }
            9 => spec.one_in = 1 - spec.one_in,
            10 if spec.has_two => {
                spec.has_two = false;
                self.two_left_at_ms.set(run.now_ms());
            }
            // Later than any program that knew it can still be running.
            10 | 11 => spec.has_two |= run.now_ms() > self.two_left_at_ms.get() + 5000,
            _ => {}
        }
        if spec.members[at].values().all(|weight| *weight == 0) {
            spec.members[at].values_mut().for_each(|weight| *weight = 1);
        }
    }

    /// A member leaves a pool of equals: nobody else's slots move.
    fn remove_alone(&self, run: &Run) {
        let at = run.rng.within(0, 2) as usize;
        {
            let spec = self.spec.borrow();
            let is_even = spec.members[at].values().all(|weight| *weight == 1);
            if self.is_behind.get()
                || !self.down.borrow().is_empty()
                || !is_even
                || spec.members[at].len() < 3
            {
                return;
            }
        }
        let members: Vec<u16> = self.spec.borrow().members[at].keys().copied().collect();
        let gone = run.rng.pick(&members);
        let before: Vec<Slot> = run.maps.slots_in_use().collect();
        self.spec.borrow_mut().members[at].remove(&gone);
        self.spec.borrow_mut().generation += 1;
        if self.apply(run) != Outcome::Done {
            return;
        }
        let moved = before.into_iter().zip(run.maps.slots_in_use());
        let mut needless = moved.filter(|(old, new)| old.owner() != new.owner() && old.owner() != gone);
        if let Some((old, new)) = needless.next() {
            run.fail(format!("{gone} left, and a slot of {} became {}'s", old.owner(), new.owner()));
        }
    }

    /// The end of all change: the daemon lives, everybody is up.
    pub(crate) fn calm(&self, run: &Run) {
        if self.daemon.borrow().is_none() {
            self.start(run);
        }
        self.down.borrow_mut().clear();
        self.catch_up(run);
    }
}
