//! An http listener's connection: one exchange after the other, answers in the order of the requests.
//!
//! ```text
//!  await head --> route --> exchange --> keep? --yes--> await head
//!      |            |          |          `-no--> linger --> closed
//!      |            |          |- a 101 that was asked for --> tunnel --> closed
//!      |            |          `- failed after the head was sent --> reset
//!      `------------+---------- refused: answer --> linger (or keep, where nothing of the request is left)
//! ```

use std::{future::poll_fn, time::Duration};

use super::{
    connection::{Accepted, Context},
    drive_exchange, drive_h2,
    local::Heads,
    mutant::{Mutant, is_planted},
    outcome::{After, Ended, Failure},
    own_answer::{self, Asked},
    stream::{Stream, StreamError},
    timer::{Expired, Idle},
};
use crate::{
    l7::http1::{Parsed, RequestHead},
    model::{BackendId, reason::CloseReason},
    ring::executor,
    sys::rooms,
};

/// Bytes thrown away while lingering.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// What a missing deadline is.
pub(super) const FOR_EVER: Duration = Duration::from_secs(1 << 20);

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
            match rooms::pinned(serve(&context, &mut stream, first)).await {
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

/// One request, of which something is there: all that becomes of it, and of the connection if that ends with it.
pub(super) async fn serve<'c>(context: &'c Context, stream: &mut Stream, first: bool) -> Ended<'c> {
    let local = context.local();
    // The end of a client that had nothing more to ask.
    if stream.data().is_empty() && !matches!(stream.fill(&context.deadline).await, Ok(1..)) {
        return After::Close.into();
    }
    let mut heads = local.heads();
    let Heads { request, response } = &mut *heads;
    if let Err(reason) = read_head(context, stream, request, first).await {
        if reason == CloseReason::Http2Preface && first && speaks_http2(context) {
            return Ended::Http2;
        }
        context.count_received(stream.take_received());
        context.accepted.entry.refused_head(stream.data());
        // What `request` says is of the last one that was sound.
        let is_head = stream.data().starts_with(b"HEAD ");
        let asked = if is_head { Asked::Head } else { Asked::Other };
        let _ = own_answer::refuse(context, reason, b"", asked, true).await;
        linger(context, stream).await;
        return After::Close.into();
    }
    // Only now: a connection that waits between requests goes on with the config of its next one.
    let plan = local.plan();
    context.accepted.metrics().requests.add(1);
    context.accepted.entry.head(request, stream.data());
    if context.accepted.sink.is_message() {
        context.accepted.entry.shares_connection();
    }
    // While its head is still there.
    let asked = Asked::of(request, stream.data());
    let outcome = drive_exchange::drive(context, &plan, stream, request, response).await;
    if let Ok(ended @ Ended::Switched(_)) = outcome {
        return ended;
    }
    context.deadline.set_backend(BackendId(0));
    context.count_received(stream.take_received());
    match outcome {
        Ok(Ended::After(After::KeepAlive) | Ended::Switched(_) | Ended::Http2) => {}
        Ok(Ended::After(After::Close)) => {
            linger(context, stream).await;
            return After::Close.into();
        }
        Err(Failure { reason, answerable: false }) => {
            context.accepted.fail(reason);
            // A response that broke off must not look complete.
            if !is_planted(Mutant::EndsPolitely) {
                context.accepted.sink.close_by_reset();
            }
            return After::Close.into();
        }
        Err(Failure { reason, answerable: true }) => {
            let close = own_answer::must_close(context, request, reason);
            let answered = own_answer::refuse(context, reason, b"", asked, close).await;
            if close || answered.is_err() {
                linger(context, stream).await;
                return After::Close.into();
            }
            stream.consume(request.len());
        }
    }
    context.accepted.entry.end();
    After::KeepAlive.into()
}

/// Whether HTTP/2 may be spoken without having been agreed on.
fn speaks_http2(context: &Context) -> bool {
    let id = context.accepted.listener();
    let is_clear = context.accepted.sink.layer().is_none();
    is_clear && context.local().plan().listener(id).is_some_and(|listener| listener.h2c)
}

/// Waits for a complete head, whose first byte is there.
async fn read_head(
    context: &Context,
    stream: &mut Stream,
    request: &mut RequestHead,
    first: bool,
) -> Result<(), CloseReason> {
    let (local, deadline) = (context.local(), &context.deadline);
    context.accepted.begin(&local.plan().snapshot);
    let limits = local.plan().snapshot.limits;
    // The first one's time began with the connection.
    if !first {
        deadline.set(local.after(limits.head_timeout));
    }
    let mut reading = HeadProgress::default();
    loop {
        if reading.is_worth_parsing(stream.data(), limits.head_bytes) {
            if request.parse(stream.data(), &local.plan().head_limits)? == Parsed::Complete {
                return Ok(());
            }
            stream.yield_buffer();
        }
        match stream.fill(deadline).await {
            Ok(0) | Err(StreamError::Broken) => return Err(CloseReason::ClientGone),
            Ok(_) => {}
            Err(StreamError::Expired) => return Err(context.expired(CloseReason::HeadTimeout)),
        }
    }
}

/// How much of a head was looked at already. Each look reads it from its start: a head that drips in byte by byte
/// must not cost the square of its length.
#[derive(Default)]
struct HeadProgress {
    parsed: usize,
}

impl HeadProgress {
    /// Whether another look may find more than the last one: a line has ended, the head is too long, or as much
    /// as was looked at has come again.
    fn is_worth_parsing(&mut self, data: &[u8], bytes_max: usize) -> bool {
        let fresh = data.get(self.parsed..).unwrap_or_default();
        let worth = data.len() >= 2 * self.parsed
            || data.len() >= bytes_max
            || memchr::memchr(b'\n', fresh).is_some();
        if worth {
            self.parsed = data.len();
        }
        worth
    }
}

/// Ends our side, and reads on for a moment what the client is still sending.
async fn linger(context: &Context, stream: &mut Stream) {
    context.accepted.entry.end();
    context.deadline.set(context.local().after(own_answer::LINGER));
    stream.sink().end(context.local(), &context.deadline).await;
    let mut left = LINGER_BYTES_MAX;
    loop {
        let waiting = stream.data().len();
        stream.consume(waiting);
        match stream.fill(&context.deadline).await {
            Ok(1..) if left > stream.data().len() => left -= stream.data().len(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_drips_in_is_looked_at_when_it_may_have_changed() {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(30_000, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        let mut progress = HeadProgress::default();
        let looks: Vec<_> =
            (1..=head.len()).filter(|len| progress.is_worth_parsing(&head[..*len], 32 << 10)).collect();
        assert!(looks.len() < 30, "{} looks", looks.len());
        assert_eq!(looks.last(), Some(&head.len()), "the end of the head is never missed");
        let mut progress = HeadProgress::default();
        assert!(!(1..200).any(|len| !progress.is_worth_parsing(&vec![b'x'; len * 32], 32)));
    }
}
