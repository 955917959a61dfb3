//! A response head from a backend: whatever is wrong with it is [`CloseReason::BadResponse`].

use std::mem::MaybeUninit;

use super::{
    Body, Field, HeadLimits, Parsed, Span, Version,
    field::{Scratch, after_crlf, connection_options, note_fields},
    framing::{Framing, framing},
    scan::{Stop, scan_response},
};
use crate::{l7::headers::FieldKind, model::reason::CloseReason};

/// A parsed response head. Holds offsets into the buffer it was parsed from; reuse one per connection.
#[derive(Debug, Default)]
pub struct ResponseHead {
    len: u32,
    status: u16,
    version: Version,
    reason: Span,
    body: Body,
    framing: Option<Framing>,
    keep_alive: bool,
    fields: Vec<Field>,
}

impl ResponseHead {
    /// Reads a head from the start of `buf`. Whether it has a body depends on the request.
    ///
    /// # Errors
    /// [`CloseReason::BadResponse`]: syntax, size, framing, a `101` that does not say what protocol follows, or
    /// framing in a response that can have no body.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
        request_was_head: bool,
    ) -> Result<Parsed, CloseReason> {
        if self.parse_whole(buf, limits).is_none() {
            return match scan_response(buf, limits) {
                Err(Stop::Partial) => Ok(Parsed::Partial),
                Ok(_) | Err(Stop::Refused(_)) => Err(CloseReason::BadResponse),
            };
        }
        self.interpret(buf, request_was_head).ok_or(CloseReason::BadResponse)?;
        Ok(Parsed::Complete)
    }

    fn parse_whole(&mut self, buf: &[u8], limits: &HeadLimits) -> Option<()> {
        let window = buf.get(..limits.bytes).unwrap_or(buf);
        let mut scratch: Scratch<'_> = [const { MaybeUninit::uninit() }; HeadLimits::FIELDS_MAX];
        let room = scratch.get_mut(..limits.fields.min(HeadLimits::FIELDS_MAX))?;
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, window, room);
        let Ok(httparse::Status::Complete(len)) = parsed else { return None };
        // httparse passes over empty lines and bare line feeds; nothing may stand before the status line.
        let status_end = "HTTP/1.1 200".len();
        if !window.starts_with(b"HTTP/1.") || !matches!(response.code?, 100..=599) {
            return None;
        }
        let line_end = status_end + memchr::memchr(b'\r', window.get(status_end..)?)?;
        let fields_start = after_crlf(window, line_end)?;
        note_fields(&mut self.fields, window, response.headers, fields_start, len)?;
        self.len = len as u32;
        self.status = response.code?;
        self.version = if response.version? == 0 { Version::Http10 } else { Version::Http11 };
        self.reason = Span::new((status_end + 1).min(line_end), line_end);
        Some(())
    }

    /// Source: RFC 9112, 6.3.
    fn interpret(&mut self, buf: &[u8], request_was_head: bool) -> Option<()> {
        let framing = framing(&self.fields, buf, self.version).ok()?;
        let never_has_body = matches!(self.status, 100..=199 | 204);
        // Such a response must not carry framing (RFC 9110, 8.6; RFC 9112, 6.1). A zero length is common and
        // harmless, and is not passed on.
        let is_confused = never_has_body && !matches!(framing, Framing::Absent | Framing::Length(0));
        if is_confused {
            return None;
        }
        self.framing = (!never_has_body).then_some(framing);
        self.body = match framing {
            _ if never_has_body || request_was_head || self.status == 304 => Body::None,
            Framing::Absent => Body::UntilClose,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked,
        };
        let options = connection_options(&mut self.fields, buf)?;
        let names_protocol =
            options.upgrade && self.fields.iter().any(|field| field.kind == FieldKind::Upgrade);
        if self.is_switch() && !(names_protocol && self.version == Version::Http11) {
            return None;
        }
        self.keep_alive = !options.close
            && self.body != Body::UntilClose
            && (self.version == Version::Http11 || options.keep_alive);
        Some(())
    }

    /// Bytes of the head in `buf`, blank line included.
    #[expect(clippy::len_without_is_empty, reason = "a parsed head is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Status code, 100 ..= 599.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether another head follows for the same request.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_switch()
    }

    /// Whether another protocol follows (101). Only who has asked for it may go on; see [`super::Upgrades::accepts`].
    pub const fn is_switch(&self) -> bool {
        self.status == 101
    }

    /// How the body ends; `Length(0)` where the backend said so.
    pub const fn body(&self) -> Body {
        self.body
    }

    /// What the framing fields say, body or not: HEAD and 304 describe a body that they do not carry.
    pub(super) const fn described(&self) -> Option<Framing> {
        self.framing
    }

    /// Whether the backend will go on after this exchange.
    pub const fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The backend's version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The reason phrase, which may be empty.
    pub fn reason<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.reason.of(buf)
    }

    /// All fields in order, as received.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}
