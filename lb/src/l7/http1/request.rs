//! A request head: where its parts lie, and what they mean.

use std::mem::MaybeUninit;

use super::{
    Body, Field, HeadLimits, Parsed, Span, Version,
    field::{Scratch, after_crlf, at_most_one, connection_options, note_fields, offset},
    framing::{Framing, framing},
    scan::{Stop, is_target_byte, scan_request},
};
use crate::{
    l7::{
        authority,
        headers::{FieldKind, list},
        path,
    },
    model::reason::CloseReason,
};

/// A parsed request head. Holds offsets into the buffer it was parsed from; every accessor that takes `buf`
/// wants that buffer. Reuse one per connection: its memory is kept.
///
/// A prefix is read from its start each time: at most `limits.bytes` per call, and calls follow packets.
#[derive(Debug, Default)]
pub struct RequestHead {
    len: u32,
    method: Span,
    kind: MethodKind,
    version: Version,
    /// The path within the target, as received; `*` for `OPTIONS *`.
    raw_path: Span,
    /// From `?` on; empty if there is none.
    query: Span,
    /// `host[:port]` of the target or else of `Host`; empty if neither names one.
    authority: Span,
    /// The host within `authority`.
    host: Span,
    /// Whether the two below stand for `raw_path`.
    is_rewritten: bool,
    forwarded_path: Vec<u8>,
    routed_path: Vec<u8>,
    framing: Option<Framing>,
    keep_alive: bool,
    asks_upgrade: bool,
    expects_continue: bool,
    takes_trailers: bool,
    fields: Vec<Field>,
}

/// What we need to know of a method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MethodKind {
    Head,
    Safe,
    Idempotent,
    #[default]
    Other,
    Options,
    Connect,
}

impl MethodKind {
    /// Methods are case-sensitive. Source: RFC 9110, 9.1, 9.2.1 and 9.2.2.
    fn of(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"GET" | b"TRACE" => Self::Safe,
            b"PUT" | b"DELETE" => Self::Idempotent,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

impl RequestHead {
    /// Reads a head from the start of `buf`, which may hold more behind it.
    ///
    /// Only after [`Parsed::Complete`] do the accessors speak of this head.
    ///
    /// # Errors
    /// The first rule that the bytes break; the answer does not depend on how they were cut.
    pub fn parse(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Parsed, CloseReason> {
        if self.parse_whole(buf, limits).is_none() {
            return match scan_request(buf, limits) {
                Err(Stop::Partial) => Ok(Parsed::Partial),
                Err(Stop::Refused(reason)) => Err(reason),
                // httparse refuses what the scan passes: no such head is known (property below).
                Ok(_) => Err(CloseReason::HeaderSyntax),
            };
        }
        self.interpret(buf)?;
        Ok(Parsed::Complete)
    }

    /// The quick way: whole, well-formed heads within the limits. `None`: let the scan say what is wrong.
    fn parse_whole(&mut self, buf: &[u8], limits: &HeadLimits) -> Option<()> {
        let window = buf.get(..limits.bytes).unwrap_or(buf);
        let mut scratch: Scratch<'_> = [const { MaybeUninit::uninit() }; HeadLimits::FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let room = scratch.get_mut(..limits.fields.min(HeadLimits::FIELDS_MAX))?;
        let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(window, room) else {
            return None;
        };
        let (method, target) = (request.method?.as_bytes(), request.path?.as_bytes());
        let start = if window.starts_with(b"\r\n") { 2 } else { 0 };
        let target_start = start + method.len() + 1;
        let version_start = target_start + target.len() + 1;
        let is_sound = offset(window, method) == start
            && offset(window, target) == target_start
            && method.len() <= limits.method
            && target.len() <= limits.target
            // Without an early exit the compiler makes vectors of it.
            && target.iter().fold(true, |sound, &byte| sound & is_target_byte(byte));
        if !is_sound {
            return None;
        }
        let fields_start = after_crlf(window, version_start + "HTTP/1.1".len())?;
        note_fields(&mut self.fields, window, request.headers, fields_start, len)?;
        self.len = len as u32;
        self.method = Span::new(start, target_start - 1);
        self.raw_path = Span::new(target_start, version_start - 1);
        self.version = if request.version? == 0 { Version::Http10 } else { Version::Http11 };
        Some(())
    }

    /// What the parts mean together.
    fn interpret(&mut self, buf: &[u8]) -> Result<(), CloseReason> {
        self.kind = MethodKind::of(self.method.of(buf));
        if self.kind == MethodKind::Connect {
            return Err(refusal_of_connect(self.raw_path.of(buf)));
        }
        self.framing = Some(framing(&self.fields, buf, self.version)?);
        self.interpret_host(buf)?;
        self.interpret_target(buf)?;
        let options = connection_options(&mut self.fields, buf).ok_or(CloseReason::HeaderSyntax)?;
        self.keep_alive = !options.close && (self.version == Version::Http11 || options.keep_alive);
        self.asks_upgrade = options.upgrade
            && self.version == Version::Http11
            && self.body() == Body::None
            && self.fields.iter().any(|field| field.kind == FieldKind::Upgrade);
        let mut said = self.fields.iter().filter(|field| field.kind == FieldKind::Te);
        self.takes_trailers = self.version == Version::Http11
            && said.any(|te| list(te.value.of(buf)).any(|coding| coding.eq_ignore_ascii_case(b"trailers")));
        self.interpret_expect(buf)
    }

    /// `Host` is needed in HTTP/1.1 and never doubled, even where the target outweighs it (RFC 9112, 3.2).
    fn interpret_host(&mut self, buf: &[u8]) -> Result<(), CloseReason> {
        let mut hosts = self.fields.iter().filter(|field| field.kind == FieldKind::Host);
        self.authority = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.value,
            (None, None) if self.version == Version::Http10 => {
                self.authority = Span::default();
                self.host = Span::default();
                return Ok(());
            }
            _ => return Err(CloseReason::Host),
        };
        let len = authority::host_len(self.authority.of(buf)).ok_or(CloseReason::Host)?;
        self.host = Span { end: self.authority.start + len as u32, ..self.authority };
        Ok(())
    }

    /// Takes the target apart: origin-form, absolute-form, or `*` with OPTIONS (RFC 9112, 3.2).
    fn interpret_target(&mut self, buf: &[u8]) -> Result<(), CloseReason> {
        self.is_rewritten = false;
        let whole = self.raw_path;
        let target = whole.of(buf);
        let mut path_start = whole.start;
        match target {
            [b'/', ..] => {}
            b"*" if self.kind == MethodKind::Options => {
                self.query = Span { start: whole.end, end: whole.end };
                return Ok(());
            }
            _ => {
                let scheme = scheme_len(target).ok_or(CloseReason::Target)?;
                let rest = target.get(scheme..).unwrap_or_default();
                let len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
                let host =
                    authority::host_len(rest.get(..len).unwrap_or_default()).ok_or(CloseReason::Target)?;
                let start = whole.start + scheme as u32;
                self.authority = Span { start, end: start + len as u32 };
                self.host = Span { start, end: start + host as u32 };
                path_start = self.authority.end;
            }
        }
        let target = Span { start: path_start, end: whole.end };
        let mark = memchr::memchr(b'?', target.of(buf)).map_or(target.end, |at| target.start + at as u32);
        self.raw_path = Span { start: target.start, end: mark };
        self.query = Span { start: mark, end: target.end };
        self.interpret_path(buf)
    }

    fn interpret_path(&mut self, buf: &[u8]) -> Result<(), CloseReason> {
        let raw = self.raw_path.of(buf);
        if raw.is_empty() {
            // `http://host`: the root, or the server itself for OPTIONS (RFC 9112, 3.2.4).
            let is_asterisk = self.kind == MethodKind::Options && self.query.is_empty();
            let path: &[u8] = if is_asterisk { b"*" } else { b"/" };
            for form in [&mut self.forwarded_path, &mut self.routed_path] {
                form.clear();
                form.extend_from_slice(path);
            }
            self.is_rewritten = true;
        } else if !path::is_clean(raw) {
            path::normalise(raw, &mut self.forwarded_path, &mut self.routed_path)
                .map_err(|path::Unsafe| CloseReason::Target)?;
            self.is_rewritten = true;
        }
        Ok(())
    }

    /// HTTP/1.0 clients cannot expect anything (RFC 9110, 10.1.1).
    fn interpret_expect(&mut self, buf: &[u8]) -> Result<(), CloseReason> {
        self.expects_continue = false;
        if self.version == Version::Http10 {
            return Ok(());
        }
        match at_most_one(&self.fields, buf, FieldKind::Expect) {
            Ok(None) => Ok(()),
            Ok(Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expects_continue = true;
                Ok(())
            }
            _ => Err(CloseReason::Expect),
        }
    }

    /// Bytes of the head in `buf`, blank line included.
    #[expect(clippy::len_without_is_empty, reason = "a parsed head is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// How the body ends.
    pub const fn body(&self) -> Body {
        match self.framing {
            None | Some(Framing::Absent | Framing::Length(0)) => Body::None,
            Some(Framing::Length(length)) => Body::Length(length),
            Some(Framing::Chunked) => Body::Chunked,
        }
    }

    /// Whether `Content-Length: 0` stands there, which a backend may insist on.
    pub(super) fn says_empty(&self) -> bool {
        self.framing == Some(Framing::Length(0))
    }

    /// Whether the client wants to go on after this exchange.
    pub const fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The client's version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether the method is HEAD: the response has no body whatever its head says.
    pub fn is_head(&self) -> bool {
        self.kind == MethodKind::Head
    }

    /// Whether doing it twice is as doing it once. Source: RFC 9110, 9.2.2.
    pub const fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.kind, MethodKind::Idempotent)
    }

    /// Whether nothing is asked for but an answer. Source: RFC 9110, 9.2.1.
    pub const fn is_safe(&self) -> bool {
        matches!(self.kind, MethodKind::Head | MethodKind::Safe | MethodKind::Options)
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub const fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the client asks for another protocol, in a way that we pass on. One that speaks HTTP/1.0 cannot (RFC 9110, 7.8);
    /// one that sends a body would change protocols behind it, and is answered as if it had not asked.
    pub const fn asks_upgrade(&self) -> bool {
        self.asks_upgrade
    }

    /// Whether the client takes trailers behind a response (RFC 9110, 10.1.4).
    pub const fn takes_trailers(&self) -> bool {
        self.takes_trailers
    }

    /// The method.
    pub fn method<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.method.of(buf)
    }

    /// The path that is forwarded: normalised by the rule of [`crate::l7::path`].
    pub fn forwarded_path<'b>(&'b self, buf: &'b [u8]) -> &'b [u8] {
        if self.is_rewritten { &self.forwarded_path } else { self.raw_path.of(buf) }
    }

    /// The path that is routed, without query; `*` for a request to the server itself.
    pub fn path<'b>(&'b self, buf: &'b [u8]) -> &'b [u8] {
        if self.is_rewritten { &self.routed_path } else { self.raw_path.of(buf) }
    }

    /// From `?` on; empty if there is none.
    pub fn query<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.query.of(buf)
    }

    /// The request target as received, whatever its form.
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        Span { start: self.method.end + 1, end: self.query.end }.of(buf)
    }

    /// `host[:port]` that the request is for: of an absolute target, else of `Host`; empty for an HTTP/1.0
    /// request that names none.
    pub fn authority<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.authority.of(buf)
    }

    /// The host of [`RequestHead::authority`] for routing: no port, no root dot, as the client cased it.
    pub fn host<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.host.of(buf)
    }

    /// All fields in order, as received.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// No tunnels for clients; a target that is no `host:port` is worse (RFC 9112, 3.2.3).
fn refusal_of_connect(target: &[u8]) -> CloseReason {
    let has_port = |host: usize| target.get(host..).is_some_and(|rest| rest.contains(&b':'));
    match authority::host_len(target) {
        Some(host) if has_port(host) => CloseReason::Method,
        _ => CloseReason::Target,
    }
}

/// Length of `http://` or `https://`, in any case.
fn scheme_len(target: &[u8]) -> Option<usize> {
    ["http://", "https://"]
        .map(str::as_bytes)
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
}
