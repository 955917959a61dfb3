//! The packet path's clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::steering;

/// The clock that the programs read (bpf_ktime_get_coarse_ns).
pub(super) fn now_ticks() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // Monotonic time begins at boot and is never negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    steering::ticks(
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)),
    )
}
