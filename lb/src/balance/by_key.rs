//! A backend by the hash of a key, through a Maglev table: the same on every worker and every node that has the
//! same backends and the same secret.

use super::{
    key::{derive, hash},
    maglev::{Member, Table},
    standing::{Standing, WHOLE},
};
use crate::model::BackendId;

/// Slots of a table, primes: for as many backends as each has some hundred slots of, the smaller one.
const LEN: u32 = 16_381;
const LEN_MANY: u32 = 65_537;
const FEW: usize = LEN as usize / 100;

/// The table of a pool. What stands in its slots is the place of a backend plus one.
#[derive(Clone, Debug)]
pub struct ByKey {
    table: Table,
    weights: Box<[u16]>,
}

impl ByKey {
    /// Of the backends with these names and weights, in the order of the pool; that order does not matter for which
    /// name a key goes to. A pure function of its arguments: no predecessor, so that nodes agree.
    pub fn new<'n>(key: [u64; 2], backends: impl Iterator<Item = (&'n str, u16)> + Clone) -> Self {
        let names = derive(key, "name");
        let member = |((name, weight), id): ((&str, u16), u16)| Member {
            id: BackendId(id),
            identity: hash(names, name.as_bytes()),
            weight,
        };
        let members: Vec<Member> = backends.clone().zip(1..).map(member).collect();
        let len = if members.len() <= FEW { LEN } else { LEN_MANY };
        let table = Table::build(len, derive(key, "table"), &members, None);
        Self { table, weights: backends.map(|(_, weight)| weight).collect() }
    }

    /// The backend that the key with this hash goes to. Where that is no candidate, the key goes to another one in a
    /// fixed order of its own, and no other key moves. One that starts slowly gets a part of its keys first, the
    /// same ones on every worker. `None` when there is no candidate.
    pub fn next(&self, standing: &impl Standing, hash: u64) -> Option<usize> {
        let place = |id: BackendId| id.index().wrapping_sub(1);
        // Not the bits that choose the slot.
        let part = hash as u32 % WHOLE;
        let is_due = |id: BackendId| {
            let at = place(id);
            let weight = self.weights.get(at).copied().unwrap_or(0);
            standing.share(at) > part * u32::from(weight)
        };
        let is_candidate = |id: BackendId| standing.share(place(id)) > 0;
        let found = self.table.owner_of(hash, is_due).or_else(|| self.table.owner_of(hash, is_candidate));
        found.map(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::{Generator, standing::tests::Bench};

    const KEY: [u64; 2] = [3, 5];
    const NAMES: [&str; 6] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "[::1]:80", "b:80"];

    fn table(names: &[&str], weights: &[u16]) -> ByKey {
        ByKey::new(KEY, names.iter().copied().zip(weights.iter().copied()))
    }

    fn hashes() -> impl Iterator<Item = u64> {
        let mut generator = Generator::new(1);
        std::iter::repeat_with(move || generator.next()).take(20_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_backend_that_is_down_moves_its_own_keys_only(down in proptest::collection::btree_set(0usize..6, 0..5)) {
            let by_key = table(&NAMES, &[1; 6]);
            let whole = Bench::of(&[1; 6]);
            let mut some = Bench::of(&[1; 6]);
            down.iter().for_each(|at| some.0[*at].0 = 0);
            for hash in hashes() {
                let (at, now) = (by_key.next(&whole, hash).unwrap(), by_key.next(&some, hash).unwrap());
                prop_assert!(!down.contains(&now));
                prop_assert!(at == now || down.contains(&at));
            }
        }

        /// The order in the config and the number of a worker say nothing.
        #[test]
        fn keys_go_to_names(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(), gone in 0usize..6) {
            let names: Vec<&str> = order.iter().map(|at| NAMES[*at]).collect();
            let (one, other) = (table(&NAMES, &[1; 6]), table(&names, &[1; 6]));
            let mut bench = Bench::of(&[1; 6]);
            let mut shuffled = Bench::of(&[1; 6]);
            bench.0[gone].0 = 0;
            shuffled.0[order.iter().position(|at| *at == gone).unwrap()].0 = 0;
            for hash in hashes().take(2000) {
                let (a, b) = (one.next(&bench, hash).unwrap(), other.next(&shuffled, hash).unwrap());
                prop_assert_eq!(NAMES[a], names[b]);
            }
        }
    }

    #[test]
    fn keys_follow_weights() {
        let (by_key, bench) = (table(&NAMES, &[1, 1, 1, 1, 2, 4]), Bench::of(&[1, 1, 1, 1, 2, 4]));
        let mut counts = [0; 6];
        hashes().for_each(|hash| counts[by_key.next(&bench, hash).unwrap()] += 1);
        for (count, due) in counts.iter().zip([2000, 2000, 2000, 2000, 4000, 8000]) {
            assert!(i32::abs(count - due) < due / 10, "{counts:?}");
        }
    }

    #[test]
    fn a_slow_start_takes_back_its_own_keys_bit_by_bit() {
        let by_key = table(&NAMES, &[2; 6]);
        let (whole, mut partly) = (Bench::of(&[2; 6]), Bench::of(&[2; 6]));
        let mut before = 0;
        for quarters in 0..=4 {
            partly.0[2].0 = 2 * WHOLE / 4 * quarters;
            let mut held = 0;
            for hash in hashes() {
                let (at, now) = (by_key.next(&whole, hash).unwrap(), by_key.next(&partly, hash).unwrap());
                assert!(at == now || at == 2, "nobody else's key moves");
                held += u32::from(now == 2);
            }
            assert!(held.abs_diff(quarters * 20_000 / 24) < 120, "{held} in quarter {quarters}");
            assert!(held >= before);
            before = held;
        }
        let mut alone = Bench(vec![(0, 0); 6]);
        assert_eq!(by_key.next(&alone, 1), None);
        alone.0[3].0 = 1;
        assert!(hashes().all(|hash| by_key.next(&alone, hash) == Some(3)), "however little of it there is");
    }

    #[test]
    fn another_secret_deals_otherwise() {
        let (one, bench) = (table(&NAMES, &[1; 6]), Bench::of(&[1; 6]));
        let other = ByKey::new([3, 6], NAMES.iter().map(|name| (*name, 1)));
        let same = hashes().filter(|hash| one.next(&bench, *hash) == other.next(&bench, *hash)).count();
        assert!((2800..3900).contains(&same), "{same} of 20000, a sixth by chance");
    }
}
