//! Where the fields of a head lie, and what its `Connection` says.

use std::mem::MaybeUninit;

use super::HeadLimits;
use crate::l7::headers::{FieldKind, is_token, list, trim_ows};

/// Room for what httparse finds; left uninitialised, so it costs nothing.
pub(super) type Scratch<'b> = [MaybeUninit<httparse::Header<'b>>; HeadLimits::FIELDS_MAX];

/// A piece of the buffer that was parsed: `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// After the last byte.
    pub end: u32,
}

impl Span {
    /// From positions within a head, which is shorter than 4 GiB by [`HeadLimits::bytes`].
    #[inline]
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes; empty for a buffer that it was not made for.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether it covers nothing.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Span,
    /// Its value without the white space around it.
    pub value: Span,
    /// After its line feed.
    pub line_end: u32,
    /// What its name means.
    pub kind: FieldKind,
    /// `Connection` names it and may.
    pub is_hop: bool,
}

impl Field {
    /// Whether the line reads `name: value CRLF` with just one space, so that it can be copied as it is.
    #[inline]
    pub(super) fn is_canonical(&self, buf: &[u8]) -> bool {
        self.value.start == self.name.end + 2
            && self.line_end == self.value.end + 2
            && buf.get(self.name.end as usize + 1) == Some(&b' ')
    }
}

/// Offset of a part within the whole it was cut from.
#[inline]
pub(super) fn offset(buf: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize)
}

/// Notes httparse's fields, starting at `at`, and checks that each line follows the last one with nothing but
/// optional white space and CRLF between. `None`: not so, or the head does not end at `end`.
pub(super) fn note_fields(
    fields: &mut Vec<Field>,
    buf: &[u8],
    headers: &[httparse::Header<'_>],
    mut at: usize,
    end: usize,
) -> Option<()> {
    fields.clear();
    for header in headers {
        let name = header.name.as_bytes();
        let colon = at + name.len();
        if name.is_empty() || offset(buf, name) != at || buf.get(colon) != Some(&b':') {
            return None;
        }
        let value = if header.value.is_empty() {
            Span::new(colon + 1, colon + 1)
        } else {
            let start = offset(buf, header.value);
            Span::new(start, start + header.value.len())
        };
        let mut line_end = value.end as usize;
        while matches!(buf.get(line_end), Some(b' ' | b'\t')) {
            line_end += 1;
        }
        line_end = after_crlf(buf, line_end)?;
        fields.push(Field {
            name: Span::new(at, colon),
            value,
            line_end: line_end as u32,
            kind: FieldKind::of(name),
            is_hop: false,
        });
        at = line_end;
    }
    (after_crlf(buf, at)? == end).then_some(())
}

/// Position after a CRLF that stands at `at`.
#[inline]
pub(super) fn after_crlf(buf: &[u8], at: usize) -> Option<usize> {
    (buf.get(at..at + 2)? == b"\r\n").then_some(at + 2)
}

/// What the `Connection` fields of a head ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// Most options that the `Connection` fields of a head may name: each costs a walk over all fields.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Reads `Connection` and marks the fields that it names, save those that must not be stripped. `None`: an
/// option is no token, or there are too many.
pub(super) fn connection_options(fields: &mut [Field], buf: &[u8]) -> Option<ConnectionOptions> {
    let mut options = ConnectionOptions::default();
    let mut left = CONNECTION_OPTIONS_MAX;
    for at in 0..fields.len() {
        let Some(field) = fields.get(at).filter(|field| field.kind == FieldKind::Connection) else {
            continue;
        };
        for option in list(field.value.of(buf)).filter(|option| !option.is_empty()) {
            left = left.checked_sub(1)?;
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if is_token(option) {
                mark_hop(fields, buf, option);
            } else {
                return None;
            }
        }
    }
    Some(options)
}

fn mark_hop(fields: &mut [Field], buf: &[u8], option: &[u8]) {
    for field in fields {
        if field.kind.is_strippable() && field.name.of(buf).eq_ignore_ascii_case(option) {
            field.is_hop = true;
        }
    }
}

/// The value of a field that must be there at most once. `Err`: twice.
pub(super) fn at_most_one<'b>(
    fields: &[Field],
    buf: &'b [u8],
    kind: FieldKind,
) -> Result<Option<&'b [u8]>, Twice> {
    let mut found = fields.iter().filter(|field| field.kind == kind);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Twice),
        (field, None) => Ok(field.map(|field| trim_ows(field.value.of(buf)))),
    }
}

/// A field stands there more than once.
pub(super) struct Twice;
