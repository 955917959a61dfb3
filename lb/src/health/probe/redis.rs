//! `PING` of RESP, which needs no credentials: a server that wants some says so, and so is up.
//! Source: Redis serialization protocol specification, simple strings and simple errors.

use super::fault::{Fault, Found, quoted};

/// An array of one bulk string.
pub(super) const QUESTION: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Errors of a server that serves others.
const SERVES: [&[u8]; 2] = [b"NOAUTH", b"NOPERM"];

pub(super) fn judge(heard: &[u8]) -> Found {
    match heard.first() {
        None => return Found::More,
        Some(b'+' | b'-') => {}
        Some(_) => return Found::Down(Fault::malformed(format!("no Redis: \"{}\"", quoted(heard)))),
    }
    let Some(end) = memchr::memmem::find(heard, b"\r\n") else { return Found::More };
    let line = &heard[..end];
    if line == b"+PONG" {
        return Found::Up;
    }
    let error =
        line.strip_prefix(b"-").map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default());
    match error {
        Some(code) if SERVES.contains(&code) => Found::Up,
        _ => Found::Down(Fault::wrong(quoted(line))),
    }
}
