//! The backend with the least work for its share, of all there are.

use super::{generator::Generator, standing::Standing};

/// The candidate whose load is the least in proportion to its share; of several the one that the lot falls on, by
/// share. `None` when there is none.
pub fn least_loaded(standing: &impl Standing, generator: &mut Generator) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    let mut tied = 0;
    for at in 0..standing.len() {
        let share = u64::from(standing.share(at));
        if share == 0 {
            continue;
        }
        let load = standing.load(at);
        let order = best.map_or(std::cmp::Ordering::Less, |(_, least, its_share)| {
            (load * its_share).cmp(&(least * share))
        });
        match order {
            std::cmp::Ordering::Less => (best, tied) = (Some((at, load, share)), share),
            std::cmp::Ordering::Equal => {
                tied += share;
                if generator.below(tied) < share {
                    best = Some((at, load, share));
                }
            }
            std::cmp::Ordering::Greater => {}
        }
    }
    best.map(|(at, ..)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::standing::{WHOLE, tests::Bench};

    proptest! {
        #[test]
        fn nobody_has_less_for_its_share(
            places in proptest::collection::vec((0u32..2000, 0u64..50), 0..30),
            seed: u64,
        ) {
            let bench = Bench(places.clone());
            let picked = least_loaded(&bench, &mut Generator::new(seed));
            let candidates = || places.iter().filter(|(share, _)| *share > 0);
            prop_assert_eq!(picked.is_some(), candidates().next().is_some());
            if let Some(at) = picked {
                let (share, load) = places[at];
                prop_assert!(share > 0);
                prop_assert!(candidates().all(|(s, l)| load * u64::from(*s) <= l * u64::from(share)));
            }
        }

        /// Work that never ends settles by weight.
        #[test]
        fn loads_settle_by_weight(weights in proptest::collection::vec(1u16..10, 1..10), rounds in 1u64..20) {
            let mut bench = Bench::of(&weights);
            let mut generator = Generator::new(3);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for _ in 0..total * rounds {
                let at = least_loaded(&bench, &mut generator).unwrap();
                bench.0[at].1 += 1;
            }
            for ((share, load), weight) in bench.0.iter().zip(&weights) {
                prop_assert_eq!(*share, u32::from(*weight) * WHOLE);
                prop_assert!(load.abs_diff(u64::from(*weight) * rounds) <= u64::from(*weight), "{:?}", bench.0);
            }
        }
    }

    #[test]
    fn where_all_are_idle_weights_decide() {
        let (bench, mut generator) = (Bench::of(&[1, 3]), Generator::new(5));
        let heavy = (0..4000).filter(|_| least_loaded(&bench, &mut generator) == Some(1)).count();
        assert!((2850..3150).contains(&heavy), "{heavy}");
    }
}
