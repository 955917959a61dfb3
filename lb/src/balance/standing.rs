//! How the backends of a pool stand when one of them is to be chosen.

use std::time::Duration;

/// The whole share of one unit of weight.
pub const WHOLE: u32 = 256;
/// What a backend that just came up begins with, of [`WHOLE`].
const FIRST: u32 = WHOLE / 10;

/// The backends of a pool, by place; asked again for each choice.
pub trait Standing {
    /// Backends, candidates or not.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Part of new work that is due to one now: at most its weight times [`WHOLE`]; 0: it is no candidate.
    fn share(&self, at: usize) -> u32;

    /// Work going on there.
    fn load(&self, at: usize) -> u64;
}

/// Share of a backend of `weight` that came up `up_for` ago, with a slow start of `whole_after`: grows from a tenth
/// to all of it, by time alone. Never 0 for a weight above 0.
pub fn ramp(weight: u16, up_for: Duration, whole_after: Duration) -> u32 {
    let part = if up_for >= whole_after {
        WHOLE
    } else {
        let grown =
            u64::from(WHOLE - FIRST) * up_for.as_millis() as u64 / whole_after.as_millis().max(1) as u64;
        FIRST + grown as u32
    };
    u32::from(weight) * part
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Places with share and load.
    pub(in crate::balance) struct Bench(pub(in crate::balance) Vec<(u32, u64)>);

    impl Bench {
        /// All whole, nothing going on.
        pub(in crate::balance) fn of(weights: &[u16]) -> Self {
            Self(weights.iter().map(|weight| (u32::from(*weight) * WHOLE, 0)).collect())
        }
    }

    impl Standing for Bench {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn share(&self, at: usize) -> u32 {
            self.0[at].0
        }

        fn load(&self, at: usize) -> u64 {
            self.0[at].1
        }
    }

    proptest! {
        #[test]
        fn a_slow_start_grows_and_ends_whole(weight in 1u16..=1000, whole_ms in 1u64..600_000, at in 0u64..700_000) {
            let share = |ms| ramp(weight, Duration::from_millis(ms), Duration::from_millis(whole_ms));
            let whole = u32::from(weight) * WHOLE;
            prop_assert!(share(at) <= share(at + 1) && share(at) > 0 && share(at) <= whole);
            prop_assert_eq!(share(whole_ms), whole);
            prop_assert!(share(0) <= whole / 10);
        }
    }
}
