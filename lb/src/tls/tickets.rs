//! Tickets, which carry a session to wherever its client comes next: every worker, the next process, other boxes that
//! have the same keys.
//!
//! ```text
//!  TicketKeys: material, newest first --- by entry, and by what it asks of clients ---> a key each
//!       ticket: name of the key, 16 | nonce, 12 | what rustls keeps of the session, sealed | tag, 16
//! ```
//! A session of another entry, or from when it asked something else of its clients, opens with no key here: nobody comes
//! in on it who would not be let in anew.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use rustls::server::ProducesTickets;

use super::wipe::Wiped;

/// Most keys of one set.
const KEYS_MAX: usize = 16;
/// Bytes of one key's material, where it is made here.
pub const KEY_BYTES: usize = 48;
/// Bytes of one key in a file: as others have them, for AES of 128 and of 256 bits.
const FILE_KEY_BYTES: [usize; 2] = [80, 48];

const NAME_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// How long a client may keep a ticket, in seconds: as long as keys open.
const LIFETIME: u32 = 12 * 3600;

/// Keys that tickets are made with: the first seals, all of them open. Prints redacted, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys(Vec<Wiped>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({}, redacted)", self.0.len())
    }
}

impl TicketKeys {
    /// The only one there is.
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(vec![Wiped::from(key.to_vec())])
    }

    /// Those in a file: 80 or 48 bytes each, the one that seals first.
    ///
    /// # Errors
    /// It holds something else, or more than [`KEYS_MAX`].
    pub fn of_file(content: &[u8]) -> Result<Self, String> {
        let fits = |len: &usize| !content.is_empty() && content.len().is_multiple_of(*len);
        let Some(len) = FILE_KEY_BYTES.into_iter().find(fits) else {
            return Err("holds no keys: each has 80 bytes, or each has 48".to_owned());
        };
        Self::of_material(content.chunks_exact(len).map(<[u8]>::to_vec))
            .ok_or_else(|| format!("holds more than {KEYS_MAX} keys"))
    }

    /// Of what [`Self::material`] gave; `None`: there are none, or too many, or too short ones.
    pub fn of_material(keys: impl IntoIterator<Item = Vec<u8>>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().map(Wiped::from).collect();
        ((1..=KEYS_MAX).contains(&keys.len()) && keys.iter().all(|key| key.bytes().len() >= 32))
            .then_some(Self(keys))
    }

    /// What they are made of, for the next process alone.
    pub fn material(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Wiped::bytes)
    }

    /// With a new one in front; the last of more than `most` goes.
    #[must_use]
    pub fn rotated(&self, key: [u8; KEY_BYTES], most: usize) -> Self {
        let mut keys = vec![Wiped::from(key.to_vec())];
        keys.extend(self.0.iter().take(most.saturating_sub(1)).cloned());
        Self(keys)
    }
}

/// Tickets of one entry; workers share it.
pub struct Tickets {
    /// What keeps them apart from others'.
    context: Vec<u8>,
    keys: ArcSwap<Vec<Key>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({}, redacted)", self.keys.load().len())
    }
}

impl Tickets {
    /// `context`: whose they are, and what was asked of whoever has one.
    ///
    /// # Errors
    /// The library refuses a key.
    pub fn new(context: Vec<u8>, keys: &TicketKeys) -> Result<Arc<Self>, String> {
        let derived = derive(&context, keys)?;
        Ok(Arc::new(Self { context, keys: ArcSwap::from_pointee(derived) }))
    }

    /// Other keys from now on.
    ///
    /// # Errors
    /// The library refuses a key; those from before are kept.
    pub fn replace(&self, keys: &TicketKeys) -> Result<(), String> {
        self.keys.store(Arc::new(derive(&self.context, keys)?));
        Ok(())
    }
}

impl Tickets {
    /// A ticket for what is to be kept.
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let Key { name, key } = keys.first()?;
        let mut sealed = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(plain);
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        let head = name.iter().chain(nonce.as_ref()).copied();
        sealed.splice(..0, head);
        Some(sealed)
    }

    /// What was kept; `None`: it was not sealed with any of these keys.
    pub fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let len = key.key.open_in_place(nonce, Aad::from(&key.name), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket)
    }
}

/// One key. A nonce that came twice would tell that a session was the same, and nothing else (RFC 8452, 1): with random
/// ones no count has to be kept of what was sealed.
struct Key {
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

/// So many bytes.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(context: &[u8], keys: &TicketKeys) -> Result<Vec<Key>, String> {
    let one = |material: &Wiped| -> Result<Key, Unspecified> {
        let secret = Salt::new(HKDF_SHA256, b"lb tickets").extract(material.bytes());
        let (mut name, mut key) = ([0; NAME_BYTES], Wiped::from(vec![0; 32]));
        secret.expand(&[b"name", context], Bytes(name.len()))?.fill(&mut name)?;
        secret.expand(&[b"key", context], Bytes(32))?.fill(key.bytes_mut())?;
        Ok(Key { name, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, key.bytes())? })
    };
    keys.0.iter().map(one).collect::<Result<_, _>>().map_err(|_| "no key of tickets could be made".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: u8) -> TicketKeys {
        TicketKeys::new([of; KEY_BYTES])
    }

    fn tickets(context: &str, keys: &TicketKeys) -> Arc<Tickets> {
        Tickets::new(context.into(), keys).unwrap()
    }

    #[test]
    fn whoever_has_the_keys_opens_what_others_sealed() {
        let (here, there) = (tickets("a", &keys(1)), tickets("a", &keys(1)));
        let ticket = here.seal(b"session").unwrap();
        assert_eq!(there.open(&ticket).as_deref(), Some(&b"session"[..]));
        assert_ne!(here.seal(b"session").unwrap(), ticket);
        assert_eq!(tickets("b", &keys(1)).open(&ticket), None, "another entry");
        assert_eq!(tickets("a", &keys(2)).open(&ticket), None, "another key");
        for at in 0..ticket.len() {
            let mut other = ticket.clone();
            other[at] ^= 1;
            assert_eq!(here.open(&other), None, "byte {at}");
            assert_eq!(here.open(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn keys_open_for_a_turn_after_they_sealed() {
        let mut now = keys(1);
        let store = tickets("a", &now);
        let ticket = store.seal(b"session").unwrap();
        for (next, opens) in [(2, true), (3, false)] {
            now = now.rotated([next; KEY_BYTES], 2);
            store.replace(&now).unwrap();
            assert_eq!(store.open(&ticket).is_some(), opens, "{next}");
        }
        let handed = TicketKeys::of_material(now.material().map(<[u8]>::to_vec)).unwrap();
        assert_eq!(handed, now);
    }

    #[test]
    fn a_file_has_whole_keys() {
        let count = |len: usize| TicketKeys::of_file(&vec![7; len]).map(|keys| keys.0.len());
        assert_eq!((count(48), count(80), count(160), count(96)), (Ok(1), Ok(1), Ok(2), Ok(2)));
        // Of both lengths: the longer.
        assert_eq!(count(240), Ok(3));
        for bad in [0, 47, 49, 128, 80 * 17] {
            count(bad).unwrap_err();
        }
        assert_eq!(format!("{:?}", keys(1)), "TicketKeys(1, redacted)");
    }
}
