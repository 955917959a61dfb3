//! Backends that failed one exchange or connection already.

/// Attempts one exchange or connection may make, over all backends.
pub const ATTEMPTS_MAX: usize = 8;

/// By place in the pool.
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
    use super::*;

    #[test]
    fn attempts_are_bounded() {
        let mut tried = Tried::default();
        assert!((0..ATTEMPTS_MAX).all(|at| tried.insert(at)));
        assert!(!tried.insert(ATTEMPTS_MAX));
        assert!(tried.contains(3) && !tried.contains(ATTEMPTS_MAX));
    }
}
