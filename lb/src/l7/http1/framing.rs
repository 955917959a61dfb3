//! How long a body is, and who says so. Source: RFC 9112, 6; where it leaves a choice, the strict side.

use super::{Version, field::Field};
use crate::{
    l7::headers::{FieldKind, is_token, list},
    model::reason::CloseReason,
};

/// What the framing fields of a head say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Absent,
    Length(u64),
    Chunked,
}

/// Reads `Content-Length` and `Transfer-Encoding`.
pub(super) fn framing(fields: &[Field], buf: &[u8], version: Version) -> Result<Framing, CloseReason> {
    let mut length = None;
    let mut coding = None;
    let mut doubled = None;
    for field in fields {
        let (seen, twice) = match field.kind {
            FieldKind::ContentLength => (&mut length, CloseReason::ContentLength),
            FieldKind::TransferEncoding => (&mut coding, CloseReason::TransferEncoding),
            FieldKind::FramingLookalike => return Err(CloseReason::HeaderSyntax),
            _ => continue,
        };
        if seen.replace(field.value.of(buf)).is_some() {
            doubled = Some(twice);
        }
    }
    match (length, coding, doubled) {
        (Some(_), Some(_), _) => Err(CloseReason::FramingConflict),
        (_, _, Some(twice)) => Err(twice),
        (None, None, None) => Ok(Framing::Absent),
        (Some(length), None, None) => content_length(length).map(Framing::Length),
        // RFC 9112, 6.1: the sender of such a message is faulty, however it is framed.
        (None, Some(_), None) if version == Version::Http10 => Err(CloseReason::TransferEncoding),
        (None, Some(coding), None) => transfer_encoding(coding).map(|()| Framing::Chunked),
    }
}

/// Decimal digits without sign, list or leading zero, below 2^63.
pub(in crate::l7) fn content_length(value: &[u8]) -> Result<u64, CloseReason> {
    let refused = CloseReason::ContentLength;
    if value.is_empty() || value.len() > 1 && value.starts_with(b"0") {
        return Err(refused);
    }
    let mut length = 0u64;
    for &digit in value {
        if !digit.is_ascii_digit() {
            return Err(refused);
        }
        length =
            length.checked_mul(10).and_then(|l| l.checked_add(u64::from(digit - b'0'))).ok_or(refused)?;
    }
    if length > i64::MAX as u64 { Err(refused) } else { Ok(length) }
}

/// `Ok`: `chunked` and nothing else.
fn transfer_encoding(value: &[u8]) -> Result<(), CloseReason> {
    let (mut codings, mut chunked, mut last_is_chunked) = (0, 0, false);
    for coding in list(value) {
        if !is_token(coding) {
            return Err(CloseReason::TransferEncoding);
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
        codings += 1;
    }
    match (codings, chunked) {
        (1, 1) => Ok(()),
        // One coding that we do not know, or several of them under one final `chunked`.
        (1, 0) => Err(CloseReason::UnknownCoding),
        (_, 1) if last_is_chunked => Err(CloseReason::UnknownCoding),
        _ => Err(CloseReason::TransferEncoding),
    }
}
