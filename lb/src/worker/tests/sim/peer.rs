//! What clients and backends have in common.

use std::time::Duration;

use super::ledger::Ledger;
use crate::ring::simulated::{Net, Rng};

/// A script at the far end of a connection.
pub(super) trait Peer {
    fn is_done(&self) -> bool;
    /// It does nothing before.
    fn wake(&self) -> Duration;
    /// It does something then even if nothing has come.
    fn timer(&self) -> Option<Duration>;
    /// Whether there is something that it would do.
    fn wants(&self, net: &Net) -> bool;
    fn act(&mut self, net: &mut Net, ledger: &mut Ledger);
    fn describe(&self) -> String;
}

/// Between two steps of a script: mostly none.
pub(super) fn pause(rng: &mut Rng) -> Duration {
    let most = rng.pick(&[0, 0, 0, 0, 300, 3000, 30_000]);
    Duration::from_micros(rng.below(most) as u64)
}
