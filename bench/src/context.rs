//! What a scenario is run with: its subjects, its pace, and the loop over rounds.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    budget::{Depth, Pace},
    interrupt::check_interrupted,
    named::Named,
    peers::Subject,
    sample::{Sample, Samples},
    topology::Wiring,
};

/// What one run of one scenario has.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Name of the scenario, for what is shown meanwhile.
    pub(crate) scenario: &'static str,
    /// How thoroughly to measure.
    pub(crate) depth: Depth,
    /// Rounds and lengths, as the budget and the command line say.
    pub(crate) pace: Pace,
    /// Those of the scenario's subjects that were asked for and are installed.
    pub(crate) subjects: Vec<Subject>,
    /// How client, subject and backend are connected.
    pub(crate) wiring: Wiring,
    /// An empty directory for configs, sockets and logs; removed afterwards.
    pub(crate) directory: &'a Path,
    /// What was found.
    pub(crate) samples: Samples,
    /// When the scenario began.
    pub(crate) started: Instant,
}

impl Context<'_> {
    /// Shows what is going on.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        eprintln!("{:>6.1} s  {}: {text}", self.started.elapsed().as_secs_f64(), self.scenario);
    }

    /// Whether there is time for more than the main question.
    pub(crate) fn is_full(&self) -> bool {
        self.depth == Depth::Full
    }

    /// Calls `sample` for every subject in every round, in reversed order in every second one, and keeps what it
    /// gives.
    ///
    /// A failed sample is void: it is taken once more, and then left out of this round with a note that says
    /// why. No round is begun that is not likely to end within the limit, but the first always is.
    ///
    /// # Errors
    /// Interrupted, or no sample at all succeeded.
    pub(crate) fn rounds<S: Named>(
        &mut self,
        subjects: &[S],
        sample: impl FnMut(&S) -> Result<Sample>,
    ) -> Result<()> {
        self.some_rounds(self.pace.rounds, subjects, sample)
    }

    /// The same for a number of rounds of its own.
    ///
    /// # Errors
    /// As [`Context::rounds`].
    pub(crate) fn some_rounds<S: Named>(
        &mut self,
        rounds: usize,
        subjects: &[S],
        mut sample: impl FnMut(&S) -> Result<Sample>,
    ) -> Result<()> {
        let mut longest = Duration::ZERO;
        let mut kept = 0;
        for round in 0..rounds {
            if round > 0 && self.started.elapsed() + longest > self.pace.limit {
                let text = format!("{round} of {rounds} rounds: the time budget was used up");
                self.samples.note(text);
                break;
            }
            let began = Instant::now();
            let mut order: Vec<&S> = subjects.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                kept += usize::from(self.sample(round, subject, &mut sample)?);
            }
            longest = longest.max(began.elapsed());
        }
        if kept == 0 {
            bail!("not one valid run");
        }
        Ok(())
    }

    fn sample<S: Named>(
        &mut self,
        round: usize,
        subject: &S,
        sample: &mut impl FnMut(&S) -> Result<Sample>,
    ) -> Result<bool> {
        let name = subject.name();
        for attempt in ["once more", "left out"] {
            let result = sample(subject);
            check_interrupted()?;
            match result {
                Ok(found) => {
                    self.say(format_args!("round {}, {name}: {found}", round + 1));
                    self.samples.record(round, &name, found);
                    return Ok(true);
                }
                Err(error) => {
                    let text = format!("{name}: round {} is void ({attempt}): {error:#}", round + 1);
                    self.say(&text);
                    self.samples.note(text);
                }
            }
        }
        self.samples.void += 1;
        Ok(false)
    }
}
