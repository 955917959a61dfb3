//! A stream that is gone, and what is known of it.

/// The stream was reset, or its connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl From<lb_http2::Gone> for Gone {
    fn from(_: lb_http2::Gone) -> Self {
        Self
    }
}

/// What is known of a request whose stream is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// The backend may have acted upon it.
    #[default]
    Unknown,
    /// The backend has not, and says so: it may be sent again, whatever it asks for (RFC 9113, 8.7).
    Refused,
    /// What came for an answer is none.
    Malformed,
}
