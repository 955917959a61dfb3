//! Cookies, as far as a proxy looks at them: one of a request's by name, one more for a response.
//! Source: RFC 6265, 4.1.1, 4.2.1 and 5.4.

use super::http1::RequestHead;

/// Values of the cookies with this name, in order, over all `Cookie` fields. Names are case-sensitive; what is no pair
/// is passed over.
pub fn values<'b>(head: &'b RequestHead, buf: &'b [u8], name: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    let fields = head.fields().iter().filter(|field| field.name.of(buf).eq_ignore_ascii_case(b"cookie"));
    fields.flat_map(|field| pairs(field.value.of(buf))).filter_map(move |pair| value(pair, name))
}

/// `name=value` and what else stands between semicolons, without the white space around it.
fn pairs(cookies: &[u8]) -> impl Iterator<Item = &[u8]> {
    cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a pair of that name.
fn value<'b>(pair: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

/// Takes the cookies with this name out of an encoded head, and fields that have no other. Nothing moves where there is
/// none.
pub fn strip(head: &mut Vec<u8>, name: &[u8]) {
    let mut start = 0;
    while let Some(len) = memchr::memmem::find(&head[start..], b"\r\n").filter(|len| *len > 0) {
        let end = start + len;
        start = match cookie_values(&head[start..end]) {
            Some(prefix) => strip_line(head, start, start + prefix, end, name),
            None => end,
        } + 2;
    }
}

/// Where the cookies of a `Cookie` line begin.
fn cookie_values(line: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"cookie:";
    let name = line.get(..FIELD.len())?;
    name.eq_ignore_ascii_case(FIELD).then_some(FIELD.len())
}

/// Strips the line `start..end`, whose cookies begin at `from`. Where it now ends; 2 before its start where it is gone.
fn strip_line(head: &mut Vec<u8>, start: usize, from: usize, end: usize, name: &[u8]) -> usize {
    if !pairs(&head[from..end]).any(|pair| value(pair, name).is_some()) {
        return end;
    }
    let mut kept: Vec<u8> = Vec::with_capacity(end - from);
    for pair in pairs(&head[from..end]).filter(|pair| value(pair, name).is_none() && !pair.is_empty()) {
        kept.extend_from_slice(if kept.is_empty() { b" " } else { b"; " });
        kept.extend_from_slice(pair);
    }
    if kept.is_empty() {
        head.drain(start..end + 2);
        return start.saturating_sub(2);
    }
    let now_ends = from + kept.len();
    head.splice(from..end, kept);
    now_ends
}

/// Adds a cookie for the session to an encoded head: for all paths, out of scripts' reach, and sent along when another
/// site's link is followed.
pub fn push_session(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    let end = head.len().saturating_sub(2);
    debug_assert!(head.ends_with(b"\r\n\r\n"), "a head ends with an empty line");
    head.truncate(end);
    for part in [b"Set-Cookie: ", name.as_bytes(), b"=", value, b"; Path=/; HttpOnly; SameSite=Lax\r\n\r\n"] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::l7::http1::{HeadLimits, Parsed};

    #[test]
    fn every_cookie_of_the_name_in_order() {
        let input =
            b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; lb=x;lb = no; Lb=no; xlb=no; lb\r\nX: lb=no\r\n\
            cookie:  lb=y=z ;lb=\r\n\r\n";
        let mut head = RequestHead::default();
        assert_eq!(head.parse(input, &HeadLimits::default()), Ok(Parsed::Complete));
        let found: Vec<_> = values(&head, input, b"lb").collect();
        assert_eq!(found, [&b"x"[..], b"y=z", b""]);
    }

    fn stripped(head: &str) -> String {
        let mut head = head.as_bytes().to_vec();
        strip(&mut head, b"lb");
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn one_cookie_is_taken_out_and_nothing_else() {
        let head = |fields: &str| format!("GET /lb=1 HTTP/1.1\r\nHost: a\r\n{fields}X: lb=1; lb=2\r\n\r\n");
        for (before, after) in [
            ("", ""),
            ("Cookie: a=1; b=2\r\n", "Cookie: a=1; b=2\r\n"),
            ("Cookie: a=1;b=2;\r\n", "Cookie: a=1;b=2;\r\n"),
            ("Cookie: lb=x\r\n", ""),
            ("Cookie: lb=x\r\nCOOKIE: lb=y\r\n", ""),
            ("Cookie: lb=x; a=1\r\n", "Cookie: a=1\r\n"),
            ("cookie: a=1; lb=x;b=2; lb=\r\n", "cookie: a=1; b=2\r\n"),
            ("Cookie: lbx=1; lb; Lb=2; xlb=3\r\n", "Cookie: lbx=1; lb; Lb=2; xlb=3\r\n"),
            ("Cookie: a=lb=1\r\nCookie: lb=1\r\nA: b\r\n", "Cookie: a=lb=1\r\nA: b\r\n"),
        ] {
            assert_eq!(stripped(&head(before)), head(after), "{before}");
        }
        assert_eq!(
            stripped("GET / HTTP/1.1\r\n\r\nCookie: lb=1\r\n"),
            "GET / HTTP/1.1\r\n\r\nCookie: lb=1\r\n"
        );
    }

    #[test]
    fn a_cookie_for_the_session() {
        let mut head = b"HTTP/1.1 200 OK\r\nVia: 1.1 lb\r\n\r\n".to_vec();
        push_session(&mut head, "lb", b"0a");
        let expected =
            "HTTP/1.1 200 OK\r\nVia: 1.1 lb\r\nSet-Cookie: lb=0a; Path=/; HttpOnly; SameSite=Lax\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    proptest! {
        /// Whatever a head holds, no cookie of the name is left, all others are, and other lines stay as they are.
        #[test]
        fn stripping_takes_one_name_and_nothing_else(
            lines in prop::collection::vec("(Cookie:|cookie:|X:)[ a-c;=lb]{0,12}", 0..6),
        ) {
            let text = |lines: &[String]| format!("GET / HTTP/1.1\r\n{}\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
            let got = stripped(&text(&lines));
            let all = |text: &str| {
                let fields = text.lines().filter_map(|line| line.get(..7).filter(|name| name.eq_ignore_ascii_case("cookie:")).map(|_| line[7..].to_owned()));
                fields.flat_map(|list| list.split(';').map(|pair| pair.trim().to_owned()).collect::<Vec<_>>()).filter(|pair| !pair.is_empty()).collect::<Vec<_>>()
            };
            let expected: Vec<_> = all(&text(&lines)).into_iter().filter(|pair| !pair.starts_with("lb=")).collect();
            prop_assert_eq!(all(&got), expected);
            let others = |text: &str| text.lines().filter(|line| line.starts_with("X:")).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(others(&got), others(&text(&lines)));
            prop_assert!(got.ends_with("\r\n\r\n"));
        }
    }
}
