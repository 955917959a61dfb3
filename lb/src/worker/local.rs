//! What the tasks of one worker share. Nothing here is seen by another thread but counters and tables.

use std::{
    cell::{Cell, OnceCell, RefCell},
    ops::{Deref, DerefMut},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    access::{AccessLog, AccessLogSetup},
    api::{Change, Setup},
    buffers::Buffers,
    doors::Doors,
    lender::Lender,
    line::Lines,
    multiplexed::Multiplexed,
    pipes::{CAPACITY_IN_ALL, Pipes},
    plan::{Backends, Plan},
    pool_plan::Sight,
    pressure::PressureGauge,
    request_id::RequestIds,
    siblings::Siblings,
    sink::Sink,
    timer::Timers,
    turnstile::Turnstile,
    upstream::Upstream,
};
use crate::{
    balance::Generator,
    config::{MemoryLimit, Snapshot},
    health::HealthTable,
    keepalive::Keepalive,
    l7::http1::{RequestHead, ResponseHead},
    limits::{Admission, Pressure, Purse},
    metrics::WorkerMetrics,
    model::{BackendId, GroupId, PoolId, WorkerId, reason::CloseReason},
    ring::Ring,
    sys::affinity,
    tls::KernelSuites,
};

/// Heads kept for reuse.
const SPARE_HEADS: usize = 256;
/// Handshakes of TLS that are begun in one turn: each takes a tenth of a millisecond or more, and others wait meanwhile.
const HANDSHAKES_PER_TURN: usize = 4;

pub(super) struct Local {
    pub(super) id: WorkerId,
    core: Cell<usize>,
    pub(super) ring: Ring,
    pub(super) timers: Timers,
    pub(super) health: Arc<HealthTable>,
    pub(super) admission: Arc<Admission>,
    pub(super) kernel_suites: KernelSuites,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) siblings: Arc<Siblings>,
    pub(super) generator: RefCell<Generator>,
    pub(super) lines: Lines,
    pub(super) purse: Purse,
    /// For requests that are sent again.
    pub(super) retries: Purse,
    pub(super) keepalive: RefCell<Keepalive<Upstream>>,
    pub(super) multiplexed: Multiplexed,
    pub(super) pipes: Pipes,
    /// From the first config with a log on.
    access_log: OnceCell<Rc<AccessLog>>,
    pub(super) request_ids: RequestIds,
    pub(super) pressure: PressureGauge,
    pub(super) doors: Doors,
    /// Those for datagrams.
    pub(super) datagram_doors: RefCell<Vec<Weak<dyn Lender>>>,
    leaving: RefCell<Vec<(Backends, Instant)>>,
    memory_max: Cell<Option<u64>>,
    plan: RefCell<Rc<Plan>>,
    now: Cell<Instant>,
    /// Accept loops and connections that have not ended.
    tasks: Cell<usize>,
    /// Plans taken over.
    changes: Cell<u64>,
    drain: Cell<Option<Instant>>,
    /// Another process or worker takes what is new.
    is_handed_over: Cell<bool>,
    stop: Cell<bool>,
    /// Whoever begins a handshake of TLS.
    pub(super) handshakes: Turnstile,
    pub(super) buffers: Buffers,
    heads: RefCell<Vec<Heads>>,
}

impl Local {
    pub(super) fn new(setup: &mut Setup, ring: Ring, now: Instant) -> Self {
        let metrics = setup.siblings.metrics(setup.id).clone();
        let lines = Lines::new(setup.id, setup.siblings.clone());
        Self {
            id: setup.id,
            core: Cell::new(setup.core),
            ring,
            timers: Timers::new(now),
            health: setup.health.clone(),
            admission: setup.admission.clone(),
            kernel_suites: setup.kernel_suites,
            siblings: setup.siblings.clone(),
            generator: RefCell::new(Generator::new(setup.siblings.seed(setup.id))),
            keepalive: RefCell::default(),
            multiplexed: Multiplexed::default(),
            pipes: Pipes::default(),
            access_log: setup.access_log.take().map_or_else(OnceCell::new, |log| {
                OnceCell::from(Rc::new(AccessLog::new(log, setup.id, metrics.clone(), now)))
            }),
            metrics,
            request_ids: RequestIds::default(),
            pressure: PressureGauge::default(),
            doors: Doors::default(),
            datagram_doors: RefCell::default(),
            leaving: RefCell::default(),
            memory_max: Cell::new(memory_max(setup.compiled.snapshot())),
            plan: RefCell::new(Rc::new(Plan::new(setup.compiled.clone(), None, setup.id, &lines))),
            lines,
            purse: Purse::new(setup.siblings.permits().clone()),
            retries: Purse::new(setup.siblings.retries().clone()),
            now: Cell::new(now),
            tasks: Cell::new(0),
            changes: Cell::new(0),
            drain: Cell::new(None),
            is_handed_over: Cell::new(false),
            stop: Cell::new(false),
            handshakes: Turnstile::new(HANDSHAKES_PER_TURN),
            buffers: Buffers::default(),
            heads: RefCell::default(),
        }
    }

    /// The core that the thread is pinned to.
    pub(super) fn core(&self) -> usize {
        self.core.get()
    }

    /// Goes on on another core, if that is to be had.
    pub(super) fn move_to(&self, core: usize) {
        if affinity::pin(core).is_ok() {
            self.core.set(core);
        }
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now);
        if let Some(log) = self.access_log.get() {
            log.set_now(now);
        }
    }

    /// Where an access log is written, if one ever was wanted.
    pub(super) fn access_log(&self) -> Option<&Rc<AccessLog>> {
        self.access_log.get()
    }

    /// A log is wanted from now on. One that is there already goes on.
    pub(super) fn begin_log(&self, setup: AccessLogSetup) {
        self.access_log
            .get_or_init(|| Rc::new(AccessLog::new(setup, self.id, self.metrics.clone(), self.now())));
    }

    /// From now on.
    pub(super) fn after(&self, wait: Duration) -> Instant {
        self.now() + wait
    }

    /// What a choice of a backend looks at.
    pub(super) fn sight(&self) -> Sight<'_> {
        Sight {
            id: self.id,
            now: self.now(),
            health: &self.health,
            siblings: &self.siblings,
            generator: &self.generator,
            purse: &self.purse,
        }
    }

    pub(super) fn plan(&self) -> Rc<Plan> {
        self.plan.borrow().clone()
    }

    /// Takes a change over, but for the sockets that it opens. Connections to backends that leave are not kept, and what
    /// goes on with them has until the change's `leave_by`. Addresses that are closed take nothing from now on.
    pub(super) fn take_over(&self, change: &Change) {
        let before = self.plan();
        let plan = Rc::new(Plan::new(change.compiled.clone(), Some(&before), self.id, &self.lines));
        self.memory_max.set(memory_max(&plan.snapshot));
        let gone = before.backends.without(&plan.backends);
        let otherwise = plan.spoken_otherwise(&before);
        let has_lost_listeners = plan.has_lost_listeners(&before);
        drop(self.plan.replace(plan.clone()));
        self.changes.set(self.changes.get() + 1);
        if !gone.is_empty() || !otherwise.is_empty() {
            let is_gone = |id: BackendId| !plan.backends.contains(id) || otherwise.contains(id);
            let left = self.keepalive.borrow_mut().take_backends(is_gone);
            self.forget(left);
            self.close(self.siblings.shelf().take_backends(is_gone));
            self.multiplexed.sweep(self.now(), is_gone);
        }
        if !gone.is_empty() {
            self.leaving.borrow_mut().push((gone, change.leave_by));
        }
        for (group, listener) in &change.moved {
            self.doors.give(*group, *listener);
        }
        if !change.closed.is_empty() {
            change.closed.iter().for_each(|group| self.doors.close(*group));
            self.timers.fire_listening();
        }
        if has_lost_listeners {
            // Those of other listeners wait on.
            self.timers.fire_waiting();
        }
        // Last: whoever reads it knows that all this is done.
        self.metrics.snapshots.add(1);
    }

    /// Ends what goes on with backends whose time to leave is over. One that came back meanwhile stays.
    pub(super) fn cut_off_leaving(&self) {
        let (now, plan) = (self.now(), self.plan());
        let due: Vec<_> =
            self.leaving.borrow_mut().extract_if(.., |(_, leave_by)| *leave_by <= now).collect();
        for (backends, _) in due {
            self.timers.cut_off(|id| backends.contains(id) && !plan.backends.contains(id));
        }
    }

    /// How often another config was taken over.
    pub(super) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Whether a backend of a pool in `plan` still stands in the one that holds now, and is spoken with as it was.
    pub(super) fn has_backend(&self, plan: &Plan, pool: PoolId, id: BackendId) -> bool {
        let now = self.plan.borrow();
        std::ptr::eq(&**now, plan) || (now.backends.contains(id) && now.speaks_alike(plan, plan.pool(pool)))
    }

    pub(super) fn count(&self, reason: CloseReason) {
        self.metrics.reason(reason).add(1);
    }

    /// A task that holds the worker's end until it is dropped.
    pub(super) fn task(self: &Rc<Self>) -> Task {
        self.tasks.set(self.tasks.get() + 1);
        Task(self.clone())
    }

    pub(super) fn begin_drain(&self, deadline: Instant) {
        self.drain.set(Some(deadline));
        self.timers.fire_idle();
        self.drop_keepalive();
    }

    /// Whoever waits for what may come waits on: its next answer says that the connection ends with it.
    pub(super) fn begin_hand_over(&self, deadline: Instant) {
        self.is_handed_over.set(true);
        self.drain.set(Some(deadline));
        self.timers.fire_listening();
        self.drop_keepalive();
    }

    /// It takes what is new again, where there is something to listen at.
    pub(super) fn end_hand_over(&self) {
        self.is_handed_over.set(false);
        self.drain.set(None);
    }

    /// Whether another process or worker takes what is new.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over.get()
    }

    pub(super) fn begin_stop(&self) {
        self.stop.set(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Whether bytes may go to `to` past us, by pipes: as they are, or sealed by the kernel, which is handed the keys here where
    /// it can. For who has much to send, and nothing on its way.
    pub(super) fn lets_pass(&self, to: &Sink) -> bool {
        if to.takes_as_is() {
            return true;
        }
        if self.kernel_suites.is_empty() {
            return false;
        }
        let is_new = to.secure().is_some_and(|secure| secure.hand_over(to.socket(), self.kernel_suites));
        self.metrics.kernel_tls.add(u64::from(is_new));
        is_new
    }

    /// Bytes that all workers together may use.
    pub(super) fn memory_max(&self) -> Option<u64> {
        self.memory_max.get()
    }

    /// Whether a connection may stay for what may come.
    pub(super) fn keeps_idle(&self) -> bool {
        !self.is_draining() && self.pressure.now() < Pressure::Keepalive
    }

    /// Whether a connection that was told that it may stay may wait for what comes.
    pub(super) fn lets_wait(&self) -> bool {
        let drains = self.is_draining() && (!self.is_handed_over() || self.is_overdue());
        !drains && self.pressure.now() < Pressure::Keepalive
    }

    /// How long the drain may still take; without one, for ever.
    pub(super) fn patience_left(&self) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(self.now());
        self.drain.get().map_or(Duration::MAX, left).max(Duration::from_millis(1))
    }

    /// Whether the drain's patience has ended.
    pub(super) fn is_overdue(&self) -> bool {
        self.drain.get().is_some_and(|deadline| self.now() >= deadline)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.stop.get() || (self.is_draining() && self.tasks.get() == 0)
    }

    /// Looks at the memory in use, in each turn of a worker; does nothing where there is no limit. Says what is given up
    /// when it runs short.
    pub(super) fn watch_memory(&self) {
        let Some(budget) = self.memory_max() else { return };
        let memory = self.admission.memory();
        let pipes = self.pipes.made() * CAPACITY_IN_ALL;
        if let Some(before) = self.pressure.pipes_moved(pipes) {
            memory.move_pipes(before, pipes);
        }
        let pressure = memory.pressure(budget);
        let before = self.pressure.replace(pressure);
        self.metrics.memory_used.set(memory.used());
        self.metrics.memory_pressure.set(pressure as u64);
        // Once it begins: from then on nothing becomes idle.
        if pressure >= Pressure::Keepalive && before < Pressure::Keepalive {
            self.drop_keepalive();
            self.pipes.drop_spare();
            self.timers.fire_waiting();
        }
    }

    /// Its part of the memory that all use is nothing from now on.
    pub(super) fn leave_memory(&self) {
        if let Some(before) = self.pressure.pipes_moved(0) {
            self.admission.memory().move_pipes(before, 0);
        }
        self.metrics.memory_used.set(0);
        self.metrics.memory_pressure.set(0);
    }

    /// Gives away these sockets, at which another worker listens, too. Where they are for datagrams, its flows are to follow.
    pub(super) fn give_away(&self, places: &[(GroupId, usize)]) {
        places.iter().for_each(|at| self.doors.give_away(*at));
        self.timers.fire_listening();
    }

    /// Drops kept connections that are too old or that their backend has closed.
    pub(super) fn sweep_keepalive(&self) {
        let gone = self.keepalive.borrow_mut().sweep(self.now(), Upstream::is_stale);
        self.forget(gone);
        self.multiplexed.sweep(self.now(), |_| false);
    }

    /// Lets others have the permits that are kept here.
    pub(super) fn empty_purse(&self) {
        self.purse.empty();
        self.retries.empty();
        self.lines.freed();
    }

    /// Keeps no connection that it has, nor any that the workers share.
    pub(super) fn drop_keepalive(&self) {
        let gone = self.keepalive.borrow_mut().drain();
        self.forget(gone);
        self.close(self.siblings.shelf().drain());
        self.multiplexed.sweep(self.now(), |_| true);
    }

    fn forget(&self, gone: Vec<(BackendId, Upstream)>) {
        for (backend, _) in &gone {
            self.metrics.backend(*backend).idle.sub(1);
        }
        drop(gone);
    }

    /// Heads to parse into, for as long as an exchange takes.
    pub(super) fn heads(&self) -> LentHeads<'_> {
        LentHeads { local: self, heads: self.heads.borrow_mut().pop().unwrap_or_default() }
    }
}

fn memory_max(snapshot: &Snapshot) -> Option<u64> {
    match snapshot.limits.memory {
        MemoryLimit::Bytes(bytes) => Some(bytes),
        MemoryLimit::Auto | MemoryLimit::Unlimited => None,
    }
}

/// The heads of one exchange, with the memory that parsing them takes.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
}

/// See [`Local::heads`].
pub(super) struct LentHeads<'a> {
    local: &'a Local,
    heads: Heads,
}

impl Deref for LentHeads<'_> {
    type Target = Heads;

    fn deref(&self) -> &Heads {
        &self.heads
    }
}

impl DerefMut for LentHeads<'_> {
    fn deref_mut(&mut self) -> &mut Heads {
        &mut self.heads
    }
}

impl Drop for LentHeads<'_> {
    fn drop(&mut self) {
        let mut spare = self.local.heads.borrow_mut();
        if spare.len() < SPARE_HEADS {
            spare.push(std::mem::take(&mut self.heads));
        }
    }
}

/// See [`Local::task`].
pub(super) struct Task(Rc<Local>);

impl Task {
    pub(super) fn local(&self) -> &Rc<Local> {
        &self.0
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}
