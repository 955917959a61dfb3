//! One rule for paths, so that no spelling of a path takes another route than its meaning.
//!
//! - *Forwarded*: the path in the normal form of RFC 3986, 6.2.2: percent-encoded unreserved characters are
//!   decoded, hex digits are upper case, dot segments are gone. For a conforming backend that is the same path.
//! - *Routed*: what the most eager backend could make of the forwarded form: `%2F` and `%5C` count as `/`, and
//!   runs of `/` as one.
//! - Refused: whatever two backends could still read differently: `..` above the root; a dot segment that only
//!   shows once `%2F` or `%5C` is decoded, or that carries a `;` parameter; a raw `\`; a broken escape; an
//!   encoded NUL; bytes that are no UTF-8 but an overlong spelling of something else.
//!
//! A clean path (nearly every path) is recognised in one pass and never copied.

/// A path that cannot be made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsafe;

/// Whether the path is its own forwarded and routed form. May say no for a path that is.
#[inline]
pub fn is_clean(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'.' | b'/' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Writes both forms of an absolute path without query.
///
/// # Errors
/// [`Unsafe`]: see above. The outputs then hold nothing of use.
pub fn normalise(path: &[u8], forwarded: &mut Vec<u8>, routed: &mut Vec<u8>) -> Result<(), Unsafe> {
    decode_unreserved(path, routed)?;
    remove_dot_segments(routed, forwarded)?;
    routed.clear();
    route_form(forwarded, routed);
    let is_safe = routed.split(|&byte| byte == b'/').all(|segment| !is_dot_segment(segment));
    if is_safe { Ok(()) } else { Err(Unsafe) }
}

/// `.` or `..`, with or without a parameter.
fn is_dot_segment(segment: &[u8]) -> bool {
    let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
    matches!(name, b"." | b"..")
}

fn decode_unreserved(path: &[u8], out: &mut Vec<u8>) -> Result<(), Unsafe> {
    out.clear();
    let mut previous = None;
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        match byte {
            b'\\' => return Err(Unsafe),
            b'%' => {
                let [high, low, tail @ ..] = tail else { return Err(Unsafe) };
                let value = hex(*high)? << 4 | hex(*low)?;
                if value == 0 || is_overlong(previous, value) {
                    return Err(Unsafe);
                }
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
                    out.push(value);
                } else {
                    out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
                }
                previous = Some(value);
                rest = tail;
            }
            _ => {
                out.push(*byte);
                previous = None;
                rest = tail;
            }
        }
    }
    Ok(())
}

fn hex(digit: u8) -> Result<u8, Unsafe> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Unsafe),
    }
}

/// Whether the octet starts or continues a spelling that UTF-8 forbids. Source: RFC 3629, 3 and 4.
fn is_overlong(previous: Option<u8>, octet: u8) -> bool {
    matches!(
        (previous, octet),
        (_, 0xc0 | 0xc1 | 0xf5..) | (Some(0xe0), 0x80..=0x9f) | (Some(0xf0), 0x80..=0x8f)
    )
}

/// RFC 3986, 5.2.4, for a path that begins with `/`; refuses to climb above the root.
fn remove_dot_segments(path: &[u8], out: &mut Vec<u8>) -> Result<(), Unsafe> {
    out.clear();
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let parent = memchr::memrchr(b'/', out).ok_or(Unsafe)?;
                    out.truncate(parent);
                }
                if is_last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(())
}

fn route_form(forwarded: &[u8], out: &mut Vec<u8>) {
    let mut rest = forwarded;
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'%', b'2', b'F', tail @ ..] | [b'%', b'5', b'C', tail @ ..] => (b'/', tail),
            _ => (*byte, tail),
        };
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
        rest = tail;
    }
}

/// Where in a forwarded path the part ends that made the first `len` bytes of its routed form; a run of slashes is not
/// torn apart.
pub fn forwarded_at(forwarded: &[u8], len: usize) -> usize {
    let (mut at, mut made, mut after_slash) = (0, 0, false);
    while let Some(rest @ [first, ..]) = forwarded.get(at..) {
        let (is_slash, width) = match rest {
            [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => (true, 3),
            _ => (*first == b'/', 1),
        };
        if !(is_slash && after_slash) {
            if made == len {
                break;
            }
            made += 1;
        }
        after_slash = is_slash;
        at += width;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(path: &str) -> Option<(String, String)> {
        let (mut forwarded, mut routed) = (Vec::new(), Vec::new());
        normalise(path.as_bytes(), &mut forwarded, &mut routed).ok()?;
        Some((String::from_utf8(forwarded).unwrap(), String::from_utf8(routed).unwrap()))
    }

    #[test]
    fn row_37_paths() {
        for (path, forwarded, routed) in [
            ("/", "/", "/"),
            ("/a/../b", "/b", "/b"),
            ("/a/%2e%2E/b", "/b", "/b"),
            ("/a/.%2e/b/.", "/b/", "/b/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/./a", "/a", "/a"),
            ("/%61dmin", "/admin", "/admin"),
            ("//admin//x", "//admin//x", "/admin/x"),
            ("/a//../b", "/a/b", "/a/b"),
            ("/@scope%2fname", "/@scope%2Fname", "/@scope/name"),
            ("/a%5cb", "/a%5Cb", "/a/b"),
            ("/a%3ab", "/a%3Ab", "/a%3Ab"),
            ("/%e2%82%ac", "/%E2%82%AC", "/%E2%82%AC"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/...", "/a/..."),
            ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
        ] {
            assert_eq!(both(path), Some((forwarded.into(), routed.into())), "{path}");
        }
    }

    #[test]
    fn row_37_refused() {
        for path in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/public/..%2fadmin",
            "/public/..%5cadmin",
            "/public%2f..%2fadmin",
            "/public%2f%2e%2e/admin",
            "/public/..;/admin",
            "/public/.;x=1/admin",
            "/a\\b",
            "/a%00",
            "/%",
            "/%4",
            "/%zz",
            "/%c0%af",
            "/%c0%ae%c0%ae/x",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/%ff",
        ] {
            assert_eq!(both(path), None, "{path}");
        }
    }

    proptest! {
        /// What is routed and forwarded is a fixed point, and no reading of it climbs.
        #[test]
        fn normal_forms_are_stable(path in "(/|\\.|%2e|%2F|%5c|;|a|b|%61){0,24}") {
            let path = format!("/{path}");
            if let Some((forwarded, routed)) = both(&path) {
                prop_assert_eq!(both(&forwarded), Some((forwarded.clone(), routed.clone())));
                for form in [&forwarded, &routed] {
                    let eager = form.replace("%2F", "/").replace("%5C", "/");
                    prop_assert!(eager.split('/').all(|segment| segment != "." && segment != ".."));
                }
                if is_clean(path.as_bytes()) {
                    prop_assert_eq!(&path, &forwarded);
                    prop_assert_eq!(&path, &routed);
                }
            }
        }

        /// A clean path never is a refused one.
        #[test]
        fn clean_paths_pass(path in "/[ -~]{0,20}") {
            if is_clean(path.as_bytes()) {
                prop_assert_eq!(both(&path), Some((path.clone(), path)));
            }
        }
    }
}
