//! An http listener's connection: one exchange after the other, answers in the order of the requests.
//!
//! ```text
//!  await head --> route --> exchange --> keep? --yes--> await head
//!      |            |          |          `-no--> linger --> closed
//!      |            |          |- a 101 that was asked for --> tunnel --> closed
//!      |            |          `- failed after the head was sent --> reset
//!      `------------+---------- refused: answer --> linger (or keep, where nothing of the request is left)
//! ```

use std::future::poll_fn;

use super::{
    connection::{Accepted, Context},
    drive_h2, drive_request,
    mutant::{Mutant, is_planted},
    outcome::{After, Ended},
    stream::Stream,
    timer::{Expired, FOR_EVER, Idle},
};
use crate::{model::reason::CloseReason, ring::executor, sys::rooms};

/// Runs until the client is done, an exchange asks for the end, or the worker drains. What it captures is what a
/// connection costs that waits; a function would have room for its arguments beside its variables.
pub(super) fn drive(accepted: Accepted, begun: Option<Box<Stream>>) -> impl Future<Output = ()> {
    let local = accepted.local();
    let deadline = local.timers.deadline();
    let mut stream = match begun {
        None => Stream::new(accepted.sink.clone()),
        Some(stream) => {
            deadline.set(local.after(local.plan().snapshot.limits.head_timeout));
            *stream
        }
    };
    let context = Context { accepted, deadline };
    async move {
        let mut first = true;
        loop {
            if stream.data().is_empty() {
                if !may_wait(&context, first) {
                    return;
                }
                let news = context.deadline.guard(poll_fn(|task| stream.poll_news(task))).await;
                match has_waited(&context, first, news) {
                    Waited::Something => {}
                    Waited::OnlyLooked => continue,
                    Waited::InVain => return,
                }
            }
            // What a request needs has room only while there is one.
            match rooms::pinned(drive_request::serve(&context, &mut stream, first)).await {
                Ended::After(After::KeepAlive) => first = false,
                Ended::After(After::Close) => return,
                Ended::Http2 => break,
                Ended::Switched(tunnel) => {
                    return rooms::pinned(tunnel.drive(&context, &mut stream)).await;
                }
            }
        }
        executor::spawn(drive_h2::drive(context.accepted, Some(Box::new(stream))));
    }
}

/// Sets how long a client may be silent before a request. False: it may not stay for one.
fn may_wait(context: &Context, first: bool) -> bool {
    let (local, deadline) = (context.local(), &context.deadline);
    if !first && !may_stay(context) {
        return false;
    }
    let limits = &local.plan().snapshot.limits;
    let patience = if first { limits.head_timeout } else { limits.idle_timeout };
    deadline.set(local.after(if is_planted(Mutant::WaitsForEver) { FOR_EVER } else { patience }));
    // Between requests a drain may end the wait, or a shortage of memory.
    deadline.set_idle(if first { Idle::No } else { Idle::Waiting });
    true
}

/// Whether a connection may stay for what may come: its worker and its listener do.
fn may_stay(context: &Context) -> bool {
    let local = context.local();
    local.lets_wait() && local.plan().http(context.accepted.listener()).is_some()
}

/// What came of a wait.
enum Waited {
    Something,
    /// It was woken to see whether it may stay, and does.
    OnlyLooked,
    InVain,
}

fn has_waited(context: &Context, first: bool, news: Result<(), Expired>) -> Waited {
    context.deadline.set_idle(Idle::No);
    match news {
        Ok(()) => Waited::Something,
        Err(Expired) if !first && !may_stay(context) => Waited::InVain,
        Err(Expired) if !first && !context.deadline.is_due() => Waited::OnlyLooked,
        Err(Expired) => {
            context.accepted.fail(CloseReason::IdleTimeout);
            Waited::InVain
        }
    }
}
