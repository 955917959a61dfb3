//! The health service of gRPC: one question, and what is made of its answer. The streams and fields of HTTP/2 around them
//! are the driver's.
//!
//! Source: grpc/grpc, doc/health-checking.md and doc/PROTOCOL-HTTP2.md (messages with their prefix, `grpc-status`).

use super::fault::{Fault, Found, quoted};

/// Where it is asked.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What came of a question.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcAnswer<'a> {
    /// Of HTTP.
    pub status: u16,
    /// `grpc-status`, of the trailers or the head.
    pub grpc_status: Option<&'a [u8]>,
    /// `grpc-message`, where it was.
    pub grpc_message: Option<&'a [u8]>,
    /// Messages with their prefixes.
    pub body: &'a [u8],
}

/// `HealthCheckRequest { service }` with its prefix. `service` has at most 255 bytes.
pub(super) fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, of bytes.
        message.push(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// Whether it says that the service takes requests. Never [`Found::More`].
pub(super) fn judge(answer: &GrpcAnswer<'_>) -> Found {
    match serving(answer) {
        Ok(()) => Found::Up,
        Err(fault) => Found::Down(fault),
    }
}

fn serving(answer: &GrpcAnswer<'_>) -> Result<(), Fault> {
    let GrpcAnswer { status, grpc_status, grpc_message, body } = *answer;
    if status != 200 {
        return Err(Fault::wrong(status.to_string()));
    }
    let code = grpc_status.ok_or_else(|| Fault::malformed("no gRPC: an answer without grpc-status"))?;
    if code != b"0" {
        let name = code_name(code);
        return Err(Fault::wrong(match grpc_message {
            Some(message) if !message.is_empty() => format!("{name}: {}", quoted(message)),
            _ => name,
        }));
    }
    let message = message(body)?;
    match serving_status(message).ok_or_else(|| Fault::malformed("no HealthCheckResponse"))? {
        1 => Ok(()),
        0 => Err(Fault::wrong("UNKNOWN")),
        2 => Err(Fault::wrong("NOT_SERVING")),
        3 => Err(Fault::wrong("SERVICE_UNKNOWN")),
        other => Err(Fault::wrong(format!("status {other}"))),
    }
}

/// The one message.
fn message(body: &[u8]) -> Result<&[u8], Fault> {
    let bad = |text: &str| Fault::malformed(text);
    let (prefix, message) =
        body.split_at_checked(PREFIX).ok_or_else(|| bad("no message, though the status is OK"))?;
    let [compressed, length @ ..] = prefix else { return Err(bad("no prefix")) };
    if *compressed != 0 {
        return Err(bad("a compressed message, which was not asked for"));
    }
    let len = length.iter().fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
    if len != message.len() as u64 {
        return Err(bad("a message of another length than it says"));
    }
    Ok(message)
}

/// Field 1 of a `HealthCheckResponse`: the last one that is there, else 0; other fields are passed over. `None`: it is
/// none.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => status = varint(&mut message)?,
            (1, _) => return None,
            (_, 0) => _ = varint(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(len..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * at)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Source: grpc/grpc, doc/statuscodes.md.
fn code_name(code: &[u8]) -> String {
    let names = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let number = std::str::from_utf8(code).ok().and_then(|code| code.parse::<usize>().ok());
    match number.and_then(|number| names.get(number)) {
        Some(name) => (*name).to_owned(),
        None => format!("grpc-status \"{}\"", quoted(code)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(body: &[u8]) -> GrpcAnswer<'_> {
        GrpcAnswer { status: 200, grpc_status: Some(b"0"), grpc_message: None, body }
    }

    #[track_caller]
    fn down(answer: GrpcAnswer<'_>, text: &str) {
        let Found::Down(fault) = judge(&answer) else { panic!("up") };
        assert_eq!(fault.text, text);
    }

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"s".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    #[test]
    fn only_serving_is_up() {
        assert_eq!(judge(&answer(b"\0\0\0\0\x02\x08\x01")), Found::Up);
        // Fields that are not known, before and behind; the last status counts.
        let more = b"\0\0\0\0\x0f\x08\x02\x12\x02hi\x19--------";
        down(answer(more), "NOT_SERVING");
        down(answer(b"\0\0\0\0\x03\x08\x01"), "a message of another length than it says");
        let more = b"\0\0\0\0\x11\x08\x02\x12\x02hi\x19--------\x08\x01";
        assert_eq!(judge(&answer(more)), Found::Up);
        down(answer(b"\0\0\0\0\0"), "UNKNOWN");
        down(answer(b"\0\0\0\0\x02\x08\x02"), "NOT_SERVING");
        down(answer(b"\0\0\0\0\x02\x08\x03"), "SERVICE_UNKNOWN");
        down(answer(b"\0\0\0\0\x02\x08\x09"), "status 9");
    }

    #[test]
    fn what_is_no_answer_says_why() {
        down(GrpcAnswer { status: 502, ..answer(b"") }, "502");
        down(GrpcAnswer { grpc_status: None, ..answer(b"") }, "no gRPC: an answer without grpc-status");
        down(GrpcAnswer { grpc_status: Some(b"12"), ..answer(b"") }, "UNIMPLEMENTED");
        let unknown =
            GrpcAnswer { grpc_status: Some(b"5"), grpc_message: Some(b"unknown service\n"), ..answer(b"") };
        down(unknown, "NOT_FOUND: unknown service\\n");
        down(GrpcAnswer { grpc_status: Some(b"99"), ..answer(b"") }, "grpc-status \"99\"");
        down(answer(b""), "no message, though the status is OK");
        down(answer(b"\x01\0\0\0\x02\x08\x01"), "a compressed message, which was not asked for");
        for broken in
            [&b"\0\0\0\0\x01\x08"[..], b"\0\0\0\0\x01\x01", b"\0\0\0\0\x02\x0a\x05", b"\0\0\0\0\x02\x0f\x01"]
        {
            down(answer(broken), "no HealthCheckResponse");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(body in any::<Vec<u8>>(), code in any::<Vec<u8>>()) {
            _ = judge(&GrpcAnswer { grpc_status: Some(&code), ..answer(&body) });
            _ = serving_status(&body);
        }

        #[test]
        fn numbers_come_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(varint(&mut &bytes[..]), Some(value));
        }
    }
}
