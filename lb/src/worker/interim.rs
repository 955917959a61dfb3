//! Until the final response head: interim ones go to the client as they come, and one who waits for `100 Continue` is not left
//! waiting.

use std::{pin::pin, time::Duration};

use super::{
    drive_exchange::Exchange,
    stream::Stream,
    stream_error::StreamError,
    timer::{Deadline, Expired},
};
use crate::{
    l7::{
        exchange,
        http1::{CONTINUE, Parsed, ResponseHead, encode_interim},
        http2::Fate,
    },
    model::reason::CloseReason,
};

/// How long a backend has for its `100 Continue` before we send our own: many never send one, those of HTTP/1.0 cannot, and
/// some clients wait for ever. As long as curl waits.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

impl Exchange<'_, '_> {
    /// Waits for it.
    pub(super) async fn receive_head(
        &self,
        from: &mut Stream,
        response: &mut ResponseHead,
    ) -> Result<(), CloseReason> {
        let local = self.context.local();
        let patience = self.awaits_continue.get().then(|| {
            let patience = local.timers.deadline();
            patience.set(local.after(CONTINUE_WAIT));
            patience
        });
        let (mut interims, mut has_continued) = (0, false);
        loop {
            let parsed = response.parse(from.data(), &self.plan.head_limits, self.request.is_head())?;
            if parsed == Parsed::Complete && !response.is_interim() {
                return Ok(());
            }
            if parsed == Parsed::Complete {
                interims += 1;
                let passes = exchange::passes_interim(self.request.version(), interims)?;
                let is_continue = response.status() == 100;
                if passes && !(is_continue && has_continued) {
                    let mut out = local.buffers.take();
                    encode_interim(&mut out, from.data(), response);
                    self.tell(out).await?;
                    has_continued |= is_continue;
                }
                from.consume(response.len());
                continue;
            }
            let patience = patience.as_ref().filter(|_| self.awaits_continue.get() && !has_continued);
            match self.fill(from, patience).await? {
                Filled::Some => {}
                Filled::Nothing => {
                    let mut out = local.buffers.take();
                    out.extend_from_slice(CONTINUE);
                    self.tell(out).await?;
                    has_continued = true;
                    self.context.deadline.set(local.after(self.way.idle));
                }
            }
        }
    }

    /// `patience`: how long at most.
    async fn fill(&self, from: &mut Stream, patience: Option<&Deadline>) -> Result<Filled, CloseReason> {
        let deadline = &self.context.deadline;
        let filled = match patience {
            None => from.fill(deadline).await,
            Some(patience) => match patience.guard(pin!(from.fill(deadline))).await {
                Ok(filled) => filled,
                Err(Expired) if self.context.local().is_overdue() => return Err(CloseReason::Draining),
                Err(Expired) => return Ok(Filled::Nothing),
            },
        };
        match filled {
            Err(StreamError::Broken) => Err(reason_of(from.sink().fate())),
            Ok(0) => Err(CloseReason::UpstreamClosed),
            Ok(_) => Ok(Filled::Some),
            Err(StreamError::Expired) => Err(self.context.expired(CloseReason::UpstreamTimeout)),
        }
    }

    /// Sends an interim head to the client.
    async fn tell(&self, out: Vec<u8>) -> Result<(), CloseReason> {
        let (context, local) = (self.context, self.context.local());
        // Were it given up half-way, no answer of ours could follow.
        self.head_sent.set(true);
        let sent = context.accepted.sink.send(&local.buffers, out, &context.deadline).await;
        local.buffers.recycle(sent.map_err(|_| CloseReason::ClientGone)?);
        self.head_sent.set(false);
        Ok(())
    }
}

/// Why there is no answer of a backend whose stream is gone.
pub(super) const fn reason_of(fate: Fate) -> CloseReason {
    match fate {
        Fate::Malformed => CloseReason::BadResponse,
        Fate::Unknown | Fate::Refused => CloseReason::UpstreamClosed,
    }
}

enum Filled {
    Some,
    /// Patience has ended.
    Nothing,
}
