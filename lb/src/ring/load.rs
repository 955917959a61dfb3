//! How busy a worker has been lately: what tells whether a little patience makes its work cheaper.

use std::time::{Duration, Instant};

/// Older time counts half as much, and so on.
const WINDOW: Duration = Duration::from_millis(2);

/// Time at work, and time in waits.
#[derive(Debug)]
pub(super) struct Load {
    worked: Duration,
    waited: Duration,
    /// When the last wait ended.
    woken: Instant,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { worked: Duration::ZERO, waited: Duration::ZERO, woken: now }
    }

    /// It waited from `since` to `now`.
    pub(super) fn waited(&mut self, since: Instant, now: Instant) {
        // One long wait is as good as nothing before it.
        self.worked += since.saturating_duration_since(self.woken).min(WINDOW);
        self.waited += now.saturating_duration_since(since).min(WINDOW);
        self.woken = now;
        if self.worked + self.waited > WINDOW {
            self.worked /= 2;
            self.waited /= 2;
        }
    }

    /// Three fifths of its time or more went into work.
    pub(super) fn is_high(&self) -> bool {
        self.worked * 2 >= self.waited * 3 && self.worked >= WINDOW / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_high_while_work_leaves_little_time_to_wait() {
        let start = Instant::now();
        let mut now = start;
        let mut load = Load::new(now);
        let mut turn = |worked: u64, waited: u64| {
            let since = now + Duration::from_micros(worked);
            now = since + Duration::from_micros(waited);
            load.waited(since, now);
            load.is_high()
        };
        assert!(!turn(50, 0), "one turn says nothing");
        assert!((0..100).all(|_| !turn(50, 50)), "half of the time is not high");
        assert!((0..100).map(|_| turn(70, 30)).skip(50).all(|high| high));
        assert!(!turn(10, 1_000_000), "a long wait ends it");
        assert!((0..20).all(|_| !turn(100, 900)), "bursts with pauses between them");
    }
}
