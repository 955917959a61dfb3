//! Hosts and paths of routes.

use std::net::Ipv6Addr;

use super::reader::Fault;
use crate::config::{HostPattern, PathPattern};

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
    if path.contains('*') {
        return Err(Fault::new("patterns other than a whole path and \"/prefix/*\" are not supported yet"));
    }
    if path.contains(['?', '#']) {
        return Err(Fault::new("must be a path without query or fragment"));
    }
    if !is_path(path.as_bytes()) {
        return Err(Fault::new("must be a path of RFC 3986, 3.3: escape other characters as in \"%20\""));
    }
    let path = if is_prefix { format!("{path}/") } else { path.to_owned() };
    if let Some(rule) = unlike_normal_form(&path) {
        return Err(Fault::new(format!(
            "would never match: requests are routed by their normal form, {rule}"
        )));
    }
    Ok(if is_prefix { PathPattern::Prefix(path.into()) } else { PathPattern::Exact(path.into()) })
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
}
