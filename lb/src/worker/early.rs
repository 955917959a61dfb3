//! Requests that came before hands were shaken (0-RTT): who may have recorded them could say them again.
//!
//! ```text
//!  head --> came early? --no-----------------------------------> exchange
//!               |- safe, without a body: at once, `Early-Data: 1` --^
//!               `- else: waits until hands are shaken --------------'   bounded as the head was
//! ```
//! Who has shaken hands is who said it, so what has waited is like any other request. Source: RFC 8470, 3 and 5.1.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use super::{connection::Context, stream::Stream, stream_error::StreamError, timer::Expired};
use crate::{
    l7::http1::{Body, RequestHead},
    model::reason::CloseReason,
    ring::SendBuf,
};

/// Whether the client's hands are not shaken yet.
pub(super) fn is_early(context: &Context) -> bool {
    context.accepted.secure().is_some_and(|secure| secure.is_early())
}

/// Lets a request go that may, and holds others until hands are shaken.
///
/// # Errors
/// They never are.
pub(super) async fn hold(
    context: &Context,
    stream: &mut Stream,
    request: &RequestHead,
) -> Result<(), CloseReason> {
    if !is_early(context) {
        return Ok(());
    }
    let metrics = context.accepted.metrics();
    if request.is_safe() && request.body() == Body::None && !request.asks_upgrade() {
        metrics.early_passed.add(1);
        context.accepted.entry.early("passed");
        return Ok(());
    }
    metrics.early_held.add(1);
    context.accepted.entry.early("waited");
    settle(context, stream).await
}

/// Behind a request that came early: hands are shaken before the connection waits for another, and what the client is owed
/// then is sent. False: they never are.
pub(super) async fn finish(context: &Context, stream: &mut Stream) -> bool {
    if !is_early(context) || context.accepted.sink.is_message() || !stream.data().is_empty() {
        return true;
    }
    let local = context.local();
    context.deadline.set(local.after(local.plan().snapshot.limits.head_timeout));
    if let Err(reason) = settle(context, stream).await {
        context.accepted.fail(reason);
        return false;
    }
    let tickets = context.accepted.secure().map(|secure| secure.take_unsent()).unwrap_or_default();
    tickets.is_empty()
        || context.accepted.sink.send_raw(SendBuf::Bytes(tickets), &context.deadline).await.is_ok()
}

async fn settle(context: &Context, stream: &mut Stream) -> Result<(), CloseReason> {
    let is_message = context.accepted.sink.is_message();
    let settled = poll_fn(|task| match context.accepted.secure() {
        // Its connection's task reads.
        Some(secure) if is_message => match secure.poll_settled(task) {
            Poll::Pending if stream.poll_reset(task).is_ready() => Poll::Ready(Err(StreamError::Broken)),
            polled => polled,
        },
        _ => Poll::Ready(ready!(stream.poll_settled(task))),
    });
    match context.deadline.guard(settled).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(CloseReason::ClientGone),
        Err(Expired) => Err(context.expired(CloseReason::TlsTimeout)),
    }
}
