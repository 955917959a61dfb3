//! Smooth weighted round robin over the backends of one pool, one per pool and worker.
//!
//! Each pick adds every candidate's weight to its credit, takes the one with the most credit, and charges it
//! the sum. A heavy backend's turns are spread over the round instead of coming in a row, and one that is no
//! candidate now neither earns credit nor spends it, so its return starts no burst.
//! Source: nginx commit 52327e0627f4, "Upstream: smooth weighted round-robin balancing", 2012.

/// Attempts one exchange or connection may make, over all backends.
pub const ATTEMPTS_MAX: usize = 8;

/// Weights and credits, by place in the pool. A pick allocates nothing.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    weight: i64,
    credit: i64,
}

impl RoundRobin {
    /// One entry per weight; weight 0 is never picked.
    pub fn new(weights: impl Iterator<Item = u16>) -> Self {
        Self { entries: weights.map(|weight| Entry { weight: i64::from(weight), credit: 0 }).collect() }
    }

    /// Skips `picks`, so that workers do not all begin with the same backend.
    #[must_use]
    pub fn skip(mut self, picks: usize) -> Self {
        for _ in 0..picks {
            self.next(|_| true);
        }
        self
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next backend, by its place, among those that `is_candidate`; `None` when there is none.
    #[inline]
    pub fn next(&mut self, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if entry.weight == 0 || !is_candidate(at) {
                continue;
            }
            total += entry.weight;
            entry.credit += entry.weight;
            if best.is_none_or(|(_, credit)| entry.credit > credit) {
                best = Some((at, entry.credit));
            }
        }
        let (at, _) = best?;
        self.entries[at].credit -= total;
        Some(at)
    }

    /// The next backend after a failure: as [`RoundRobin::next`], without those already `tried`.
    #[inline]
    pub fn next_untried(&mut self, tried: &Tried, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        self.next(|at| !tried.contains(at) && is_candidate(at))
    }
}

/// Backends that failed this exchange or connection already, by place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    places: [u16; ATTEMPTS_MAX],
    len: u8,
}

impl Tried {
    /// Remembers a failed one. False when [`ATTEMPTS_MAX`] are remembered: try no further.
    #[must_use]
    pub fn insert(&mut self, at: usize) -> bool {
        let Some(place) = self.places.get_mut(usize::from(self.len)) else { return false };
        let Ok(at) = u16::try_from(at) else { return false };
        *place = at;
        self.len += 1;
        true
    }

    /// Whether it failed already.
    #[inline]
    pub fn contains(&self, at: usize) -> bool {
        self.places[..usize::from(self.len)].iter().any(|&place| usize::from(place) == at)
    }

    /// How many failed.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether this is the first attempt.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(robin: &mut RoundRobin, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| robin.next(|_| true)).collect()
    }

    #[test]
    fn heavy_turns_are_spread() {
        let mut robin = RoundRobin::new([5, 1, 1].into_iter());
        assert_eq!(picks(&mut robin, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_is_none() {
        assert_eq!(RoundRobin::new([].into_iter()).next(|_| true), None);
        assert_eq!(RoundRobin::new([0].into_iter()).next(|_| true), None);
        assert_eq!(RoundRobin::new([1, 1].into_iter()).next(|_| false), None);
    }

    #[test]
    fn workers_begin_apart() {
        let first = |worker| RoundRobin::new([1, 1, 1].into_iter()).skip(worker).next(|_| true);
        assert_eq!([first(0), first(1), first(2)], [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_failed_one_is_not_tried_again() {
        let mut robin = RoundRobin::new([9, 1, 1].into_iter());
        let mut tried = Tried::default();
        let mut order = Vec::new();
        while let Some(at) = robin.next_untried(&tried, |_| true) {
            order.push(at);
            assert!(tried.insert(at));
        }
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn attempts_are_bounded() {
        let mut tried = Tried::default();
        assert!((0..ATTEMPTS_MAX).all(|at| tried.insert(at)));
        assert!(!tried.insert(ATTEMPTS_MAX));
    }

    proptest! {
        #[test]
        fn a_round_honours_weights_exactly(weights in proptest::collection::vec(0u16..20, 1..20), rounds in 1usize..4) {
            let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            let mut robin = RoundRobin::new(weights.iter().copied());
            let mut counts = vec![0usize; weights.len()];
            picks(&mut robin, total * rounds).into_iter().for_each(|at| counts[at] += 1);
            prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *count == usize::from(*weight) * rounds));
        }

        #[test]
        fn absence_earns_no_burst(weights in proptest::collection::vec(1u16..10, 2..10), away in 0usize..200) {
            let mut robin = RoundRobin::new(weights.iter().copied());
            for _ in 0..away {
                robin.next(|at| at != 0);
            }
            let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            let got = picks(&mut robin, total).into_iter().filter(|at| *at == 0).count();
            prop_assert!(got <= usize::from(weights[0]) + 1);
        }
    }
}
