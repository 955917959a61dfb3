//! Small things that targets share.

/// Places to cut an input of `len` bytes at, both ends included: every one of a short input, of a long one some, the
/// first and the last among them.
pub fn cuts(len: usize) -> Vec<usize> {
    const ALL: usize = 128;
    if len <= ALL {
        return (0..=len).collect();
    }
    let mut random = Random(len as u64);
    let mut cuts: Vec<usize> = (0..ALL / 2).map(|_| random.below(len)).collect();
    cuts.extend((0..ALL / 4).chain(len - ALL / 4..=len));
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Numbers that are the same on every run. Source: SplitMix64, as in `lb`'s health checks.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one, less than `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// Bytes for a person.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
