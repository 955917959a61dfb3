//! One request of an http listener: its head is read, then it is exchanged, or refused.

use super::{
    connection::Context,
    drive_exchange, early,
    linger::linger,
    local::Heads,
    mutant::{Mutant, is_planted},
    outcome::{After, Ended, Failure},
    own_answer::{self, Asked},
    stream::Stream,
    stream_error::StreamError,
};
use crate::{
    l7::http1::{Parsed, RequestHead},
    model::{BackendId, reason::CloseReason},
};

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
        part(context, stream).await;
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
    let outcome = match early::hold(context, stream, request).await {
        Ok(()) => drive_exchange::drive(context, &plan, stream, request, response).await,
        Err(reason) => Err(Failure { reason, answerable: false }),
    };
    if let Ok(ended @ Ended::Switched(_)) = outcome {
        return ended;
    }
    context.deadline.set_backend(BackendId(0));
    context.count_received(stream.take_received());
    match outcome {
        Ok(Ended::After(After::KeepAlive) | Ended::Switched(_) | Ended::Http2) => {}
        Ok(Ended::After(After::Close)) => {
            part(context, stream).await;
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
                part(context, stream).await;
                return After::Close.into();
            }
            stream.consume(request.len());
        }
    }
    context.accepted.entry.end();
    match early::finish(context, stream).await {
        true => After::KeepAlive.into(),
        false => After::Close.into(),
    }
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

/// Nothing comes of the connection any more.
async fn part(context: &Context, stream: &mut Stream) {
    context.accepted.entry.end();
    let local = context.local();
    // What the kernel keeps of an answer has as long as the answer had, not just a moment.
    context.deadline.set(local.after(local.plan().snapshot.limits.idle_timeout));
    _ = stream.sink().settle(&context.deadline).await;
    context.deadline.set(local.after(own_answer::LINGER));
    linger(stream, &context.deadline).await;
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
