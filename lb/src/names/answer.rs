//! Why there may be nothing to be had of a name.

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No server answered in time.
    TimedOut,
    /// No server could be reached.
    Unreachable,
    /// SERVFAIL.
    ServerFailed,
    /// REFUSED.
    Refused,
    /// Another error code.
    ServerError,
    /// An answer that breaks the format.
    Malformed,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TimedOut,
        Self::Unreachable,
        Self::ServerFailed,
        Self::Refused,
        Self::ServerError,
        Self::Malformed,
    ];

    /// In metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::ServerFailed => "server-failed",
            Self::Refused => "refused",
            Self::ServerError => "server-error",
            Self::Malformed => "malformed",
        }
    }
}

/// What a server knows for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// NXDOMAIN.
    NoName,
    /// The name has no such records.
    NoRecord,
}

impl Denial {
    /// In metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoName => "no-name",
            Self::NoRecord => "no-record",
        }
    }
}
