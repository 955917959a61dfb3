//! Hosts and paths of routes, and the paths made of them.

use std::{net::Ipv6Addr, sync::Arc};

use super::reader::Fault;
use crate::config::{CAPTURES_MAX, HostPattern, NewPart, NewPath, PathPattern, Pattern, Segment, Segments};

/// One of `route.host`: lower-cased, its wildcard only in front. An IPv6 literal keeps its brackets, in the
/// form of RFC 5952.
pub(super) fn host(text: &str) -> Result<HostPattern, Fault> {
    if let Some(inner) = text.strip_prefix('[') {
        let literal = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match literal {
            Some(ip) => Ok(HostPattern::Exact(format!("[{ip}]").into())),
            None => Err(Fault::new("must be a host or an IPv6 address in brackets, without port")),
        };
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return Ok(HostPattern::Wildcard(format!(".{}", name(rest)?).into()));
    }
    if text == "*" {
        return Err(Fault::new("a route without `host` takes every host; leave the key out"));
    }
    Ok(HostPattern::Exact(name(text)?.into()))
}

/// One of `route.sni`: a host as for requests; TLS knows no addresses there (RFC 6066, 3).
pub(super) fn server_name(text: &str) -> Result<HostPattern, Fault> {
    if text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok() {
        return Err(Fault::new("must be a host name: TLS clients never name an address"));
    }
    if text == "*" {
        return Err(Fault::new("every name: leave the route out, and give the listener a pool"));
    }
    host(text)
}

/// A host name by RFC 1123, 2.1, lower-cased.
fn name(text: &str) -> Result<String, Fault> {
    if text.contains('*') {
        return Err(Fault::new("a wildcard may stand only in front, as in \"*.example.com\""));
    }
    if !text.is_ascii() {
        return Err(Fault::new("must be ASCII; write international names in their \"xn--\" form"));
    }
    let lower = text.to_ascii_lowercase();
    if let Some((host, port)) = lower.rsplit_once(':') {
        let is_port = !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit());
        let fault = Fault::new("must be a host without port; IPv6 addresses stand in brackets");
        return Err(fault.suggest(is_port.then(|| host.to_owned())));
    }
    if let Some(host) = lower.strip_suffix('.') {
        return Err(Fault::new("must not end in a dot").suggest(Some(host.to_owned())));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if lower.len() > 253 || !lower.split('.').all(is_label) {
        return Err(Fault::new("must be a host name: labels of 1 to 63 letters, digits and inner hyphens"));
    }
    Ok(lower)
}

/// `redirect.host`: one host, without port.
pub(super) fn one_host(text: &str) -> Result<Arc<str>, Fault> {
    match host(text)? {
        HostPattern::Exact(host) => Ok(host),
        HostPattern::Wildcard(_) => Err(Fault::new("must be one host, not a wildcard")),
    }
}

/// `rewrite.host`: one host, with or without port.
pub(super) fn authority(text: &str) -> Result<Arc<str>, Fault> {
    let (before, port) = match text.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => (before, Some(port)),
        _ => (text, None),
    };
    let host = one_host(before)?;
    match port {
        None => Ok(host),
        Some(port)
            if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0) =>
        {
            Ok(format!("{host}:{port}").into())
        }
        Some(_) => Err(Fault::new("the port must be from 1 to 65535")),
    }
}

/// `route.path`.
pub(super) fn path(text: &str) -> Result<PathPattern, Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new("must begin with \"/\"").suggest(match text {
            "" | "*" => Some("/*".to_owned()),
            _ => None,
        }));
    }
    let (path, is_prefix) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if path.contains(['{', '}']) {
        return segments(text, path, is_prefix).map(|segments| PathPattern::Segments(Arc::new(segments)));
    }
    literal(path)?;
    let path = if is_prefix { format!("{path}/") } else { path.to_owned() };
    is_normal(&path)?;
    Ok(if is_prefix { PathPattern::Prefix(path.into()) } else { PathPattern::Exact(path.into()) })
}

/// Characters that a path may have.
fn literal(path: &str) -> Result<(), Fault> {
    if path.contains('*') {
        return Err(Fault::new(
            "a `*` may stand only for the end, as in \"/prefix/*\"; `{name}` stands for a segment",
        ));
    }
    if path.contains(['?', '#']) {
        return Err(Fault::new("must be a path without query or fragment"));
    }
    if !is_path(path.as_bytes()) {
        return Err(Fault::new("must be a path of RFC 3986, 3.3: escape other characters as in \"%20\""));
    }
    Ok(())
}

fn is_normal(path: &str) -> Result<(), Fault> {
    match unlike_normal_form(path) {
        None => Ok(()),
        Some(rule) => {
            Err(Fault::new(format!("would never match: requests are routed by their normal form, {rule}")))
        }
    }
}

/// A path with captures; `path` is without the `/*` at its end.
fn segments(text: &str, path: &str, has_rest: bool) -> Result<Segments, Fault> {
    let mut segments = Vec::new();
    for segment in split(path)? {
        let Some(inner) = capture(segment)? else {
            segments.push(Segment::Literal(segment.into()));
            continue;
        };
        let (name, rule) = match inner.split_once(':') {
            None => (inner, None),
            Some((name, rule)) => {
                let rule =
                    Pattern::new(rule).map_err(|wrong| Fault::new(format!("in {segment}: {wrong}")))?;
                if rule.matches(b"") {
                    return Err(Fault::new(format!("in {segment}: a segment is never empty")));
                }
                (name, Some(rule))
            }
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=32).contains(&name.len()) || !name.bytes().all(is_name) {
            return Err(Fault::new("a capture is named by 1 to 32 letters, digits and underscores"));
        }
        let names = segments
            .iter()
            .filter(|segment| matches!(segment, Segment::Capture { name: known, .. } if **known == *name));
        if names.count() > 0 {
            return Err(Fault::new(format!("two captures are named {name:?}")));
        }
        segments.push(Segment::Capture { name: name.into(), rule });
    }
    let segments = Segments { text: text.into(), segments, has_rest };
    if segments.names().count() > CAPTURES_MAX {
        return Err(Fault::new(format!("must have at most {CAPTURES_MAX} captures")));
    }
    // What stands between the captures is held to the rules of any path.
    let plain = segments.segments.iter().map(|segment| match segment {
        Segment::Literal(text) => text,
        Segment::Capture { .. } => "x",
    });
    let plain: String = plain.flat_map(|segment| ["/", segment]).collect();
    literal(&plain)?;
    is_normal(&if has_rest { format!("{plain}/") } else { plain })?;
    Ok(segments)
}

/// Segments of a path that begins with a slash; a slash between braces is no end.
fn split(path: &str) -> Result<Vec<&str>, Fault> {
    let (mut depth, mut start, mut parts) = (0usize, 1, Vec::new());
    for (at, byte) in path.bytes().enumerate().skip(1) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1).ok_or_else(|| Fault::new("a `}` without its `{`"))?,
            b'/' if depth > 0 => return Err(Fault::new("a capture ends before the next \"/\"")),
            b'/' => {
                parts.extend(path.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(Fault::new("a `{` without its `}`"));
    }
    parts.extend(path.get(start..));
    Ok(parts)
}

/// What stands between the braces; `None` without any.
fn capture(segment: &str) -> Result<Option<&str>, Fault> {
    if !segment.contains(['{', '}']) {
        return Ok(None);
    }
    let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut depth = 1;
    // `{a}{b}` begins and ends well too.
    let is_one = |inner: &&str| {
        inner.bytes().all(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth > 0
        })
    };
    inner
        .filter(is_one)
        .map(Some)
        .ok_or_else(|| Fault::new("a capture is a whole segment, as in \"/users/{id}\""))
}

/// A path made of parts of `from`, the path of the route.
pub(super) fn new_path(text: &str, from: Option<&PathPattern>) -> Result<NewPath, Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new("must begin with \"/\""));
    }
    let (path, has_rest) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    let from_has_rest = match from {
        Some(PathPattern::Prefix(_)) => true,
        Some(PathPattern::Segments(segments)) => segments.has_rest,
        Some(PathPattern::Exact(_)) | None => false,
    };
    if has_rest && !from_has_rest {
        return Err(Fault::new("the `*` stands for that of `path`, which ends in none"));
    }
    let names: Vec<&str> = match from {
        Some(PathPattern::Segments(segments)) => segments.names().map(|name| &**name).collect(),
        _ => Vec::new(),
    };
    let (mut parts, mut written, mut plain) = (Vec::new(), String::new(), String::new());
    let segments = if path.is_empty() { Vec::new() } else { split(path)? };
    for segment in segments {
        written.push('/');
        plain.push('/');
        let Some(name) = capture(segment)? else {
            written.push_str(segment);
            plain.push_str(segment);
            continue;
        };
        let Some(place) = names.iter().position(|known| *known == name) else {
            let fault = Fault::new(format!("`path` has no capture named {name:?}"));
            return Err(fault.suggest(super::suggest::closest(name, names).map(|near| format!("{{{near}}}"))));
        };
        parts.extend([NewPart::Literal(std::mem::take(&mut written).into()), NewPart::Capture(place)]);
        plain.push('x');
    }
    if !written.is_empty() {
        parts.push(NewPart::Literal(written.into()));
    }
    if has_rest {
        parts.push(NewPart::Rest);
    }
    literal(&plain)?;
    if let Some(rule) = unlike_normal_form(&plain) {
        return Err(Fault::new(format!("must be in the normal form of paths, {rule}")));
    }
    Ok(NewPath { text: text.into(), parts })
}

/// The rule of the normal form that a path breaks. Whoever routes (`l7::path`) has the form itself; a test in
/// control holds both together.
fn unlike_normal_form(path: &str) -> Option<&'static str> {
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if path.contains("//") {
        return Some("where a run of \"/\" is one");
    }
    if path.split('/').any(is_dots) {
        return Some("which has no \".\" and \"..\" segments");
    }
    let mut previous = None;
    for (at, _) in path.match_indices('%') {
        let digits = path.get(at + 1..at + 3)?;
        let octet = u8::from_str_radix(digits, 16).ok()?;
        match octet {
            _ if digits.bytes().any(|digit| digit.is_ascii_lowercase()) => {
                return Some("where hex digits are upper case");
            }
            b'/' | b'\\' => return Some("where an escaped slash or backslash is a slash"),
            b'-' | b'.' | b'_' | b'~' => return Some("where unreserved characters stand unescaped"),
            _ if octet.is_ascii_alphanumeric() => return Some("where unreserved characters stand unescaped"),
            0 => return Some("which has no NUL"),
            _ => {}
        }
        let lead = previous.filter(|(before, _)| before + 3 == at).map(|(_, octet)| octet);
        // Source: RFC 3629, 3 and 4.
        if matches!(
            (lead, octet),
            (_, 0xc0 | 0xc1 | 0xf5..) | (Some(0xe0), 0x80..=0x9f) | (Some(0xf0), 0x80..=0x8f)
        ) {
            return Some("which has no overlong UTF-8");
        }
        previous = Some((at, octet));
    }
    None
}

/// Whether these are `/` and `pchar` of RFC 3986, 3.3.
fn is_path(mut bytes: &[u8]) -> bool {
    while let [first, rest @ ..] = bytes {
        bytes = match (first, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            (byte, rest) if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte) => rest,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalised() {
        let exact = |text: &str| HostPattern::Exact(text.into());
        assert_eq!(host("API.Example.com").unwrap(), exact("api.example.com"));
        assert_eq!(host("*.Example.com").unwrap(), HostPattern::Wildcard(".example.com".into()));
        assert_eq!(host("[2001:DB8:0:0::1]").unwrap(), exact("[2001:db8::1]"));
        assert_eq!(host("192.0.2.1").unwrap(), exact("192.0.2.1"));
        for bad in [
            "",
            "*",
            "*.",
            "*a.example",
            "a.*.example",
            "a..b",
            "-a.example",
            "a-.example",
            "a_b",
            "a b",
            "a/b",
            "example.com:80",
            "example.com.",
            "2001:db8::1",
            "[::1]:80",
            "[::1",
            "ä.example",
            "a\0",
        ] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
        assert!(host(&["a"; 127].join(".")).is_ok());
        assert!(host(&["a"; 128].join(".")).is_err());
        assert!(host(&"a".repeat(64)).is_err());
    }

    #[test]
    fn paths_are_exact_or_prefixes() {
        let exact = |text: &str| PathPattern::Exact(text.into());
        let prefix = |text: &str| PathPattern::Prefix(text.into());
        assert_eq!(path("/").unwrap(), exact("/"));
        assert_eq!(path("/*").unwrap(), prefix("/"));
        assert_eq!(path("/v1/status").unwrap(), exact("/v1/status"));
        assert_eq!(path("/v1/*").unwrap(), prefix("/v1/"));
        assert_eq!(path("/a%20b").unwrap(), exact("/a%20b"));
        for bad in [
            "",
            "*",
            "v1",
            "/v1*",
            "/*/x",
            "/a/*/*",
            "/{",
            "/}",
            "/{}",
            "/{a}{b}",
            "/x{a}",
            "/{a}/{a}",
            "/{a b}",
            "/{a:}",
            "/{a:x*}",
            "/{a:(}",
            "/{a:x/y}",
            "/{a}/*/x",
            "/{a}//x",
            "/{a}/%2f",
            "/{1}/{2}/{3}/{4}/{5}/{6}/{7}/{8}/{9}",
            "/a?b",
            "/a#b",
            "/a b",
            "/ä",
            "/%2",
            "/%zz",
            "/\"",
            "/a\u{7f}",
            "//a",
            "/a//*",
            "/a/./b",
            "/a/..",
            "/..;x/*",
            "/%61",
            "/%2f",
            "/%5Cx",
            "/%e2%82%ac",
            "/%00",
            "/%C0%AF",
            "/%E0%80%80",
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
    #[test]
    fn paths_with_captures() {
        let Ok(PathPattern::Segments(segments)) = path("/u/{id:[0-9]{2,3}}/{x}/*") else { panic!("is one") };
        assert_eq!(segments.names().map(|name| &**name).collect::<Vec<_>>(), ["id", "x"]);
        assert!(segments.has_rest);
        let [
            Segment::Literal(u),
            Segment::Capture { rule: Some(rule), .. },
            Segment::Capture { rule: None, .. },
        ] = &segments.segments[..]
        else {
            panic!("{segments:?}")
        };
        assert_eq!(&**u, "u");
        assert!(rule.matches(b"123") && !rule.matches(b"1234"));
    }

    #[test]
    fn new_paths_are_made_of_what_was_matched() {
        let made = |from: &str, text: &str| new_path(text, Some(&path(from).unwrap())).map(|path| path.parts);
        let literal = |text: &str| NewPart::Literal(text.into());
        assert_eq!(made("/v1/*", "/*").unwrap(), [NewPart::Rest]);
        assert_eq!(made("/v1/*", "/api/v2/*").unwrap(), [literal("/api/v2"), NewPart::Rest]);
        assert_eq!(made("/v1/*", "/").unwrap(), [literal("/")]);
        assert_eq!(
            made("/{a}/{b}/*", "/x/{b}/{a}/y/*").unwrap(),
            [
                literal("/x/"),
                NewPart::Capture(1),
                literal("/"),
                NewPart::Capture(0),
                literal("/y"),
                NewPart::Rest
            ]
        );
        for (from, text) in [
            ("/v1", "/*"),
            ("/v1/*", "x"),
            ("/{a}", "/{b}"),
            ("/{a}", "/x{a}"),
            ("/a/*", "//b/*"),
            ("/a", "/../b"),
        ] {
            assert!(made(from, text).is_err(), "{from} {text}");
        }
        assert!(new_path("/%2e%2e", None).is_err());
    }

    #[test]
    fn authorities_may_have_a_port() {
        assert_eq!(&*authority("A.example:8080").unwrap(), "a.example:8080");
        assert_eq!(&*authority("[::1]").unwrap(), "[::1]");
        assert_eq!(&*authority("[::1]:80").unwrap(), "[::1]:80");
        for bad in ["", "a:0", "a:65536", "a:+1", "a:", "*.a", "u@a", "a/b", "::1", "a\r\nb: c"] {
            assert!(authority(bad).is_err(), "{bad:?}");
        }
    }
}
