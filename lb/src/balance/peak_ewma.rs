//! Two backends by lot, and the one that will probably answer first: by the time that its answers took, times the
//! work that waits for it.
//!
//! An answer slower than the average becomes the average at once (a *peak*), a quicker one moves it bit by bit; and
//! without answers it fades, so that a backend which was slow is asked again.
//! Source: Finagle, `PeakEwma`, as in `com.twitter.finagle.loadbalancer.p2c`, 2015.

use std::time::{Duration, Instant};

use super::{generator::Generator, standing::Standing, two_choices::TwoChoices};

/// After so long an old answer counts for 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What an attempt that failed counts as, at least: quick refusals must not look like quick answers.
const FAILURE: Duration = Duration::from_secs(1);
/// What a backend counts as that has work and never answered yet: one is sent there first, not all.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The weights of a pool, and what its backends' answers took, as one worker has seen it.
#[derive(Clone, Debug)]
pub struct PeakEwma {
    choices: TwoChoices,
    averages: Box<[Average]>,
}

/// Nanoseconds, and since when they fade.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    ns: f64,
    at: Option<Instant>,
}

impl Average {
    fn fade(self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    fn observe(&mut self, took: Duration, now: Instant) {
        let ns = took.as_nanos() as f64;
        let kept = self.fade(now);
        let is_peak = self.at.is_none() || ns > self.ns;
        self.ns = if is_peak { ns } else { self.ns * kept + ns * (1.0 - kept) };
        self.at = Some(now);
    }

    fn cost(self, load: u64, now: Instant) -> f64 {
        match self.at {
            Some(_) => self.ns * self.fade(now) * (load + 1) as f64,
            None => UNKNOWN.as_nanos() as f64 * load as f64,
        }
    }
}

impl PeakEwma {
    /// One place for each weight; nothing is known yet.
    pub fn new(weights: impl Iterator<Item = u16> + Clone) -> Self {
        let averages = weights.clone().map(|_| Average::default()).collect();
        Self { choices: TwoChoices::new(weights), averages }
    }

    /// Of two candidates that the lot falls on the one that costs less for its share; `None` when there is none.
    pub fn next(&self, standing: &impl Standing, now: Instant, generator: &mut Generator) -> Option<usize> {
        let cost =
            |at: usize| self.averages[at].cost(standing.load(at), now) / f64::from(standing.share(at).max(1));
        self.choices.better(standing, generator, cost)
    }

    /// The first byte that counts came after `took`.
    pub fn answered(&mut self, at: usize, took: Duration, now: Instant) {
        self.averages[at].observe(took, now);
    }

    /// It failed after `took`.
    pub fn failed(&mut self, at: usize, took: Duration, now: Instant) {
        self.averages[at].observe(took.max(FAILURE), now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::standing::tests::Bench;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn chosen(ewma: &PeakEwma, bench: &Bench, now: Instant) -> Vec<usize> {
        let mut generator = Generator::new(9);
        let mut counts = vec![0; bench.len()];
        (0..300).filter_map(|_| ewma.next(bench, now, &mut generator)).for_each(|at| counts[at] += 1);
        counts
    }

    #[test]
    fn the_slow_one_is_left_alone_until_it_has_faded() {
        let start = Instant::now();
        let (bench, mut ewma) = (Bench::of(&[1, 1]), PeakEwma::new([1, 1].into_iter()));
        ewma.answered(0, MS(10), start);
        ewma.answered(1, MS(100), start);
        assert_eq!(chosen(&ewma, &bench, start), [300, 0]);
        // The quick one goes on answering, the slow one fades.
        let later = start + Duration::from_secs(30);
        ewma.answered(0, MS(10), later);
        assert_eq!(chosen(&ewma, &bench, later), [0, 300]);
    }

    #[test]
    fn a_peak_counts_at_once_and_quick_answers_bit_by_bit() {
        let start = Instant::now();
        let mut average = Average::default();
        average.observe(MS(10), start);
        average.observe(MS(500), start + MS(1));
        assert_eq!(average.ns, 5e8);
        average.observe(MS(10), start + MS(1001));
        assert!(average.ns > 4.4e8, "one quick answer: {}", average.ns);
        average.observe(MS(10), start + Duration::from_secs(60));
        assert!(average.ns < 2e7, "{}", average.ns);
    }

    #[test]
    fn work_in_flight_counts_times_the_latency() {
        let now = Instant::now();
        let (mut bench, mut ewma) = (Bench::of(&[1, 1]), PeakEwma::new([1, 1].into_iter()));
        ewma.answered(0, MS(10), now);
        ewma.answered(1, MS(25), now);
        bench.0[0].1 = 1;
        assert_eq!(chosen(&ewma, &bench, now), [300, 0], "20 before 25");
        bench.0[0].1 = 2;
        assert_eq!(chosen(&ewma, &bench, now), [0, 300], "25 before 30");
        bench.0[1].0 /= 2;
        assert_eq!(chosen(&ewma, &bench, now), [300, 0], "with half the share it counts for 50");
    }

    #[test]
    fn an_unknown_one_gets_one_try_and_not_all() {
        let now = Instant::now();
        let (mut bench, mut ewma) = (Bench::of(&[1, 1]), PeakEwma::new([1, 1].into_iter()));
        ewma.answered(0, MS(10), now);
        assert_eq!(chosen(&ewma, &bench, now), [0, 300]);
        bench.0[1].1 = 1;
        assert_eq!(chosen(&ewma, &bench, now), [300, 0]);
    }

    #[test]
    fn a_refusal_is_no_quick_answer() {
        let now = Instant::now();
        let (bench, mut ewma) = (Bench::of(&[1, 1]), PeakEwma::new([1, 1].into_iter()));
        ewma.answered(0, MS(100), now);
        ewma.failed(1, MS(0), now);
        assert_eq!(chosen(&ewma, &bench, now), [300, 0]);
    }

    proptest! {
        /// The average stays within what was seen, and never grows by itself.
        #[test]
        fn the_average_stays_within_what_was_seen(
            answers in proptest::collection::vec((0u64..5_000, 0u64..30_000), 1..50),
        ) {
            let mut now = Instant::now();
            let mut average = Average::default();
            for (took, pass) in &answers {
                average.observe(MS(*took), now);
                let most = answers.iter().map(|(took, _)| *took).max().unwrap_or(0) as f64 * 1e6;
                prop_assert!(average.ns >= *took as f64 * 1e6 * 0.999_999 && average.ns <= most);
                let before = average.cost(3, now);
                now += MS(*pass);
                prop_assert!(average.cost(3, now) <= before);
            }
        }
    }
}
