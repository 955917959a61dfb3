//! When enough answers in a row become a verdict.
//!
//! ```text
//!           failure (fall times in a row)
//!      Up ---------------------------------> Down
//!       ^                                      |
//!       +---------- success (rise in a row) ---+
//! ```

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered as it should, in time.
    Success,
    /// Refused, unreachable, wrong or silent.
    Failure,
}

/// Whether new work may go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Up,
    /// It may not.
    Down,
}

/// Counts outcomes in a row.
#[derive(Clone, Copy, Debug)]
pub struct RiseFall {
    fall: u32,
    rise: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Up { failures: u32 },
    Down { successes: u32 },
}

impl RiseFall {
    /// `fall` failures in a row until down, `rise` successes in a row until up; 0 counts as 1.
    ///
    /// `initial` is up where nothing is known: a start must not fail traffic that no probe has judged yet.
    pub fn new(fall: u32, rise: u32, initial: Verdict) -> Self {
        let state = match initial {
            Verdict::Up => State::Up { failures: 0 },
            Verdict::Down => State::Down { successes: 0 },
        };
        Self { fall: fall.max(1), rise: rise.max(1), state }
    }

    /// Takes in one outcome; the verdict where it changed.
    pub fn handle(&mut self, outcome: Outcome) -> Option<Verdict> {
        let (state, verdict) = match (self.state, outcome) {
            (State::Up { .. }, Outcome::Success) => (State::Up { failures: 0 }, None),
            (State::Up { failures }, Outcome::Failure) if failures + 1 >= self.fall => {
                (State::Down { successes: 0 }, Some(Verdict::Down))
            }
            (State::Up { failures }, Outcome::Failure) => (State::Up { failures: failures + 1 }, None),
            (State::Down { .. }, Outcome::Failure) => (State::Down { successes: 0 }, None),
            (State::Down { successes }, Outcome::Success) if successes + 1 >= self.rise => {
                (State::Up { failures: 0 }, Some(Verdict::Up))
            }
            (State::Down { successes }, Outcome::Success) => (State::Down { successes: successes + 1 }, None),
        };
        self.state = state;
        verdict
    }

    /// How many outcomes in a row speak against the verdict, and how many change it.
    pub fn run(&self) -> (u32, u32) {
        match self.state {
            State::Up { failures } => (failures, self.fall),
            State::Down { successes } => (successes, self.rise),
        }
    }

    /// The verdict that holds.
    pub fn verdict(&self) -> Verdict {
        match self.state {
            State::Up { .. } => Verdict::Up,
            State::Down { .. } => Verdict::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_success_restarts_the_count() {
        let mut machine = RiseFall::new(3, 2, Verdict::Up);
        for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure] {
            assert_eq!(machine.handle(outcome), None);
        }
        assert_eq!(machine.handle(Outcome::Failure), None);
        assert_eq!(machine.handle(Outcome::Failure), Some(Verdict::Down));
        assert_eq!(machine.handle(Outcome::Failure), None);
        assert_eq!(machine.handle(Outcome::Success), None);
        assert_eq!(machine.handle(Outcome::Failure), None);
        assert_eq!(machine.handle(Outcome::Success), None);
        assert_eq!(machine.handle(Outcome::Success), Some(Verdict::Up));
    }

    proptest! {
        /// Whatever comes, the verdict changes exactly when the run of contrary outcomes is long enough.
        #[test]
        fn agrees_with_runs(up_at_first: bool, fall in 1u32..5, rise in 1u32..5, outcomes in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut machine = RiseFall::new(fall, rise, if up_at_first { Verdict::Up } else { Verdict::Down });
            let (mut up, mut run) = (up_at_first, 0);
            for success in outcomes {
                run = if success == up { 0 } else { run + 1 };
                let expected = if run == if up { fall } else { rise } {
                    (up, run) = (!up, 0);
                    Some(if up { Verdict::Up } else { Verdict::Down })
                } else {
                    None
                };
                let outcome = if success { Outcome::Success } else { Outcome::Failure };
                prop_assert_eq!(machine.handle(outcome), expected);
                prop_assert_eq!(machine.verdict() == Verdict::Up, up);
                prop_assert_eq!(machine.run(), (run, if up { fall } else { rise }));
            }
        }
    }
}
