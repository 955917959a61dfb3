//! A connection that a trusted proxy relays to us: whom it is for stands in front of its first byte.

use super::{connection::Accepted, dispatch, local::Local, stream::Stream, stream_error::StreamError};
use crate::{
    model::reason::CloseReason,
    relay::proxy::{self, Header, Parsed},
};

/// Reads the header, then hands the connection on as its client's. `is_required`: there must be one.
pub(super) async fn drive(mut accepted: Accepted, is_required: bool) {
    let local = accepted.local().clone();
    let plan = local.plan();
    let Some(listener) = plan.listener(accepted.listener()) else { return };
    let limits = &plan.snapshot.limits;
    let mut stream = Stream::new(accepted.sink.clone());
    let read = read(&local, &mut stream, is_required).await;
    let named = match read {
        // Whoever connects and goes away, as health checks do, has told nothing and missed nothing.
        Err(CloseReason::ClientGone) if stream.data().is_empty() => return,
        Err(reason) => Err(reason),
        Ok(None) => accepted.name(None, limits),
        Ok(Some(Header { len, ends })) => {
            stream.consume(len);
            accepted.name(ends, limits)
        }
    };
    match named {
        Ok(()) => dispatch::start(accepted, Some(Box::new(stream)), listener.protocol),
        Err(reason) => {
            accepted.begin(&plan.snapshot);
            accepted.fail(reason);
            accepted.entry.end();
        }
    }
}

/// Waits until it is known whether there is a header, and for the whole of it.
async fn read(local: &Local, stream: &mut Stream, is_required: bool) -> Result<Option<Header>, CloseReason> {
    let deadline = local.timers.deadline();
    deadline.set(local.after(local.plan().snapshot.limits.head_timeout));
    loop {
        match proxy::parse(stream.data()).map_err(|_| CloseReason::ProxyHeader)? {
            Parsed::Complete(header) => return Ok(Some(header)),
            Parsed::Absent if is_required => return Err(CloseReason::ProxyMissing),
            Parsed::Absent => return Ok(None),
            Parsed::Partial => {}
        }
        match stream.fill(&deadline).await {
            Ok(0) | Err(StreamError::Broken) => return Err(CloseReason::ClientGone),
            Ok(_) => {}
            Err(StreamError::Expired) if local.is_overdue() => return Err(CloseReason::Draining),
            Err(StreamError::Expired) => return Err(CloseReason::HeadTimeout),
        }
    }
}
