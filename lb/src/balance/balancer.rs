//! The policies of a pool behind one face.

use std::time::{Duration, Instant};

use super::{
    by_key::ByKey, draw::Draw, generator::Generator, least_connections::least_loaded, peak_ewma::PeakEwma,
    round_robin::RoundRobin, standing::Standing, two_choices::TwoChoices,
};

/// What a choice may depend on beside how the backends stand.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Hash of the key; only [`Balancer::ByKey`] looks at it.
    pub key: u64,
    /// Now.
    pub now: Instant,
    /// The worker's own.
    pub generator: &'a mut Generator,
}

/// One pool's, on one worker. Weights are honoured by all of them.
#[derive(Clone, Debug)]
pub enum Balancer {
    /// In turn.
    RoundRobin(RoundRobin),
    /// The least loaded of all.
    LeastConnections,
    /// The less loaded of two.
    TwoChoices(TwoChoices),
    /// The probably quicker of two.
    PeakEwma(PeakEwma),
    /// By lot.
    Random(Draw),
    /// By key.
    ByKey(ByKey),
}

impl Balancer {
    /// The backend to take, by its place; `None` when there is no candidate.
    #[inline]
    pub fn next(&mut self, standing: &impl Standing, ask: Ask<'_>) -> Option<usize> {
        match self {
            Self::RoundRobin(robin) => robin.next(standing),
            Self::LeastConnections => least_loaded(standing, ask.generator),
            Self::TwoChoices(choices) => choices.next(standing, ask.generator),
            Self::PeakEwma(ewma) => ewma.next(standing, ask.now, ask.generator),
            Self::Random(draw) => draw.draw(standing, None, ask.generator),
            Self::ByKey(by_key) => by_key.next(standing, ask.key),
        }
    }

    /// A backend has answered, `took` after it was asked.
    #[inline]
    pub fn answered(&mut self, at: usize, took: Duration, now: Instant) {
        if let Self::PeakEwma(ewma) = self {
            ewma.answered(at, took, now);
        }
    }

    /// A backend has failed, `took` after it was asked.
    pub fn failed(&mut self, at: usize, took: Duration, now: Instant) {
        if let Self::PeakEwma(ewma) = self {
            ewma.failed(at, took, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::standing::tests::Bench;

    const WEIGHTS: [u16; 4] = [1, 2, 3, 4];

    fn all() -> [Balancer; 6] {
        let weights = || WEIGHTS.into_iter();
        let names = ["a", "b", "c", "d"].into_iter().zip(weights());
        [
            Balancer::RoundRobin(RoundRobin::new(WEIGHTS.len())),
            Balancer::LeastConnections,
            Balancer::TwoChoices(TwoChoices::new(weights())),
            Balancer::PeakEwma(PeakEwma::new(weights())),
            Balancer::Random(Draw::new(weights())),
            Balancer::ByKey(ByKey::new([1, 2], names)),
        ]
    }

    /// Work that takes equally long everywhere, up to 20 at once.
    #[test]
    fn every_policy_honours_weights_and_spares_who_is_no_candidate() {
        for mut balancer in all() {
            let (mut bench, mut generator, mut keys) =
                (Bench::of(&WEIGHTS), Generator::new(4), Generator::new(5));
            bench.0[0].0 = 0;
            let (start, mut running) = (Instant::now(), std::collections::VecDeque::new());
            let mut counts = [0_u32; 4];
            for turn in 0..9_000 {
                let now = start + Duration::from_millis(turn);
                let ask = Ask { key: keys.next(), now, generator: &mut generator };
                let at = balancer.next(&bench, ask).unwrap();
                counts[at] += 1;
                bench.0[at].1 += 1;
                running.push_back(at);
                if running.len() > 20 {
                    let done = running.pop_front().unwrap();
                    bench.0[done].1 -= 1;
                    balancer.answered(done, Duration::from_millis(20), now);
                }
            }
            assert_eq!(counts[0], 0, "{balancer:?}");
            for (count, due) in counts.iter().zip([0_u32, 2000, 3000, 4000]) {
                assert!(count.abs_diff(due) <= due / 7, "{counts:?} by {balancer:?}");
            }
        }
    }

    #[test]
    fn nobody_is_none() {
        for mut balancer in all() {
            let mut generator = Generator::new(4);
            let ask = Ask { key: 3, now: Instant::now(), generator: &mut generator };
            assert_eq!(balancer.next(&Bench(vec![(0, 0); 4]), ask), None);
        }
    }
}
