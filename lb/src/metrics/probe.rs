//! What the probers count.

use super::Counter;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ProbeEnd {
    /// Answered as it should be, in time.
    Answered,
    /// Not refused until the deadline, where no more than that is asked.
    Quiet,
    /// Refused: nobody has the port.
    Refused,
    /// No way there.
    Unreachable,
    /// Closed or reset before the answer.
    Closed,
    /// Silent until the deadline.
    TimedOut,
    /// Answered, and not as it should be.
    WrongAnswer,
    /// Answered in another protocol, or with a broken message.
    Malformed,
    /// Learnt of too late to blame the backend; counted for neither verdict.
    Discounted,
    /// This host could not ask; counted for neither verdict.
    Local,
}

impl ProbeEnd {
    /// All.
    pub const ALL: [Self; 10] = [
        Self::Answered,
        Self::Quiet,
        Self::Refused,
        Self::Unreachable,
        Self::Closed,
        Self::TimedOut,
        Self::WrongAnswer,
        Self::Malformed,
        Self::Discounted,
        Self::Local,
    ];

    /// As label `code`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Quiet => "quiet",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::TimedOut => "timed-out",
            Self::WrongAnswer => "wrong-answer",
            Self::Malformed => "malformed",
            Self::Discounted => "discounted",
            Self::Local => "local",
        }
    }
}

/// Counters of one backend's checks; the prober thread writes them.
#[derive(Debug, Default)]
pub struct ProbeMetrics {
    ends: [Counter; ProbeEnd::ALL.len()],
    /// Verdicts that changed.
    pub changes: Counter,
}

impl ProbeMetrics {
    /// Counter of one end.
    pub fn of(&self, end: ProbeEnd) -> &Counter {
        &self.ends[end as usize]
    }

    /// Probes that spoke against the backend.
    pub fn failed(&self) -> u64 {
        use ProbeEnd::{Closed, Malformed, Refused, TimedOut, Unreachable, WrongAnswer};
        let failures = [Refused, Unreachable, Closed, TimedOut, WrongAnswer, Malformed];
        failures.iter().map(|end| self.of(*end).value()).sum()
    }
}

/// Counters of what exchanges made of one backend; the prober thread writes them.
#[derive(Debug, Default)]
pub struct EjectionMetrics {
    /// Errors in a row.
    pub consecutive_errors: Counter,
    /// Too many of its exchanges failed.
    pub error_ratio: Counter,
    /// Slow beside the others.
    pub latency: Counter,
    /// Not ejected, as it would have been one too many, or was the last of use.
    pub spared: Counter,
}
