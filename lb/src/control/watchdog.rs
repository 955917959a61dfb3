//! Pings systemd as long as every worker turns its loop; a worker that does not is named, and the pings end, so that
//! systemd restarts the daemon.

use std::time::{Duration, Instant};

use crate::metrics::WorkerMetrics;

/// How long a worker may be busy with one turn, or asleep: it wakes about once a second by itself.
const SILENCE: Duration = Duration::from_secs(5);

/// Looks at the workers' turns. Never reads the clock.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Between two pings; `None`: nobody waits for any.
    every: Option<Duration>,
    ping_at: Instant,
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    turns: u64,
    at: Instant,
    is_stuck: bool,
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Systemd is to be pinged.
    pub(super) pings: bool,
    /// Workers that have been silent for too long since the last look.
    pub(super) stuck: Vec<usize>,
    /// Those that turn again.
    pub(super) back: Vec<usize>,
}

impl Watchdog {
    /// `limit` is how long systemd waits for a ping.
    pub(super) fn new(limit: Option<Duration>, now: Instant) -> Self {
        Self { every: limit.map(|limit| limit / 2), ping_at: now, seen: Vec::new() }
    }

    /// Looks at every worker, by its place; one that has ended is `None`. There may be more or fewer of them each time.
    pub(super) fn look<'m>(
        &mut self,
        now: Instant,
        workers: impl Iterator<Item = Option<&'m WorkerMetrics>>,
    ) -> Looked {
        let mut looked = Looked::default();
        let workers: Vec<_> = workers.collect();
        self.seen.resize(workers.len(), Seen { turns: 0, at: now, is_stuck: false });
        for ((at, seen), metrics) in self.seen.iter_mut().enumerate().zip(workers) {
            let turns = metrics.map_or(u64::MAX, |metrics| metrics.turns.value());
            if turns != seen.turns || metrics.is_none() {
                *seen = Seen { turns, at: now, ..*seen };
            }
            let silence = now.saturating_duration_since(seen.at);
            let is_stuck = silence >= SILENCE;
            if is_stuck != std::mem::replace(&mut seen.is_stuck, is_stuck) {
                if is_stuck { looked.stuck.push(at) } else { looked.back.push(at) }
            }
            if let Some(metrics) = metrics {
                metrics.stuck_seconds.set(if is_stuck { silence.as_secs() } else { 0 });
            }
        }
        if self.every.is_some() && now >= self.ping_at && self.seen.iter().all(|seen| !seen.is_stuck) {
            self.ping_at = now + self.every.unwrap_or_default();
            looked.pings = true;
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_turn_is_named_and_ends_the_pings() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let workers = [WorkerMetrics::new(), WorkerMetrics::new()];
        let mut watchdog = Watchdog::new(Some(2 * second), start);
        let mut look = |at: u32, turning: &[usize]| {
            turning.iter().for_each(|worker| workers[*worker].turns.add(1));
            watchdog.look(start + at * second, workers.iter().map(Some))
        };
        for at in 0..5 {
            assert_eq!(look(at, &[0, 1]), Looked { pings: true, ..Looked::default() }, "{at}");
        }
        // Silent for four seconds, as one may be that moves a large body.
        assert!((5..9).all(|at| look(at, &[0]) == Looked { pings: true, ..Looked::default() }));
        assert_eq!(look(9, &[0]), Looked { stuck: vec![1], ..Looked::default() });
        assert_eq!(look(10, &[0]), Looked::default(), "said once");
        assert_eq!((workers[0].stuck_seconds.value(), workers[1].stuck_seconds.value()), (0, 6));
        let back = Looked { pings: true, back: vec![1], ..Looked::default() };
        assert_eq!(look(11, &[0, 1]), back);
        assert_eq!(workers[1].stuck_seconds.value(), 0);
    }

    #[test]
    fn nobody_is_pinged_who_does_not_wait_and_whoever_has_ended_is_not_missed() {
        let (start, worker) = (Instant::now(), WorkerMetrics::new());
        let mut watchdog = Watchdog::new(None, start);
        worker.turns.add(1);
        let later = start + 2 * SILENCE;
        let looked = watchdog.look(later, [Some(&worker), None].into_iter());
        assert_eq!(looked, Looked::default());
        assert_eq!(watchdog.look(later + SILENCE, [None, None].into_iter()), Looked::default());
    }
}
