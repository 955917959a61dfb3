//! What the authority of a certificate says of it (RFC 6960): who is asked and what, and whether an answer may be shown to
//! clients. Sends nothing, reads no clock.
//!
//! ```text
//!  chain --> Question --request--> who sends it --answer--> Question::judge --> Staple
//! ```

mod answer;
mod der;
mod question;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

pub use question::{Question, Responder};

/// How much clocks may differ, in seconds.
const SKEW: i64 = 300;

/// An answer that clients may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    /// All of it, as it is shown.
    pub der: Vec<u8>,
    /// It says what was known then, in seconds since 1970.
    pub this_update: i64,
    /// There will be a newer one by then; `None`: not said.
    pub next_update: Option<i64>,
}

impl Staple {
    /// What somebody else has fetched: looked at, not judged. `None`: it is no answer.
    pub fn read(der: &[u8]) -> Option<Self> {
        let answer = answer::Answer::read(der).ok()?;
        let first = answer.about.first()?;
        Some(Self { der: der.to_vec(), this_update: first.this_update, next_update: first.next_update })
    }
}

/// Why an answer may not be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is none.
    Malformed,
    /// The responder says that it cannot answer: its status (RFC 6960, 4.2.1).
    Unsuccessful(u8),
    /// It is about other certificates.
    OfAnother,
    /// The certificate was revoked.
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
    /// It is of the future.
    Early,
    /// There should be a newer one by now.
    Late,
    /// It does not say until when it is good.
    Endless,
    /// Nobody who may has signed it.
    Signature,
}

impl Unusable {
    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsuccessful(_) => "unsuccessful",
            Self::OfAnother => "mismatch",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Early | Self::Late | Self::Endless => "time",
            Self::Signature => "signature",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is no answer of OCSP",
            Self::Unsuccessful(status) => {
                let why = match status {
                    1 => "malformed request",
                    2 => "internal error",
                    3 => "try later",
                    5 => "the request must be signed",
                    6 => "unauthorized",
                    other => return write!(f, "says that it cannot answer: status {other}"),
                };
                return write!(f, "says that it cannot answer: {why}");
            }
            Self::OfAnother => "is about another certificate",
            Self::Revoked => "says that the certificate was revoked",
            Self::Unknown => "says that it does not know the certificate",
            Self::Early => "is of the future",
            Self::Late => "is out of date",
            Self::Endless => "does not say until when it is good",
            Self::Signature => "is signed by nobody who may",
        })
    }
}
