//! A keyed hash of bytes: nobody outside can aim requests at one backend.

use lb_abi::hash::sip13;

/// SipHash-1-3 of the length, then of each 8 bytes with what came before. No two inputs share a beginning in that
/// form, so the cascade is as good as the hash.
/// Source: Bellare, Canetti, Krawczyk, "Pseudorandom functions revisited: the cascade construction", 1996.
pub fn hash(key: [u64; 2], bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(sip13(key, [bytes.len() as u64]), |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sip13(key, [state, u64::from_le_bytes(word)])
    })
}

/// A key of its own for one purpose.
pub fn derive(key: [u64; 2], purpose: &str) -> [u64; 2] {
    let state = hash(key, purpose.as_bytes());
    [sip13(key, [state, 0, 1]), sip13(key, [state, 1, 1])]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_bit_of_key_and_input_counts() {
        let inputs: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"abcdefgh", b"abcdefgh\0", b"abcdefghi"];
        let keys = [[1, 2], [1, 3], derive([1, 2], "a"), derive([1, 2], "b")];
        let all: HashSet<u64> =
            keys.iter().flat_map(|key| inputs.iter().map(|input| hash(*key, input))).collect();
        assert_eq!(all.len(), keys.len() * inputs.len());
    }
}
