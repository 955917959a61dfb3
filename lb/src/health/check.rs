//! One backend's active check: when to probe, and what an answer means. Never sends, never reads the clock.
//!
//! ```text
//!              due: poll() gives Probe              answer, or deadline passed
//!  AwaitDue ------------------------> AwaitAnswer ----------------------------> AwaitDue
//! ```
//! Probes of one backend never overlap: a probe's timeout is at most the interval.

use std::time::{Duration, Instant};

use super::rise_fall::{Outcome, RiseFall, Verdict};

/// How a backend is checked.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// From one probe's start to the next; not zero.
    pub every: Duration,
    /// The same while a change of the verdict is under way; clipped to `every`.
    pub recheck: Duration,
    /// Each probe is drawn to be up to so much later.
    pub jitter: Duration,
    /// Longest wait for one probe; clipped to `every`.
    pub timeout: Duration,
    /// Failures in a row until down.
    pub fall: u32,
    /// Successes in a row until up.
    pub rise: u32,
}

/// What happened to the probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The backend answered as it should.
    Answered,
    /// The backend refused, or the network said no.
    Failed,
    /// The deadline passed without a refusal, where no more is asked.
    Quiet,
    /// This host could not ask.
    NotAsked,
}

/// What the driver is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a probe; report its end by [`Check::handle`], and its silence by [`Check::handle_timeout`].
    Probe {
        /// When to give up.
        deadline: Instant,
    },
    /// The verdict changed: tell both worlds.
    Tell(Verdict),
    /// The outcome says nothing about the backend: it came too late to tell its silence from our own, or it was never
    /// asked. Nothing was counted.
    Discounted,
}

/// See the module.
#[derive(Debug)]
pub struct Check {
    policy: Policy,
    rise_fall: RiseFall,
    state: State,
    /// Draws the jitter.
    seed: u64,
    /// Start of the probe in flight, or of the last one.
    started: Instant,
    action: Option<Action>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    AwaitDue { at: Instant },
    AwaitAnswer { deadline: Instant },
}

impl Check {
    /// `initial` is the verdict that holds before the first answer. The first probe is due at a moment in
    /// `now .. now + every` that `seed` draws, so that many checks never start in step.
    pub fn new(policy: Policy, initial: Verdict, seed: u64, now: Instant) -> Self {
        let every = policy.every.max(Duration::from_millis(1));
        let recheck = policy.recheck.clamp(Duration::from_millis(1), every);
        let policy = Policy { every, recheck, timeout: policy.timeout.min(every), ..policy };
        Self {
            policy,
            rise_fall: RiseFall::new(policy.fall, policy.rise, initial),
            state: State::AwaitDue { at: now + every.mul_f64(fraction(seed)) },
            seed,
            started: now,
            action: None,
        }
    }

    /// The probe in flight came to an end. Without one in flight, nothing happens.
    pub fn handle(&mut self, event: Event, now: Instant) {
        let State::AwaitAnswer { deadline } = self.state else { return };
        match event {
            // A refusal is one, however late we learn of it.
            Event::Failed => self.conclude(Some(Outcome::Failure), now),
            Event::Answered if now <= deadline => self.conclude(Some(Outcome::Success), now),
            // An answer after the deadline: we slept over both, and cannot say which came first.
            Event::Answered => self.conclude(None, now),
            Event::Quiet => self.conclude(Some(Outcome::Success), now),
            Event::NotAsked => {
                self.action = Some(Action::Discounted);
                self.await_due(now);
            }
        }
    }

    /// Time has passed; call it at [`Self::poll_timeout`] or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::AwaitDue { at } if now >= at => {
                let deadline = now + self.policy.timeout;
                self.started = now;
                self.state = State::AwaitAnswer { deadline };
                self.action = Some(Action::Probe { deadline });
            }
            State::AwaitAnswer { deadline } if now >= deadline => {
                let lateness_max = self.policy.timeout / 2;
                let conclusive = now.duration_since(deadline) <= lateness_max;
                self.conclude(conclusive.then_some(Outcome::Failure), now);
            }
            _ => {}
        }
    }

    /// What to do next; drain to `None` after every `handle`.
    pub fn poll(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        match self.state {
            State::AwaitDue { at } => at,
            State::AwaitAnswer { deadline } => deadline,
        }
    }

    /// How many outcomes in a row speak against the verdict, and how many change it.
    pub fn run(&self) -> (u32, u32) {
        self.rise_fall.run()
    }

    /// The verdict that holds.
    pub fn verdict(&self) -> Verdict {
        self.rise_fall.verdict()
    }

    fn conclude(&mut self, outcome: Option<Outcome>, now: Instant) {
        match outcome {
            Some(outcome) => {
                self.action = self.rise_fall.handle(outcome).map(Action::Tell);
                self.await_due(now);
            }
            None => {
                self.action = Some(Action::Discounted);
                self.state = State::AwaitDue { at: now };
            }
        }
    }

    /// Missed turns are skipped, not caught up on.
    fn await_due(&mut self, now: Instant) {
        let interval = if self.rise_fall.run().0 > 0 { self.policy.recheck } else { self.policy.every };
        self.seed = mix(self.seed);
        let jitter = self.policy.jitter.mul_f64(fraction(self.seed));
        self.state = State::AwaitDue { at: (self.started + interval + jitter).max(now) };
    }
}

/// From 0 to 1.
fn fraction(seed: u64) -> f64 {
    (mix(seed) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Spreads a seed over all bits. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014 (SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const POLICY: Policy = Policy {
        every: Duration::from_millis(1000),
        recheck: Duration::from_millis(1000),
        jitter: Duration::ZERO,
        timeout: Duration::from_millis(200),
        fall: 3,
        rise: 2,
    };

    /// Runs a check on a virtual clock; `answer` says what the n-th probe meets. Gives (millisecond, verdict).
    fn run(
        policy: Policy,
        until_ms: u32,
        answer: impl Fn(u32) -> Option<(u32, Event)>,
    ) -> Vec<(u128, Verdict)> {
        let start = Instant::now();
        let mut check = Check::new(policy, Verdict::Up, 7, start);
        let (mut now, mut probes, mut told) = (start, 0, Vec::new());
        let mut arriving: Option<(Instant, Event)> = None;
        while now < start + until_ms * MS {
            match arriving {
                Some((at, event)) if at <= check.poll_timeout() => {
                    now = at;
                    arriving = None;
                    check.handle(event, now);
                }
                _ => {
                    now = check.poll_timeout();
                    arriving = None;
                    check.handle_timeout(now);
                }
            }
            while let Some(action) = check.poll() {
                match action {
                    Action::Probe { deadline } => {
                        assert_eq!(deadline, now + policy.timeout);
                        arriving = answer(probes).map(|(after, event)| (now + after * MS, event));
                        probes += 1;
                    }
                    Action::Tell(verdict) => told.push(((now - start).as_millis(), verdict)),
                    Action::Discounted => panic!("a prompt driver is never discounted"),
                }
            }
        }
        told
    }

    #[test]
    fn falls_and_rises_within_the_stated_number_of_intervals() {
        // Probes 0 and 1 answer, 2 to 6 are refused, then all answer.
        let told = run(POLICY, 20_000, |n| {
            Some((1, if (2..7).contains(&n) { Event::Failed } else { Event::Answered }))
        });
        let [(down, Verdict::Down), (up, Verdict::Up)] = told[..] else { panic!("{told:?}") };
        assert_eq!(up - down, 4000, "down at probe 4, up at probe 8");
        assert!((4000..5002).contains(&down), "{down}");
    }

    #[test]
    fn a_change_under_way_is_asked_after_sooner() {
        let policy = Policy { recheck: 100 * MS, ..POLICY };
        let told = run(policy, 20_000, |n| {
            Some((1, if (2..7).contains(&n) { Event::Failed } else { Event::Answered }))
        });
        let [(down, Verdict::Down), (up, Verdict::Up)] = told[..] else { panic!("{told:?}") };
        // Three failures 0.1 s apart; two more with nothing to hurry for; two successes.
        assert!((2200..3202).contains(&down), "{down}");
        assert_eq!(up - down, 3100);
    }

    #[test]
    fn jitter_delays_each_probe_by_its_own_lot() {
        let policy = Policy { jitter: 500 * MS, ..POLICY };
        let start = Instant::now();
        let mut check = Check::new(policy, Verdict::Up, 3, start);
        let mut delays = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let due = check.poll_timeout();
            check.handle_timeout(due);
            check.poll();
            check.handle(Event::Answered, due + MS);
            let delay = check.poll_timeout() - due - policy.every;
            assert!(delay < 500 * MS);
            delays.insert(delay.as_millis() / 50);
        }
        assert!(delays.len() > 5, "{delays:?}");
    }

    #[test]
    fn what_this_host_could_not_ask_counts_neither_way_and_waits_its_turn() {
        let mut check = Check::new(Policy { fall: 1, ..POLICY }, Verdict::Up, 1, Instant::now());
        let due = check.poll_timeout();
        check.handle_timeout(due);
        check.poll();
        check.handle(Event::NotAsked, due + MS);
        assert_eq!(check.poll(), Some(Action::Discounted));
        assert_eq!(check.poll_timeout(), due + POLICY.every);
        check.handle_timeout(due + POLICY.every);
        check.poll();
        check.handle(Event::Quiet, due + POLICY.every + POLICY.timeout + MS);
        assert_eq!((check.poll(), check.run()), (None, (0, 1)), "silence was all that was asked");
    }

    #[test]
    fn silence_is_a_failure() {
        let told = run(POLICY, 10_000, |_| None);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, Verdict::Down);
    }

    #[test]
    fn our_own_lateness_is_not_held_against_the_backend() {
        let start = Instant::now();
        let mut check = Check::new(Policy { fall: 1, ..POLICY }, Verdict::Up, 1, start);
        let due = check.poll_timeout();
        check.handle_timeout(due);
        let Some(Action::Probe { deadline }) = check.poll() else { panic!("no probe") };
        let late = deadline + 101 * MS;
        check.handle_timeout(late);
        assert_eq!(check.poll(), Some(Action::Discounted));
        assert_eq!(check.poll_timeout(), late, "and it is asked again at once");
        check.handle_timeout(late);
        let Some(Action::Probe { deadline }) = check.poll() else { panic!("no probe") };
        check.handle_timeout(deadline + 100 * MS);
        assert_eq!(check.poll(), Some(Action::Tell(Verdict::Down)));
    }

    #[test]
    fn an_answer_after_the_deadline_counts_neither_way() {
        let start = Instant::now();
        let mut check = Check::new(Policy { fall: 1, rise: 1, ..POLICY }, Verdict::Up, 1, start);
        check.handle_timeout(check.poll_timeout());
        let Some(Action::Probe { deadline }) = check.poll() else { panic!("no probe") };
        check.handle(Event::Answered, deadline + MS);
        assert_eq!(check.poll(), Some(Action::Discounted));
    }

    #[test]
    fn first_probes_are_spread_over_the_interval() {
        let start = Instant::now();
        let mut quarters = [0; 4];
        for seed in 0..400 {
            let delay = Check::new(POLICY, Verdict::Up, seed, start).poll_timeout() - start;
            assert!(delay < POLICY.every);
            quarters[(delay.as_millis() / 250) as usize] += 1;
        }
        assert!(quarters.iter().all(|&n| n > 60), "{quarters:?}");
    }
}
