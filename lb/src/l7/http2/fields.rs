//! Fields of either version, one at a time.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, InvalidHeaderValue},
};

use super::BodyForm;
use crate::l7::{
    headers::{is_value_byte, trim_ows},
    http1::content_length,
};

/// A field may not stand in HTTP/2, or says what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Whether the field is of a connection of HTTP/1. Source: RFC 9113, 8.2.2.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Whether HTTP/2 may have the field. Source: RFC 9113, 8.2.1 and 8.2.2.
pub(super) fn check(name: &HeaderName, value: &HeaderValue) -> Result<(), Refused> {
    let bytes = value.as_bytes();
    let is_sound = !is_of_connection(name)
        && bytes.iter().all(|&byte| is_value_byte(byte))
        && trim_ows(bytes).len() == bytes.len()
        && (name != header::TE || bytes.eq_ignore_ascii_case(b"trailers"));
    if is_sound { Ok(()) } else { Err(Refused) }
}

/// Appends `name: value`.
pub(super) fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends the line that frames a message with these fields. A length that stands there is the only one, and counts.
///
/// # Errors
/// [`Refused`]: the length is none, or said twice, or not 0 where nothing follows.
pub(super) fn push_framing(
    out: &mut Vec<u8>,
    fields: &HeaderMap,
    has_body: bool,
) -> Result<BodyForm, Refused> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let form = match (lengths.next(), lengths.next()) {
        (Some(_), Some(_)) => return Err(Refused),
        (Some(length), None) => {
            push(out, b"content-length", length.as_bytes());
            match content_length(length.as_bytes()).map_err(|_| Refused)? {
                0 => BodyForm::None,
                length if has_body => BodyForm::Length(length),
                _ => return Err(Refused),
            }
        }
        (None, _) if has_body => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            BodyForm::Chunked
        }
        (None, _) => BodyForm::None,
    };
    Ok(form)
}

/// Adds a field of a message of ours to what HTTP/2 sends, where it may have it.
///
/// # Errors
/// Nothing that our strict reader has passed.
pub(super) fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Refused> {
    let name = HeaderName::from_bytes(name).map_err(|_| Refused)?;
    if is_of_connection(&name) || (name == header::TE && !value.eq_ignore_ascii_case(b"trailers")) {
        return Ok(());
    }
    let value = HeaderValue::from_bytes(trim_ows(value)).map_err(|_: InvalidHeaderValue| Refused)?;
    fields.try_append(name, value).map(drop).map_err(|_| Refused)
}
