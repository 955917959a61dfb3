//! Two backends by lot, and the better of them ("power of two choices").
//! Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

use super::{draw::Draw, generator::Generator, standing::Standing};

/// The weights of a pool.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    draw: Draw,
}

impl TwoChoices {
    /// One place for each weight.
    pub fn new(weights: impl Iterator<Item = u16>) -> Self {
        Self { draw: Draw::new(weights) }
    }

    /// Of two candidates that the lot falls on, never the same twice, the one with less load for its share; the
    /// first where both have as much. `None` when there is none.
    pub fn next(&self, standing: &impl Standing, generator: &mut Generator) -> Option<usize> {
        let weigh = |at: usize| standing.load(at) as f64 / f64::from(standing.share(at).max(1));
        self.better(standing, generator, weigh)
    }

    /// The one of two for which `cost` is less.
    pub(super) fn better(
        &self,
        standing: &impl Standing,
        generator: &mut Generator,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let first = self.draw.draw(standing, None, generator)?;
        let Some(second) = self.draw.draw(standing, Some(first), generator) else { return Some(first) };
        Some(if cost(second) < cost(first) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::standing::tests::Bench;

    proptest! {
        /// The one with the most for its share is never chosen while another one is there.
        #[test]
        fn the_most_loaded_is_left_alone(
            loads in proptest::collection::vec(0u64..100, 2..20),
            seed: u64,
        ) {
            let mut bench = Bench::of(&vec![1; loads.len()]);
            bench.0.iter_mut().zip(&loads).for_each(|(place, load)| place.1 = *load);
            bench.0[0].1 = 1000;
            let choices = TwoChoices::new(std::iter::repeat_n(1, loads.len()));
            let mut generator = Generator::new(seed);
            for _ in 0..50 {
                prop_assert_ne!(choices.next(&bench, &mut generator), Some(0));
            }
        }

        /// Work that never ends settles near the weights: the gap does not grow with the work.
        #[test]
        fn loads_settle_by_weight(weights in proptest::collection::vec(1u16..6, 1..8), seed: u64) {
            let mut bench = Bench::of(&weights);
            let choices = TwoChoices::new(weights.iter().copied());
            let mut generator = Generator::new(seed);
            let rounds = 400;
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for _ in 0..total * rounds {
                let at = choices.next(&bench, &mut generator).unwrap();
                bench.0[at].1 += 1;
            }
            for ((_, load), weight) in bench.0.iter().zip(&weights) {
                let due = u64::from(*weight) * rounds;
                prop_assert!(load.abs_diff(due) <= due / 10 + 20, "{:?} for {:?}", bench.0, weights);
            }
        }
    }

    #[test]
    fn one_alone_is_taken_and_nobody_is_none() {
        let (mut bench, mut generator) = (Bench::of(&[1, 1]), Generator::new(1));
        let choices = TwoChoices::new([1, 1].into_iter());
        bench.0[0].0 = 0;
        assert_eq!(choices.next(&bench, &mut generator), Some(1));
        bench.0[1].0 = 0;
        assert_eq!(choices.next(&bench, &mut generator), None);
        assert_eq!(TwoChoices::new([].into_iter()).next(&Bench::of(&[]), &mut generator), None);
    }

    #[test]
    fn where_all_are_idle_weights_decide() {
        let (bench, mut generator) = (Bench::of(&[1, 3]), Generator::new(5));
        let choices = TwoChoices::new([1, 3].into_iter());
        let heavy = (0..4000).filter(|_| choices.next(&bench, &mut generator) == Some(1)).count();
        assert!((2850..3150).contains(&heavy), "{heavy}");
    }
}
