//! One name over time: when it is looked up, and which answer holds.
//!
//! ```text
//!  Unasked --found--> Good <--found-- Failing   the last good answer is kept, whoever fails for however long
//!     |                |  `--failed----^ |
//!     |                `--denied--> Denied ---- denied for as long as `hold`: nothing is left
//!     `---failed, denied---> the same, with nothing to keep
//! ```
//! That nobody answers says nothing of the backends. That a server denies the name does, but one denial may be the mistake
//! of a moment, so it must hold for a while before traffic is taken away. Half an answer adds, and takes nothing away.

use std::time::{Duration, Instant};

use super::{
    answer::{Denial, Failure},
    find::{BACKENDS_MAX, Outcome},
};
use crate::model::FoundBackend;

/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What `[dns]` says of it.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Least time to the next lookup.
    pub ttl_min: Duration,
    /// Most.
    pub ttl_max: Duration,
    /// How long a denial must last until it is believed.
    pub hold: Duration,
}

/// How the last lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There was none yet.
    Unasked,
    /// The answer is what was found.
    Good,
    /// A part is missing.
    Partial(Failure),
    /// Nobody knows.
    Failing(Failure),
    /// There is no such name, or nothing under it.
    Denied(Denial),
}

impl Condition {
    /// In metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Good => "good",
            Self::Partial(failure) | Self::Failing(failure) => failure.name(),
            Self::Denied(denial) => denial.name(),
        }
    }
}

/// What a lookup has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Other backends than before, or other weights.
    pub backends: bool,
    /// Another condition than before: worth a line in the log.
    pub condition: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Watch {
    policy: Policy,
    backends: Vec<FoundBackend>,
    condition: Condition,
    /// The last whole answer came then.
    answered: Option<Instant>,
    denied_since: Option<Instant>,
    failures: u32,
    due: Instant,
}

impl Watch {
    /// Due at once.
    pub const fn new(policy: Policy, now: Instant) -> Self {
        let condition = Condition::Unasked;
        Self {
            policy,
            backends: Vec::new(),
            condition,
            answered: None,
            denied_since: None,
            failures: 0,
            due: now,
        }
    }

    /// The answer that holds.
    pub fn backends(&self) -> &[FoundBackend] {
        &self.backends
    }

    /// How the last lookup ended.
    pub const fn condition(&self) -> Condition {
        self.condition
    }

    /// When the last whole answer came.
    pub const fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// When it is to be looked up.
    pub const fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// A lookup has ended. `lot` spreads lookups of many names: any number.
    pub fn handle(&mut self, outcome: Outcome, now: Instant, lot: u64) -> Change {
        let (before, was) = (self.backends.clone(), self.condition);
        let Policy { ttl_min, ttl_max, hold } = self.policy;
        let clamped = |ttl: Duration| ttl.clamp(ttl_min, ttl_max);
        if !matches!(outcome, Outcome::Denied(..)) {
            self.denied_since = None;
        }
        let mut wait = match outcome {
            Outcome::Found { backends, ttl, lacks: None } => {
                (self.backends, self.answered, self.failures) = (backends, Some(now), 0);
                self.condition = Condition::Good;
                clamped(ttl)
            }
            Outcome::Found { backends, lacks: Some(failure), .. } => {
                self.join(backends);
                self.condition = Condition::Partial(failure);
                self.retry()
            }
            Outcome::Failed(failure) => {
                self.condition = Condition::Failing(failure);
                self.retry()
            }
            Outcome::Denied(denial, ttl) => {
                self.failures = 0;
                self.condition = Condition::Denied(denial);
                let since = *self.denied_since.get_or_insert(now);
                let left = hold.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    self.backends.clear();
                }
                // A denial is believed by the word of the moment.
                let wait = clamped(ttl.unwrap_or(ttl_min));
                if left.is_zero() { wait } else { wait.min(left.max(ttl_min)) }
            }
        };
        // Up to a tenth earlier, but never before the least.
        wait = (wait - wait / 10 * (lot % 1024) as u32 / 1024).max(ttl_min.min(wait));
        self.due = now + wait;
        Change { backends: self.backends != before, condition: self.condition != was }
    }

    fn join(&mut self, backends: Vec<FoundBackend>) {
        self.backends.retain(|old| !backends.iter().any(|new| new.address == old.address));
        self.backends.extend(backends);
        self.backends.sort_unstable();
        self.backends.truncate(BACKENDS_MAX);
    }

    fn retry(&mut self) -> Duration {
        let wait = self.policy.ttl_min.saturating_mul(1 << self.failures.min(10));
        self.failures += 1;
        wait.min(RETRY_MAX.max(self.policy.ttl_min)).min(self.policy.ttl_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: Policy =
        Policy { ttl_min: SECOND, ttl_max: Duration::from_secs(60), hold: Duration::from_secs(30) };

    fn found(last: &[u8], ttl: u64, lacks: Option<Failure>) -> Outcome {
        let backend =
            |last: &u8| FoundBackend { address: ([10, 0, 0, *last], 80).into(), weight: None, backup: false };
        Outcome::Found { backends: last.iter().map(backend).collect(), ttl: Duration::from_secs(ttl), lacks }
    }

    fn last(watch: &Watch) -> Vec<u8> {
        let octet = |found: &FoundBackend| match found.address {
            std::net::SocketAddr::V4(v4) => v4.ip().octets()[3],
            std::net::SocketAddr::V6(_) => 0,
        };
        watch.backends().iter().map(octet).collect()
    }

    fn wait(watch: &Watch, now: Instant) -> f64 {
        watch.poll_timeout().saturating_duration_since(now).as_secs_f64()
    }

    #[test]
    fn an_answer_holds_for_its_time_within_bounds() {
        let now = Instant::now();
        for (ttl, expected) in [(0, 1.0), (10, 10.0), (9999, 60.0)] {
            let mut watch = Watch::new(POLICY, now);
            assert_eq!(watch.poll_timeout(), now);
            assert_eq!(
                watch.handle(found(&[1], ttl, None), now, 0),
                Change { backends: true, condition: true }
            );
            assert_eq!(wait(&watch, now), expected);
            assert_eq!(watch.handle(found(&[1], ttl, None), now, 1023), Change::default());
            assert!((expected * 0.9..=expected).contains(&wait(&watch, now)));
        }
    }

    #[test]
    fn failures_keep_the_last_good_answer_for_ever_and_are_told_once() {
        let mut now = Instant::now();
        let mut watch = Watch::new(POLICY, now);
        watch.handle(found(&[1, 2], 10, None), now, 0);
        let answered = now;
        let mut waits = Vec::new();
        for at in 0..9 {
            now = watch.poll_timeout();
            let change = watch.handle(Outcome::Failed(Failure::TimedOut), now, 0);
            assert_eq!(change, Change { backends: false, condition: at == 0 });
            waits.push(wait(&watch, now));
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]);
        assert_eq!((last(&watch), watch.answered()), (vec![1, 2], Some(answered)));
        assert!(watch.handle(Outcome::Failed(Failure::Refused), now, 0).condition, "it fails in another way");
        assert_eq!(
            watch.handle(found(&[1, 2], 9, None), now, 0),
            Change { backends: false, condition: true }
        );
        watch.handle(Outcome::Failed(Failure::TimedOut), now, 0);
        assert_eq!(wait(&watch, now), 1.0, "from the start again");
    }

    #[test]
    fn a_denial_is_believed_once_it_has_lasted() {
        let mut now = Instant::now();
        let mut watch = Watch::new(POLICY, now);
        watch.handle(found(&[1], 10, None), now, 0);
        let denied = || Outcome::Denied(Denial::NoName, Some(20 * SECOND));
        let began = now;
        assert_eq!(watch.handle(denied(), now, 0), Change { backends: false, condition: true });
        assert_eq!((last(&watch), wait(&watch, now)), (vec![1], 20.0));
        now = watch.poll_timeout();
        assert_eq!(watch.handle(denied(), now, 0), Change::default());
        assert_eq!(wait(&watch, now), 10.0, "asked again when the time is over");
        now = watch.poll_timeout();
        assert_eq!(now - began, POLICY.hold);
        assert_eq!(watch.handle(denied(), now, 0), Change { backends: true, condition: false });
        assert!(last(&watch).is_empty());
        watch.handle(found(&[2], 10, None), now, 0);
        watch.handle(denied(), now, 0);
        assert_eq!(last(&watch), [2], "the time begins anew");
        let mut at_once = Watch::new(Policy { hold: Duration::ZERO, ..POLICY }, now);
        at_once.handle(found(&[1], 10, None), now, 0);
        at_once.handle(denied(), now, 0);
        assert!(last(&at_once).is_empty());
    }

    #[test]
    fn half_an_answer_adds_and_takes_nothing_away() {
        let now = Instant::now();
        let mut watch = Watch::new(POLICY, now);
        watch.handle(found(&[1], 10, None), now, 0);
        watch.handle(found(&[2], 10, Some(Failure::TimedOut)), now, 0);
        assert_eq!((last(&watch), watch.condition()), (vec![1, 2], Condition::Partial(Failure::TimedOut)));
        watch.handle(found(&[2], 10, None), now, 0);
        assert_eq!(last(&watch), [2]);
    }

    proptest! {
        /// Whatever comes: never more often than the least time, never later than the most, never empty but by a denial.
        #[test]
        fn it_keeps_its_pace_and_its_backends(
            steps in proptest::collection::vec((0u8..4, 0u64..200, any::<u64>()), 1..60),
        ) {
            let mut now = Instant::now();
            let mut watch = Watch::new(POLICY, now);
            for (kind, ttl, lot) in steps {
                let had = !watch.backends().is_empty();
                let outcome = match kind {
                    0 => found(&[ttl as u8], ttl, None),
                    1 => found(&[ttl as u8], ttl, Some(Failure::Refused)),
                    2 => Outcome::Failed(Failure::TimedOut),
                    _ => Outcome::Denied(Denial::NoRecord, Some(Duration::from_secs(ttl))),
                };
                watch.handle(outcome, now, lot);
                let wait = watch.poll_timeout() - now;
                prop_assert!(wait >= POLICY.ttl_min && wait <= POLICY.ttl_max, "{wait:?}");
                prop_assert!(!had || kind == 3 || !watch.backends().is_empty());
                prop_assert!(watch.backends().is_sorted() && watch.backends().len() <= BACKENDS_MAX);
                now = watch.poll_timeout();
            }
        }
    }
}
