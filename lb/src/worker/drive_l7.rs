//! An http listener's connection: one exchange after the other, answers in the order of the requests.
//!
//! ```text
//!  await head --> route --> exchange --> keep? --yes--> await head
//!      |            |          |          `-no--> linger --> closed
//!      |            |          `- failed after the head was sent --> reset
//!      `------------+---------- refused: answer --> linger (or keep, where nothing of the request is left)
//! ```

use std::{net::Shutdown, rc::Rc, time::Duration};

use super::{
    connection::{Accepted, Context},
    drive_exchange,
    local::{Heads, Local},
    outcome::{After, Failure},
    stream::{Stream, StreamError, send},
};
use crate::{
    l7::http1::{Body, Parsed, RequestHead, encode_error},
    model::reason::{CloseReason, Fault},
    sys::rooms,
};

/// How long we read on after our last byte, so that the client gets our answer before a reset can overtake it
/// (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Bytes thrown away while lingering.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Runs until the client is done, an exchange asks for the end, or the worker drains.
pub(super) async fn drive(local: Rc<Local>, accepted: Accepted) {
    let _task = local.task();
    let mut stream = Stream::new(&local.ring, accepted.socket.clone());
    let deadline = local.timers.deadline();
    let context = Context { local, accepted, deadline };
    let mut first = true;
    while !stream.data().is_empty() || wait(&context, &mut stream, first).await {
        // What a request needs has room only while there is one.
        if rooms::pinned(serve(&context, &mut stream, first)).await == After::Close {
            return;
        }
        first = false;
    }
}

/// Waits for the first byte of a request. False: the client ended, or was silent for too long.
async fn wait(context: &Context, stream: &mut Stream, first: bool) -> bool {
    let (local, deadline) = (&context.local, &context.deadline);
    if local.is_draining() && !first {
        return false;
    }
    let limits = &local.plan().snapshot.limits;
    deadline.set(local.after(if first { limits.head_timeout } else { limits.idle_timeout }));
    // Between requests a drain may end the wait.
    deadline.set_idle(!first);
    let filled = stream.fill(deadline).await;
    deadline.set_idle(false);
    if matches!(filled, Err(StreamError::Expired)) && !local.is_draining() {
        local.count(CloseReason::IdleTimeout);
    }
    matches!(filled, Ok(1..))
}

/// One request, whose first byte is there: all that becomes of it, and of the connection if that ends with it.
async fn serve(context: &Context, stream: &mut Stream, first: bool) -> After {
    let local = &context.local;
    let mut heads = local.heads();
    let Heads { request, response } = &mut *heads;
    if let Err(reason) = read_head(context, stream, request, first).await {
        context.count_received(stream.take_received());
        context.accepted.entry.refused_head(stream.data());
        // What `request` says is of the last one that was sound.
        let head_request = stream.data().starts_with(b"HEAD ");
        let _ = answer(context, reason, head_request, true).await;
        linger(context, stream).await;
        return After::Close;
    }
    // Only now: a connection that waits between requests goes on with the config of its next one.
    let plan = local.plan();
    context.accepted.metrics().requests.add(1);
    context.accepted.entry.head(request, stream.data());
    let outcome = drive_exchange::drive(context, &plan, stream, request, response).await;
    context.count_received(stream.take_received());
    match outcome {
        Ok(After::KeepAlive) => {}
        Ok(After::Close) => {
            linger(context, stream).await;
            return After::Close;
        }
        Err(Failure { reason, answerable: false }) => {
            context.accepted.fail(reason);
            reset(context);
            return After::Close;
        }
        Err(Failure { reason, answerable: true }) => {
            let close = must_close(context, request, reason);
            let answered = answer(context, reason, request.is_head(), close).await;
            if close || answered.is_err() {
                linger(context, stream).await;
                return After::Close;
            }
            stream.consume(request.len());
        }
    }
    context.accepted.entry.end();
    After::KeepAlive
}

/// After an answer of our own the connection may go on only where nothing of the request is left unread.
fn must_close(context: &Context, request: &RequestHead, reason: CloseReason) -> bool {
    reason.fault() == Fault::Downstream
        || request.body() != Body::None
        || !request.keep_alive()
        || context.local.is_draining()
}

/// Waits for a complete head, whose first byte is there.
async fn read_head(
    context: &Context,
    stream: &mut Stream,
    request: &mut RequestHead,
    first: bool,
) -> Result<(), CloseReason> {
    let (local, deadline) = (&context.local, &context.deadline);
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

/// Counts a refusal and sends its answer, where it has one.
async fn answer(
    context: &Context,
    reason: CloseReason,
    head_request: bool,
    close: bool,
) -> Result<(), StreamError> {
    context.accepted.fail(reason);
    if reason.status() == 0 {
        return Err(StreamError::Expired);
    }
    let mut out = context.local.buffer();
    encode_error(&mut out, reason, head_request, close);
    let len = out.len() as u64;
    let head_bytes = memchr::memmem::find(&out, b"\r\n\r\n").map_or(0, |at| at + 4);
    context.accepted.entry.responds(reason.status(), head_bytes);
    context.accepted.entry.sent(len);
    context.deadline.set(context.local.after(LINGER));
    let out = send(&context.local.ring, &context.accepted.socket, out, &context.deadline).await?;
    context.local.recycle(out);
    context.count_response(reason.status(), len);
    Ok(())
}

/// Ends our side, and reads on for a moment what the client is still sending.
async fn linger(context: &Context, stream: &mut Stream) {
    context.accepted.entry.end();
    stream.socket().shutdown(Shutdown::Write);
    context.deadline.set(context.local.after(LINGER));
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

/// A response that broke off must not look complete.
fn reset(context: &Context) {
    let _ = socket2::SockRef::from(&context.accepted.socket).set_linger(Some(Duration::ZERO));
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
