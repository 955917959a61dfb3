//! The first message of a TLS client, read for the name it asks for; nothing else of it matters here.
//!
//! Source: RFC 8446, 5.1 (records), 4.1.2 (ClientHello); RFC 6066, 3 (server_name).

use std::fmt;

/// Longest ClientHello that is read, in bytes of the handshake. Post-quantum key shares need some 2 KiB.
pub const HELLO_BYTES_MAX: usize = 16 << 10;
/// Most records that it may be spread over.
const RECORDS_MAX: usize = 16;
/// Longest plain-text record.
const RECORD_BYTES_MAX: usize = 1 << 14;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_HOST: u8 = 0;
/// Longest host name, as DNS has it.
const NAME_BYTES_MAX: usize = 253;

/// A host name as a client asks for it: lower case, without a dot at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerName(Box<[u8]>);

impl ServerName {
    fn new(name: &[u8]) -> Option<Self> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(is_letter);
        is_name.then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// Its letters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A whole ClientHello, and the name in it.
    Complete(Option<ServerName>),
    /// The beginning of one; before so many bytes are there, it can only be refused.
    Partial(usize),
    /// Something else than TLS.
    NotTls,
}

/// It begins as TLS does, and breaks its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// A record that is empty, too long, of another kind, or one too many.
    Record,
    /// Another message than ClientHello, or a longer one than [`HELLO_BYTES_MAX`].
    Message,
    /// A part ends behind the one it is in, or is there twice.
    Syntax,
    /// A name that no host has.
    Name,
}

/// Looks at the beginning of a connection, of which `bytes` is all that has come.
///
/// More bytes never change an answer but [`Hello::Partial`].
///
/// # Errors
/// It is no ClientHello that a server would take.
pub fn parse(bytes: &[u8]) -> Result<Hello, HelloError> {
    match bytes {
        [] => return Ok(Hello::Partial(1)),
        [CONTENT_HANDSHAKE] => return Ok(Hello::Partial(2)),
        [CONTENT_HANDSHAKE, 3, ..] => {}
        _ => return Ok(Hello::NotTls),
    }
    let mut at = 0;
    let mut gathered = Vec::new();
    for _ in 0..RECORDS_MAX {
        let Some(&[kind, major, _, high, low]) = bytes.get(at..at + RECORD_HEADER) else {
            return Ok(Hello::Partial(at + RECORD_HEADER));
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind != CONTENT_HANDSHAKE || major != 3 || !(1..=RECORD_BYTES_MAX).contains(&len) {
            return Err(HelloError::Record);
        }
        let start = at + RECORD_HEADER;
        at = start + len;
        // A message of another kind is known by a part of its record.
        let payload = bytes.get(start..at).or_else(|| bytes.get(start..));
        let payload = payload.unwrap_or_default();
        // Nearly always the one record has it all, where it lies.
        let handshake = if gathered.is_empty() {
            payload
        } else {
            gathered.extend_from_slice(payload);
            &gathered
        };
        match message(handshake)? {
            _ if bytes.len() < at => return Ok(Hello::Partial(at)),
            Some(hello) => return name(hello).map(Hello::Complete),
            None if gathered.is_empty() => gathered = payload.to_vec(),
            None => {}
        }
    }
    Err(HelloError::Record)
}

/// The body of the ClientHello, once all of it is there.
fn message(handshake: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let Some(&[kind, a, b, c]) = handshake.get(..HANDSHAKE_HEADER) else {
        return match handshake.first() {
            Some(&MESSAGE_CLIENT_HELLO) | None => Ok(None),
            Some(_) => Err(HelloError::Message),
        };
    };
    let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    if kind != MESSAGE_CLIENT_HELLO || len > HELLO_BYTES_MAX {
        return Err(HelloError::Message);
    }
    Ok(handshake.get(HANDSHAKE_HEADER..HANDSHAKE_HEADER + len))
}

/// Takes parts off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(HelloError::Syntax)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, HelloError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A part with its length, of so many bytes, before it.
    fn part(&mut self, length_bytes: usize) -> Result<&'a [u8], HelloError> {
        let len = self.number(length_bytes)?;
        self.take(len)
    }
}

fn name(hello: &[u8]) -> Result<Option<ServerName>, HelloError> {
    let mut hello = Reader(hello);
    // Version and random; session id; cipher suites; compression methods.
    hello.take(2 + 32)?;
    hello.part(1)?;
    hello.part(2)?;
    hello.part(1)?;
    if hello.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(hello.part(2)?);
    if !hello.0.is_empty() {
        return Err(HelloError::Syntax);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.part(2)?;
        if kind == usize::from(EXTENSION_SERVER_NAME) && found.replace(host(content)?).is_some() {
            return Err(HelloError::Syntax);
        }
    }
    Ok(found)
}

/// The one host name of a server_name extension.
fn host(content: &[u8]) -> Result<ServerName, HelloError> {
    let mut content = Reader(content);
    let mut list = Reader(content.part(2)?);
    let (kind, name) = (list.number(1)?, list.part(2)?);
    if kind != usize::from(NAME_HOST) || !list.0.is_empty() || !content.0.is_empty() {
        return Err(HelloError::Syntax);
    }
    ServerName::new(name).ok_or(HelloError::Name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sized(length_bytes: usize, part: &[u8]) -> Vec<u8> {
        let len = (part.len() as u32).to_be_bytes();
        [&len[4 - length_bytes..], part].concat()
    }

    fn server_name(name: &str) -> Vec<u8> {
        let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
        [&[0, 0][..], &sized(2, &sized(2, &entry))].concat()
    }

    /// A handshake message with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body =
            [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &[1, 0], &sized(2, &extensions.concat())];
        [&[1][..], &sized(3, &body.concat())].concat()
    }

    /// In records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &sized(2, chunk)].concat()).collect()
    }

    fn named(name: &str) -> Result<Hello, HelloError> {
        Ok(Hello::Complete(ServerName::new(name.as_bytes())))
    }

    const GREASE: [u8; 4] = [0x0a, 0x0a, 0, 0];

    #[test]
    fn the_name_is_found_however_it_is_cut() {
        let message = hello(&[GREASE.to_vec(), server_name("DB.Example.com."), vec![0, 43, 0, 3, 2, 3, 4]]);
        for size in [message.len(), 40, 9] {
            let bytes = records(&message, size);
            assert_eq!(parse(&bytes), named("db.example.com"));
            assert_eq!(parse(&[&bytes[..], b"more"].concat()), named("db.example.com"));
            for cut in 0..bytes.len() {
                let Ok(Hello::Partial(at_least)) = parse(&bytes[..cut]) else { panic!("at {cut}") };
                assert!(at_least > cut);
            }
        }
        assert_eq!(parse(&records(&hello(&[GREASE.to_vec()]), 50)), Ok(Hello::Complete(None)));
        // Before TLS 1.2 a hello could end without extensions.
        let old = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
        let old = [&[1][..], &sized(3, &old)].concat();
        assert_eq!(parse(&records(&old, 1000)), Ok(Hello::Complete(None)));
    }

    #[test]
    fn what_is_not_tls_is_not_refused_and_what_is_half_of_it_is() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0", b"\x16\x02", b"\x80\x2e\x01\x03\x01", b"\0"] {
            assert_eq!(parse(other), Ok(Hello::NotTls), "{}", other.escape_ascii());
        }
        let sound = hello(&[server_name("a.test")]);
        let body = |bytes: &[u8]| records(&[&[1][..], &sized(3, bytes)].concat(), 1000);
        for (bytes, expected) in [
            (b"\x16\x03\x01\0\0".to_vec(), HelloError::Record),
            (b"\x16\x03\x01\x40\x01".to_vec(), HelloError::Record),
            (b"\x16\x03\x01\0\x01\x01\x17\x03\x03\0\x01".to_vec(), HelloError::Record),
            (records(&sound, 1), HelloError::Record),
            (b"\x16\x03\x01\0\x05\x02".to_vec(), HelloError::Message),
            (b"\x16\x03\x01\0\x05\x01\0\x40\x01".to_vec(), HelloError::Message),
            (body(&[3; 34]), HelloError::Syntax),
            (body(&[&[3; 34][..], &[0, 0, 0, 0, 0, 9]].concat()), HelloError::Syntax),
            (body(&[&[3; 34][..], &[0, 0, 0, 0, 0, 0, 9]].concat()), HelloError::Syntax),
            (records(&hello(&[server_name("a"), server_name("a")]), 1000), HelloError::Syntax),
            (records(&hello(&[vec![0, 0, 0, 0]]), 1000), HelloError::Syntax),
            (records(&hello(&[server_name("")]), 1000), HelloError::Name),
            (records(&hello(&[server_name("a b")]), 1000), HelloError::Name),
            (records(&hello(&[server_name(&"a".repeat(254))]), 1000), HelloError::Name),
        ] {
            assert_eq!(parse(&bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_result(
            name in "[a-zA-Z0-9. _-]{0,20}",
            size in 1usize..200,
            flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes = records(&hello(&[GREASE.to_vec(), server_name(&name)]), size);
            if let Some((at, byte)) = flip {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let whole = parse(&bytes);
            let mut known = Ok(Hello::Partial(0));
            for cut in 0..=bytes.len() {
                let now = parse(&bytes[..cut]);
                prop_assert!(matches!(known, Ok(Hello::Partial(_))) || known == now, "{:?}, {:?}", known, now);
                if let Ok(Hello::Partial(at_least)) = known {
                    prop_assert!(cut >= at_least || matches!(now, Ok(Hello::Partial(_))) || now.is_err());
                }
                known = now;
            }
            prop_assert_eq!(known, whole);
        }
    }
}
