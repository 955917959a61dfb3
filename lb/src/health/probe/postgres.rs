//! A PostgreSQL startup message for a user that need not exist, as `pg_isready` does: whoever asks for a password or
//! refuses the user serves others. `57P03` (cannot connect now) is what a server says that starts up or shuts down.
//! Source: PostgreSQL documentation, "Message Formats"; SQLSTATE: "PostgreSQL Error Codes".

use super::fault::{Fault, Found, quoted};

/// Protocol 3.0.
const VERSION: u32 = 3 << 16;
/// Parameters, each a name and a value.
const PARAMETERS: &[u8] = b"user\0lb\0database\0lb\0application_name\0lb health check\0\0";
/// Longest error that is read.
const ERROR_BYTES_MAX: usize = 4 << 10;
/// Longest request for authentication that is read.
const REQUEST_BYTES_MAX: usize = 1 << 10;
/// Type and length.
const HEAD_LEN: usize = 5;

pub(super) fn question() -> Vec<u8> {
    let length = (8 + PARAMETERS.len()) as u32;
    [&length.to_be_bytes()[..], &VERSION.to_be_bytes(), PARAMETERS].concat()
}

pub(super) fn judge(heard: &[u8]) -> Found {
    let foreign = || Found::Down(Fault::malformed(format!("no PostgreSQL: \"{}\"", quoted(heard))));
    let lengths = match heard.first() {
        None => return Found::More,
        Some(b'R') => 8..=REQUEST_BYTES_MAX,
        Some(b'E') => 4..=ERROR_BYTES_MAX,
        Some(_) => return foreign(),
    };
    let Some((head, rest)) = heard.split_at_checked(HEAD_LEN) else { return Found::More };
    let [kind, length @ ..] = head else { return Found::More };
    // It counts itself.
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if !lengths.contains(&length) {
        return foreign();
    }
    let Some(body) = rest.get(..length - 4) else { return Found::More };
    match kind {
        b'R' => Found::Up,
        _ => error(body).unwrap_or_else(foreign),
    }
}

/// Fields of a letter and a string each, then a zero.
fn error(body: &[u8]) -> Option<Found> {
    let (mut state, mut message): (Option<&[u8]>, &[u8]) = (None, b"");
    let mut rest = body;
    loop {
        let (letter, text) = match rest {
            [0] => break,
            [letter, text @ ..] => (*letter, text),
            [] => return None,
        };
        let end = memchr::memchr(0, text)?;
        match letter {
            b'C' => state = Some(&text[..end]),
            b'M' => message = &text[..end],
            _ => {}
        }
        rest = &text[end + 1..];
    }
    Some(match state? {
        b"57P03" => Found::Down(Fault::wrong(format!("57P03 {}", quoted(message)))),
        _ => Found::Up,
    })
}
