//! What the probers count.

use super::Counter;

/// Counters of one backend's checks; the prober thread writes them.
#[derive(Debug, Default)]
pub struct ProbeMetrics {
    /// Answered in time.
    pub answered: Counter,
    /// Refused or unreachable.
    pub failed: Counter,
    /// Silent until the deadline.
    pub timed_out: Counter,
    /// Learnt of too late to blame the backend; counted for neither verdict.
    pub discounted: Counter,
}
