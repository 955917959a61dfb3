//! How an exchange ended.

use crate::model::reason::CloseReason;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
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
