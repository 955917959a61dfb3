//! The choice of a backend, and the way to it: over a kept connection or a new one.

use std::{rc::Rc, time::Instant};

use super::{access::Entry, local::Local, plan::Plan, stream::Stream, timer::Deadline, upstream::Upstream};
use crate::{
    balance::round_robin::Tried,
    config::BackendSnapshot,
    metrics::BackendMetrics,
    model::{BackendId, PoolId, reason::CloseReason},
    ring::{Op, Socket},
};

/// The backends of one pool that one connection or exchange may still try.
pub(super) struct Choice {
    plan: Rc<Plan>,
    pool: PoolId,
    tried: Tried,
    exhausted: bool,
}

impl Choice {
    pub(super) fn new(plan: &Rc<Plan>, pool: PoolId) -> Self {
        Self { plan: plan.clone(), pool, tried: Tried::default(), exhausted: false }
    }

    /// The next backend in turn that is up and was not tried; its place in the pool.
    ///
    /// # Errors
    /// [`CloseReason::NoBackend`] while none was tried.
    fn next(&mut self, local: &Local) -> Result<usize, CloseReason> {
        let backends = &self.plan.pool(self.pool).backends;
        let is_up = |at: usize| local.health.is_up(backends[at].id);
        if self.exhausted {
            return Err(CloseReason::ConnectFailed);
        }
        let next = self.plan.balancer(self.pool).borrow_mut().next_untried(&self.tried, is_up);
        next.ok_or(if self.tried.is_empty() { CloseReason::NoBackend } else { CloseReason::ConnectFailed })
    }

    fn failed(&mut self, at: usize) {
        self.exhausted = !self.tried.insert(at);
    }

    fn backend(&self, at: usize) -> &BackendSnapshot {
        &self.plan.pool(self.pool).backends[at]
    }

    /// A connection to the next backend: kept where there is one, else dialled; a backend that cannot be
    /// reached is counted and the next one tried.
    ///
    /// # Errors
    /// No backend is up, or none could be reached; the reason of the last attempt.
    pub(super) async fn connect(
        &mut self,
        local: &Local,
        deadline: &Deadline,
        reuse: Reuse,
        entry: &Entry,
    ) -> Result<Upstream, CloseReason> {
        let mut reason = None;
        loop {
            let at = self.next(local).map_err(|none| reason.unwrap_or(none))?;
            let backend = self.backend(at);
            entry.attempt(&backend.name);
            if reuse == Reuse::Allowed
                && let Some(upstream) = take_kept(local, backend.id)
            {
                entry.connected(true);
                return Ok(upstream);
            }
            match dial(local, backend, self.plan.snapshot.limits.connect_timeout, deadline).await {
                Ok(stream) => {
                    entry.connected(false);
                    return Ok(Upstream {
                        backend: backend.id,
                        name: backend.name.clone(),
                        stream,
                        reused: false,
                    });
                }
                Err(failure) => {
                    local.metrics.backend(backend.id).connect_failures.add(1);
                    if failure == CloseReason::Draining {
                        return Err(failure);
                    }
                    reason = Some(failure);
                    self.failed(at);
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

/// Takes a kept connection that has been quiet since it was parked.
fn take_kept(local: &Local, backend: BackendId) -> Option<Upstream> {
    loop {
        let mut upstream = local.keepalive.borrow_mut().take(backend)?;
        let metrics = local.metrics.backend(backend);
        metrics.idle.sub(1);
        if !upstream.is_stale() {
            metrics.reuses.add(1);
            upstream.reused = true;
            upstream.stream.take_received();
            return Some(upstream);
        }
    }
}

async fn dial(
    local: &Local,
    backend: &BackendSnapshot,
    timeout: std::time::Duration,
    deadline: &Deadline,
) -> Result<Stream, CloseReason> {
    let socket = Socket::tcp(&local.ring, backend.address).map_err(|_| CloseReason::Resources)?;
    deadline.set(local.after(timeout));
    match deadline.guard(Op::connect(&local.ring, &socket, backend.address)).await {
        Ok(Ok(())) => {
            local.metrics.backend(backend.id).connects.add(1);
            Ok(Stream::new(&local.ring, socket))
        }
        Ok(Err(_)) => Err(CloseReason::ConnectFailed),
        Err(_) if local.is_overdue() => Err(CloseReason::Draining),
        Err(_) => Err(CloseReason::ConnectTimeout),
    }
}

/// Keeps a connection whose exchange ended well, with a receive armed that tells when the backend closes it.
pub(super) fn park(local: &Local, plan: &Plan, pool: PoolId, mut upstream: Upstream, now: Instant) {
    if local.is_draining() || !local.health.is_up(upstream.backend) {
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

/// Counts an exchange or a relay as going on until dropped.
pub(super) struct InFlight<'a>(&'a BackendMetrics);

impl<'a> InFlight<'a> {
    pub(super) fn begin(local: &'a Local, upstream: &Upstream) -> Self {
        let metrics = local.metrics.backend(upstream.backend);
        metrics.exchanges.add(1);
        metrics.in_flight.add(1);
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.sub(1);
    }
}
