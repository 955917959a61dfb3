//! What the tasks of one worker share. Nothing here is seen by another thread but counters and tables.

use std::{
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    access::AccessLog, api::Setup, pipes::Pipes, plan::Plan, request_id::RequestIds, timer::Timers,
    upstream::Upstream,
};
use crate::{
    health::HealthTable,
    keepalive::Keepalive,
    l7::http1::{RequestHead, ResponseHead},
    limits::Admission,
    metrics::WorkerMetrics,
    model::{BackendId, WorkerId, reason::CloseReason},
    ring::Ring,
};

/// Send buffers kept for reuse.
const SPARE_BUFFERS: usize = 256;
/// A send buffer that grew beyond this is not kept.
const SPARE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Local {
    pub(super) id: WorkerId,
    pub(super) core: usize,
    pub(super) ring: Ring,
    pub(super) timers: Timers,
    pub(super) health: Arc<HealthTable>,
    pub(super) admission: Arc<Admission>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) keepalive: RefCell<Keepalive<Upstream>>,
    pub(super) pipes: Pipes,
    pub(super) access_log: Option<Rc<AccessLog>>,
    pub(super) request_ids: RequestIds,
    plan: RefCell<Rc<Plan>>,
    now: Cell<Instant>,
    /// Accept loops and connections that have not ended.
    tasks: Cell<usize>,
    drain: Cell<Option<Instant>>,
    stop: Cell<bool>,
    spare: RefCell<Vec<Vec<u8>>>,
    heads: RefCell<Vec<Heads>>,
}

impl Local {
    pub(super) fn new(setup: &mut Setup, ring: Ring, now: Instant) -> Self {
        Self {
            id: setup.id,
            core: setup.core,
            ring,
            timers: Timers::new(now),
            health: setup.health.clone(),
            admission: setup.admission.clone(),
            metrics: setup.metrics.clone(),
            keepalive: RefCell::default(),
            pipes: Pipes::default(),
            access_log: setup
                .access_log
                .take()
                .map(|log| Rc::new(AccessLog::new(log, setup.id, setup.metrics.clone(), now))),
            request_ids: RequestIds::default(),
            plan: RefCell::new(Rc::new(Plan::new(setup.snapshot.clone(), setup.id))),
            now: Cell::new(now),
            tasks: Cell::new(0),
            drain: Cell::new(None),
            stop: Cell::new(false),
            spare: RefCell::default(),
            heads: RefCell::default(),
        }
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now);
        if let Some(log) = &self.access_log {
            log.set_now(now);
        }
    }

    /// From now on.
    pub(super) fn after(&self, wait: Duration) -> Instant {
        self.now() + wait
    }

    pub(super) fn plan(&self) -> Rc<Plan> {
        self.plan.borrow().clone()
    }

    pub(super) fn set_plan(&self, plan: Plan) {
        let previous = self.plan.replace(Rc::new(plan));
        drop(previous);
        self.metrics.snapshots.add(1);
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

    pub(super) fn begin_stop(&self) {
        self.stop.set(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.get().is_some()
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

    /// Drops kept connections that are too old or that their backend has closed.
    pub(super) fn sweep_keepalive(&self) {
        let gone = self.keepalive.borrow_mut().sweep(self.now(), Upstream::is_stale);
        self.forget(gone);
    }

    pub(super) fn drop_keepalive(&self) {
        let gone = self.keepalive.borrow_mut().drain();
        self.forget(gone);
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

    /// An empty send buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            spare.push(buffer);
        }
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
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.heads));
        }
    }
}

/// See [`Local::task`].
pub(super) struct Task(Rc<Local>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}
