//! `[upgrade]`: what becomes of a process that another one has taken over from.

use std::time::Duration;

/// `[upgrade]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// How long connections may go on that the old process has.
    pub drain_timeout: Duration,
    /// Old processes that drain at once; beyond that an upgrade is refused.
    pub max_draining: usize,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(600), max_draining: 2 }
    }
}
