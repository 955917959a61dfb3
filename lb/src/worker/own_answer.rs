//! Answers that we give ourselves: a route's redirect or fixed one, and what is said of a refusal. No backend is asked.

use std::time::Duration;

use super::{
    connection::Context,
    outcome::{After, Failure},
    stream::Stream,
    stream_error::StreamError,
    teller::Teller,
};
use crate::{
    l7::{
        answer::Answer,
        grpc,
        http1::{Body, RequestHead, encode_error},
    },
    model::reason::{CloseReason, Fault},
};

/// How long we read on after our last byte, so that the client gets our answer before a reset can overtake it
/// (RFC 9112, 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Sends it. The connection stays where nothing of the request is left unread.
pub(super) async fn drive(
    context: &Context,
    stream: &mut Stream,
    request: &RequestHead,
    answer: &Answer,
    teller: &Teller<'_>,
) -> Result<After, Failure> {
    let local = context.local();
    let stays = request.keep_alive() && request.body() == Body::None && local.keeps_idle();
    let mut out = local.buffers.take();
    answer.encode(&mut out, stream.data(), request, &teller.forwarding(context, b""), !stays)?;
    let len = out.len() as u64;
    context.accepted.entry.responds(answer.status(), out.len());
    context.accepted.entry.sent(len);
    context.deadline.set(local.after(local.plan().snapshot.limits.idle_timeout));
    let sent = context.accepted.sink.send(&local.buffers, out, &context.deadline).await;
    let out =
        sent.map_err(|_| Failure { reason: context.expired(CloseReason::ClientGone), answerable: false })?;
    local.buffers.recycle(out);
    context.count_response(answer.status(), len);
    stream.consume(request.len());
    Ok(if stays { After::KeepAlive } else { After::Close })
}

/// After an answer of our own the connection may go on only where nothing of the request is left unread.
pub(super) fn must_close(context: &Context, request: &RequestHead, reason: CloseReason) -> bool {
    reason.fault() == Fault::Downstream
        || request.body() != Body::None
        || !request.keep_alive()
        || !context.local().keeps_idle()
}

/// A refusal of a request whose head was sound.
pub(super) async fn refuse_request(
    context: &Context,
    stream: &mut Stream,
    request: &RequestHead,
    reason: CloseReason,
    lines: &[u8],
) -> Result<After, Failure> {
    let close = must_close(context, request, reason);
    let sent = refuse(context, reason, lines, Asked::of(request, stream.data()), close).await;
    stream.consume(request.len());
    Ok(if close || sent.is_err() { After::Close } else { After::KeepAlive })
}

/// What an answer of ours is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A body would be taken for the next answer.
    Head,
    /// Reads no status of HTTP's.
    Grpc,
    Other,
}

impl Asked {
    /// `buf`: what `request` was parsed from.
    pub(super) fn of(request: &RequestHead, buf: &[u8]) -> Self {
        match request.is_head() {
            true => Self::Head,
            false if grpc::is_spoken(request, buf) => Self::Grpc,
            false => Self::Other,
        }
    }
}

/// Counts a refusal and sends its answer, where it has one. `lines`: further field lines of it.
pub(super) async fn refuse(
    context: &Context,
    reason: CloseReason,
    lines: &[u8],
    asked: Asked,
    close: bool,
) -> Result<(), StreamError> {
    context.accepted.fail(reason);
    if reason.status() == 0 {
        return Err(StreamError::Expired);
    }
    let mut out = context.local().buffers.take();
    match asked {
        Asked::Grpc => grpc::encode_failure(&mut out, reason, lines, close),
        Asked::Head | Asked::Other => encode_error(&mut out, reason, lines, asked == Asked::Head, close),
    }
    let len = out.len() as u64;
    let head_bytes = memchr::memmem::find(&out, b"\r\n\r\n").map_or(0, |at| at + 4);
    context.accepted.entry.responds(reason.status(), head_bytes);
    context.accepted.entry.sent(len);
    context.deadline.set(context.local().after(LINGER));
    let out = context.accepted.sink.send(&context.local().buffers, out, &context.deadline).await?;
    context.local().buffers.recycle(out);
    context.count_response(reason.status(), len);
    Ok(())
}
