//! Signals as events, and what each means at which time.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
    /// SIGUSR1: the access log was renamed.
    ReopenLog,
    /// Another process takes what is new; what is here may take so long.
    HandOver(Duration),
}

/// Listens from now on; the thread ends with the process. Others may wish something, too.
///
/// # Errors
/// The handlers or the thread cannot be made.
pub(super) fn listen() -> io::Result<(flume::Sender<Wish>, flume::Receiver<Wish>)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    let (sender, receiver) = flume::unbounded();
    let others = sender.clone();
    thread::Builder::new().name("lb-signals".into()).spawn(move || {
        for signal in signals.forever() {
            let wish = match signal {
                SIGHUP => Wish::Reload,
                SIGUSR1 => Wish::ReopenLog,
                _ => Wish::End,
            };
            if sender.send(wish).is_err() {
                return;
            }
        }
    })?;
    Ok((others, receiver))
}

/// ```text
///  Serving --End--> Draining --End, or deadline--> Stopping
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes whatever comes.
    Serving,
    /// Takes nothing new.
    Draining {
        /// When patience ends.
        deadline: Instant,
    },
    /// Ends at once.
    Stopping,
}

/// What a wish changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin to drain.
    Drain {
        /// When patience ends.
        deadline: Instant,
    },
    /// Leave what is new to another process.
    HandOver {
        /// When patience ends.
        deadline: Instant,
    },
    /// End at once.
    Stop,
    /// Apply the config file anew.
    Reload,
    /// Open the access log anew.
    ReopenLog,
}

impl Phase {
    /// Takes in a wish; `patience` is how long a drain may last.
    pub(super) fn handle(&mut self, wish: Wish, now: Instant, patience: Duration) -> Option<Step> {
        match (*self, wish) {
            (Self::Stopping, _) => None,
            (Self::Serving, Wish::Reload) => Some(Step::Reload),
            // Whoever ends takes over nothing.
            (Self::Draining { .. }, Wish::Reload) => None,
            (_, Wish::ReopenLog) => Some(Step::ReopenLog),
            (Self::Serving, Wish::End) => {
                let deadline = now + patience;
                *self = Self::Draining { deadline };
                Some(Step::Drain { deadline })
            }
            (Self::Serving, Wish::HandOver(patience)) => {
                let deadline = now + patience;
                *self = Self::Draining { deadline };
                Some(Step::HandOver { deadline })
            }
            (Self::Draining { .. }, Wish::HandOver(_)) => None,
            (Self::Draining { .. }, Wish::End) => {
                *self = Self::Stopping;
                Some(Step::Stop)
            }
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        match *self {
            Self::Draining { deadline } if now >= deadline => {
                *self = Self::Stopping;
                Some(Step::Stop)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn the_first_end_drains_and_the_second_stops() {
        let now = Instant::now();
        let mut phase = Phase::Serving;
        assert_eq!(phase.handle(Wish::Reload, now, PATIENCE), Some(Step::Reload));
        assert_eq!(phase.handle(Wish::End, now, PATIENCE), Some(Step::Drain { deadline: now + PATIENCE }));
        assert_eq!(phase.handle_timeout(now), None);
        assert_eq!(phase.handle(Wish::End, now, PATIENCE), Some(Step::Stop));
        assert_eq!(phase.handle(Wish::End, now, PATIENCE), None);
    }

    #[test]
    fn whoever_hands_over_has_another_patience_and_stops_at_the_first_end() {
        let (now, long) = (Instant::now(), 10 * PATIENCE);
        let mut phase = Phase::Serving;
        let step = phase.handle(Wish::HandOver(long), now, PATIENCE);
        assert_eq!(step, Some(Step::HandOver { deadline: now + long }));
        assert_eq!(phase.handle_timeout(now + PATIENCE), None);
        assert_eq!(phase.handle(Wish::HandOver(long), now, PATIENCE), None);
        assert_eq!(phase.handle(Wish::End, now, PATIENCE), Some(Step::Stop));
    }

    #[test]
    fn patience_ends() {
        let now = Instant::now();
        let mut phase = Phase::Serving;
        phase.handle(Wish::End, now, PATIENCE);
        assert_eq!(phase.handle_timeout(now + PATIENCE), Some(Step::Stop));
        assert_eq!(phase, Phase::Stopping);
    }
}
