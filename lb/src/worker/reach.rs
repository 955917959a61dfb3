//! The way to a backend that was chosen: a kept connection, one that others use, too, or a new one.

use std::{cell::Cell, future::poll_fn, io::ErrorKind, pin::pin, rc::Rc, time::Duration};

use super::{
    carrier::Carrier,
    choice::{Choice, Reuse},
    local::Local,
    mutant::{Mutant, is_planted},
    shake,
    stream::Stream,
    timer::{Deadline, Expired},
    transport::Transport,
    upstream::Upstream,
};
use crate::{
    config::{BackendSnapshot, Limits},
    l7::http2::{self, Grants},
    model::{BackendId, reason::CloseReason},
    ring::{Op, Socket, executor},
    sys::rooms,
    tls,
};

/// Between two looks whether the queue of a unix socket has room.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Until kept connections that were given up are closed.
const CLOSING: Duration = Duration::from_millis(20);
/// How long the last that is said to a backend may take.
const PARTING: Duration = Duration::from_secs(2);

impl Choice {
    /// A connection of its own.
    pub(super) async fn reach(
        &self,
        local: &Rc<Local>,
        backend: &BackendSnapshot,
        deadline: &Deadline,
        reuse: Reuse,
    ) -> Result<Upstream, CloseReason> {
        if reuse == Reuse::Allowed
            && let Some(upstream) = take_kept(local, backend.id).or_else(|| local.take_shelved(backend))
        {
            return Ok(upstream);
        }
        let stream = self.dial(local, backend, deadline).await?;
        Ok(Upstream { backend: backend.id, name: backend.name.clone(), stream, reused: false })
    }

    /// A place on a connection that others use, too.
    pub(super) async fn join(
        &self,
        local: &Rc<Local>,
        backend: &BackendSnapshot,
        deadline: &Deadline,
        reuse: Reuse,
    ) -> Result<Upstream, CloseReason> {
        let limits = &self.plan.snapshot.limits;
        let late = || if local.is_overdue() { CloseReason::Draining } else { CloseReason::ConnectTimeout };
        deadline.set(local.after(limits.connect_timeout));
        let found = pin!(local.multiplexed.find(backend.id, reuse == Reuse::Forbidden));
        let (stream, reused) = match deadline.guard(found).await.map_err(|Expired| late())? {
            Ok(stream) => {
                local.metrics.backend(backend.id).reuses.add(1);
                (stream, true)
            }
            Err(_dialling) => {
                let stream = self.dial(local, backend, deadline).await?;
                if stream.sink().secure().is_some_and(|secure| !secure.speaks_http2()) {
                    return Err(CloseReason::UpstreamTls);
                }
                let opened = pin!(open(local, stream, limits));
                let opened = deadline.guard(opened).await.map_err(|Expired| late())?;
                let carrier = opened.ok_or(CloseReason::ConnectFailed)?;
                let idle = self.plan.pool(self.pool).keepalive.idle;
                let stream = local.multiplexed.add(backend.id, carrier, idle);
                (stream.ok_or(CloseReason::ConnectFailed)?, false)
            }
        };
        Ok(Upstream { backend: backend.id, name: backend.name.clone(), stream, reused })
    }

    async fn dial(
        &self,
        local: &Local,
        backend: &BackendSnapshot,
        deadline: &Deadline,
    ) -> Result<Stream, CloseReason> {
        let tls = self.plan.pool_tls(self.pool).map(|tls| &**tls);
        dial(local, backend, tls, self.plan.snapshot.limits.connect_timeout, deadline).await
    }
}

/// Begins HTTP/2 on a connection. From then on a task of its own moves all of its bytes.
async fn open(local: &Rc<Local>, stream: Stream, limits: &Limits) -> Option<Carrier> {
    let grants = Grants {
        head_bytes: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX),
        fields_max: limits.head_fields,
        budgets: http2::budgets(limits),
    };
    let (socket, is_secure) = (stream.socket().clone(), stream.sink().layer().is_some());
    let (mut connection, requests) =
        http2::begin(Transport::new(local.clone(), stream), &grants).await.ok()?;
    let is_over = Rc::new(Cell::new(false));
    let (ended, worker, parting) = (is_over.clone(), local.task(), local.clone());
    executor::spawn(async move {
        poll_fn(|task| connection.poll(task)).await;
        ended.set(true);
        let deadline = parting.timers.deadline();
        deadline.set(parting.after(PARTING));
        let _ = deadline.guard(poll_fn(|task| connection.poll_flush(task))).await;
        drop(worker);
    });
    Some(Carrier::new(requests, socket, is_secure, is_over))
}

/// Takes a kept connection that has been quiet since it was parked.
fn take_kept(local: &Local, backend: BackendId) -> Option<Upstream> {
    loop {
        let mut upstream = local.keepalive.borrow_mut().take(backend)?;
        let metrics = local.metrics.backend(backend);
        metrics.idle.sub(1);
        if !upstream.is_stale() || is_planted(Mutant::TakesStale) {
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
    tls: Option<&tls::Upstream>,
    timeout: std::time::Duration,
    deadline: &Deadline,
) -> Result<Stream, CloseReason> {
    let socket = match Socket::stream(&local.ring, &backend.address) {
        Ok(socket) => socket,
        // No kept connection is worth a request.
        Err(_) => {
            local.drop_keepalive();
            deadline.set(local.after(CLOSING));
            let _ = deadline.guard(std::future::pending::<()>()).await;
            Socket::stream(&local.ring, &backend.address).map_err(|_| CloseReason::Resources)?
        }
    };
    let until = local.after(timeout);
    loop {
        deadline.set(until);
        let connect =
            Op::connect(&local.ring, &socket, &backend.address).map_err(|_| CloseReason::ConnectFailed)?;
        match deadline.guard(connect).await {
            Ok(Ok(())) => {
                local.metrics.backend(backend.id).connects.add(1);
                let mut stream = Stream::new(socket);
                if let Some(tls) = tls {
                    let shaking = shake::with_backend(local, tls, &backend.name, &mut stream, deadline);
                    rooms::pinned(shaking).await?;
                }
                return Ok(stream);
            }
            // The queue of a unix socket is full, and nobody would wake us once it is not (unix(7)).
            Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                deadline.set(until.min(local.after(ASK_AGAIN)));
                let _ = deadline.guard(std::future::pending::<()>()).await;
                if local.now() < until && !local.is_overdue() {
                    continue;
                }
            }
            Ok(Err(_)) => return Err(CloseReason::ConnectFailed),
            Err(_) => {}
        }
        let is_overdue = local.is_overdue();
        return Err(if is_overdue { CloseReason::Draining } else { CloseReason::ConnectTimeout });
    }
}
