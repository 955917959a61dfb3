//! A tcp listener's connection: bytes both ways between a client and a backend.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use super::{
    access::Entry,
    choice::{Choice, Reuse},
    connection::Accepted,
    introduction,
    lease::Lease,
    local::Local,
    passthrough::{self, Goal},
    plan::Plan,
    sink::Sink,
    stream::Stream,
    stream_error::StreamError,
    timer::Deadline,
    upstream::Upstream,
};
use crate::{
    metrics::Counter,
    model::{PoolId, reason::CloseReason},
    relay::{Action, Flow, client_hello::ServerName},
    ring::{
        Socket, executor,
        op::{Op, Readiness},
    },
    sys::{
        pipe::{CAPACITY, Spliced},
        rooms,
    },
};

/// Splices of one direction before the others get their turn.
const SPLICES_PER_STEP: u32 = 8;

/// Runs until both directions have ended, one of them failed, or nothing moved for too long.
pub(super) async fn drive(accepted: Accepted, begun: Option<Box<Stream>>) {
    let local = accepted.local();
    let plan = local.plan();
    let deadline = local.timers.deadline();
    accepted.begin(&plan.snapshot);
    let mut stream = begun.map_or_else(|| Stream::new(accepted.sink.clone()), |stream| *stream);
    let goal = match plan.names(accepted.listener()) {
        None => straight(&plan, &accepted),
        Some(names) => {
            rooms::pinned(passthrough::find(local, &plan, names, &accepted, &mut stream, &deadline)).await
        }
    };
    let (pool, header) = match goal {
        Ok(Goal { pool, name }) => (pool, header(local, &plan, pool, &accepted, name)),
        Err(reason) => return refuse(&accepted, reason),
    };
    let entry = &accepted.entry;
    let mut choice = Choice::of_connection(&plan, pool, &accepted);
    // A relay may last for days: what it takes to begin one has room only meanwhile.
    let connect = rooms::pinned(choice.connect(local, &deadline, Reuse::Forbidden, entry));
    let (mut upstream, in_flight) = match connect.await {
        Ok(connected) => connected,
        Err(reason) => return refuse(&accepted, reason),
    };
    in_flight.answered();
    let introduced = match header {
        None => Ok(()),
        Some(header) => introduce(local, &upstream, header, &deadline).await,
    };
    let idle = plan.snapshot.limits.idle_timeout;
    let ended = match introduced {
        Ok(()) => relay(local, &accepted, &mut stream, &mut upstream.stream, &deadline, idle).await,
        Err(reason) => {
            accepted.sink.close_by_reset();
            Err(reason)
        }
    };
    if let Err(reason) = ended {
        accepted.fail(reason);
    }
    accepted.entry.end();
}

/// A client whose connection leads nowhere is reset, not ended politely: it must not read it as an empty answer.
fn refuse(accepted: &Accepted, reason: CloseReason) {
    accepted.fail(reason);
    accepted.sink.close_by_reset();
    accepted.entry.end();
}

/// The listener's pool.
fn straight(plan: &Plan, accepted: &Accepted) -> Result<Goal, CloseReason> {
    let pool = plan.listener(accepted.listener()).and_then(|listener| listener.pool);
    let pool = pool.ok_or(CloseReason::NoBackend)?;
    accepted.entry.way(None, Some(&plan.pool(pool).name));
    Ok(Goal { pool, name: None })
}

/// What stands before the client's first byte, where the pool wants it.
fn header(
    local: &Local,
    plan: &Plan,
    pool: PoolId,
    accepted: &Accepted,
    name: Option<ServerName>,
) -> Option<Vec<u8>> {
    let version = introduction::within(plan, pool)?;
    let mut out = local.buffers.take();
    let name = name.as_ref().map(ServerName::as_bytes);
    introduction::write(&mut out, local, accepted, version, name);
    Some(out)
}

/// Tells the backend whom it is for, within the time that connecting had.
async fn introduce(
    local: &Local,
    upstream: &Upstream,
    header: Vec<u8>,
    deadline: &Deadline,
) -> Result<(), CloseReason> {
    match upstream.stream.sink().send(&local.buffers, header, deadline).await {
        Ok(out) => {
            local.buffers.recycle(out);
            Ok(())
        }
        Err(StreamError::Expired) if local.is_overdue() => Err(CloseReason::Draining),
        Err(StreamError::Expired) => Err(CloseReason::ConnectTimeout),
        Err(StreamError::Broken) => Err(CloseReason::UpstreamClosed),
    }
}

/// Moves bytes both ways, those first that were received already. `idle`: longest silence of both together.
pub(super) async fn relay(
    local: &Local,
    accepted: &Accepted,
    from_client: &mut Stream,
    from_backend: &mut Stream,
    deadline: &Deadline,
    idle: Duration,
) -> Result<(), CloseReason> {
    deadline.set(local.after(idle));
    let (client, backend) = (accepted.sink.clone(), from_backend.sink().clone());
    let metrics = accepted.metrics();
    let mut up = Direction {
        local,
        deadline,
        idle,
        from: from_client,
        to: backend.clone(),
        counter: &metrics.received_bytes,
        entry: &accepted.entry,
        way: Way::Up,
    };
    let mut down = Direction {
        local,
        deadline,
        idle,
        from: from_backend,
        to: client.clone(),
        counter: &metrics.sent_bytes,
        entry: &accepted.entry,
        way: Way::Down,
    };
    let (client_gone, backend_gone) = (CloseReason::ClientGone, CloseReason::UpstreamClosed);
    let up = pin!(up.run(client_gone, backend_gone, Orphaned::ThrownAway));
    let down = pin!(down.run(backend_gone, client_gone, Orphaned::Refused));
    let both = both(up, down).await;
    if both.is_err() {
        client.close_by_reset();
        backend.close_by_reset();
    }
    both
}

/// Drives two directions until both are done or one fails.
fn both<'a>(
    mut one: Pin<&'a mut impl Future<Output = Result<(), CloseReason>>>,
    mut other: Pin<&'a mut impl Future<Output = Result<(), CloseReason>>>,
) -> impl Future<Output = Result<(), CloseReason>> {
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(move |context| {
        if !one_done && let Poll::Ready(result) = one.as_mut().poll(context) {
            result?;
            one_done = true;
        }
        if !other_done && let Poll::Ready(result) = other.as_mut().poll(context) {
            result?;
            other_done = true;
        }
        if one_done && other_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
}

/// What becomes of bytes whose sink is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphaned {
    /// The relay ends.
    Refused,
    /// They are read and forgotten, and the other direction decides how the relay ends. A backend that has
    /// answered and closed is an ordinary end, and many clients still have a last word for it (TLS: close_notify).
    /// A close of ours with that word unread would be a reset, and take away what is still on its way to them.
    ThrownAway,
}

/// Which side a direction failed on.
enum Failed {
    Source(StreamError),
    Sink(StreamError),
}

struct Direction<'a> {
    local: &'a Local,
    deadline: &'a Deadline,
    idle: Duration,
    from: &'a mut Stream,
    to: Sink,
    counter: &'a Counter,
    entry: &'a Entry,
    way: Way,
}

/// Which way a direction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the backend.
    Up,
    /// To the client.
    Down,
}

impl Direction<'_> {
    /// The reasons: for a source that breaks, and for a sink.
    async fn run(
        &mut self,
        source: CloseReason,
        sink: CloseReason,
        orphaned: Orphaned,
    ) -> Result<(), CloseReason> {
        let mut lease = Lease::none(self.local);
        let mut flow = Flow::new(CAPACITY);
        let mut splices = 0;
        let ended = loop {
            let step = match flow.action() {
                Action::Copy => self.copy(&mut flow).await,
                Action::LeasePipe => {
                    let granted = self.may_splice() && lease.take();
                    self.local.metrics.splices_started.add(u64::from(granted));
                    flow.on_lease(granted);
                    Ok(())
                }
                Action::Fill(most) => {
                    splices += 1;
                    self.fill(&mut flow, &mut lease, most).await
                }
                Action::Drain(len) => self.drain(&mut flow, &mut lease, len).await,
                Action::Shutdown => {
                    self.to.end(self.deadline).await;
                    flow.on_shutdown();
                    Ok(())
                }
                Action::Done => break Ok(()),
            };
            lease.note(flow.is_pipe_empty());
            match step {
                Ok(()) => {}
                Err(Failed::Sink(StreamError::Broken)) if orphaned == Orphaned::ThrownAway => {
                    break self.throw_away().await.map_err(|error| self.reason(error, source));
                }
                Err(Failed::Source(error)) => break Err(self.reason(error, source)),
                Err(Failed::Sink(error)) => break Err(self.reason(error, sink)),
            }
            if splices >= SPLICES_PER_STEP {
                splices = 0;
                executor::yield_now().await;
            }
        };
        drop(lease);
        ended
    }

    /// Whether neither side wants to have bytes opened or sealed by us.
    fn may_splice(&self) -> bool {
        self.from.sink().gives_pipes() && self.local.lets_pass(&self.to)
    }

    fn reason(&self, error: StreamError, gone: CloseReason) -> CloseReason {
        match error {
            StreamError::Expired if self.local.is_overdue() => CloseReason::Draining,
            StreamError::Expired if self.deadline.is_cut() => CloseReason::BackendRemoved,
            StreamError::Expired => CloseReason::IdleTimeout,
            StreamError::Broken => gone,
        }
    }

    /// Reads to the end of the source; does not count as anything moving.
    async fn throw_away(&mut self) -> Result<(), StreamError> {
        loop {
            self.from.consume(self.from.data().len());
            if self.from.fill(self.deadline).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Something moved: silence starts anew.
    fn moved(&self, len: usize) {
        self.counter.add(len as u64);
        match self.way {
            Way::Up => self.entry.received(len as u64),
            Way::Down => {
                self.entry.answered();
                self.entry.sent(len as u64);
            }
        }
        self.deadline.set(self.local.after(self.idle));
    }

    async fn copy(&mut self, flow: &mut Flow) -> Result<(), Failed> {
        // What stands in front of a connection may have come with more.
        if self.from.data().is_empty() && self.from.fill(self.deadline).await.map_err(Failed::Source)? == 0 {
            flow.on_end();
            return Ok(());
        }
        let len = self.from.data().len();
        // The source has spoken: the sink has all of its time.
        self.deadline.set(self.local.after(self.idle));
        self.from
            .forward(&self.local.buffers, &self.to, 0..len, self.deadline)
            .await
            .map_err(Failed::Sink)?;
        flow.on_copied(len);
        self.moved(len);
        Ok(())
    }

    async fn fill(&mut self, flow: &mut Flow, lease: &mut Lease<'_>, most: usize) -> Result<(), Failed> {
        let Some(pipe) = lease.pipe() else {
            flow.on_lease(lease.take());
            return Ok(());
        };
        match pipe.fill(self.from.socket(), most).map_err(|error| Failed::Source(error.into()))? {
            Spliced::Bytes(len) => flow.on_filled(len),
            Spliced::Eof => flow.on_end(),
            Spliced::Blocked => {
                // The pipe is empty: while this direction is silent, others may have it.
                lease.give_back();
                self.wait(self.from.socket(), Readiness::Readable).await.map_err(Failed::Source)?;
                flow.on_lease(lease.take());
            }
        }
        Ok(())
    }

    async fn drain(&mut self, flow: &mut Flow, lease: &mut Lease<'_>, len: usize) -> Result<(), Failed> {
        let Some(pipe) = lease.pipe() else { return Err(Failed::Sink(StreamError::Broken)) };
        match pipe.drain(self.to.socket(), len).map_err(|error| Failed::Sink(error.into()))? {
            Spliced::Bytes(len) => {
                flow.on_drained(len);
                self.local.metrics.spliced_bytes.add(len as u64);
                self.moved(len);
                self.to.passed(len).map_err(Failed::Sink)?;
            }
            Spliced::Eof => return Err(Failed::Sink(StreamError::Broken)),
            Spliced::Blocked => {
                self.wait(self.to.socket(), Readiness::Writable).await.map_err(Failed::Sink)?
            }
        }
        Ok(())
    }

    async fn wait(&self, socket: &Socket, readiness: Readiness) -> Result<(), StreamError> {
        Ok(self.deadline.guard(Op::ready(&self.local.ring, socket, readiness)).await??)
    }
}
