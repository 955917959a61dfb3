//! What an answer is found to be; what was wrong with it, in words.

use crate::metrics::ProbeEnd;

/// Most bytes of a peer's that are repeated.
const QUOTED_MAX: usize = 80;

/// What was made of an answer so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It does not say yet.
    More,
    /// It is as it should be.
    Up,
    /// It is not.
    Down(Fault),
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it counts as.
    pub end: ProbeEnd,
    /// What was found, for people: `503`, `-LOADING`, `closed before the answer`.
    pub text: String,
}

impl Fault {
    /// An answer that is not as it should be.
    pub(super) fn wrong(text: impl Into<String>) -> Self {
        Self { end: ProbeEnd::WrongAnswer, text: text.into() }
    }

    /// An answer that is none of the protocol's.
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self { end: ProbeEnd::Malformed, text: text.into() }
    }

    /// An answer that ended early.
    pub(super) fn closed(text: impl Into<String>) -> Self {
        Self { end: ProbeEnd::Closed, text: text.into() }
    }
}

/// What a peer said, on one line, printable and short.
pub(super) fn quoted(bytes: &[u8]) -> String {
    match bytes.get(..QUOTED_MAX) {
        Some(start) if bytes.len() > QUOTED_MAX => format!("{}...", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}
