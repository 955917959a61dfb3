//! A connection that speaks HTTP/2: every stream is an exchange of its own, in a task of its own.
//!
//! ```text
//!  Transport --> l7::http2::Server --> Asked --> a message that looks like HTTP/1.1 --> as any exchange
//!     ^                `- idle, drain, memory: GOAWAY, what was begun is finished          |
//!     `------------------------------- frames <--------------------------------------------'
//! ```

use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use super::{
    connection::{Accepted, Context},
    drive_request,
    local::Local,
    message::Message,
    outcome::Ended,
    sink::Sink,
    stream::Stream,
    timer::{Deadline, Expired, FOR_EVER, Idle},
    transport::Transport,
};
use crate::{
    l7::http2::{self, Asked, Next, Server, Settings},
    model::reason::CloseReason,
    ring::executor,
    sys::rooms,
};

/// Fields of a head, crumbs of cookies counted each, where `limits.head_fields` does not say fewer.
const FIELDS_MAX: usize = 128;
/// Who has asked nothing for so long waits with as little memory as can be.
const RESTLESS: Duration = Duration::from_secs(1);
/// How long an end that was said is waited for.
const PARTING: Duration = Duration::from_secs(2);

/// How many exchanges go on, and who wants to know when that changes.
#[derive(Default)]
struct Going {
    count: Cell<usize>,
    waker: Cell<Option<Waker>>,
}

/// One of them.
struct One(Rc<Going>);

impl One {
    fn new(going: &Rc<Going>) -> Self {
        going.count.set(going.count.get() + 1);
        Self(going.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// What the connection's task is woken for.
enum News {
    Next(Box<Next>),
    Over(http2::Ended),
    /// Nothing goes on any more, or something does again.
    Changed,
}

/// Runs until the client is done, or is to be.
pub(super) async fn drive(accepted: Accepted, begun: Option<Box<Stream>>) {
    let local = accepted.local().clone();
    let deadline = local.timers.deadline();
    let stream = begun.map_or_else(|| Stream::new(accepted.sink.clone()), |stream| *stream);
    let limits = local.plan().snapshot.limits;
    let settings = Settings {
        streams_max: limits.http2.streams,
        head_bytes: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX),
        fields_max: FIELDS_MAX.min(limits.head_fields),
        budgets: http2::budgets(&limits),
    };
    let accepted = Rc::new(accepted);
    let going = Rc::new(Going::default());
    let mut server = Server::new(Transport::new(local.clone(), stream), &settings);
    let (mut was_idle, mut is_trimmed, mut is_ending) = (None, false, false);
    loop {
        let is_idle = going.count.get() == 0;
        if was_idle != Some(is_idle) && !is_ending {
            (was_idle, is_trimmed) = (Some(is_idle), false);
            be_patient(&local, &deadline, is_idle);
        }
        let news = poll_fn(|task| {
            going.waker.set(Some(task.waker().clone()));
            match server.poll_next(task) {
                Poll::Ready(Ok(next)) => Poll::Ready(News::Next(Box::new(next))),
                Poll::Ready(Err(ended)) => Poll::Ready(News::Over(ended)),
                Poll::Pending if (going.count.get() == 0) != is_idle => Poll::Ready(News::Changed),
                Poll::Pending => Poll::Pending,
            }
        });
        match deadline.guard(news).await {
            Ok(News::Next(next)) => {
                match *next {
                    Next::Asked(asked) => begin(&local, &accepted, asked, One::new(&going)),
                    Next::Refused(reason) => refused(&accepted, reason),
                }
                if !is_ending && !local.keeps_idle() {
                    is_ending = true;
                    server.begin_end();
                    deadline.forget();
                }
            }
            Ok(News::Changed) => {}
            Ok(News::Over(ended)) => {
                note(&accepted, ended);
                break;
            }
            Err(Expired) if is_ending => break,
            Err(Expired) if is_idle && !is_trimmed && may_stay(&local, &accepted) => {
                is_trimmed = true;
                server.trim();
                let patience = local.plan().snapshot.limits.idle_timeout.saturating_sub(RESTLESS);
                deadline.set(local.after(patience));
            }
            Err(Expired) if may_stay(&local, &accepted) && !deadline.is_due() => was_idle = None,
            Err(Expired) => {
                is_ending = true;
                server.begin_end();
                deadline.set_idle(Idle::No);
                deadline.set(local.after(if going.count.get() == 0 {
                    PARTING
                } else {
                    local.patience_left().min(FOR_EVER)
                }));
            }
        }
    }
    deadline.set_idle(Idle::No);
    deadline.set(local.after(PARTING));
    let _ = deadline.guard(poll_fn(|task| server.poll_flush(task))).await;
    drop(server);
    accepted.sink.end(&deadline).await;
}

fn may_stay(local: &Local, accepted: &Accepted) -> bool {
    local.lets_wait() && local.plan().http(accepted.listener()).is_some()
}

/// As long as something goes on, that has deadlines of its own. Else it is to be trimmed first.
fn be_patient(local: &Local, deadline: &Deadline, is_idle: bool) {
    let limits = &local.plan().snapshot.limits;
    deadline.set(local.after(if is_idle { limits.idle_timeout.min(RESTLESS) } else { FOR_EVER }));
    deadline.set_idle(Idle::Waiting);
}

fn note(accepted: &Accepted, ended: http2::Ended) {
    let reason = match ended {
        http2::Ended::Well | http2::Ended::Broken => return,
        http2::Ended::Protocol => CloseReason::Http2Protocol,
        http2::Ended::Abuse(_) => CloseReason::Http2Flood,
    };
    refused(accepted, reason);
}

/// Counts and logs what was no exchange.
fn refused(accepted: &Accepted, reason: CloseReason) {
    accepted.begin(&accepted.local().plan().snapshot);
    accepted.fail(reason);
    accepted.entry.end();
}

/// Starts an exchange.
fn begin(local: &Rc<Local>, connection: &Rc<Accepted>, asked: Asked, one: One) {
    let Asked { head, is_head, inflow, outflow, .. } = asked;
    let message = Message::of_client(inflow, outflow, is_head);
    let sink = Sink::message(connection.sink.socket().clone(), message);
    let mut stream = Stream::new(sink.clone());
    stream.begin_with(head);
    let deadline = local.timers.deadline();
    deadline.set(local.after(local.plan().snapshot.limits.head_timeout));
    let context = Context { accepted: Accepted::of_stream(connection, sink), deadline };
    executor::spawn(async move {
        let _one = one;
        match rooms::pinned(drive_request::serve(&context, &mut stream, true)).await {
            Ended::After(_) | Ended::Http2 => {}
            Ended::Switched(tunnel) => rooms::pinned(tunnel.drive(&context, &mut stream)).await,
        }
        context.accepted.sink.end(&context.deadline).await;
    });
}
