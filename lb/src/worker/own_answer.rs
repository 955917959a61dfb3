//! A route's own answer: a redirect or a fixed one. No backend is asked.

use super::{
    connection::Context,
    outcome::{After, Failure},
    stream::{Stream, send},
    teller::Teller,
};
use crate::{
    l7::{
        answer::Answer,
        http1::{Body, RequestHead},
    },
    model::reason::CloseReason,
};

/// Sends it. The connection stays where nothing of the request is left unread.
pub(super) async fn drive(
    context: &Context,
    stream: &mut Stream,
    request: &RequestHead,
    answer: &Answer,
    teller: &Teller<'_>,
) -> Result<After, Failure> {
    let local = &context.local;
    let stays = request.keep_alive() && request.body() == Body::None && !local.is_draining();
    let mut out = local.buffer();
    answer.encode(&mut out, stream.data(), request, &teller.forwarding(context, b""), !stays)?;
    let len = out.len() as u64;
    context.accepted.entry.responds(answer.status(), out.len());
    context.accepted.entry.sent(len);
    context.deadline.set(local.after(local.plan().snapshot.limits.idle_timeout));
    let sent = send(&local.ring, &context.accepted.socket, out, &context.deadline).await;
    let out =
        sent.map_err(|_| Failure { reason: context.expired(CloseReason::ClientGone), answerable: false })?;
    local.recycle(out);
    context.count_response(answer.status(), len);
    stream.consume(request.len());
    Ok(if stays { After::KeepAlive } else { After::Close })
}
