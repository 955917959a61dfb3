//! A connection to a backend.

use std::sync::Arc;

use super::stream::Stream;
use crate::model::BackendId;

/// Owned by the exchange or relay that runs on it, or by the worker's keepalive.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) backend: BackendId,
    /// The backend's address for people.
    pub(super) name: Arc<str>,
    pub(super) stream: Stream,
    /// It has carried an exchange before.
    pub(super) reused: bool,
}

impl Upstream {
    /// Whether a kept connection has ended or spoken out of turn: nobody may use it again.
    pub(super) fn is_stale(&mut self) -> bool {
        self.stream.has_news()
    }
}
