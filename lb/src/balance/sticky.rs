//! Tokens that lead a client back to its backend: the backend's name under a keyed hash, and a tag that only who has
//! the secret can make. A token tells nobody the address, and is the same on every worker and node.

use super::key::{derive, hash};

/// Bytes of a token, which are lower-case hexadecimal digits.
pub const TOKEN_BYTES: usize = 32;

/// The tokens of one pool.
#[derive(Clone, Debug)]
pub struct Sticky {
    tag: [u64; 2],
    /// By hash of the name, with the place.
    places: Box<[(u64, usize)]>,
    tokens: Box<[[u8; TOKEN_BYTES]]>,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The backend at this place.
    Place(usize),
    /// A backend that the pool has no more.
    Gone,
    /// Nothing: it was not made with this secret.
    Forged,
}

impl Sticky {
    /// Of the backends with these names, in the order of the pool.
    pub fn new<'n>(secret: [u64; 2], names: impl Iterator<Item = &'n str>) -> Self {
        let (name_key, tag) = (derive(secret, "name"), derive(secret, "tag"));
        let ids: Vec<u64> = names.map(|name| hash(name_key, name.as_bytes())).collect();
        let token = |id: &u64| {
            let mut token = [0; TOKEN_BYTES];
            let (first, last) = token.split_at_mut(TOKEN_BYTES / 2);
            write_hex(first, *id);
            write_hex(last, hash(tag, &id.to_le_bytes()));
            token
        };
        let tokens = ids.iter().map(token).collect();
        let mut places: Vec<(u64, usize)> = ids.into_iter().zip(0..).collect();
        places.sort_unstable();
        Self { tag, places: places.into(), tokens }
    }

    /// Token of the backend at a place.
    pub fn token(&self, at: usize) -> &[u8; TOKEN_BYTES] {
        &self.tokens[at]
    }

    /// Reads a token, whoever sent it.
    pub fn find(&self, token: &[u8]) -> Found {
        let halves = token.split_at_checked(TOKEN_BYTES / 2);
        let read = halves.and_then(|(id, tag)| read_hex(id).zip(read_hex(tag)));
        let Some((id, _)) = read.filter(|(id, tag)| hash(self.tag, &id.to_le_bytes()) == *tag) else {
            return Found::Forged;
        };
        match self.places.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => Found::Place(self.places[at].1),
            Err(_) => Found::Gone,
        }
    }
}

fn write_hex(out: &mut [u8], number: u64) {
    for (digit, shift) in out.iter_mut().zip((0..64).step_by(4).rev()) {
        *digit = b"0123456789abcdef"[(number >> shift) as usize & 15];
    }
}

/// Exactly 16 digits, lower case.
fn read_hex(digits: &[u8]) -> Option<u64> {
    if digits.len() != 16 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

    #[test]
    fn tokens_lead_back_by_name() {
        let sticky = Sticky::new([1, 2], NAMES.into_iter());
        let turned = Sticky::new([1, 2], NAMES.into_iter().rev().take(2));
        for at in 0..3 {
            assert_eq!(sticky.find(sticky.token(at)), Found::Place(at));
        }
        assert_eq!(turned.find(sticky.token(2)), Found::Place(0));
        assert_eq!(turned.find(sticky.token(0)), Found::Gone);
        let other = Sticky::new([1, 3], NAMES.into_iter());
        assert_eq!(other.find(sticky.token(0)), Found::Forged);
    }

    proptest! {
        #[test]
        fn no_other_bytes_are_a_token(at in 0usize..3, place in 0usize..TOKEN_BYTES, byte: u8, noise: Vec<u8>) {
            let sticky = Sticky::new([1, 2], NAMES.into_iter());
            let mut token = *sticky.token(at);
            if token[place] != byte {
                token[place] = byte;
                prop_assert_eq!(sticky.find(&token), Found::Forged);
            }
            prop_assert_eq!(sticky.find(&noise), Found::Forged);
            prop_assert_eq!(sticky.find(&[sticky.token(at), &noise[..]].concat()) == Found::Place(at), noise.is_empty());
        }
    }
}
