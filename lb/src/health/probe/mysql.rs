//! The greeting that a MySQL or MariaDB server begins with; nothing is sent.
//! Source: MySQL Internals, "Protocol::HandshakeV10" and "ERR_Packet".

use super::fault::{Fault, Found, quoted};

/// Length (three bytes, little-endian) and number of a packet.
const HEAD_LEN: usize = 4;
/// Lengths of a greeting, at least protocol, version, thread, salt and flags.
const GREETING: std::ops::RangeInclusive<usize> = 16..=1024;
/// Lengths of an error, at least its code.
const ERROR: std::ops::RangeInclusive<usize> = 3..=1024;

pub(super) fn judge(heard: &[u8]) -> Found {
    let foreign = || Found::Down(Fault::malformed(format!("no MySQL: \"{}\"", quoted(heard))));
    let Some((head, rest)) = heard.split_at_checked(HEAD_LEN) else { return Found::More };
    let [a, b, c, number] = head else { return Found::More };
    let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
    let is_greeting = match rest.first() {
        _ if *number != 0 => return foreign(),
        None => return if length == 0 { foreign() } else { Found::More },
        Some(10) if GREETING.contains(&length) => true,
        Some(0xff) if ERROR.contains(&length) => false,
        Some(_) => return foreign(),
    };
    let Some(packet) = rest.get(1..length) else { return Found::More };
    if is_greeting {
        // The version ends with a zero.
        return if memchr::memchr(0, packet).is_some() { Found::Up } else { foreign() };
    }
    let [low, high, message @ ..] = packet else { return foreign() };
    let code = u16::from_le_bytes([*low, *high]);
    // A SQL state may stand before the message.
    let message = match message {
        [b'#', _, _, _, _, _, message @ ..] => message,
        message => message,
    };
    Found::Down(Fault::wrong(format!("{code} {}", quoted(message))))
}
