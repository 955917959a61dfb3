//! Connection ids by hand: `lb quic-id`, for whoever writes or debugs a QUIC server. See `lb/docs/quic-ids.md`.

use std::{fs::File, path::Path};

use anyhow::{Context as _, bail, ensure};
use lb_abi::{
    bounds::QUIC_SERVERS_MAX,
    quic::{CONFIG_MAX, ID_LEN, Id},
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::quic;

/// One id, in hexadecimal. Without a nonce it gets a random one.
///
/// # Errors
/// The key cannot be read, or something is out of range.
pub fn make(key: &Path, first: u8, server: u16, nonce: Option<[u8; 5]>) -> anyhow::Result<String> {
    ensure!(first >> 5 <= CONFIG_MAX, "config id {} means that an id is not routable", first >> 5);
    let last = QUIC_SERVERS_MAX - 1;
    ensure!((1..=last).contains(&u32::from(server)), "a server id is a number from 1 to {last}");
    let nonce = nonce.map_or_else(random, Ok)?;
    Ok(hexadecimal(&Id::new(load(key)?, first, server, nonce).to_bytes()))
}

/// What an id says.
///
/// # Errors
/// The key cannot be read, the id is none, or its check bits are wrong under this key.
pub fn read(key: &Path, id: &str) -> anyhow::Result<String> {
    let bytes = bytes::<ID_LEN>(id.get(..2 * ID_LEN).unwrap_or(id))
        .with_context(|| format!("an id has {} hexadecimal digits at least", 2 * ID_LEN))?;
    let id = Id::from_bytes(bytes);
    if !id.verifies(load(key)?) {
        bail!("the check bits are wrong under this key: the packet would go by hash");
    }
    let nonce = hexadecimal(&bytes[3..8]);
    Ok(format!("config id {}, server id {}, nonce {nonce}: check bits are right", id.config(), id.server()))
}

/// `N` bytes in hexadecimal.
pub fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_right = text.len() == 2 * N && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    is_right.then_some(bytes)
}

fn load(key: &Path) -> anyhow::Result<[u64; 2]> {
    File::open(key).and_then(quic::read_key).with_context(|| key.display().to_string())
}

fn random() -> anyhow::Result<[u8; 5]> {
    let mut nonce = [0; 5];
    // So few bytes come whole or not at all (getrandom(2)).
    getrandom(&mut nonce, GetRandomFlags::empty()).context("getrandom")?;
    Ok(nonce)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture::TemporaryDirectory;

    const DOCUMENT: &str = include_str!("../../docs/quic-ids.md");

    /// Rows of the table of test vectors: key, octet 0, config id, server id, nonce, id.
    fn vectors() -> Vec<Vec<&'static str>> {
        let (_, table) = DOCUMENT.split_once("## Test vectors").unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| row.split('|').map(|cell| cell.trim_matches([' ', '`'])).collect()).collect()
    }

    #[test]
    fn the_documents_vectors_hold() {
        let directory = TemporaryDirectory::new("quic-vectors");
        std::fs::create_dir_all(&*directory).unwrap();
        let file = directory.join("key");
        let rows = vectors();
        assert_eq!(rows.len(), 5);
        for row in rows {
            let [_, key, first, config, server, nonce, id, _] = row[..] else { panic!("{row:?}") };
            std::fs::write(&file, key).unwrap();
            let [first] = bytes(first).unwrap();
            assert_eq!(make(&file, first, server.parse().unwrap(), bytes(nonce)).unwrap(), id);
            let said = read(&file, id).unwrap();
            assert_eq!(
                said,
                format!("config id {config}, server id {server}, nonce {nonce}: check bits are right")
            );
            assert_eq!(read(&file, &format!("{id}00ff")).unwrap(), said, "what follows is the server's own");
        }
    }

    #[test]
    fn what_cannot_be_routed_is_not_made() {
        let directory = TemporaryDirectory::new("quic-refused");
        std::fs::create_dir_all(&*directory).unwrap();
        let file = directory.join("key");
        std::fs::write(&file, [7; 16]).unwrap();
        for (first, server) in [(0xe0, 1), (0, 0), (0, 4096)] {
            assert!(make(&file, first, server, None).is_err(), "{first:02x} {server}");
        }
        let (one, two) = (make(&file, 0, 1, None).unwrap(), make(&file, 0, 1, None).unwrap());
        assert_ne!(one, two, "nonces are random");
        std::fs::write(&file, [8; 16]).unwrap();
        assert!(read(&file, &one).unwrap_err().to_string().contains("check bits are wrong"));
        for bad in ["", "0b", &one[1..], "0b0007010203040500000zzz"] {
            assert!(read(&file, bad).unwrap_err().to_string().contains("24 hexadecimal digits"), "{bad}");
        }
    }
}
