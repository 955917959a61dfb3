//! Requests, from HTTP/2 and to it.

use http::{
    HeaderMap, Method, Request, Uri, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    BodyForm,
    fields::{self, Refused},
    tunnel,
};
use crate::{
    l7::{
        authority,
        http1::{HeadLimits, is_target_byte},
    },
    model::reason::CloseReason,
};

/// Appends the head of HTTP/1.1 that says what a client said in HTTP/2, to be read by
/// [`RequestHead::parse`](crate::l7::http1::RequestHead::parse). Nothing is appended of one that is refused.
///
/// `has_body`: the stream did not end with its head. `fields_max`: most fields, cookie crumbs counted each; the head that is
/// written has up to two more (`Host` and what frames the body).
///
/// What `h2` has refused before: upper case in names, pseudo header fields that are missing, doubled, unknown or late.
///
/// # Errors
/// [`CloseReason::TooManyFields`]; [`CloseReason::Method`]: CONNECT without a protocol; [`CloseReason::Host`]: no authority, a malformed one, or
/// two that differ; [`CloseReason::Target`]; [`CloseReason::Http2Message`]: any other breach of RFC 9113, 8.2 and 8.3.
pub fn write_request(
    parts: &Parts,
    has_body: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let start = out.len();
    let written = write_head(parts, has_body, fields_max, out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn write_head(
    parts: &Parts,
    has_body: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    if parts.headers.len() > fields_max {
        return Err(CloseReason::TooManyFields);
    }
    let tunnel = tunnel::asked(parts)?;
    let method = tunnel.map_or(parts.method.as_str(), |_| Method::GET.as_str());
    let scheme = scheme(&parts.uri)?;
    let host = host(parts, scheme)?;
    let target = target(parts)?;
    for part in [method, " ", target, " HTTP/1.1\r\nhost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    write_fields(&parts.headers, out).map_err(|Refused| CloseReason::Http2Message)?;
    if let Some(protocol) = tunnel {
        tunnel::push_ask(protocol, &parts.headers, out);
        out.extend_from_slice(b"\r\n");
        return Ok(BodyForm::Tunnel);
    }
    let form =
        fields::push_framing(out, &parts.headers, has_body).map_err(|Refused| CloseReason::ContentLength)?;
    if !parts.headers.contains_key(header::CONTENT_LENGTH) && !has_body && means_content(&parts.method) {
        // HTTP/2 says so with the end of the stream, and a backend may insist on it (RFC 9110, 8.6).
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(form)
}

fn means_content(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Without an authority `h2` keeps the scheme to itself; it was there and well-formed.
fn scheme(uri: &Uri) -> Result<Option<&Scheme>, CloseReason> {
    match uri.scheme() {
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => Err(CloseReason::Http2Message),
        scheme => Ok(scheme),
    }
}

/// What `:authority` says, or else `Host`: where both do they must mean the same (RFC 9113, 8.3.1).
fn host<'a>(parts: &'a Parts, scheme: Option<&Scheme>) -> Result<&'a [u8], CloseReason> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = parts.headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
    let host = match (authority, hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority,
        (Some(authority), Some(host), None) if is_same(authority, host, scheme) => authority,
        (None, Some(host), None) => host,
        _ => return Err(CloseReason::Host),
    };
    // No user information in it either (RFC 9113, 8.3.1).
    authority::host_len(host).map(|_| host).ok_or(CloseReason::Host)
}

/// Whether two authorities mean the same: RFC 3986, 6.2.
fn is_same(one: &[u8], other: &[u8], scheme: Option<&Scheme>) -> bool {
    let (Some(one), Some(other)) = (host_and_port(one, scheme), host_and_port(other, scheme)) else {
        return false;
    };
    one.0.eq_ignore_ascii_case(other.0) && one.1 == other.1
}

fn host_and_port<'a>(authority: &'a [u8], scheme: Option<&Scheme>) -> Option<(&'a [u8], u32)> {
    let (host, rest) = authority.split_at_checked(authority::host_len(authority)?)?;
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    let port = match rest.strip_prefix(b":") {
        Some(digits) => std::str::from_utf8(digits).ok()?.parse().ok()?,
        None if scheme == Some(&Scheme::HTTP) => 80,
        None => 443,
    };
    Some((host, port))
}

/// `:path`: from `/`, or `*` with OPTIONS (RFC 9113, 8.3.1). A fragment `http` has cut off before we see it.
fn target(parts: &Parts) -> Result<&str, CloseReason> {
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let is_sound = target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS);
    if is_sound && target.bytes().all(is_target_byte) { Ok(target) } else { Err(CloseReason::Target) }
}

/// All but those that are written otherwise. Crumbs become one line where the first of them stood (RFC 9113, 8.2.3).
fn write_fields(headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Refused> {
    let mut had_cookie = false;
    for (name, value) in headers {
        fields::check(name, value)?;
        if name == header::COOKIE {
            if !std::mem::replace(&mut had_cookie, true) {
                push_cookie(headers, out);
            }
        } else if name != header::HOST && name != header::CONTENT_LENGTH {
            fields::push(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    Ok(())
}

fn push_cookie(headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"cookie: ");
    let crumbs = headers.get_all(header::COOKIE).iter().map(|crumb| crumb.as_bytes());
    for (at, crumb) in crumbs.filter(|crumb| !crumb.is_empty()).enumerate() {
        if at > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb);
    }
    out.extend_from_slice(b"\r\n");
}

/// The request of HTTP/2 that says what a head says which [`encode_request`](crate::l7::http1::encode_request) has made.
///
/// # Errors
/// [`CloseReason::Target`], [`CloseReason::Host`], [`CloseReason::HeaderSyntax`]: nothing of a head that was made so.
pub fn read_request(head: &[u8], scheme: &Scheme) -> Result<Request<()>, CloseReason> {
    let mut room = [httparse::EMPTY_HEADER; HeadLimits::FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut room);
    if !matches!(parsed.parse(head), Ok(httparse::Status::Complete(_))) {
        return Err(CloseReason::HeaderSyntax);
    }
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    let mut authority = None;
    for field in &*parsed.headers {
        if field.name.eq_ignore_ascii_case(header::HOST.as_str()) {
            authority = Some(Authority::try_from(field.value).map_err(|_| CloseReason::Host)?);
        } else {
            fields::append(&mut fields, field.name.as_bytes(), field.value)
                .map_err(|Refused| CloseReason::HeaderSyntax)?;
        }
    }
    let target = path_and_query(parsed.path.unwrap_or_default())?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme.clone());
    uri.authority = Some(authority.ok_or(CloseReason::Host)?);
    uri.path_and_query = Some(target);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| CloseReason::HeaderSyntax)?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| CloseReason::Target)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields;
    Ok(request)
}

/// What no URI has (RFC 3986, 2) and our reader passes all the same is written in the way that it should have been.
fn path_and_query(target: &str) -> Result<PathAndQuery, CloseReason> {
    if let Ok(target) = PathAndQuery::try_from(target) {
        return Ok(target);
    }
    let escaped: String = target
        .chars()
        .map(|c| match c {
            '<' => "%3C".to_owned(),
            '>' => "%3E".to_owned(),
            '"' => "%22".to_owned(),
            c => c.to_string(),
        })
        .collect();
    PathAndQuery::try_from(escaped).map_err(|_| CloseReason::Target)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::l7::http1::{Body, Parsed, RequestHead};

    const FIELDS_MAX: usize = 128;

    fn parts(method: &str, uri: Uri, fields: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// As `h2` makes it of pseudo header fields: no scheme where there is no authority.
    fn uri(scheme: &str, authority: &str, path: &str) -> Uri {
        let mut parts = http::uri::Parts::default();
        if !authority.is_empty() {
            parts.scheme = Some(scheme.parse().unwrap());
            parts.authority = Some(authority.parse().unwrap());
        }
        parts.path_and_query = Some(path.parse().unwrap());
        Uri::from_parts(parts).unwrap()
    }

    fn get(fields: &[(&str, &[u8])]) -> Parts {
        parts("GET", uri("https", "a.example", "/x?y"), fields)
    }

    fn written(parts: &Parts, has_body: bool) -> Result<(String, BodyForm), CloseReason> {
        let mut out = b"before".to_vec();
        let form = write_request(parts, has_body, FIELDS_MAX, &mut out);
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

    #[test]
    fn heads() {
        let common = "host: a.example\r\n";
        for (parts, has_body, expected, form) in [
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
                parts("POST", uri("http", "a.example", "/"), &[("content-length", b"7")]),
                true,
                format!("POST / HTTP/1.1\r\n{common}content-length: 7\r\n\r\n"),
                BodyForm::Length(7),
            ),
            (
                parts("POST", uri("http", "a.example", "/"), &[]),
                true,
                format!("POST / HTTP/1.1\r\n{common}transfer-encoding: chunked\r\n\r\n"),
                BodyForm::Chunked,
            ),
            (
                parts("POST", uri("http", "a.example", "/"), &[("content-length", b"0")]),
                true,
                format!("POST / HTTP/1.1\r\n{common}content-length: 0\r\n\r\n"),
                BodyForm::None,
            ),
            (
                parts("PATCH", uri("http", "a.example", "//b"), &[]),
                false,
                format!("PATCH //b HTTP/1.1\r\n{common}content-length: 0\r\n\r\n"),
                BodyForm::None,
            ),
            (
                parts("OPTIONS", uri("http", "a.example", "*"), &[]),
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
            assert_eq!(written(&parts, has_body), Ok((expected, form)));
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
            let parts = parts("GET", uri("https", authority, "/"), &fields);
            let expected =
                expected.map(|host| (format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), BodyForm::None));
            assert_eq!(written(&parts, false), expected, "{authority} {hosts:?}");
        }
        let parts = parts("GET", uri("http", "a", "/"), &[("host", b"a:80")]);
        assert!(written(&parts, false).is_ok(), "each scheme has its own port");
    }

    #[test]
    fn row_43_nothing_gets_out_of_a_value() {
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let got = written(&get(&[("x", value.as_bytes())]), false);
            assert_eq!(got, Err(CloseReason::Http2Message), "{value:?}");
        }
        // What `h2` makes its values with takes none of these.
        for value in ["a\rb", "a\nb", "a\r\nb: c", "a\0b", "a\x7f"] {
            assert!(HeaderValue::from_bytes(value.as_bytes()).is_err(), "{value:?}");
        }
    }

    #[test]
    fn row_43_targets_methods_and_schemes() {
        for (method, path, expected) in [
            ("GET", "?x", CloseReason::Target),
            ("GET", "*", CloseReason::Target),
            ("GET", "/\u{e9}", CloseReason::Target),
            ("CONNECT", "/", CloseReason::Method),
        ] {
            let parts = parts(method, uri("https", "a", path), &[]);
            assert_eq!(written(&parts, false), Err(expected), "{method} {path}");
        }
        for path in ["x", "http://b/", "/a b", "/\0", "/\r\n", "/\t"] {
            if let Ok(path) = path.parse::<PathAndQuery>() {
                let mut of = http::uri::Parts::default();
                (of.scheme, of.authority) = (Some(Scheme::HTTP), Some(Authority::from_static("a")));
                of.path_and_query = Some(path.clone());
                if let Ok(uri) = Uri::from_parts(of) {
                    assert_eq!(written(&parts("GET", uri, &[]), false), Err(CloseReason::Target), "{path}");
                }
            }
        }
        for scheme in ["ftp", "ws", "h2"] {
            let got = written(&parts("GET", uri(scheme, "a", "/"), &[]), false);
            assert_eq!(got, Err(CloseReason::Http2Message), "{scheme}");
        }
        let fragment: PathAndQuery = "/a#/../b".parse().unwrap();
        assert_eq!(fragment, "/a", "so nobody routes by it");
        let bare = parts("GET", Uri::from_static("a.example"), &[]);
        assert_eq!(written(&bare, false), Err(CloseReason::Target));
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
            let parts = parts("POST", uri("https", "a", "/"), &fields);
            assert_eq!(written(&parts, has_body), Err(CloseReason::ContentLength), "{lengths:?}");
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

    #[test]
    fn requests_of_ours() {
        let head = b"POST /a|b?<\"> HTTP/1.1\r\nHost: a_b.example:8080\r\nContent-Type: application/grpc\r\n\
            TE: trailers\r\nX-Forwarded-For: 192.0.2.7\r\nVia: 2.0 lb\r\nCookie: a=b; c=d\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = read_request(head, &Scheme::HTTPS).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.uri().to_string(), "https://a_b.example:8080/a|b?%3C%22%3E");
        let fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                "content-type: application/grpc",
                "te: trailers",
                "x-forwarded-for: 192.0.2.7",
                "via: 2.0 lb",
                "cookie: a=b; c=d"
            ]
        );
        let options =
            read_request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &Scheme::HTTP);
        let options = options.unwrap();
        assert_eq!(options.uri().path(), "*");
        assert_eq!(options.headers()[header::CONTENT_LENGTH], "0");
        let gzip = read_request(b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n", &Scheme::HTTP).unwrap();
        assert!(gzip.headers().is_empty());
        for broken in
            ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"]
        {
            assert!(read_request(broken.as_bytes(), &Scheme::HTTP).is_err(), "{broken:?}");
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
            let Ok(path) = path.parse::<PathAndQuery>() else { return Ok(()) };
            let lines: Vec<_> =
                lines.iter().filter(|(_, value)| HeaderValue::from_bytes(value).is_ok()).collect();
            let fields: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
            let parts = parts("GET", uri("https", "a", path.as_str()), &fields);
            let mut out = Vec::new();
            if write_request(&parts, has_body, FIELDS_MAX, &mut out).is_ok() {
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
