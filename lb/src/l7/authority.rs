//! `host[:port]` as it stands in `Host` and in an absolute target.

/// Longest host that can be a name. Source: RFC 1035, 2.3.4.
pub const HOST_BYTES_MAX: usize = 255;

/// Length of the host in a well-formed authority, without its port and without the root's dot, so that
/// `example.com.` is routed as `example.com`. An address literal keeps its brackets. `None`: malformed.
///
/// Stricter than RFC 3986, 3.2: no user information, no percent-encoding, no sub-delims, no empty label, no
/// empty port. None of these is a host that a backend could mean, each has served to confuse one.
pub fn host_len(authority: &[u8]) -> Option<usize> {
    let end = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority)?;
        let address = std::str::from_utf8(authority.get(1..close)?).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        close + 1
    } else {
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        return is_name(authority.get(..end)?).filter(|_| is_port(authority.get(end..).unwrap_or_default()));
    };
    is_port(authority.get(end..)?).then_some(end)
}

/// Length without the root's dot.
fn is_name(host: &[u8]) -> Option<usize> {
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return None;
    }
    let mut before = b'.';
    for &byte in host {
        let good = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && before != b'.');
        if !good {
            return None;
        }
        before = byte;
    }
    (before != b'.').then_some(host.len())
}

/// Nothing, or `:` and a port.
fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) => digits
            .iter()
            .try_fold(0u32, |port, &digit| {
                digit.is_ascii_digit().then(|| port * 10 + u32::from(digit - b'0'))
            })
            .is_some_and(|port| port <= 65_535),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_meant() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("Example.com:8080", "Example.com"),
            ("example.com.:80", "example.com"),
            ("a_b.local", "a_b.local"),
            ("192.0.2.1:1", "192.0.2.1"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
        ] {
            let len = host_len(authority.as_bytes()).expect(authority);
            assert_eq!(&authority[..len], host);
        }
    }

    #[test]
    fn hosts_that_are_not() {
        for authority in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.com..",
            ":80",
            "a:",
            "a:b",
            "a:+1",
            "a:65536",
            "a:000080",
            "a,b",
            "a b",
            "u@a",
            "a/b",
            "a?b",
            "a%41",
            "[::1",
            "[::1]x",
            "[::1%25eth0]",
            "[]",
            "::1",
            "a:1:2",
            "a\u{e9}",
            "a#",
            "a\\b",
        ] {
            assert_eq!(host_len(authority.as_bytes()), None, "{authority:?}");
        }
        assert_eq!(host_len(&[b'a'; 256]), None);
        assert_eq!(host_len(&[b'a'; 255]), Some(255));
    }
}
