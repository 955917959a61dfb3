//! Decisions about one exchange, each of them pure: framing, what may stay open, what may be tried again.

use super::http1::{Body, BodyWriter, ResponseHead, Version};
use crate::{
    config::{Retry, RetryCause},
    model::reason::CloseReason,
};

/// Interim responses that one exchange may have.
pub const INTERIMS_MAX: u32 = 16;

/// Most request payload that is read and thrown away after an early response, so that the connection can stay.
pub const DRAIN_BYTES_MAX: u64 = 64 << 10;

/// How a final response's body is framed for this client. Source: RFC 9112, 6.3 and 7.
pub fn downstream_framing(head: &ResponseHead, client: Version) -> Body {
    match (head.body(), client) {
        (Body::None, _) => Body::None,
        (Body::Length(length), _) => Body::Length(length),
        (Body::Chunked | Body::UntilClose, Version::Http11) => Body::Chunked,
        (Body::Chunked | Body::UntilClose, Version::Http10) => Body::UntilClose,
    }
}

/// What writes a body that is framed so.
pub const fn writer(body: Body) -> BodyWriter {
    match body {
        Body::Chunked => BodyWriter::Chunked,
        Body::None | Body::Length(_) | Body::UntilClose => BodyWriter::Raw,
    }
}

/// Whether an interim response goes to the client. Source: RFC 9110, 15.2.
///
/// # Errors
/// [`CloseReason::BadResponse`]: more than [`INTERIMS_MAX`], this one being number `count`, from 1.
pub fn passes_interim(client: Version, count: u32) -> Result<bool, CloseReason> {
    if count > INTERIMS_MAX { Err(CloseReason::BadResponse) } else { Ok(client == Version::Http11) }
}

/// What decides whether a client's connection stays after its response.
#[derive(Clone, Copy, Debug)]
pub struct DownstreamEnd {
    /// The request asked for it.
    pub keep_alive: bool,
    /// How the request body stands when the response head is made.
    pub request_body: RequestBody,
    /// How the response is framed downstream.
    pub framing: Body,
    /// We take nothing new.
    pub is_draining: bool,
}

/// How much of a request body has been read from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// All of it, or there was none.
    Read,
    /// Not all. `left`: payload still to come, where that is known.
    Unread {
        /// As of `BodyReader::remaining_known`.
        left: Option<u64>,
    },
    /// None of it, and the client waits for a `100 Continue` that it will not get. Whether it sends the body all
    /// the same is not ours to know.
    Awaited,
}

/// What becomes of the request body once the response has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is left.
    Nothing,
    /// Read on and forward or throw away, at most this much.
    Drain {
        /// Bytes of payload.
        bytes_max: u64,
    },
    /// Close after the response.
    Close,
}

/// What to do about a request body that the response did not wait for. An unread byte must never be read as
/// the next request. Source: RFC 9112, 9.3.
pub const fn rest_of_request(body: RequestBody) -> Rest {
    match body {
        RequestBody::Read => Rest::Nothing,
        RequestBody::Unread { left: Some(left) } if left <= DRAIN_BYTES_MAX => {
            Rest::Drain { bytes_max: left }
        }
        RequestBody::Unread { left: None } => Rest::Drain { bytes_max: DRAIN_BYTES_MAX },
        RequestBody::Unread { left: Some(_) } | RequestBody::Awaited => Rest::Close,
    }
}

/// Whether the client's connection can stay; the other way round it is [`super::http1::Downstream::close`].
/// A [`Rest::Drain`] that runs out of its bound closes later, without having promised it in the head.
pub fn keeps_downstream(end: &DownstreamEnd) -> bool {
    end.keep_alive
        && !end.is_draining
        && end.framing != Body::UntilClose
        && rest_of_request(end.request_body) != Rest::Close
}

/// What decides whether a backend's connection may carry another exchange.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamEnd {
    /// The response asked for it.
    pub keep_alive: bool,
    /// How the response ended upstream.
    pub framing: Body,
    /// The response body was read to its end.
    pub response_read: bool,
    /// The request, body included, was sent to its end.
    pub request_sent: bool,
    /// Bytes that came after the response: nobody asked for them.
    pub bytes_extra: usize,
}

/// Whether a backend's connection may be kept. A doubt closes it.
pub fn keeps_upstream(end: &UpstreamEnd) -> bool {
    end.keep_alive
        && end.framing != Body::UntilClose
        && end.response_read
        && end.request_sent
        && end.bytes_extra == 0
}

/// An attempt at one backend that failed.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Bytes of the request that were handed to the socket.
    pub bytes_sent: u64,
    /// Bytes of a response that came back.
    pub bytes_received: u64,
    /// It ran on a connection that had carried an exchange before.
    pub reused: bool,
    /// Doing it twice is as doing it once.
    pub idempotent: bool,
    /// Head and body are still in our hands.
    pub replayable: bool,
    /// Why it failed.
    pub reason: CloseReason,
}

/// Whether a failed attempt may be made anew, at another backend or on a fresh connection.
///
/// Nothing sent: yes. Sent, and not a byte came back before a kept connection closed: the backend had most
/// likely closed it already, so yes for what is idempotent. Source: RFC 9112, 9.3.1; RFC 9110, 9.2.2.
pub fn may_retry(attempt: &Attempt) -> bool {
    if !attempt.replayable || attempt.bytes_received > 0 {
        return false;
    }
    match attempt.reason {
        CloseReason::ConnectFailed | CloseReason::ConnectTimeout => attempt.bytes_sent == 0,
        CloseReason::UpstreamClosed => attempt.bytes_sent == 0 || (attempt.reused && attempt.idempotent),
        _ => false,
    }
}

/// What a failure is to a route's `retry`; `None`: nothing that another backend could do better.
pub const fn retry_cause(reason: CloseReason) -> Option<RetryCause> {
    match reason {
        CloseReason::ConnectFailed | CloseReason::ConnectTimeout => Some(RetryCause::Connect),
        CloseReason::UpstreamClosed => Some(RetryCause::Reset),
        CloseReason::UpstreamTimeout => Some(RetryCause::Timeout),
        _ => None,
    }
}

/// Whether a request that a backend has seen may go to another one. What cannot be done twice may not, whatever the
/// backend says of it (RFC 9110, 9.2.2).
pub fn may_try_another(policy: &Retry, cause: RetryCause, idempotent: bool, replayable: bool) -> bool {
    idempotent && replayable && policy.on.contains(&cause)
}

/// How an exchange was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The backend closed or reset.
    UpstreamEof,
    /// The backend was silent for too long.
    UpstreamSilence,
    /// The client closed or reset.
    DownstreamEof,
    /// The client was silent for too long.
    DownstreamSilence,
}

/// What the exchange was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first byte of a request.
    Idle,
    /// The rest of a request head.
    RequestHead,
    /// The rest of a request body; no response has begun.
    RequestBody,
    /// A response head.
    ResponseHead,
    /// The rest of a response body.
    ResponseBody,
}

/// The reason to close with. `None`: a client that closes between requests does nothing wrong.
pub const fn reason_for(event: Event, phase: Phase) -> Option<CloseReason> {
    Some(match (event, phase) {
        (Event::UpstreamEof | Event::UpstreamSilence, Phase::ResponseBody) => CloseReason::Truncated,
        (Event::UpstreamEof, _) => CloseReason::UpstreamClosed,
        (Event::UpstreamSilence, _) => CloseReason::UpstreamTimeout,
        (Event::DownstreamEof, Phase::Idle) => return None,
        (Event::DownstreamEof, _) => CloseReason::ClientGone,
        (Event::DownstreamSilence, Phase::Idle) => CloseReason::IdleTimeout,
        (Event::DownstreamSilence, Phase::RequestHead) => CloseReason::HeadTimeout,
        (Event::DownstreamSilence, Phase::RequestBody) => CloseReason::BodyTimeout,
        (Event::DownstreamSilence, Phase::ResponseHead | Phase::ResponseBody) => CloseReason::IdleTimeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::HeadLimits;

    #[test]
    fn framing_for_each_client() {
        for (head, to_11, to_10) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Body::Length(5), Body::Length(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Body::Length(0), Body::Length(0)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Body::Chunked, Body::UntilClose),
            ("HTTP/1.0 200 OK\r\n\r\n", Body::Chunked, Body::UntilClose),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Body::None, Body::None),
        ] {
            let mut response = ResponseHead::default();
            response.parse(head.as_bytes(), &HeadLimits::default(), false).unwrap();
            assert_eq!(downstream_framing(&response, Version::Http11), to_11);
            assert_eq!(downstream_framing(&response, Version::Http10), to_10);
        }
        assert_eq!(writer(Body::Chunked), BodyWriter::Chunked);
        assert_eq!(writer(Body::UntilClose), BodyWriter::Raw);
    }

    #[test]
    fn row_34_interims_are_capped_and_not_for_old_clients() {
        assert_eq!(passes_interim(Version::Http11, 1), Ok(true));
        assert_eq!(passes_interim(Version::Http10, 1), Ok(false));
        assert_eq!(passes_interim(Version::Http11, INTERIMS_MAX), Ok(true));
        assert_eq!(passes_interim(Version::Http11, INTERIMS_MAX + 1), Err(CloseReason::BadResponse));
    }

    #[test]
    fn downstream_stays_only_without_a_doubt() {
        let good = DownstreamEnd {
            keep_alive: true,
            request_body: RequestBody::Read,
            framing: Body::Chunked,
            is_draining: false,
        };
        assert!(keeps_downstream(&good));
        assert!(!keeps_downstream(&DownstreamEnd { keep_alive: false, ..good }));
        assert!(!keeps_downstream(&DownstreamEnd { framing: Body::UntilClose, ..good }));
        assert!(!keeps_downstream(&DownstreamEnd { is_draining: true, ..good }));
        assert!(!keeps_downstream(&DownstreamEnd { request_body: RequestBody::Awaited, ..good }));
    }

    #[test]
    fn row_33_an_unread_body_is_drained_within_bounds_or_closed() {
        let unread = |left| rest_of_request(RequestBody::Unread { left });
        assert_eq!(rest_of_request(RequestBody::Read), Rest::Nothing);
        assert_eq!(unread(Some(10)), Rest::Drain { bytes_max: 10 });
        assert_eq!(unread(Some(DRAIN_BYTES_MAX)), Rest::Drain { bytes_max: DRAIN_BYTES_MAX });
        assert_eq!(unread(Some(DRAIN_BYTES_MAX + 1)), Rest::Close);
        assert_eq!(unread(None), Rest::Drain { bytes_max: DRAIN_BYTES_MAX });
        assert_eq!(rest_of_request(RequestBody::Awaited), Rest::Close);
    }

    #[test]
    fn upstream_stays_only_without_a_doubt() {
        let good = UpstreamEnd {
            keep_alive: true,
            framing: Body::Length(3),
            response_read: true,
            request_sent: true,
            bytes_extra: 0,
        };
        assert!(keeps_upstream(&good));
        assert!(!keeps_upstream(&UpstreamEnd { keep_alive: false, ..good }));
        assert!(!keeps_upstream(&UpstreamEnd { framing: Body::UntilClose, ..good }));
        assert!(!keeps_upstream(&UpstreamEnd { response_read: false, ..good }));
        assert!(!keeps_upstream(&UpstreamEnd { request_sent: false, ..good }));
        assert!(!keeps_upstream(&UpstreamEnd { bytes_extra: 1, ..good }));
    }

    #[test]
    fn what_may_be_tried_again() {
        let refused = Attempt {
            bytes_sent: 0,
            bytes_received: 0,
            reused: false,
            idempotent: false,
            replayable: true,
            reason: CloseReason::ConnectFailed,
        };
        assert!(may_retry(&refused));
        assert!(may_retry(&Attempt { reason: CloseReason::ConnectTimeout, ..refused }));
        assert!(!may_retry(&Attempt { replayable: false, ..refused }));

        let closed = Attempt { bytes_sent: 90, reason: CloseReason::UpstreamClosed, ..refused };
        let stale = Attempt { reused: true, idempotent: true, ..closed };
        assert!(may_retry(&stale));
        assert!(!may_retry(&Attempt { idempotent: false, ..stale }), "a POST may have been done");
        assert!(!may_retry(&Attempt { reused: false, ..stale }), "a fresh connection was no race");
        assert!(!may_retry(&Attempt { bytes_received: 1, ..stale }), "the backend has begun to answer");
        assert!(!may_retry(&Attempt { replayable: false, ..stale }), "the body is gone");
        assert!(may_retry(&Attempt { bytes_sent: 0, ..closed }));

        for &reason in CloseReason::ALL {
            let may = matches!(
                reason,
                CloseReason::ConnectFailed | CloseReason::ConnectTimeout | CloseReason::UpstreamClosed
            );
            assert_eq!(may_retry(&Attempt { reason, ..refused }), may, "{reason:?}");
        }
    }

    #[test]
    fn another_backend_is_for_what_the_route_says_and_can_be_done_twice() {
        let on = vec![RetryCause::Reset, RetryCause::Status(503)];
        let policy = Retry { on, attempts: 2, budget_ppm: 1 };
        let may = |cause| may_try_another(&policy, cause, true, true);
        assert!(may(RetryCause::Reset) && may(RetryCause::Status(503)));
        assert!(!may(RetryCause::Timeout) && !may(RetryCause::Connect) && !may(RetryCause::Status(502)));
        assert!(!may_try_another(&policy, RetryCause::Reset, false, true), "a POST may have been done");
        assert!(!may_try_another(&policy, RetryCause::Reset, true, false), "the body is gone");
        assert_eq!(retry_cause(CloseReason::UpstreamTimeout), Some(RetryCause::Timeout));
        for reason in
            [CloseReason::BadResponse, CloseReason::Draining, CloseReason::ClientGone, CloseReason::NoBackend]
        {
            assert_eq!(retry_cause(reason), None, "{reason:?}");
        }
    }

    #[test]
    fn reasons_name_the_waiting_side() {
        use crate::model::reason::Fault;
        let phases =
            [Phase::Idle, Phase::RequestHead, Phase::RequestBody, Phase::ResponseHead, Phase::ResponseBody];
        for phase in phases {
            for event in [Event::UpstreamEof, Event::UpstreamSilence] {
                assert_eq!(reason_for(event, phase).unwrap().fault(), Fault::Upstream);
            }
            for event in [Event::DownstreamEof, Event::DownstreamSilence] {
                let reason = reason_for(event, phase);
                assert!(reason.is_none_or(|reason| reason.fault() == Fault::Downstream));
            }
        }
        assert_eq!(reason_for(Event::DownstreamEof, Phase::Idle), None);
        // A body that breaks off must never look complete, and has no status to answer with.
        assert_eq!(reason_for(Event::UpstreamEof, Phase::ResponseBody), Some(CloseReason::Truncated));
        assert_eq!(CloseReason::Truncated.status(), 0);
    }
}
