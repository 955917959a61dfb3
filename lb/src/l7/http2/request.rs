//! Requests, from HTTP/2 and to it.

use std::borrow::Cow;

use lb_http2::{FieldWriter, Flaw, Head, Known, Request};

use super::{
    BodyForm,
    fields::{self, Refused, Room},
    tunnel,
};
use crate::{
    l7::{authority, http1::is_target_byte},
    model::reason::CloseReason,
};

/// Appends the head of HTTP/1.1 that says what a client said in HTTP/2, to be read by
/// [`RequestHead::parse`](crate::l7::http1::RequestHead::parse). Nothing is appended of one that is refused.
///
/// `has_body`: the stream did not end with its head. `fields_max`: most fields, cookie crumbs counted each; the head that is
/// written has up to two more (`Host` and what frames the body).
///
/// What the engine has refused before: see [`reason`].
///
/// # Errors
/// [`CloseReason::TooManyFields`]; [`CloseReason::Method`]: CONNECT without a protocol; [`CloseReason::Host`]: a malformed
/// authority, or two that differ; [`CloseReason::Target`]; [`CloseReason::ContentLength`]; [`CloseReason::Http2Message`]: a scheme
/// that is none of ours, or a length where there can be none.
pub(super) fn write_request(
    head: &Head<'_>,
    has_body: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let start = out.len();
    let written = write_head(head, has_body, fields_max, out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// What a request is refused for that the engine takes for malformed.
pub(super) const fn reason(flaw: Flaw) -> CloseReason {
    match flaw {
        Flaw::Authority => CloseReason::Host,
        Flaw::Path => CloseReason::Target,
        Flaw::ContentLength | Flaw::Length => CloseReason::ContentLength,
        _ => CloseReason::Http2Message,
    }
}

fn write_head(
    head: &Head<'_>,
    has_body: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let tunnel = tunnel::asked(head)?;
    let scheme = scheme(head)?;
    let (host, target) = (host(head, scheme)?, target(head)?);
    let method = if tunnel.is_some() { b"GET" } else { head.method() };
    for part in [method, b" ", target, b" HTTP/1.1\r\nhost: ", host, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let rest = write_fields(head, fields_max, out)?;
    if let Some(protocol) = tunnel {
        tunnel::push_ask(protocol, rest.has_key, out);
        out.extend_from_slice(b"\r\n");
        return Ok(BodyForm::Tunnel);
    }
    let form =
        fields::push_framing(out, rest.length, has_body).map_err(|Refused| CloseReason::ContentLength)?;
    if rest.length.is_none() && !has_body && means_content(method) {
        // HTTP/2 says so with the end of the stream, and a backend may insist on it (RFC 9110, 8.6).
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(form)
}

fn means_content(method: &[u8]) -> bool {
    matches!(method, b"POST" | b"PUT" | b"PATCH")
}

/// The port that the scheme has where none is said.
type DefaultPort = u32;

fn scheme(head: &Head<'_>) -> Result<DefaultPort, CloseReason> {
    match head.scheme() {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => Ok(443),
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => Ok(80),
        _ => Err(CloseReason::Http2Message),
    }
}

/// What `:authority` says, or else `Host`: where both do they must mean the same (RFC 9113, 8.3.1).
fn host<'a>(head: &Head<'a>, default: DefaultPort) -> Result<&'a [u8], CloseReason> {
    let host = match (head.authority(), head.host()) {
        (Some(authority), None) => authority,
        (Some(authority), Some(host)) if is_same(authority, host, default) => authority,
        (None, Some(host)) => host,
        _ => return Err(CloseReason::Host),
    };
    // No user information in it either (RFC 9113, 8.3.1).
    authority::host_len(host).map(|_| host).ok_or(CloseReason::Host)
}

/// Whether two authorities mean the same: RFC 3986, 6.2.
fn is_same(one: &[u8], other: &[u8], default: DefaultPort) -> bool {
    if one == other {
        return true;
    }
    let (Some(one), Some(other)) = (host_and_port(one, default), host_and_port(other, default)) else {
        return false;
    };
    one.0.eq_ignore_ascii_case(other.0) && one.1 == other.1
}

fn host_and_port(authority: &[u8], default: DefaultPort) -> Option<(&[u8], u32)> {
    let (host, rest) = authority.split_at_checked(authority::host_len(authority)?)?;
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    let port = match rest.strip_prefix(b":") {
        Some(digits) => std::str::from_utf8(digits).ok()?.parse().ok()?,
        None => default,
    };
    Some((host, port))
}

/// `:path`: from `/`, or `*` with OPTIONS (RFC 9113, 8.3.1), as the engine has seen to.
fn target<'a>(head: &Head<'a>) -> Result<&'a [u8], CloseReason> {
    let target = head.path().ok_or(CloseReason::Target)?;
    if target.iter().copied().all(is_target_byte) { Ok(target) } else { Err(CloseReason::Target) }
}

/// What of the fields is written otherwise.
#[derive(Default)]
struct Rest<'h> {
    length: Option<&'h [u8]>,
    has_key: bool,
}

/// All but those that are written otherwise. Crumbs become one line where the first of them stood (RFC 9113, 8.2.3).
fn write_fields<'h>(head: &Head<'h>, fields_max: usize, out: &mut Vec<u8>) -> Result<Rest<'h>, CloseReason> {
    let (mut rest, mut had_cookie) = (Rest::default(), false);
    for (count, field) in head.fields().enumerate() {
        if count == fields_max {
            return Err(CloseReason::TooManyFields);
        }
        match field.known {
            Known::Host => {}
            Known::ContentLength => rest.length = Some(field.value),
            Known::Cookie if std::mem::replace(&mut had_cookie, true) => {}
            Known::Cookie => push_cookie(head, out),
            _ => {
                rest.has_key |= field.name == tunnel::KEY.as_bytes();
                fields::push(out, field.name, field.value);
            }
        }
    }
    Ok(rest)
}

fn push_cookie(head: &Head<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"cookie: ");
    let crumbs = head.fields().filter(|field| field.known == Known::Cookie && !field.value.is_empty());
    for (at, crumb) in crumbs.enumerate() {
        if at > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb.value);
    }
    out.extend_from_slice(b"\r\n");
}

/// What a head says which [`encode_request`](crate::l7::http1::encode_request) has made.
pub(super) struct Said<'h> {
    pub(super) method: &'h [u8],
    pub(super) authority: &'h [u8],
    target: Cow<'h, str>,
    pub(super) fields: &'h [httparse::Header<'h>],
    /// Which it asks for.
    pub(super) tunnel: Option<tunnel::Ask>,
}

/// Reads it.
///
/// # Errors
/// [`CloseReason::Host`], [`CloseReason::HeaderSyntax`]: nothing of a head that was made so.
pub(super) fn read_request<'h>(head: &'h [u8], room: &'h mut Room<'h>) -> Result<Said<'h>, CloseReason> {
    let mut parsed = httparse::Request::new(&mut []);
    if !matches!(parsed.parse_with_uninit_headers(head, room), Ok(httparse::Status::Complete(_))) {
        return Err(CloseReason::HeaderSyntax);
    }
    let fields: &'h [httparse::Header<'h>] = parsed.headers;
    let host = fields.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
    let authority = host.map(|host| host.value).unwrap_or_default();
    if authority::host_len(authority).is_none() {
        return Err(CloseReason::Host);
    }
    Ok(Said {
        method: parsed.method.unwrap_or_default().as_bytes(),
        authority,
        target: escaped(parsed.path.unwrap_or_default()),
        fields,
        tunnel: tunnel::Ask::of(head, fields),
    })
}

impl<'h> Said<'h> {
    /// As it goes in HTTP/2. `protocol`: a tunnel of it is asked for.
    pub(super) fn request<'s>(&'s self, scheme: &'s [u8], protocol: Option<&'s [u8]>) -> Request<'s> {
        Request {
            method: if protocol.is_some() { b"CONNECT" } else { self.method },
            scheme,
            authority: self.authority,
            path: self.target.as_bytes(),
            protocol: protocol.unwrap_or_default(),
        }
    }

    /// Whether all fields could be written. `without_key`: that of WebSocket is left out, which is nobody's business but ours.
    pub(super) fn write(&self, without_key: bool, writer: &mut FieldWriter<'_>) -> bool {
        let (mut is_sound, mut is_grpc) = (true, false);
        for field in self.fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("te") || (without_key && is(tunnel::KEY)) {
                continue;
            }
            is_grpc |= is("content-type") && field.value.starts_with(b"application/grpc");
            fields::append(writer, field.name.as_bytes(), field.value, &mut is_sound);
        }
        // Of the connection before us, which is why it may not have come along; nothing else is said by it.
        if is_grpc || self.fields.iter().any(is_te_trailers) {
            fields::append(writer, b"te", b"trailers", &mut is_sound);
        }
        is_sound
    }
}

fn is_te_trailers(field: &httparse::Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("te") && field.value.eq_ignore_ascii_case(b"trailers")
}

/// What no URI has (RFC 3986, 2) and our reader passes all the same is written in the way that it should have been.
fn escaped(target: &str) -> Cow<'_, str> {
    if !target.contains(['<', '>', '"']) {
        return Cow::Borrowed(target);
    }
    Cow::Owned(target.replace('<', "%3C").replace('>', "%3E").replace('"', "%22"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            fields::room,
            tests::{Pair, of_request, passed_request, pseudo},
        },
        *,
    };
    use crate::l7::http1::{Body, HeadLimits, Parsed, RequestHead};

    const FIELDS_MAX: usize = 128;

    fn written(fields: &[Pair<'_>], has_body: bool) -> Result<(String, BodyForm), CloseReason> {
        let mut out = b"before".to_vec();
        let form = of_request(fields, !has_body, |head| write_request(head, has_body, FIELDS_MAX, &mut out));
        let text = String::from_utf8(out.split_off(6)).unwrap();
        assert_eq!(out, b"before");
        assert!(form.is_ok() || text.is_empty(), "nothing stays of a refused head");
        let form = form?;
        let mut head = RequestHead::default();
        let limits = HeadLimits::new(64 << 10, FIELDS_MAX + 2);
        assert_eq!(head.parse(text.as_bytes(), &limits), Ok(Parsed::Complete), "{text:?}");
        assert_eq!(head.len(), text.len());
        assert_eq!(
            head.body(),
            match form {
                BodyForm::None | BodyForm::Tunnel => Body::None,
                BodyForm::Length(length) => Body::Length(length),
                BodyForm::Chunked => Body::Chunked,
            }
        );
        Ok((text, form))
    }

    fn with<'a>(method: &'a str, url: (&'a str, &'a str, &'a str), fields: &[Pair<'a>]) -> Vec<Pair<'a>> {
        let (scheme, authority, path) = url;
        [pseudo(method, Some((scheme, path)), authority), fields.to_vec()].concat()
    }

    fn get<'a>(fields: &[Pair<'a>]) -> Vec<Pair<'a>> {
        with("GET", ("https", "a.example", "/x?y"), fields)
    }

    #[test]
    fn heads() {
        let common = "host: a.example\r\n";
        let root = ("http", "a.example", "/");
        for (fields, has_body, expected, form) in [
            (get(&[]), false, format!("GET /x?y HTTP/1.1\r\n{common}\r\n"), BodyForm::None),
            (
                get(&[("accept", b"*/*"), ("te", b"trailers"), ("x", b"\xc3\xa9"), ("x", b"2"), ("y", b"")]),
                false,
                format!(
                    "GET /x?y HTTP/1.1\r\n{common}accept: */*\r\nte: trailers\r\nx: \u{e9}\r\nx: 2\r\ny: \r\n\r\n"
                ),
                BodyForm::None,
            ),
            (
                with("POST", root, &[("content-length", b"7")]),
                true,
                format!("POST / HTTP/1.1\r\n{common}content-length: 7\r\n\r\n"),
                BodyForm::Length(7),
            ),
            (
                with("POST", root, &[]),
                true,
                format!("POST / HTTP/1.1\r\n{common}transfer-encoding: chunked\r\n\r\n"),
                BodyForm::Chunked,
            ),
            (
                with("POST", root, &[("content-length", b"0")]),
                true,
                format!("POST / HTTP/1.1\r\n{common}content-length: 0\r\n\r\n"),
                BodyForm::None,
            ),
            (
                with("PATCH", ("http", "a.example", "//b"), &[]),
                false,
                format!("PATCH //b HTTP/1.1\r\n{common}content-length: 0\r\n\r\n"),
                BodyForm::None,
            ),
            (
                with("OPTIONS", ("http", "a.example", "*"), &[]),
                false,
                format!("OPTIONS * HTTP/1.1\r\n{common}\r\n"),
                BodyForm::None,
            ),
            (
                get(&[("cookie", b"a=b"), ("accept", b"x"), ("cookie", b""), ("cookie", b"c=d; e=f")]),
                false,
                format!("GET /x?y HTTP/1.1\r\n{common}cookie: a=b; c=d; e=f\r\naccept: x\r\n\r\n"),
                BodyForm::None,
            ),
            (
                get(&[("expect", b"100-continue")]),
                true,
                format!(
                    "GET /x?y HTTP/1.1\r\n{common}expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
                ),
                BodyForm::Chunked,
            ),
        ] {
            assert_eq!(written(&fields, has_body), Ok((expected, form)));
        }
    }

    #[test]
    fn row_41_fields_of_a_connection() {
        for (name, value) in [
            ("connection", "close"),
            ("connection", ""),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "trailers, deflate"),
            ("te", "gzip"),
            ("te", ""),
        ] {
            let got = written(&get(&[(name, value.as_bytes())]), false);
            assert_eq!(got, Err(CloseReason::Http2Message), "{name}: {value}");
        }
    }

    #[test]
    fn row_42_authorities() {
        for (authority, hosts, expected) in [
            ("a.example", &["a.example"][..], Ok("a.example")),
            ("a.example", &["A.EXAMPLE"], Ok("a.example")),
            ("a.example", &["a.example:443"], Ok("a.example")),
            ("a.example:443", &["a.example."], Ok("a.example:443")),
            ("a.example:8443", &["a.example:8443"], Ok("a.example:8443")),
            ("[2001:db8::1]", &["[2001:DB8::1]:443"], Ok("[2001:db8::1]")),
            ("", &["a.example"], Ok("a.example")),
            ("", &[], Err(CloseReason::Host)),
            ("", &[""], Err(CloseReason::Host)),
            ("", &["a.example", "a.example"], Err(CloseReason::Host)),
            ("", &["a.example, b.example"], Err(CloseReason::Host)),
            ("", &["u@a.example"], Err(CloseReason::Host)),
            ("a.example", &["b.example"], Err(CloseReason::Host)),
            ("a.example", &[""], Err(CloseReason::Host)),
            ("a.example", &["a.example:80"], Err(CloseReason::Host)),
            ("a.example:80", &["a.example"], Err(CloseReason::Host)),
            ("a.example", &["a.example", "a.example"], Err(CloseReason::Host)),
            ("u@a.example", &[], Err(CloseReason::Host)),
            ("u:p@a.example", &["a.example"], Err(CloseReason::Host)),
            ("a,b", &[], Err(CloseReason::Host)),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", host.as_bytes())).collect();
            let expected =
                expected.map(|host| (format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), BodyForm::None));
            let got = written(&with("GET", ("https", authority, "/"), &fields), false);
            assert_eq!(got, expected, "{authority} {hosts:?}");
        }
        let plain = with("GET", ("http", "a", "/"), &[("host", b"a:80")]);
        assert!(written(&plain, false).is_ok(), "each scheme has its own port");
    }

    #[test]
    fn row_43_nothing_gets_out_of_a_value() {
        for value in [" a", "a ", "\ta", "a\t", " ", "a\rb", "a\nb", "a\r\nb: c", "a\0b", "a\x7f"] {
            let got = written(&get(&[("x", value.as_bytes())]), false);
            assert_eq!(got, Err(CloseReason::Http2Message), "{value:?}");
        }
    }

    #[test]
    fn row_43_targets_methods_and_schemes() {
        let target = CloseReason::Target;
        let message = CloseReason::Http2Message;
        for (path, expected) in [
            ("?x", target),
            ("*", target),
            ("/\u{e9}", target),
            ("x", target),
            ("http://b/", target),
            ("/a b", target),
            ("/a#/../b", target),
            ("", target),
            ("/\0", message),
            ("/\r\n", message),
            ("/\t", message),
        ] {
            let got = written(&with("GET", ("https", "a", path), &[]), false);
            assert_eq!(got, Err(expected), "{path:?}");
        }
        for scheme in ["ftp", "ws", "h2", ""] {
            let got = written(&with("GET", (scheme, "a", "/"), &[]), false);
            assert_eq!(got, Err(CloseReason::Http2Message), "{scheme}");
        }
        assert_eq!(written(&pseudo("CONNECT", None, "a:80"), true), Err(CloseReason::Method));
        assert_eq!(written(&pseudo("GET", None, "a"), false), Err(CloseReason::Http2Message));
    }

    #[test]
    fn row_44_lengths() {
        for (lengths, has_body) in [
            (&["5", "5"][..], true),
            (&["5", "6"], true),
            (&["5, 5"], true),
            (&["+5"], true),
            (&["05"], true),
            (&[""], true),
            (&["9223372036854775808"], true),
            (&["5"], false),
        ] {
            let fields: Vec<_> = lengths.iter().map(|length| ("content-length", length.as_bytes())).collect();
            let got = written(&with("POST", ("https", "a", "/"), &fields), has_body);
            assert_eq!(got, Err(CloseReason::ContentLength), "{lengths:?}");
        }
    }

    #[test]
    fn row_51_crumbs_count_each() {
        for (crumbs, others, expected) in [(126, 2, true), (128, 0, true), (127, 2, false), (0, 129, false)] {
            let mut fields = vec![("cookie", b"a".as_slice()); crumbs];
            fields.extend(vec![("x", b"".as_slice()); others]);
            let got = written(&get(&fields), true);
            assert_eq!(got.is_ok(), expected, "{crumbs} and {others}");
            assert!(expected || got == Err(CloseReason::TooManyFields));
        }
    }

    /// As HTTP/2 has it; `None`: it is none of ours.
    fn read(head: &str, scheme: &str) -> Option<Vec<String>> {
        let mut room = room();
        let said = read_request(head.as_bytes(), &mut room).ok()?;
        let fields = passed_request(|client| {
            let request = said.request(scheme.as_bytes(), None);
            client.send_request(&request, false, |writer| assert!(said.write(false, writer))).unwrap();
        });
        Some(fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect())
    }

    #[test]
    fn requests_of_ours() {
        let head = "POST /a|b?<\"> HTTP/1.1\r\nHost: a_b.example:8080\r\nContent-Type: application/grpc\r\n\
            TE: trailers\r\nX-Forwarded-For: 192.0.2.7\r\nVia: 2.0 lb\r\nCookie: a=b; c=d\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            read(head, "https").unwrap(),
            [
                ":method: POST",
                ":scheme: https",
                ":authority: a_b.example:8080",
                ":path: /a|b?%3C%22%3E",
                "content-type: application/grpc",
                "x-forwarded-for: 192.0.2.7",
                "via: 2.0 lb",
                "cookie: a=b; c=d",
                "te: trailers",
            ]
        );
        let options = read("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "http").unwrap();
        assert_eq!(options[3..], [":path: *", "content-length: 0"]);
        let gzip = read("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n", "http").unwrap();
        assert_eq!(gzip.len(), 4);
        for broken in
            ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"]
        {
            assert_eq!(read(broken, "http"), None, "{broken:?}");
        }
    }

    proptest! {
        /// Whatever is written is one head with just the fields that came, whatever they hold, or nothing.
        #[test]
        fn a_head_is_as_long_as_it_says(
            path in "/[ -~\u{e9}]{0,12}",
            lines in prop::collection::vec(
                ("(x|cookie|te|expect|content_length|[a-z]{1,3})", prop::collection::vec(any::<u8>(), 0..6)), 0..6),
            has_body in any::<bool>(),
        ) {
            let fields: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
            let all = with("GET", ("https", "a", &path), &fields);
            let mut out = Vec::new();
            if of_request(&all, !has_body, |head| write_request(head, has_body, FIELDS_MAX, &mut out)).is_ok() {
                let mut head = RequestHead::default();
                if head.parse(&out, &HeadLimits::default()) == Ok(Parsed::Complete) {
                    prop_assert_eq!(head.len(), out.len());
                    let crumbs = fields.iter().filter(|(name, _)| *name == "cookie").count();
                    let count = 1 + fields.len() - crumbs.saturating_sub(1) + usize::from(has_body);
                    prop_assert_eq!(head.fields().len(), count);
                }
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }
}
