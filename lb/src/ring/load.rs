//! How busy a worker has been lately: what tells whether a little patience makes its work cheaper.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Between two looks at the clock that counts our work alone: that one takes a system call.
const WINDOW: Duration = Duration::from_millis(2);

/// Of the thread that asks.
#[derive(Debug)]
pub(super) struct Load {
    since: Instant,
    /// What this thread had worked by then, in the kernel and out of it.
    worked: Duration,
    is_high: bool,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, worked: Duration::ZERO, is_high: false }
    }

    /// Whether three fifths of the time or more went into work, in the last window.
    pub(super) fn is_high(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.look(now, worked());
        }
        self.is_high
    }

    fn look(&mut self, now: Instant, worked: Duration) {
        let passed = now.saturating_duration_since(self.since);
        self.is_high = worked.saturating_sub(self.worked) * 5 >= passed * 3;
        (self.since, self.worked) = (now, worked);
    }
}

fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u64);
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_high_while_work_leaves_little_time_to_wait() {
        let (mut now, mut total) = (Instant::now(), Duration::ZERO);
        let mut load = Load::new(now);
        let mut window = |worked_us: u64, waited_us: u64| {
            now += Duration::from_micros(worked_us + waited_us);
            total += Duration::from_micros(worked_us);
            load.look(now, total);
            load.is_high
        };
        assert_eq!(
            [(1000, 1000), (1300, 700), (100, 1_000_000), (1900, 100)]
                .map(|(worked, waited)| window(worked, waited)),
            [false, true, false, true]
        );
    }

    #[test]
    fn the_clock_counts_work_and_no_sleep() {
        let before = worked();
        std::thread::sleep(Duration::from_millis(20));
        let slept = worked();
        assert!(slept - before < Duration::from_millis(10), "{before:?} {slept:?}");
        while worked() == slept {}
    }
}
