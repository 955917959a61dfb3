//! ClientHellos: the same name however they are cut, and as another reader finds it.

use lb::relay::client_hello::{Hello, ServerName, parse};

use super::Target;
use crate::bytes::show;

/// See the module.
pub const TARGET: Target = Target { name: "client_hello", run, seeds, words };

fn run(input: &[u8]) {
    let whole = parse(input);
    let mut known = Ok(Hello::Partial(0));
    for cut in 0..=input.len() {
        let now = parse(&input[..cut]);
        if let Ok(Hello::Partial(at_least)) = known {
            let is_news = matches!(now, Ok(Hello::Complete(_) | Hello::NotTls));
            assert!(!is_news || cut >= at_least, "{} at {cut}: {now:?} before {at_least}", show(input));
        } else {
            assert_eq!(now, known, "{} at {cut}", show(input));
        }
        known = now;
    }
    assert_eq!(known, whole);
    let Ok(Hello::Complete(name)) = whole else { return };
    let expected = plain(input).flatten();
    assert_eq!(name.as_ref().map(ServerName::as_bytes), expected.as_deref(), "{}", show(input));
}

/// The plainest of readers, for hellos that are sound.
fn plain(mut records: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut message = Vec::new();
    while message.len() < 4 || message.len() < 4 + number(&message[1..4]) {
        let len = number(records.get(3..5)?);
        message.extend_from_slice(records.get(5..5 + len)?);
        records = &records[5 + len..];
    }
    let hello = &message[4..4 + number(&message[1..4])];
    let mut at = 34;
    for length_bytes in [1, 2, 1] {
        at += length_bytes + number(hello.get(at..at + length_bytes)?);
    }
    let mut extensions = hello.get(at + 2..).unwrap_or_default();
    while let Some(head) = extensions.get(..4) {
        let content = extensions.get(4..4 + number(&head[2..]))?;
        if head[..2] == [0, 0] {
            let name = content.get(5..)?.to_ascii_lowercase();
            return Some(Some(name.strip_suffix(b".").map(<[u8]>::to_vec).unwrap_or(name)));
        }
        extensions = &extensions[4 + content.len()..];
    }
    Some(None)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn sized(length_bytes: usize, part: &[u8]) -> Vec<u8> {
    let len = (part.len() as u32).to_be_bytes();
    [&len[4 - length_bytes..], part].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &sized(2, &sized(2, &[&[0][..], &sized(2, name)].concat()))].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let hello = |extensions: &[u8], size: usize| {
        let parts = [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &[1, 0], &sized(2, extensions)];
        let message = [&[1][..], &sized(3, &parts.concat())].concat();
        message
            .chunks(size)
            .flat_map(|chunk| [&[22, 3, 1][..], &sized(2, chunk)].concat())
            .collect::<Vec<u8>>()
    };
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let named = [&versions[..], &server_name(b"DB.example.com")].concat();
    vec![
        hello(&named, 1000),
        hello(&named, 30),
        hello(&versions, 1000),
        hello(&server_name(b"a.test."), 9),
        b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x01".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ]
}

fn words() -> Vec<Vec<u8>> {
    vec![
        b"\x16\x03\x01\0\x10".to_vec(),
        b"\x16\x03\x03\0\x01".to_vec(),
        b"\x01\0\0\x2f\x03\x03".to_vec(),
        server_name(b"a"),
        server_name(b"a.example.com"),
        b"\x0a\x0a\0\0".to_vec(),
        b"\0\x2b\0\x03\x02\x03\x04".to_vec(),
    ]
}
