//! How an exchange ended.

use super::tunnel::Tunnel;
use crate::model::reason::CloseReason;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
}

/// An exchange that ended well.
pub(super) enum Ended<'c> {
    After(After),
    /// The client speaks HTTP/2, by prior knowledge (RFC 9113, 3.3); nothing of it was taken.
    Http2,
    /// The connection goes on in another protocol.
    Switched(Box<Tunnel<'c>>),
}

impl From<After> for Ended<'_> {
    fn from(after: After) -> Self {
        Self::After(after)
    }
}

/// An exchange that did not end well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) reason: CloseReason,
    /// Nothing of a response was sent: the client can still be told.
    pub(super) answerable: bool,
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        Self { reason, answerable: true }
    }
}
