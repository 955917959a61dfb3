//! How many requests may be sent a second time: a share of those that came of late.
//!
//! One per route and worker, so it costs no shared memory. Over all workers it holds, too: each worker's requests bring their
//! share, and the shares of all are the share of all. Only the floor is there once per worker.

use std::time::{Duration, Instant};

/// Length of a slot.
const SLOT: Duration = Duration::from_secs(1);
/// Slots that count: ten seconds.
const SLOTS: usize = 10;
/// Retries within the window that need no requests beside them, so that a quiet route has any at all.
const FLOOR: u64 = 3;
/// A share of one.
const WHOLE_PPM: u64 = 1_000_000;

/// See the module. Never reads the clock: it is told the time.
#[derive(Debug)]
pub struct RetryBudget {
    share_ppm: u64,
    start: Option<Instant>,
    /// Number of the slot that is filled now, from `start`.
    now: u64,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// `share_ppm`: of requests, in millionths.
    pub fn new(share_ppm: u32) -> Self {
        Self { share_ppm: share_ppm.into(), start: None, now: 0, slots: [Slot::default(); SLOTS] }
    }

    /// A request came that may be sent again.
    pub fn request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Whether one may be sent again now; if so, that is counted.
    pub fn try_retry(&mut self, now: Instant) -> bool {
        self.slot(now);
        let sum = |of: fn(&Slot) -> u64| self.slots.iter().map(of).sum::<u64>();
        let allowed = FLOOR + sum(|slot| slot.requests) * self.share_ppm / WHOLE_PPM;
        let may = sum(|slot| slot.retries) < allowed;
        self.slot(now).retries += u64::from(may);
        may
    }

    /// The slot of this time; those that it passes are emptied.
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let start = *self.start.get_or_insert(now);
        let number = now.saturating_duration_since(start).as_secs() / SLOT.as_secs();
        let passed = number.saturating_sub(self.now).min(SLOTS as u64);
        for slot in 0..passed {
            self.slots[((number - slot) % SLOTS as u64) as usize] = Slot::default();
        }
        self.now = self.now.max(number);
        &mut self.slots[(self.now % SLOTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_last_ten_seconds_and_a_floor() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = RetryBudget::new(100_000);
        let spend = |budget: &mut RetryBudget, now| (0..1000).take_while(|_| budget.try_retry(now)).count();
        assert_eq!(spend(&mut budget, at(0)), FLOOR as usize, "the floor");
        (0..100).for_each(|_| budget.request(at(1)));
        assert_eq!(spend(&mut budget, at(1)), 10);
        (0..50).for_each(|_| budget.request(at(5)));
        assert_eq!(spend(&mut budget, at(5)), 5);
        // The first second is forgotten, with what was spent in it.
        assert_eq!(spend(&mut budget, at(10)), FLOOR as usize);
        assert_eq!(spend(&mut budget, at(10)), 0);
        // Long silence forgets all.
        assert_eq!(spend(&mut budget, at(1000)), FLOOR as usize);
        // A time before the last one is the last one's.
        assert_eq!(spend(&mut budget, at(3)), 0);
    }

    proptest::proptest! {
        /// Whatever comes when, no ten seconds have more retries than the floor and the share of what eleven brought.
        #[test]
        fn no_window_has_more(events in proptest::collection::vec((0u64..900, proptest::bool::ANY), 1..400)) {
            let start = Instant::now();
            let mut budget = RetryBudget::new(200_000);
            let (mut now, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            for (wait_ms, is_request) in events {
                now += wait_ms / 3;
                let at = start + Duration::from_millis(now);
                if is_request {
                    budget.request(at);
                    requests.push(now);
                } else if budget.try_retry(at) {
                    retries.push(now);
                    let within = |times: &[u64], span: u64| times.iter().filter(|&&then| then + span > now).count() as u64;
                    let allowed = FLOOR + within(&requests, 10_000) / 5;
                    proptest::prop_assert!(within(&retries, 9_000) <= allowed, "{} of {allowed}", within(&retries, 9_000));
                }
            }
        }
    }
}
