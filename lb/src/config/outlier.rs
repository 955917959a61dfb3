//! `pool.outlier` and `pool.panic`: what exchanges themselves tell of backends.

use std::time::Duration;

/// `pool.outlier`: who is taken out for a time by what clients' exchanges met.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// So many errors in a row; 0: never for that.
    pub consecutive_errors: u32,
    /// So large a part of what was answered within `window`, in percent; `None`: never for that.
    pub error_percent: Option<u32>,
    /// So many times the latency of the others, in tenths; `None`: never for that.
    pub latency_tenths: Option<u32>,
    /// Answers and errors within `window` from which on `error_ratio` and `latency` count.
    pub requests: u32,
    /// What time they look back.
    pub window: Duration,
    /// How long the first time; the next ones are each longer by that.
    pub ejection: Duration,
    /// The longest.
    pub ejection_max: Duration,
    /// Part of the pool that may be out at once, in percent; one always may.
    pub max_ejected_percent: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            error_percent: None,
            latency_tenths: None,
            requests: 20,
            window: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            max_ejected_percent: 50,
        }
    }
}
