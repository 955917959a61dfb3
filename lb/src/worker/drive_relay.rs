//! A tcp listener's connection: bytes both ways between a client and a backend.

use std::{
    future::{Future, poll_fn},
    net::Shutdown,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    access::Entry,
    choice::{Choice, InFlight, Reuse},
    connection::Accepted,
    lease::Lease,
    local::Local,
    stream::{Stream, StreamError},
    timer::Deadline,
    upstream::Upstream,
};
use crate::{
    metrics::Counter,
    model::reason::CloseReason,
    relay::{Action, Flow},
    ring::{
        Socket, executor,
        op::{Op, Readiness},
    },
    sys::pipe::{CAPACITY, Spliced},
};

/// Splices of one direction before the others get their turn.
const SPLICES_PER_STEP: u32 = 8;

/// Runs until both directions have ended, one of them failed, or nothing moved for too long.
pub(super) async fn drive(local: Rc<Local>, accepted: Accepted) {
    let _task = local.task();
    let plan = local.plan();
    let deadline = local.timers.deadline();
    let pool = plan.listener(accepted.listener).and_then(|listener| listener.pool);
    accepted.begin(&plan.snapshot);
    let Some(pool) = pool else { return refuse(&accepted, CloseReason::NoBackend) };
    let entry = &accepted.entry;
    entry.way(None, Some(&plan.pool(pool).name));
    let upstream = match Choice::new(&plan, pool).connect(&local, &deadline, Reuse::Forbidden, entry).await {
        Ok(upstream) => upstream,
        Err(reason) => return refuse(&accepted, reason),
    };
    let _in_flight = InFlight::begin(&local, &upstream);
    let ended = relay(&local, &accepted, upstream, &deadline, plan.snapshot.limits.idle_timeout).await;
    if let Err(reason) = ended {
        accepted.fail(reason);
    }
    accepted.entry.end();
}

/// A client whose connection leads nowhere is reset, not ended politely: it must not read it as an empty answer.
fn refuse(accepted: &Accepted, reason: CloseReason) {
    accepted.fail(reason);
    reset(&accepted.socket);
    accepted.entry.end();
}

/// Makes the close of `socket` a reset.
fn reset(socket: &Socket) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

async fn relay(
    local: &Local,
    accepted: &Accepted,
    upstream: Upstream,
    deadline: &Deadline,
    idle: Duration,
) -> Result<(), CloseReason> {
    deadline.set(local.after(idle));
    let (client, backend) = (accepted.socket.clone(), upstream.stream.socket().clone());
    let metrics = accepted.metrics();
    let up = Direction {
        local,
        deadline,
        idle,
        from: Stream::new(&local.ring, client.clone()),
        to: backend.clone(),
        counter: &metrics.received_bytes,
        entry: &accepted.entry,
        way: Way::Up,
    };
    let down = Direction {
        local,
        deadline,
        idle,
        from: upstream.stream,
        to: client.clone(),
        counter: &metrics.sent_bytes,
        entry: &accepted.entry,
        way: Way::Down,
    };
    let (client_gone, backend_gone) = (CloseReason::ClientGone, CloseReason::UpstreamClosed);
    let up = up.run(client_gone, backend_gone, Orphaned::ThrownAway);
    let down = down.run(backend_gone, client_gone, Orphaned::Refused);
    let both = both(up, down).await;
    if both.is_err() {
        reset(&client);
        reset(&backend);
    }
    both
}

/// Drives two directions until both are done or one fails.
async fn both(
    one: impl Future<Output = Result<(), CloseReason>>,
    other: impl Future<Output = Result<(), CloseReason>>,
) -> Result<(), CloseReason> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(|context| {
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
    .await
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
    from: Stream,
    to: Socket,
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
        mut self,
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
                    let granted = lease.take();
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
                    self.to.shutdown(Shutdown::Write);
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

    fn reason(&self, error: StreamError, gone: CloseReason) -> CloseReason {
        match error {
            StreamError::Expired if self.local.is_overdue() => CloseReason::Draining,
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
        if self.from.fill(self.deadline).await.map_err(Failed::Source)? == 0 {
            flow.on_end();
            return Ok(());
        }
        let len = self.from.data().len();
        // The source has spoken: the sink has all of its time.
        self.deadline.set(self.local.after(self.idle));
        self.from.forward(&self.to, 0..len, self.deadline).await.map_err(Failed::Sink)?;
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
        match pipe.drain(&self.to, len).map_err(|error| Failed::Sink(error.into()))? {
            Spliced::Bytes(len) => {
                flow.on_drained(len);
                self.local.metrics.spliced_bytes.add(len as u64);
                self.moved(len);
            }
            Spliced::Eof => return Err(Failed::Sink(StreamError::Broken)),
            Spliced::Blocked => self.wait(&self.to, Readiness::Writable).await.map_err(Failed::Sink)?,
        }
        Ok(())
    }

    async fn wait(&self, socket: &Socket, readiness: Readiness) -> Result<(), StreamError> {
        Ok(self.deadline.guard(Op::ready(&self.local.ring, socket, readiness)).await??)
    }
}
