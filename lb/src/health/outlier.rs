//! Passive health of one pool: what exchanges meet says who is taken out for a time.
//!
//! ```text
//!            errors in a row, error ratio, latency
//!      In ------------------------------------------> Ejected { until }
//!       ^                                                    |
//!       +------------- the time is over; nothing is held ----+
//! ```
//! Fed with what the workers count, a few times a second. One is spared who would be one too many, or the last who is of
//! use.

use std::time::{Duration, Instant};

use crate::config::Outlier;

/// Parts of the window.
const PARTS: usize = 10;
/// A latency below that is nobody's fault.
const LATENCY_MIN: Duration = Duration::from_millis(10);

/// What one worker has counted of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Exchanges that were answered.
    pub answers: u64,
    /// Connections refused, exchanges broken off or timed out, answers 5xx.
    pub errors: u64,
    /// Errors since the last answer.
    pub run: u64,
    /// Time to those answers together, in microseconds.
    pub answer_us: u64,
}

/// Why one is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `consecutive_errors`.
    Run,
    /// `error_ratio`.
    Ratio,
    /// `latency`.
    Latency,
}

impl Cause {
    /// All.
    pub const ALL: [Self; 3] = [Self::Run, Self::Ratio, Self::Latency];

    /// As label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "consecutive-errors",
            Self::Ratio => "error-ratio",
            Self::Latency => "latency",
        }
    }
}

/// What changes; `at` is a place in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It takes nothing new for a time.
    Eject {
        /// Who.
        at: usize,
        /// For how long.
        time: Duration,
        /// Why.
        cause: Cause,
        /// The same in words: `outlier: 5 errors in a row`.
        reason: String,
    },
    /// It may again.
    Return {
        /// Who.
        at: usize,
    },
    /// It would have been taken out, and is one too many or the last.
    Spare {
        /// Who.
        at: usize,
    },
}

/// What stands against one: what goes on elsewhere, or by another policy, goes on from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How often it was taken out, of what still makes the next time longer.
    pub ejections: u32,
    /// When it was taken out, or came back.
    pub since: Instant,
    /// When it may come back; `None`: it has.
    pub until: Option<Instant>,
}

/// One pool.
#[derive(Debug)]
pub struct Outliers {
    policy: Outlier,
    places: Vec<Place>,
    /// When the current part of the window began.
    part_began: Instant,
    part: usize,
}

#[derive(Debug)]
struct Place {
    seen: Vec<Seen>,
    /// Errors in a row over all workers.
    run: u64,
    window: [Part; PARTS],
    state: State,
    /// Ejections that still make the next one longer.
    ejections: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: Tally,
    run: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    answers: u64,
    errors: u64,
    answer_us: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    In { since: Instant },
    Ejected { since: Instant, until: Instant },
}

impl Outliers {
    /// For a pool of `backends` that `workers` serve.
    pub fn new(policy: Outlier, backends: usize, workers: usize, now: Instant) -> Self {
        let places = (0..backends).map(|_| Place::new(workers, now)).collect();
        Self { policy, places, part_began: now, part: 0 }
    }

    /// What stands against one; `None`: nothing.
    pub fn standing(&self, at: usize) -> Option<Standing> {
        let place = self.places.get(at)?;
        match place.state {
            State::In { .. } if place.ejections == 0 => None,
            State::In { since } => Some(Standing { ejections: place.ejections, since, until: None }),
            State::Ejected { since, until } => {
                Some(Standing { ejections: place.ejections, since, until: Some(until) })
            }
        }
    }

    /// That stands against one from now on. Who is out comes back as everybody does.
    pub fn resume(&mut self, at: usize, standing: Standing) {
        let Some(place) = self.places.get_mut(at) else { return };
        let Standing { ejections, since, until } = standing;
        place.ejections = ejections;
        place.state = until.map_or(State::In { since }, |until| State::Ejected { since, until });
    }

    /// So many workers serve it from now on, no fewer than before; those that come have counted nothing.
    pub fn widen(&mut self, workers: usize) {
        self.places.iter_mut().for_each(|place| place.seen.resize(workers, Seen::default()));
    }

    /// Other backends: for each place where it was before; `None` is new, and what was counted of it before is forgotten.
    /// Those that stay are as they were.
    pub fn take_over(
        &mut self,
        places: &[Option<usize>],
        workers: usize,
        tally: impl Fn(usize, usize) -> Tally,
        now: Instant,
    ) {
        let mut before: Vec<_> = self.places.drain(..).map(Some).collect();
        let place = |(at, was): (usize, &Option<usize>)| {
            was.and_then(|was| before.get_mut(was)?.take()).unwrap_or_else(|| {
                let mut place = Place::new(workers, now);
                place.take_in(|worker| tally(at, worker), 0);
                place.forget();
                place
            })
        };
        self.places = places.iter().enumerate().map(place).collect();
    }

    /// Takes in what the workers have counted since they began: `tally(place, worker)`. `is_up` says who is up by active
    /// checks.
    pub fn handle(
        &mut self,
        tally: impl Fn(usize, usize) -> Tally,
        is_up: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Vec<Change> {
        self.turn_window(now);
        let mut changes = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            place.take_in(|worker| tally(at, worker), self.part);
            match place.state {
                State::Ejected { until, .. } if now >= until => {
                    place.begin_anew(now);
                    changes.push(Change::Return { at });
                }
                State::In { since } if now.saturating_duration_since(since) >= self.policy.ejection_max => {
                    place.ejections = 0;
                }
                _ => {}
            }
        }
        for at in 0..self.places.len() {
            if matches!(self.places[at].state, State::Ejected { .. }) || !is_up(at) {
                continue;
            }
            let Some((cause, reason)) = self.fault(at) else { continue };
            if !self.may_go(at, &is_up) {
                // Until it has erred as much again.
                self.places[at].forget();
                changes.push(Change::Spare { at });
                continue;
            }
            let place = &mut self.places[at];
            place.ejections = place.ejections.saturating_add(1);
            let time = self.policy.ejection.saturating_mul(place.ejections).min(self.policy.ejection_max);
            place.state = State::Ejected { since: now, until: now + time };
            changes.push(Change::Eject { at, time, cause, reason });
        }
        changes
    }

    /// Whether one more may be out, and another one is of use.
    fn may_go(&self, at: usize, is_up: &impl Fn(usize) -> bool) -> bool {
        let is_in = |place: &Place| matches!(place.state, State::In { .. });
        let ejected = self.places.iter().filter(|place| !is_in(place)).count();
        let max = (self.places.len() * self.policy.max_ejected_percent as usize / 100).max(1);
        let others = self.places.iter().enumerate().filter(|(other, _)| *other != at);
        ejected < max && others.into_iter().any(|(other, place)| is_in(place) && is_up(other))
    }

    fn fault(&self, at: usize) -> Option<(Cause, String)> {
        let (policy, place) = (&self.policy, &self.places[at]);
        if policy.consecutive_errors > 0 && place.run >= u64::from(policy.consecutive_errors) {
            return Some((Cause::Run, format!("outlier: {} errors in a row", place.run)));
        }
        let Part { answers, errors, .. } = place.whole();
        let all = answers + errors;
        if all < u64::from(policy.requests.max(1)) {
            return None;
        }
        if let Some(limit) = policy.error_percent
            && errors * 100 >= all * u64::from(limit)
        {
            let window = policy.window;
            return Some((Cause::Ratio, format!("outlier: {errors} of {all} failed within {window:?}")));
        }
        let (limit, mean) = (policy.latency_tenths?, self.latency(at)?);
        let others = self.median_besides(at)?;
        let is_out = mean >= LATENCY_MIN && mean.as_micros() * 10 > others.as_micros() * u128::from(limit);
        is_out.then(|| {
            let text = format!(
                "outlier: {} ms to an answer, the others {} ms",
                mean.as_millis(),
                others.as_millis()
            );
            (Cause::Latency, text)
        })
    }

    /// Mean within the window, where enough was answered.
    fn latency(&self, at: usize) -> Option<Duration> {
        let Part { answers, answer_us, .. } = self.places[at].whole();
        let is_enough = answers >= u64::from(self.policy.requests.max(1));
        is_enough.then(|| Duration::from_micros(answer_us / answers))
    }

    fn median_besides(&self, at: usize) -> Option<Duration> {
        let others = (0..self.places.len()).filter(|other| *other != at);
        let mut means: Vec<Duration> = others.filter_map(|other| self.latency(other)).collect();
        means.sort_unstable();
        means.get(means.len() / 2).copied()
    }

    fn turn_window(&mut self, now: Instant) {
        let length = (self.policy.window / PARTS as u32).max(Duration::from_millis(1));
        for _ in 0..PARTS {
            if now.saturating_duration_since(self.part_began) < length {
                return;
            }
            self.part_began += length;
            self.part = (self.part + 1) % PARTS;
            self.places.iter_mut().for_each(|place| place.window[self.part] = Part::default());
        }
        // All of it has gone by.
        self.part_began = now;
    }
}

impl Place {
    /// What came since the last time. While ejected, what was under way counts for nothing.
    fn new(workers: usize, now: Instant) -> Self {
        Self {
            seen: vec![Seen::default(); workers],
            run: 0,
            window: [Part::default(); PARTS],
            state: State::In { since: now },
            ejections: 0,
        }
    }

    fn take_in(&mut self, tally: impl Fn(usize) -> Tally, part: usize) {
        let is_in = matches!(self.state, State::In { .. });
        let mut sum = Part::default();
        for (worker, seen) in self.seen.iter_mut().enumerate() {
            let now = tally(worker);
            let answers = now.answers.saturating_sub(seen.last.answers);
            let errors = now.errors.saturating_sub(seen.last.errors);
            seen.run = if answers == 0 { seen.run + errors } else { now.run };
            sum.answers += answers;
            sum.errors += errors;
            sum.answer_us += now.answer_us.saturating_sub(seen.last.answer_us);
            seen.last = now;
        }
        if !is_in {
            return;
        }
        let longest = self.seen.iter().map(|seen| seen.run).max().unwrap_or(0);
        self.run = if sum.answers == 0 { (self.run + sum.errors).max(longest) } else { longest };
        let part = &mut self.window[part];
        part.answers += sum.answers;
        part.errors += sum.errors;
        part.answer_us += sum.answer_us;
    }

    fn whole(&self) -> Part {
        self.window.iter().fold(Part::default(), |whole, part| Part {
            answers: whole.answers + part.answers,
            errors: whole.errors + part.errors,
            answer_us: whole.answer_us + part.answer_us,
        })
    }

    fn forget(&mut self) {
        self.run = 0;
        self.seen.iter_mut().for_each(|seen| seen.run = 0);
        self.window = [Part::default(); PARTS];
    }

    fn begin_anew(&mut self, now: Instant) {
        self.forget();
        self.state = State::In { since: now };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(200);

    /// A pool of which every tick adds to the tallies.
    struct Bench {
        outliers: Outliers,
        tallies: Vec<[Tally; 2]>,
        down: Vec<usize>,
        now: Instant,
    }

    impl Bench {
        fn new(policy: Outlier, backends: usize) -> Self {
            let now = Instant::now();
            let outliers = Outliers::new(policy, backends, 2, now);
            Self { outliers, tallies: vec![Default::default(); backends], down: Vec::new(), now }
        }

        fn answers(&mut self, at: usize, worker: usize, count: u64, ms: u64) {
            let tally = &mut self.tallies[at][worker];
            tally.answers += count;
            tally.answer_us += count * ms * 1000;
            tally.run = 0;
        }

        fn errors(&mut self, at: usize, worker: usize, count: u64) {
            let tally = &mut self.tallies[at][worker];
            tally.errors += count;
            tally.run += count;
        }

        fn tick(&mut self) -> Vec<Change> {
            self.now += TICK;
            let (tallies, down) = (&self.tallies, &self.down);
            self.outliers.handle(|at, worker| tallies[at][worker], |at| !down.contains(&at), self.now)
        }

        fn ticks_until_return(&mut self) -> u32 {
            (1..10_000)
                .find(|_| self.tick().iter().any(|change| matches!(change, Change::Return { .. })))
                .unwrap()
        }
    }

    fn ejected(changes: &[Change]) -> Vec<(usize, Cause, &str)> {
        let of = |change| match change {
            &Change::Eject { at, cause, ref reason, .. } => Some((at, cause, &**reason)),
            _ => None,
        };
        changes.iter().filter_map(of).collect()
    }

    #[test]
    fn errors_in_a_row_eject_for_a_growing_time() {
        let mut bench = Bench::new(Outlier::default(), 3);
        bench.errors(1, 0, 4);
        assert_eq!(bench.tick(), []);
        bench.answers(1, 0, 1, 1);
        bench.errors(1, 0, 4);
        assert_eq!(bench.tick(), [], "an answer came between");
        bench.errors(1, 0, 1);
        assert_eq!(ejected(&bench.tick()), [(1, Cause::Run, "outlier: 5 errors in a row")]);
        bench.errors(1, 0, 50);
        assert_eq!(bench.ticks_until_return(), 150, "30 s; what was under way counts for nothing");
        assert_eq!(bench.tick(), []);
        bench.errors(1, 1, 3);
        bench.errors(1, 0, 2);
        assert_eq!(ejected(&bench.tick()).len(), 1, "of two workers, with no answer between");
        assert_eq!(bench.ticks_until_return(), 300);
        for _ in 0..1500 {
            assert_eq!(bench.tick(), []);
        }
        bench.errors(1, 0, 5);
        assert_eq!(ejected(&bench.tick()).len(), 1);
        assert_eq!(bench.ticks_until_return(), 150, "after five good minutes it begins anew");
    }

    #[test]
    fn a_worker_that_comes_is_looked_at_and_what_was_seen_stays() {
        let now = Instant::now();
        let mut bench = Bench::new(Outlier::default(), 2);
        bench.outliers = Outliers::new(Outlier::default(), 2, 1, now);
        bench.errors(1, 0, 3);
        bench.errors(1, 1, 2);
        assert_eq!(bench.tick(), [], "nobody looks at the second");
        bench.outliers.widen(2);
        assert_eq!(ejected(&bench.tick()), [(1, Cause::Run, "outlier: 5 errors in a row")]);
        bench.outliers.widen(2);
        assert_eq!(bench.ticks_until_return(), 150, "it stays out");
    }

    #[test]
    fn who_stays_among_others_is_as_before() {
        let mut bench = Bench::new(Outlier::default(), 2);
        bench.errors(1, 0, 5);
        assert_eq!(ejected(&bench.tick()).len(), 1);
        bench.errors(0, 0, 4);
        assert_eq!(bench.tick(), []);
        // The ejected one comes first now; behind it one whose numbers were another's, who left; then the other.
        let mut used = [Tally::default(); 2];
        used[0] = Tally { errors: 100, run: 100, ..Tally::default() };
        bench.tallies = vec![bench.tallies[1], used, bench.tallies[0]];
        let (tallies, now) = (bench.tallies.clone(), bench.now);
        bench.outliers.take_over(&[Some(1), None, Some(0)], 2, |at, worker| tallies[at][worker], now);
        assert_eq!(bench.tick(), [], "what was another's counts for nothing");
        bench.errors(2, 0, 1);
        assert_eq!(bench.tick(), [Change::Spare { at: 2 }], "one of three is out already");
        let changes = (0..1000).find_map(|_| Some(bench.tick()).filter(|changes| !changes.is_empty()));
        assert_eq!(changes, Some(vec![Change::Return { at: 0 }]));
    }

    #[test]
    fn what_stands_against_one_goes_on_elsewhere() {
        let mut bench = Bench::new(Outlier::default(), 3);
        bench.errors(1, 0, 5);
        assert_eq!(ejected(&bench.tick()).len(), 1);
        for _ in 0..50 {
            bench.tick();
        }
        let mut other = Bench::new(Outlier::default(), 3);
        other.now = bench.now;
        assert_eq!((bench.outliers.standing(0), other.outliers.standing(1)), (None, None));
        other.outliers.resume(1, bench.outliers.standing(1).unwrap());
        assert_eq!(other.outliers.standing(1), bench.outliers.standing(1));
        other.errors(1, 0, 9);
        assert_eq!(other.ticks_until_return(), 100, "what is left of 30 s");
        assert_eq!(bench.ticks_until_return(), 100);

        // It is in again, and what was before still counts: for less than five minutes.
        let returned = bench.outliers.standing(1).unwrap();
        assert_eq!((returned.ejections, returned.since, returned.until), (1, bench.now, None));
        for (ticks, expected) in [(1400, 300), (1600, 150)] {
            let mut other = Bench::new(Outlier::default(), 3);
            other.now = bench.now;
            other.outliers.resume(1, returned);
            for _ in 0..ticks {
                assert_eq!(other.tick(), []);
            }
            other.errors(1, 0, 5);
            assert_eq!(ejected(&other.tick()).len(), 1);
            assert_eq!(other.ticks_until_return(), expected, "{ticks}");
        }
    }

    #[test]
    fn a_run_of_one_worker_counts_whatever_others_meet() {
        let mut bench = Bench::new(Outlier::default(), 2);
        bench.errors(0, 0, 5);
        bench.answers(0, 1, 100, 1);
        assert_eq!(ejected(&bench.tick()).len(), 1);
    }

    #[test]
    fn a_ratio_needs_enough_requests_within_the_window() {
        let policy = Outlier { consecutive_errors: 0, error_percent: Some(50), ..Outlier::default() };
        let mut bench = Bench::new(policy, 2);
        bench.errors(0, 0, 10);
        bench.answers(0, 0, 9, 1);
        assert_eq!(bench.tick(), [], "19 are too few");
        for _ in 0..60 {
            assert_eq!(bench.tick(), []);
        }
        bench.answers(0, 0, 1, 1);
        assert_eq!(bench.tick(), [], "the others are long ago");
        bench.answers(0, 0, 10, 1);
        bench.errors(0, 0, 11);
        assert_eq!(ejected(&bench.tick()), [(0, Cause::Ratio, "outlier: 11 of 22 failed within 10s")]);
    }

    #[test]
    fn who_is_slow_beside_the_others_is_ejected() {
        let policy = Outlier { latency_tenths: Some(30), ..Outlier::default() };
        let mut bench = Bench::new(policy, 4);
        for at in 0..4 {
            bench.answers(at, 0, 20, if at == 2 { 61 } else { 20 });
        }
        let expected = (2, Cause::Latency, "outlier: 61 ms to an answer, the others 20 ms");
        assert_eq!(ejected(&bench.tick()), [expected]);
        let policy = Outlier { latency_tenths: Some(30), ..Outlier::default() };
        let mut bench = Bench::new(policy, 2);
        bench.answers(0, 0, 20, 9);
        bench.answers(1, 0, 20, 1);
        assert_eq!(bench.tick(), [], "9 ms are nobody's fault");
    }

    #[test]
    fn the_last_one_is_spared_and_so_is_one_too_many() {
        let mut bench = Bench::new(Outlier::default(), 3);
        bench.down.push(0);
        bench.errors(0, 0, 9);
        bench.errors(1, 0, 9);
        bench.errors(2, 0, 9);
        let changes = bench.tick();
        assert_eq!(ejected(&changes).iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [1]);
        assert!(changes.contains(&Change::Spare { at: 2 }));
        assert_eq!(bench.tick(), [], "said once");
        bench.errors(2, 0, 4);
        assert_eq!(bench.tick(), []);
    }

    proptest! {
        #[test]
        fn never_too_many_are_out(
            backends in 1usize..6,
            percent in 0u32..101,
            steps in proptest::collection::vec((0usize..6, 0u64..8, 0u64..3), 1..200),
        ) {
            let policy = Outlier {
                max_ejected_percent: percent,
                error_percent: Some(30),
                ejection: Duration::from_secs(1),
                ..Outlier::default()
            };
            let mut bench = Bench::new(policy, backends);
            let mut out = std::collections::BTreeSet::new();
            for (at, errors, answers) in steps {
                bench.errors(at % backends, 0, errors);
                if answers > 0 {
                    bench.answers(at % backends, 1, answers, 1);
                }
                for change in bench.tick() {
                    match change {
                        Change::Eject { at, time, .. } => {
                            prop_assert!(out.insert(at));
                            prop_assert!(time >= Duration::from_secs(1) && time <= Duration::from_secs(300));
                        }
                        Change::Return { at } => prop_assert!(out.remove(&at)),
                        Change::Spare { .. } => {}
                    }
                }
                let max = (backends * percent as usize / 100).max(1);
                prop_assert!(out.len() <= max && out.len() < backends);
            }
        }
    }
}
