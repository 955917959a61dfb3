//! Whether a ClientHello says that data come early. rustls tells what it has accepted, and nothing of what it has not.

/// `early_data` (RFC 8446, 4.2.10).
const EARLY_DATA: u16 = 42;
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// Of a ClientHello, before the session id: type and length, version, random.
const BEFORE_SESSION: usize = 4 + 2 + 32;

/// Bytes of the records with a ClientHello that offers it; `None`: it does not, or is none that is whole and sound.
pub(super) fn early_data(records: &[u8]) -> Option<usize> {
    let mut message = Vec::new();
    let mut rest = records;
    while let Some((&[HANDSHAKE, _, _, high, low], behind)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let Some((payload, behind)) = behind.split_at_checked(len) else { break };
        message.extend_from_slice(payload);
        rest = behind;
    }
    has(extensions(&message)?, EARLY_DATA).then_some(records.len() - rest.len())
}

fn extensions(message: &[u8]) -> Option<&[u8]> {
    let (_, rest) = part(message.get(BEFORE_SESSION..)?, 1)?;
    let (_, rest) = part(rest, 2)?;
    let (_, rest) = part(rest, 1)?;
    Some(part(rest, 2)?.0)
}

fn has(mut extensions: &[u8], wanted: u16) -> bool {
    while let Some((&kind, rest)) = extensions.split_first_chunk::<2>() {
        if u16::from_be_bytes(kind) == wanted {
            return true;
        }
        let Some((_, behind)) = part(rest, 2) else { return false };
        extensions = behind;
    }
    false
}

/// A part with its length, of so many bytes, before it; and what is behind it.
fn part(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    rest.split_at_checked(length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend_from_slice(&[9; 32]);
        body.extend_from_slice(&[2, 42, 42, 0, 2, 0x13, 1, 1, 0]);
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(extensions);
        let mut message = vec![1, 0, 0, body.len() as u8];
        message.append(&mut body);
        message
    }

    fn records(message: &[u8], cut: usize) -> Vec<u8> {
        let record = |payload: &[u8]| [&[22, 3, 1, 0, payload.len() as u8], payload].concat();
        message.chunks(cut).flat_map(record).collect()
    }

    #[test]
    fn an_offer_is_seen_however_it_is_cut() {
        for cut in [1, 7, 200] {
            let offers = |extensions: &[u8]| early_data(&records(&hello(extensions), cut)).is_some();
            assert!(offers(&[0, 42, 0, 0]));
            assert!(offers(&[0, 10, 0, 1, 42, 0, 42, 0, 0, 0, 41, 0, 0]));
            assert!(!offers(&[0, 10, 0, 4, 0, 42, 0, 0]));
            assert!(!offers(&[0, 10, 0, 9, 0, 42, 0, 0]));
            assert!(!offers(&[]));
        }
    }

    #[test]
    fn garbage_offers_nothing() {
        let whole = records(&hello(&[0, 10, 0, 0, 0, 42, 0, 0]), 200);
        assert_eq!(early_data(&whole), Some(whole.len()));
        // Behind it stands what comes early.
        assert_eq!(early_data(&[&whole[..], &[23, 3, 3, 0, 1, 0]].concat()), Some(whole.len()));
        for len in 0..whole.len() {
            assert_eq!(early_data(&whole[..len]), None, "{len}");
        }
    }
}
