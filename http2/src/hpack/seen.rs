//! Which fields come again: only those are worth a place in the table.

/// Hashes of the fields that were sent last and are not remembered.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hashes: Vec<u32>,
    next: usize,
}

/// Those of some heads: what comes with each of them is found, whatever else does.
const KEPT: usize = 32;

impl Seen {
    /// Whether the field was sent before, as far as is known; from now on it was.
    #[inline]
    pub(super) fn again(&mut self, hash: u32) -> bool {
        // All of them, without a branch for each.
        let is_known = self.hashes.iter().fold(false, |found, &seen| found | (seen == hash));
        if !is_known {
            if self.hashes.is_empty() {
                self.hashes.resize(KEPT, 0);
            }
            self.hashes[self.next % KEPT] = hash;
            self.next = (self.next + 1) % KEPT;
        }
        is_known
    }

    /// Gives back the memory.
    pub(super) fn trim(&mut self) {
        self.hashes = Vec::new();
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u32>()
    }
}

/// Of a field. Whoever finds two alike gains nothing: what is found is compared.
#[inline]
pub(super) fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = name.len() as u64 ^ (value.len() as u64) << 32;
    for text in [name, value] {
        // The last eight again where they do not come out even: their count is known.
        for eight in text.as_chunks::<8>().0 {
            hash = mix(hash, u64::from_le_bytes(*eight));
        }
        hash = mix(hash, last(text));
    }
    // 0 is no field's.
    (hash >> 32) as u32 | 1
}

/// The last eight bytes, or all in some order where there are fewer.
#[inline]
fn last(text: &[u8]) -> u64 {
    if let Some(eight) = text.last_chunk() {
        u64::from_le_bytes(*eight)
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
    } else {
        text.iter().fold(0, |all, &byte| all << 8 | u64::from(byte))
    }
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
        let hashes: Vec<u32> = (0..KEPT).map(|at| hash(b"name", at.to_string().as_bytes())).collect();
        assert!(hashes.iter().all(|&hash| !seen.again(hash)));
        assert!(hashes.iter().all(|&hash| seen.again(hash)));
        assert!(!seen.again(hash(b"another", b"")));
        assert!(!seen.again(hashes[0]), "the one before goes");
        assert!(seen.again(hashes[KEPT - 1]));
    }

    #[test]
    fn where_a_name_ends_counts() {
        assert_ne!(hash(b"a", b"bc"), hash(b"ab", b"c"));
        assert_ne!(hash(b"abcdefgh", b""), hash(b"", b"abcdefgh"));
    }
}
