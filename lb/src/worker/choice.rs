//! The choice of a backend, and the way to it: over a kept connection or a new one.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    access::Entry,
    connection::{Accepted, Context},
    introduction,
    line::{Line, Look},
    local::Local,
    mutant::{Mutant, is_planted},
    plan::Plan,
    pool_plan::{Nobody, PoolPlan},
    timer::{Deadline, Expired},
    upstream::Upstream,
};
use crate::{
    balance::Tried,
    config::{BackendProtocol, BackendSnapshot},
    l7::{cookie, http1::RequestHead},
    metrics::BackendMetrics,
    model::{BackendId, PoolId, reason::CloseReason},
    ring::{Op, Socket, op::Readiness},
    sys::rooms,
};

/// How often the first who waits for a backend looks by itself: one may have come up, and nobody rings for that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a worker may keep however few connections there may be.
const KEPT_MIN: usize = 64;

/// The backends of one pool that one connection or exchange may still try.
pub(super) struct Choice {
    pub(super) plan: Rc<Plan>,
    pub(super) pool: PoolId,
    /// Hash of what the pool goes by.
    key: u64,
    /// Whoever may have to wait.
    client: Option<Socket>,
    /// The backend that the client's cookie names.
    home: Option<usize>,
    tried: Tried,
    exhausted: bool,
    attempts: u32,
    attempts_max: u32,
    /// A backend has failed what is sent now.
    is_retry: bool,
    /// Exchanges share connections.
    is_multiplexed: bool,
    /// What a backend is told of the client in the clear, where TLS comes behind it.
    pub(super) header: Option<Box<[u8]>>,
}

impl Choice {
    /// For a connection of a client.
    pub(super) fn of_connection(plan: &Rc<Plan>, pool: PoolId, accepted: &Accepted) -> Self {
        let key = plan.choosing(pool).key_of_client(accepted.client().ip());
        Self::new(plan, pool, accepted, key)
    }

    /// For datagrams of a client.
    pub(super) fn of_datagrams(plan: &Rc<Plan>, pool: PoolId, client: IpAddr) -> Self {
        let key = plan.choosing(pool).key_of_client(client);
        Self::with(plan, pool, None, key)
    }

    /// For a request whose head was parsed from `buf`.
    pub(super) fn of_request(
        plan: &Rc<Plan>,
        pool: PoolId,
        context: &Context,
        head: &RequestHead,
        buf: &[u8],
        is_trusted: bool,
    ) -> Self {
        let (choosing, accepted) = (plan.choosing(pool), &context.accepted);
        let key = choosing.key_of_request(accepted.client().ip(), head, buf, is_trusted);
        let refused = || context.local().metrics.cookies_refused.add(1);
        let home = choosing.sticky().and_then(|sticky| sticky.home(head, buf, refused));
        let is_multiplexed = plan.pool(pool).protocol == BackendProtocol::Http2;
        Self { home, is_multiplexed, ..Self::new(plan, pool, accepted, key) }
    }

    fn new(plan: &Rc<Plan>, pool: PoolId, accepted: &Accepted, key: u64) -> Self {
        let client = plan.choosing(pool).line().map(|_| accepted.sink.socket().clone());
        let header = introduction::before_tls(plan, pool, accepted);
        Self { header, ..Self::with(plan, pool, client, key) }
    }

    fn with(plan: &Rc<Plan>, pool: PoolId, client: Option<Socket>, key: u64) -> Self {
        let tried = Tried::default();
        Self {
            plan: plan.clone(),
            pool,
            key,
            client,
            home: None,
            tried,
            exhausted: false,
            attempts: 0,
            attempts_max: u32::MAX,
            is_retry: false,
            is_multiplexed: false,
            header: None,
        }
    }

    /// The next backend that is up and was not tried. Waits for one where all have as much as they may.
    ///
    /// # Errors
    /// [`CloseReason::NoBackend`] or [`CloseReason::Unresolved`] while none was tried; for who waits in vain [`CloseReason::QueueFull`],
    /// [`CloseReason::QueueTimeout`] or [`CloseReason::ClientGone`].
    async fn next<'l>(&self, local: &'l Local, deadline: &Deadline) -> Result<InFlight<'l>, CloseReason> {
        if self.exhausted {
            return Err(CloseReason::ConnectFailed);
        }
        match self.plan.choosing(self.pool).line() {
            // Who comes later does not go first.
            Some(line) if line.is_wanted() => self.wait(local, line, deadline).await,
            Some(line) => match self.look(local) {
                Err(Nobody::IsFree) => self.wait(local, line, deadline).await,
                found => found.map_err(|_| self.nobody()),
            },
            None => self.look(local).map_err(|_| self.nobody()),
        }
    }

    /// The next backend, with a permit where it has a limit.
    fn look<'l>(&self, local: &'l Local) -> Result<InFlight<'l>, Nobody> {
        let pool = self.plan.pool(self.pool);
        // Whoever has a home goes there as long as it is up, whatever its share.
        let is_open = |at: &usize| !self.tried.contains(*at) && local.health.is_up(pool.backends[*at].id);
        if let Some(at) = self.home.filter(is_open) {
            let BackendSnapshot { id, max_connections, .. } = pool.backends[at];
            let is_free = max_connections.is_none_or(|limit| local.purse.take(id, limit));
            return is_free.then(|| self.begin(local, at)).ok_or(Nobody::IsFree);
        }
        loop {
            let at = self.plan.choosing(self.pool).next(&local.sight(), pool, &self.tried, self.key)?;
            let BackendSnapshot { id, max_connections, .. } = pool.backends[at];
            // Another worker may have been quicker; then there is one less.
            if max_connections.is_none_or(|limit| local.purse.take(id, limit)) {
                return Ok(self.begin(local, at));
            }
        }
    }

    fn begin<'l>(&self, local: &'l Local, at: usize) -> InFlight<'l> {
        InFlight::begin(local, &self.plan, self.pool, at, self.home)
    }

    fn is_any_free(&self, local: &Local) -> bool {
        let (choosing, pool) = (self.plan.choosing(self.pool), self.plan.pool(self.pool));
        choosing.is_any_free(&local.sight(), pool, &self.tried)
    }

    fn nobody(&self) -> CloseReason {
        if self.tried.is_empty() { self.none_up() } else { CloseReason::ConnectFailed }
    }

    /// Nobody is up, and nobody was tried.
    fn none_up(&self) -> CloseReason {
        let pool = self.plan.pool(self.pool);
        let is_unresolved = pool.is_named && pool.backends.is_empty();
        if is_unresolved { CloseReason::Unresolved } else { CloseReason::NoBackend }
    }

    /// Stands in line. A client that ends its side meanwhile is taken for gone.
    async fn wait<'l>(
        &self,
        local: &'l Local,
        line: &Line,
        deadline: &Deadline,
    ) -> Result<InFlight<'l>, CloseReason> {
        let queue = self.plan.pool(self.pool).choosing.queue;
        let look = || match self.look(local) {
            Ok(found) => Look::Got(Ok(found)),
            Err(Nobody::IsFree) if self.is_any_free(local) => Look::NotForMe,
            Err(Nobody::IsFree) => Look::Full,
            Err(Nobody::IsUp) => Look::Got(Err(self.nobody())),
        };
        let is_any_free = self.is_any_free(local);
        let Some(mut wait) = line.wait(queue.length, is_any_free, look) else {
            return Err(CloseReason::QueueFull);
        };
        let mut ended = self.client.as_ref().map(|client| Op::ready(&local.ring, client, Readiness::Ended));
        let until = local.after(queue.timeout);
        loop {
            deadline.set(until.min(local.after(LOOK_AGAIN)));
            let turn = poll_fn(|task| {
                if let Poll::Ready(found) = Pin::new(&mut wait).poll(task) {
                    return Poll::Ready(found);
                }
                match ended.as_mut().map(|ended| Pin::new(ended).poll(task)) {
                    Some(Poll::Ready(_)) => Poll::Ready(Err(CloseReason::ClientGone)),
                    _ => Poll::Pending,
                }
            });
            match deadline.guard(turn).await {
                Ok(found) => return found,
                Err(Expired) if local.is_overdue() => return Err(CloseReason::Draining),
                Err(Expired) if local.now() >= until => return Err(CloseReason::QueueTimeout),
                Err(Expired) => wait.nudge(),
            }
        }
    }

    /// The next backend for who is not dialled, without a wait. One that `passes_over` names is taken where there is no
    /// other.
    ///
    /// # Errors
    /// [`CloseReason::NoBackend`] or [`CloseReason::Unresolved`]; [`CloseReason::QueueFull`] where all have as much as they may.
    pub(super) fn pick(
        &mut self,
        local: &Local,
        passes_over: impl Fn(BackendId) -> bool,
    ) -> Result<Place, CloseReason> {
        let mut second_best = None;
        loop {
            match (self.look(local), second_best) {
                (Ok(found), _) if !passes_over(self.backend(found.place.at).id) => return Ok(found.detach()),
                (Ok(found), other) => {
                    self.failed(found.place.at);
                    second_best = other.or(Some(found));
                }
                (Err(_), Some(found)) => return Ok(found.detach()),
                (Err(Nobody::IsFree), None) => return Err(CloseReason::QueueFull),
                (Err(Nobody::IsUp), None) => return Err(self.none_up()),
            }
            if self.exhausted {
                return second_best.map(InFlight::detach).ok_or(CloseReason::NoBackend);
            }
        }
    }

    fn failed(&mut self, at: usize) {
        self.exhausted = !self.tried.insert(at);
    }

    /// Attempts made so far.
    pub(super) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt that was lost to nobody's fault does not count.
    pub(super) const fn forgive(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// From now on an attempt that fails is the last one when so many were made.
    pub(super) const fn allow(&mut self, attempts_max: u32) {
        self.attempts_max = attempts_max;
    }

    /// From now on backends are asked because another one failed.
    pub(super) const fn retries(&mut self) {
        self.is_retry = true;
    }

    /// Leaves a backend out that was reached and did not serve. Whether there is another one that may be tried.
    pub(super) fn leave_out(&mut self, local: &Local, backend: BackendId) -> bool {
        let plan = self.plan.clone();
        let backends = &plan.pool(self.pool).backends;
        if let Some(at) = backends.iter().position(|other| other.id == backend)
            && !self.tried.contains(at)
        {
            self.failed(at);
        }
        let is_left = |at: usize| !self.tried.contains(at) && local.health.is_up(backends[at].id);
        !self.exhausted && (0..backends.len()).any(|at| backends[at].weight > 0 && is_left(at))
    }

    fn backend(&self, at: usize) -> &BackendSnapshot {
        &self.plan.pool(self.pool).backends[at]
    }

    /// A connection to the next backend: kept where there is one, here or on the shelf, else dialled; a backend that cannot be
    /// reached is counted and the next one tried. The exchange or relay counts as in flight from the choice on, so
    /// that whoever chooses meanwhile sees it.
    ///
    /// # Errors
    /// No backend is up, or none could be reached; the reason of the last attempt.
    pub(super) async fn connect<'l>(
        &mut self,
        local: &'l Rc<Local>,
        deadline: &Deadline,
        reuse: Reuse,
        entry: &Entry,
    ) -> Result<(Upstream, InFlight<'l>), CloseReason> {
        let mut reason = None;
        loop {
            let in_flight = match (self.next(local, deadline).await, reason) {
                (Ok(in_flight), _) => in_flight,
                // Nobody is left: how the last one failed says more.
                (Err(CloseReason::ConnectFailed), Some(last)) => return Err(last),
                (Err(reason), _) => return Err(reason),
            };
            let at = in_flight.place.at;
            if self.is_retry && !in_flight.begin_retry() {
                self.failed(at);
                continue;
            }
            self.attempts += 1;
            let backend = self.backend(at);
            entry.attempt(&backend.name);
            let reached = match self.is_multiplexed {
                true => rooms::pinned(self.join(local, backend, deadline, reuse)).await,
                false => self.reach(local, backend, deadline, reuse).await,
            };
            match reached {
                Ok(upstream) => {
                    entry.connected(upstream.reused);
                    in_flight.metrics.exchanges.add(1);
                    deadline.set_backend(backend.id);
                    return Ok((upstream, in_flight));
                }
                Err(failure) => {
                    in_flight.metrics.connect_failures.add(1);
                    if failure == CloseReason::Draining {
                        return Err(failure);
                    }
                    in_flight.failed();
                    reason = Some(failure);
                    self.failed(at);
                    if self.attempts >= self.attempts_max {
                        return Err(failure);
                    }
                }
            }
        }
    }
}

/// Whether a kept connection may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    Allowed,
    Forbidden,
}

/// Connections that a worker, or the shelf of several, may keep over all backends: its part of what open files allow, as
/// `limits.connections` has a file for the other side of each.
pub(super) fn kept_max(connections: usize, workers: usize) -> usize {
    let parts = if workers > 1 { workers + 1 } else { 1 };
    (connections / parts).max(KEPT_MIN)
}

/// Keeps a connection whose exchange ended well, with a receive armed that tells when the backend closes it.
pub(super) fn park(local: &Local, plan: &Plan, pool: PoolId, mut upstream: Upstream, now: Instant) {
    // What others use, too, is kept as long as it is used.
    if upstream.stream.sink().is_message() || !local.keeps_idle() || !local.health.is_up(upstream.backend) {
        return;
    }
    if local.keepalive.borrow().len() >= kept_max(plan.snapshot.limits.connections, local.siblings.len()) {
        return;
    }
    // Of a backend that has left meanwhile nothing is kept, nor of one that is spoken with otherwise now.
    if !local.has_backend(plan, pool, upstream.backend) {
        return;
    }
    let policy = plan.pool(pool).keepalive;
    let backend = upstream.backend;
    upstream.stream.arm();
    let refused = local.keepalive.borrow_mut().park(backend, upstream, now + policy.idle, policy.per_worker);
    if refused.is_none() {
        local.metrics.backend(backend).idle.add(1);
    }
}

/// One piece of what goes on with a backend.
#[derive(Clone)]
pub(super) struct Place {
    plan: Rc<Plan>,
    pool: PoolId,
    at: usize,
}

impl Place {
    pub(super) fn backend(&self) -> &BackendSnapshot {
        &self.plan.pool(self.pool).backends[self.at]
    }

    /// It has ended.
    pub(super) fn give_back(&self, local: &Local) {
        let BackendSnapshot { id, max_connections, .. } = *self.backend();
        local.metrics.backend(id).in_flight.sub(1);
        if let (Some(limit), Some(line)) = (max_connections, self.plan.choosing(self.pool).line())
            && local.purse.give_back(id, limit, line.is_wanted())
            && line.is_wanted()
        {
            line.freed();
        }
    }
}

/// An exchange or a relay with a backend: counted as going on until dropped, and timed where the pool's policy looks
/// at times.
pub(super) struct InFlight<'a> {
    local: &'a Local,
    metrics: &'a BackendMetrics,
    place: Place,
    /// Somebody else gives the place back.
    is_detached: Cell<bool>,
    /// It is not where the client's cookie says, if there is one.
    is_moved: bool,
    /// When the backend was asked all that there is to ask.
    asked: Cell<Option<Instant>>,
    /// Of how many at once it is one that were sent again, where the pool bounds them.
    retry: Cell<Option<u32>>,
}

impl<'a> InFlight<'a> {
    /// Whoever begins it has a permit, where the backend has a limit.
    fn begin(local: &'a Local, plan: &Rc<Plan>, pool: PoolId, at: usize, home: Option<usize>) -> Self {
        let metrics = local.metrics.backend(plan.pool(pool).backends[at].id);
        metrics.in_flight.add(1);
        let (is_moved, asked) = (home != Some(at), Cell::new(Some(local.now())));
        let place = Place { plan: plan.clone(), pool, at };
        let (is_detached, retry) = (Cell::new(false), Cell::new(None));
        Self { local, metrics, place, is_detached, is_moved, asked, retry }
    }

    /// Takes one of those that may be sent again to the backend at once, where the pool bounds them. False: there are as
    /// many; it is counted.
    fn begin_retry(&self) -> bool {
        let Some(limit) = self.place.plan.pool(self.place.pool).choosing.retries_max else { return true };
        let may = self.local.retries.take(self.place.backend().id, limit);
        if may {
            self.retry.set(Some(limit));
        } else {
            self.metrics.retries_refused.add(1);
        }
        may
    }

    /// Its place, for who gives it back.
    fn detach(self) -> Place {
        self.is_detached.set(true);
        self.place.clone()
    }

    fn choosing(&self) -> &PoolPlan {
        self.place.plan.choosing(self.place.pool)
    }

    /// Takes the pool's own cookie out of an encoded request head, and does nothing where the pool has none.
    pub(super) fn strip_cookie(&self, head: &mut Vec<u8>) {
        if let Some(sticky) = self.choosing().sticky() {
            cookie::strip(head, sticky.cookie.as_bytes());
        }
    }

    /// Adds the pool's cookie to an encoded response head where the client has none that leads here.
    pub(super) fn push_cookie(&self, head: &mut Vec<u8>) {
        if let Some(sticky) = self.choosing().sticky().filter(|_| self.is_moved) {
            cookie::push_session(head, &sticky.cookie, sticky.tokens.token(self.place.at));
        }
    }

    /// The question has only begun: its length is not the backend's delay.
    pub(super) fn asking(&self) {
        self.asked.set(None);
    }

    /// The question was sent to its end.
    pub(super) fn asked(&self) {
        self.asked.set(Some(self.local.now()));
    }

    /// A connection is relayed.
    pub(super) fn answered(&self) {
        self.took(true);
    }

    /// A response head is complete.
    pub(super) fn responded(&self, status: u16) {
        self.took(status < 500);
    }

    fn took(&self, is_good: bool) {
        let now = self.local.now();
        let took = self.asked.take().map(|asked| now.saturating_duration_since(asked));
        if let Some(took) = took {
            self.choosing().answered(self.place.at, took, now);
        }
        let Some(alarm_at) = self.choosing().alarm_at() else { return };
        match is_good {
            true => {
                self.metrics.answers.add(1);
                self.metrics.answer_us.add(took.map_or(0, |took| took.as_micros() as u64));
                self.metrics.error_run.set(0);
            }
            false => self.erred(alarm_at),
        }
    }

    #[cold]
    fn erred(&self, alarm_at: u64) {
        self.metrics.errors.add(1);
        self.metrics.error_run.add(1);
        if alarm_at > 0 && self.metrics.error_run.value().is_multiple_of(alarm_at) {
            self.local.siblings.alarm();
        }
    }

    /// The backend has failed at it.
    pub(super) fn failed(&self) {
        if let Some(alarm_at) = self.choosing().alarm_at() {
            self.erred(alarm_at);
        }
        if let Some(asked) = self.asked.take() {
            let now = self.local.now();
            self.choosing().failed(self.place.at, now.saturating_duration_since(asked), now);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.is_detached.get() && !is_planted(Mutant::KeepsPlace) {
            self.place.give_back(self.local);
        }
        if let Some(limit) = self.retry.get() {
            self.local.retries.give_back(self.place.backend().id, limit, false);
        }
    }
}
