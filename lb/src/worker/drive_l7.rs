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
    local::Local,
    outcome::{After, Failure},
    stream::{Stream, StreamError, send},
};
use crate::{
    l7::http1::{Body, Parsed, RequestHead, ResponseHead, encode_error},
    model::reason::{CloseReason, Fault},
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
    let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
    let mut first = true;
    loop {
        match read_head(&context, &mut stream, &mut request, first).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(reason) => {
                context.count_received(stream.take_received());
                context.accepted.entry.refused_head(stream.data());
                // What `request` says is of the last one that was sound.
                let head_request = stream.data().starts_with(b"HEAD ");
                let _ = answer(&context, reason, head_request, true).await;
                return linger(&context, &mut stream).await;
            }
        }
        first = false;
        // Only now: a connection that waits between requests goes on with the config of its next one.
        let plan = context.local.plan();
        context.accepted.metrics().requests.add(1);
        context.accepted.entry.head(&request, stream.data());
        let outcome = drive_exchange::drive(&context, &plan, &mut stream, &request, &mut response).await;
        context.count_received(stream.take_received());
        match outcome {
            Ok(After::KeepAlive) => {}
            Ok(After::Close) => return linger(&context, &mut stream).await,
            Err(Failure { reason, answerable: false }) => {
                context.accepted.fail(reason);
                return reset(&context);
            }
            Err(Failure { reason, answerable: true }) => {
                let close = must_close(&context, &request, reason);
                let answered = answer(&context, reason, request.is_head(), close).await;
                if close || answered.is_err() {
                    return linger(&context, &mut stream).await;
                }
                stream.consume(request.len());
            }
        }
        context.accepted.entry.end();
    }
}

/// After an answer of our own the connection may go on only where nothing of the request is left unread.
fn must_close(context: &Context, request: &RequestHead, reason: CloseReason) -> bool {
    reason.fault() == Fault::Downstream
        || request.body() != Body::None
        || !request.keep_alive()
        || context.local.is_draining()
}

/// Waits for a complete head. False: the client ended, or was silent between requests.
async fn read_head(
    context: &Context,
    stream: &mut Stream,
    request: &mut RequestHead,
    first: bool,
) -> Result<bool, CloseReason> {
    let (local, deadline) = (&context.local, &context.deadline);
    let limits = local.plan().snapshot.limits;
    let mut reading = HeadProgress::default();
    let mut begun = !stream.data().is_empty();
    if begun {
        context.accepted.begin(&local.plan().snapshot);
    }
    if local.is_draining() && !begun && !first {
        return Ok(false);
    }
    deadline.set(local.after(if first || begun { limits.head_timeout } else { limits.idle_timeout }));
    loop {
        if begun && reading.is_worth_parsing(stream.data(), limits.head_bytes) {
            if request.parse(stream.data(), &local.plan().head_limits)? == Parsed::Complete {
                return Ok(true);
            }
            stream.yield_buffer();
        }
        // Between requests a drain may end the wait.
        deadline.set_idle(!first && !begun);
        let filled = stream.fill(deadline).await;
        deadline.set_idle(false);
        match filled {
            Ok(0) if !begun => return Ok(false),
            Ok(0) => return Err(CloseReason::ClientGone),
            Ok(_) => {}
            Err(StreamError::Expired) if begun => return Err(context.expired(CloseReason::HeadTimeout)),
            Err(StreamError::Expired) => {
                if !local.is_draining() {
                    local.count(CloseReason::IdleTimeout);
                }
                return Ok(false);
            }
            Err(StreamError::Broken) if begun => return Err(CloseReason::ClientGone),
            Err(StreamError::Broken) => return Ok(false),
        }
        if !begun {
            begun = true;
            context.accepted.begin(&local.plan().snapshot);
            if !first {
                deadline.set(local.after(limits.head_timeout));
            }
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
