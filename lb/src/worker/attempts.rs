//! Requests that are in our hands whole, and so may be sent again: to which backends, how often, for what.
//!
//! ```text
//!  connect --> ask --> response? ---------------------------------------> the client's
//!     ^         |          `- a status that `retry` names --.
//!     |         |- a kept connection was closed already, or nobody has looked: a fresh one, always
//!     `---------+- reset, silence -----------------------------> another backend is left, may and can be tried:
//!                                                            `-> that one; else: this answer, or this failure
//! ```

use super::{
    choice::{Choice, InFlight, Reuse},
    drive_exchange::Exchange,
    mutant::{Mutant, is_planted},
    outcome::Failure,
    plan::RetryPlan,
    stream::Stream,
    stream_error::StreamError,
    upstream::Upstream,
};
use crate::{
    config::RetryCause,
    l7::{
        exchange::{self, Attempt},
        http1::{Body, ResponseHead, Upgrades},
        http2::Fate,
    },
    model::reason::CloseReason,
};

/// A backend that is asked.
type Asked<'c> = (Upstream, InFlight<'c>);

impl<'c> Exchange<'c, '_> {
    /// A request of a route that says how often it may be tried.
    pub(super) fn bound(&self, choice: &mut Choice) {
        let Some(retry) = self.retry() else { return };
        retry.budget.borrow_mut().request(self.context.local().now());
        choice.allow(if retry.policy.on.contains(&RetryCause::Connect) { retry.policy.attempts } else { 1 });
    }

    pub(super) fn retry(&self) -> Option<&RetryPlan> {
        self.way.retry.as_deref()
    }

    /// Asks one backend after the other until one has an answer for the client. Head and body stay in `stream`.
    pub(super) async fn attempts(
        &self,
        choice: &mut Choice,
        stream: &Stream,
        body_len: usize,
        response: &mut ResponseHead,
    ) -> Result<Asked<'c>, Failure> {
        let (mut upstream, mut in_flight) = self.connect(choice, Reuse::Allowed).await?;
        let mut was_refused = false;
        loop {
            let asked = self.ask(stream, body_len, &mut upstream, &in_flight, response).await;
            let cause = match asked {
                Err(reason) if self.has_not_come(&mut upstream, reason, &mut was_refused) => {
                    choice.forgive();
                    (upstream, in_flight) = self.connect(choice, Reuse::Forbidden).await?;
                    continue;
                }
                Err(reason) => {
                    in_flight.failed();
                    exchange::retry_cause(reason)
                }
                Ok(()) => {
                    in_flight.responded(response.status());
                    Some(RetryCause::Status(response.status()))
                }
            };
            let another = match cause.and_then(|cause| self.may_try_another(choice, &upstream, cause)) {
                Some(retry) => self.connect_another(choice, retry).await,
                None => None,
            };
            let Some((next, next_in_flight)) = another else {
                return asked.map(|()| (upstream, in_flight)).map_err(|reason| self.failure(reason));
            };
            let failed = std::mem::replace(&mut upstream, next);
            in_flight = next_in_flight;
            if asked.is_ok() {
                self.let_go(failed, response);
            }
        }
    }

    async fn connect(&self, choice: &mut Choice, reuse: Reuse) -> Result<Asked<'c>, CloseReason> {
        let (context, local) = (self.context, self.context.local());
        choice.connect(local, &context.deadline, reuse, &context.accepted.entry).await
    }

    /// A kept connection that its backend had closed before it could have read the request; or one where it says that it has
    /// not looked at it, which is believed once.
    fn has_not_come(&self, upstream: &mut Upstream, reason: CloseReason, was_refused: &mut bool) -> bool {
        let is_unseen = is_unseen(upstream.stream.sink().fate(), was_refused);
        exchange::may_retry(&Attempt {
            bytes_sent: u64::from(!is_unseen),
            bytes_received: upstream.stream.take_received(),
            reused: upstream.reused,
            idempotent: self.request.is_idempotent() || is_planted(Mutant::RepeatsAnything),
            replayable: !self.head_sent.get(),
            reason,
        })
    }

    /// Whether the route, the request, the other backends and the budget allow another attempt; it is counted.
    fn may_try_another(
        &self,
        choice: &mut Choice,
        failed: &Upstream,
        cause: RetryCause,
    ) -> Option<&RetryPlan> {
        let retry = self.retry()?;
        let (local, replayable) = (self.context.local(), !self.head_sent.get());
        if !exchange::may_try_another(&retry.policy, cause, self.request.is_idempotent(), replayable)
            || choice.attempts() >= retry.policy.attempts
            || !choice.leave_out(local, failed.backend)
        {
            return None;
        }
        let metrics = self.context.accepted.metrics();
        let may = retry.budget.borrow_mut().try_retry(local.now());
        if may {
            metrics.retries.add(1)
        } else {
            metrics.retries_refused.add(1)
        }
        may.then_some(retry)
    }

    /// Where none can be reached, what there is already is the answer.
    async fn connect_another(&self, choice: &mut Choice, retry: &RetryPlan) -> Option<Asked<'c>> {
        choice.retries();
        let connects = retry.policy.on.contains(&RetryCause::Connect);
        choice.allow(if connects { retry.policy.attempts } else { choice.attempts() + 1 });
        self.connect(choice, Reuse::Allowed).await.ok()
    }

    /// An answer that no client gets: its connection is kept where it has come whole, else closed.
    fn let_go(&self, mut upstream: Upstream, response: &ResponseHead) {
        let body = match response.body() {
            Body::None => Some(0),
            Body::Length(length) => usize::try_from(length).ok(),
            Body::Chunked | Body::UntilClose => None,
        };
        let whole = body.and_then(|body| response.len().checked_add(body));
        if let Some(len) = whole.filter(|&len| len <= upstream.stream.data().len()) {
            upstream.stream.consume(len);
            self.park(upstream, response);
        }
    }

    async fn ask(
        &self,
        stream: &Stream,
        body_len: usize,
        upstream: &mut Upstream,
        in_flight: &InFlight<'_>,
        response: &mut ResponseHead,
    ) -> Result<(), CloseReason> {
        let (local, deadline) = (self.context.local(), &self.context.deadline);
        deadline.set(local.after(self.way.timeout));
        let mut out = self.encode(stream, upstream, in_flight);
        self.push_whole(stream, body_len, upstream.stream.sink().is_message(), &mut out);
        upstream.stream.arm();
        match upstream.stream.sink().send(&local.buffers, out, deadline).await {
            Ok(out) => local.buffers.recycle(out),
            Err(StreamError::Expired) => return Err(self.context.expired(CloseReason::UpstreamTimeout)),
            // Who has answered whole may give up the rest of the question (RFC 9113, 8.1).
            Err(StreamError::Broken) if upstream.stream.sink().is_message() => {}
            Err(StreamError::Broken) => return Err(CloseReason::UpstreamClosed),
        }
        self.receive_head(&mut upstream.stream, response).await?;
        let accepts = |upgrades: &Upgrades| {
            upgrades.accepts(self.request, stream.data(), response, upstream.stream.data())
        };
        if response.is_switch() && !self.switch.is_some_and(accepts) {
            return Err(CloseReason::BadResponse);
        }
        Ok(())
    }
}

/// Whether a backend says that it has not looked at a request, which is believed once.
fn is_unseen(fate: Fate, was_refused: &mut bool) -> bool {
    fate == Fate::Refused && !std::mem::replace(was_refused, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::interim::reason_of;

    /// By fate: the reason, what a route's `retry` calls it, and whether it is asked again at once: of what cannot be done
    /// twice, of what can, and of what can on a kept connection; the second time, too.
    #[test]
    fn each_fate_says_what_is_asked_again() {
        use CloseReason::{BadResponse, UpstreamClosed};
        for (fate, reason, cause, once, twice) in [
            (
                Fate::Unknown,
                UpstreamClosed,
                Some(RetryCause::Reset),
                [false, false, true],
                [false, false, true],
            ),
            (Fate::Refused, UpstreamClosed, Some(RetryCause::Reset), [true; 3], [false, false, true]),
            (Fate::Malformed, BadResponse, None, [false; 3], [false; 3]),
        ] {
            assert_eq!(reason_of(fate), reason, "{fate:?}");
            assert_eq!(exchange::retry_cause(reason), cause, "{fate:?}");
            for (at, (idempotent, reused)) in
                [(false, false), (true, false), (true, true)].into_iter().enumerate()
            {
                let mut was_refused = false;
                let mut again = || {
                    exchange::may_retry(&Attempt {
                        bytes_sent: u64::from(!is_unseen(fate, &mut was_refused)),
                        bytes_received: 0,
                        reused,
                        idempotent,
                        replayable: true,
                        reason,
                    })
                };
                assert_eq!((again(), again()), (once[at], twice[at]), "{fate:?} {idempotent} {reused}");
            }
        }
    }
}
