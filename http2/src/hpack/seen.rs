//! Which fields come again: only those are worth a place in the table.

/// Hashes of fields that were sent once, each in the place that its hash names.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<u32>);

const PLACES: usize = 32;

impl Seen {
    /// Whether the field was sent before, as far as is known; from now on it was.
    #[inline]
    pub(super) fn again(&mut self, hash: u32) -> bool {
        if self.0.is_empty() {
            self.0.resize(PLACES, 0);
        }
        let place = &mut self.0[(hash >> 1) as usize % PLACES];
        std::mem::replace(place, hash) == hash
    }

    /// Gives back the memory.
    pub(super) fn trim(&mut self) {
        self.0 = Vec::new();
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<u32>()
    }
}

/// Of a field. Whoever finds two alike gains nothing: what is found is compared.
#[inline]
pub(super) fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = name.len() as u64 ^ (value.len() as u64) << 32;
    for text in [name, value] {
        let (eights, rest) = text.as_chunks::<8>();
        for eight in eights {
            hash = mix(hash, u64::from_le_bytes(*eight));
        }
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        hash = mix(hash, u64::from_le_bytes(last));
    }
    // 0 is no field's.
    (hash >> 32) as u32 | 1
}

#[inline]
fn mix(hash: u64, more: u64) -> u64 {
    (hash.rotate_left(5) ^ more).wrapping_mul(0x517c_c1b7_2722_0a95)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time() {
        let mut seen = Seen::default();
        let (one, other) = (hash(b"a", b"bc"), hash(b"ab", b"c"));
        assert_ne!(one, other);
        assert_eq!(
            [one, other, one, other, one].map(|hash| seen.again(hash)),
            [false, false, true, true, true]
        );
    }
}
