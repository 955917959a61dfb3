//! What is told of a client, to backends and by redirects: decided once for a request, however many attempts it takes.

use super::connection::Context;
use crate::{config::ListenerSnapshot, l7::http1::Forwarding};

/// For one request.
pub(super) struct Teller<'p> {
    listener: &'p ListenerSnapshot,
    pub(super) is_trusted: bool,
    request_id: [u64; 2],
}

impl<'p> Teller<'p> {
    pub(super) fn new(context: &Context, listener: &'p ListenerSnapshot, is_trusted: bool) -> Self {
        Self { listener, is_trusted, request_id: context.local().request_ids.next() }
    }

    /// `authority` is `Host` for a request that names none.
    pub(super) fn forwarding<'a>(&self, context: &Context, authority: &'a [u8]) -> Forwarding<'a> {
        Forwarding {
            client: context.accepted.client().ip(),
            scheme: if context.accepted.sink.secure().is_some() { "https" } else { "http" },
            authority,
            port: match (context.accepted.told(), self.listener.port) {
                (Some(told), _) => told.port(),
                (None, Some(port)) => port,
                (None, None) => context.accepted.port(),
            },
            is_trusted: self.is_trusted,
            says_forwarded: self.listener.forwarded,
            request_id: self.request_id,
        }
    }
}
