//! Request ids: unlike any other of this process or another one, and of no use for guessing the next.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// A counter behind two keyed hashes; the standard library's keys are random in each process.
#[derive(Debug, Default)]
pub(super) struct RequestIds {
    keys: [RandomState; 2],
    given: Cell<u64>,
}

impl RequestIds {
    pub(super) fn next(&self) -> [u64; 2] {
        let at = self.given.get();
        self.given.set(at.wrapping_add(1));
        [self.keys[0].hash_one(at), self.keys[1].hash_one(at)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::RequestIds;

    #[test]
    fn no_two_are_alike() {
        let workers = [RequestIds::default(), RequestIds::default()];
        let given: HashSet<_> =
            workers.iter().flat_map(|ids| (0..1000).map(|_| ids.next()).collect::<Vec<_>>()).collect();
        assert_eq!(given.len(), 2000);
        assert!(given.iter().all(|[first, second]| first != second));
    }
}
