//! Fields of either version, one at a time.

use std::mem::MaybeUninit;

use lb_http2::FieldWriter;

use super::BodyForm;
use crate::l7::http1::{HeadLimits, content_length};

/// A field says what it must not, or may not stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Where a head of ours is read to.
pub(super) type Room<'h> = [MaybeUninit<httparse::Header<'h>>; HeadLimits::FIELDS_MAX];

/// An empty one.
pub(super) const fn room<'h>() -> Room<'h> {
    [const { MaybeUninit::uninit() }; HeadLimits::FIELDS_MAX]
}

/// Appends `name: value`.
pub(super) fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends the line that frames a message which has this for its length.
///
/// # Errors
/// [`Refused`]: the length is none, or not 0 where nothing follows.
pub(super) fn push_framing(
    out: &mut Vec<u8>,
    length: Option<&[u8]>,
    has_body: bool,
) -> Result<BodyForm, Refused> {
    match length {
        Some(length) => {
            push(out, b"content-length", length);
            match content_length(length).map_err(|_| Refused)? {
                0 => Ok(BodyForm::None),
                length if has_body => Ok(BodyForm::Length(length)),
                _ => Err(Refused),
            }
        }
        None if has_body => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Ok(BodyForm::Chunked)
        }
        None => Ok(BodyForm::None),
    }
}

/// What a head of ours says of the body behind it (RFC 9112, 6.3): a length, or that there are chunks.
pub(super) fn framing(fields: &[httparse::Header<'_>]) -> (Option<u64>, bool) {
    let (mut length, mut is_chunked) = (None, false);
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = content_length(field.value).ok();
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = true;
        }
    }
    (length, is_chunked)
}

/// Adds a field of a message of ours to what HTTP/2 sends, where it may have it; `is_sound` becomes false of what nobody may
/// send, which our strict reader passes none of.
pub(super) fn append(writer: &mut FieldWriter<'_>, name: &[u8], value: &[u8], is_sound: &mut bool) {
    *is_sound &= writer.push(name, value).is_ok();
}
