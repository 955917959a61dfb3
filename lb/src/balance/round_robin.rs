//! Smooth weighted round robin over the backends of one pool, one per pool and worker.
//!
//! Each pick adds every candidate's share to its credit, takes the one with the most credit, and charges it
//! the sum. A heavy backend's turns are spread over the round instead of coming in a row, and one that is no
//! candidate now neither earns credit nor spends it, so its return starts no burst.
//! Source: nginx commit 52327e0627f4, "Upstream: smooth weighted round-robin balancing", 2012.

use super::standing::Standing;

/// Credits, by place in the pool. A pick allocates nothing.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    credits: Box<[i64]>,
}

impl RoundRobin {
    /// Nobody is ahead.
    pub fn new(places: usize) -> Self {
        Self { credits: vec![0; places].into() }
    }

    /// Skips `picks`, so that workers do not all begin with the same backend.
    #[must_use]
    pub fn skip(mut self, picks: usize, standing: &impl Standing) -> Self {
        for _ in 0..picks {
            self.next(standing);
        }
        self
    }

    /// The next candidate in turn, by its place; `None` when there is none.
    #[inline]
    pub fn next(&mut self, standing: &impl Standing) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (at, credit) in self.credits.iter_mut().enumerate() {
            let share = i64::from(standing.share(at));
            if share == 0 {
                continue;
            }
            total += share;
            *credit += share;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((at, *credit));
            }
        }
        let (at, _) = best?;
        self.credits[at] -= total;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::standing::{WHOLE, tests::Bench};

    fn picks(robin: &mut RoundRobin, bench: &Bench, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| robin.next(bench)).collect()
    }

    #[test]
    fn heavy_turns_are_spread() {
        assert_eq!(picks(&mut RoundRobin::new(3), &Bench::of(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_is_none() {
        assert_eq!(RoundRobin::new(0).next(&Bench::of(&[])), None);
        assert_eq!(RoundRobin::new(2).next(&Bench::of(&[0, 0])), None);
    }

    #[test]
    fn workers_begin_apart() {
        let bench = Bench::of(&[1, 1, 1]);
        let first = |worker| RoundRobin::new(3).skip(worker, &bench).next(&bench);
        assert_eq!([first(0), first(1), first(2)], [Some(0), Some(1), Some(2)]);
    }

    proptest! {
        #[test]
        fn a_round_honours_weights_exactly(weights in proptest::collection::vec(0u16..20, 1..20), rounds in 1usize..4) {
            let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            let mut counts = vec![0usize; weights.len()];
            let mut robin = RoundRobin::new(weights.len());
            picks(&mut robin, &Bench::of(&weights), total * rounds).into_iter().for_each(|at| counts[at] += 1);
            prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *count == usize::from(*weight) * rounds));
        }

        #[test]
        fn absence_earns_no_burst(weights in proptest::collection::vec(1u16..10, 2..10), away in 0usize..200) {
            let (mut robin, mut bench) = (RoundRobin::new(weights.len()), Bench::of(&weights));
            bench.0[0].0 = 0;
            picks(&mut robin, &bench, away);
            bench.0[0].0 = u32::from(weights[0]) * WHOLE;
            let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            let got = picks(&mut robin, &bench, total).into_iter().filter(|at| *at == 0).count();
            prop_assert!(got <= usize::from(weights[0]) + 1);
        }
    }
}
