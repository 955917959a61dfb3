//! How reading from a peer, or writing to it, fails.

use std::io;

use super::timer::Expired;
use crate::l7::http2::Gone;

/// Why a stream operation ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamError {
    /// The deadline passed.
    Expired,
    /// The socket failed: reset, or closed where bytes were to go; or what came breaks the protocol that bytes are sealed by.
    Broken,
}

impl From<Expired> for StreamError {
    fn from(_: Expired) -> Self {
        Self::Expired
    }
}

impl From<io::Error> for StreamError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Gone> for StreamError {
    fn from(_: Gone) -> Self {
        Self::Broken
    }
}
