//! Waiting until no program is running that may have read what is about to be written again.

use std::{thread, time::Duration};

use rustix::thread::{MembarrierCommand, membarrier};

/// Longer than any program runs, by far; for kernels that will not tell.
const ENOUGH: Duration = Duration::from_millis(200);

/// Waits until every program has ended that runs now: some milliseconds.
pub(super) fn wait() {
    // It waits for an RCU grace period (membarrier(2); kernel/sched/membarrier.c, v6.18), and programs run inside
    // RCU. With nohz_full it is not to be had.
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep(ENOUGH);
    }
}
