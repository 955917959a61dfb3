//! A backend by lot, in proportion to shares.

use super::{
    generator::Generator,
    standing::{Standing, WHOLE},
};

/// Lots that may fall on nobody before shares are added up: with half of a pool down, one choice in 256 comes so far.
const TRIES_MAX: u32 = 8;

/// The weights of a pool, laid end to end: a lot finds its place by binary search, and falls on nobody where that
/// place has less than its whole share now. So a draw does not look at every backend.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Sums of weights up to and including each place.
    ends: Box<[u64]>,
}

impl Draw {
    /// One place for each weight.
    pub fn new(weights: impl Iterator<Item = u16>) -> Self {
        let mut sum = 0;
        let add = |weight| {
            sum += u64::from(weight);
            sum
        };
        Self { ends: weights.map(add).collect() }
    }

    /// A candidate other than `besides`, by lot; `None` when there is none.
    pub fn draw(
        &self,
        standing: &impl Standing,
        besides: Option<usize>,
        generator: &mut Generator,
    ) -> Option<usize> {
        let whole = u64::from(WHOLE);
        let all = *self.ends.last()? * whole;
        for _ in 0..TRIES_MAX {
            let lot = generator.below(all);
            let at = self.ends.partition_point(|end| end * whole <= lot);
            let start = if at == 0 { 0 } else { self.ends[at - 1] * whole };
            if Some(at) != besides && lot - start < u64::from(standing.share(at)) {
                return Some(at);
            }
        }
        let places = || (0..self.ends.len()).filter(|at| Some(*at) != besides);
        let share = |at: usize| u64::from(standing.share(at));
        let mut lot = generator.below(places().map(share).sum());
        places().find(|at| match lot.checked_sub(share(*at)) {
            Some(rest) => {
                lot = rest;
                false
            }
            None => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::standing::tests::Bench;

    /// How often each place is drawn in `draws`.
    pub(super) fn counts(bench: &Bench, weights: &[u16], besides: Option<usize>, draws: u32) -> Vec<u32> {
        let draw = Draw::new(weights.iter().copied());
        let mut generator = Generator::new(7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..draws {
            if let Some(at) = draw.draw(bench, besides, &mut generator) {
                counts[at] += 1;
            }
        }
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whoever is down, half started or left out: draws follow shares, by both ways of drawing.
        #[test]
        fn draws_follow_shares(
            places in proptest::collection::vec((1u16..20, 0u32..=4), 1..12),
            besides in proptest::option::of(0usize..12),
        ) {
            let weights: Vec<u16> = places.iter().map(|(weight, _)| *weight).collect();
            let shares: Vec<(u32, u64)> =
                places.iter().map(|(weight, quarters)| (u32::from(*weight) * WHOLE / 4 * quarters, 0)).collect();
            let bench = Bench(shares);
            let draws = 20_000;
            let counts = counts(&bench, &weights, besides, draws);
            let share = |at: usize| if Some(at) == besides { 0.0 } else { f64::from(bench.0[at].0) };
            let total: f64 = (0..weights.len()).map(share).sum();
            for (at, count) in counts.iter().enumerate() {
                let expected = if total == 0.0 { 0.0 } else { f64::from(draws) * share(at) / total };
                let most = 5.0 * expected.sqrt() + 1.0;
                prop_assert!((f64::from(*count) - expected).abs() <= most, "place {at}: {count} of {expected}");
            }
        }
    }

    #[test]
    fn the_last_of_many_is_found() {
        let mut bench = Bench::of(&[1; 1000]);
        bench.0.iter_mut().for_each(|(share, _)| *share = 0);
        assert!(counts(&bench, &[1; 1000], None, 50).iter().all(|count| *count == 0));
        bench.0[777].0 = 1;
        assert_eq!(counts(&bench, &[1; 1000], None, 50)[777], 50);
    }
}
