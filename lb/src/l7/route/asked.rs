//! What routes look at, and whether their conditions hold of it.

use crate::{
    config::{Condition, Conditions, Test},
    l7::http1::{Field, RequestHead},
};

/// A request, as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Without port, in any case.
    pub host: &'a [u8],
    /// Routed form, without query.
    pub path: &'a [u8],
    /// From `?` on; empty if there is none.
    pub query: &'a [u8],
    /// Method.
    pub method: &'a [u8],
    /// Fields; their places are in `buf`.
    pub fields: &'a [Field],
    /// What the head was parsed from.
    pub buf: &'a [u8],
    /// Whether the client's words on whom it speaks for are believed. If not, they are as if not there.
    pub is_trusted: bool,
}

impl<'a> Asked<'a> {
    /// Of a head that was parsed from `buf`.
    pub fn new(head: &'a RequestHead, buf: &'a [u8], is_trusted: bool) -> Self {
        Self {
            host: head.host(buf),
            path: head.path(buf),
            query: head.query(buf),
            method: head.method(buf),
            fields: head.fields(),
            buf,
            is_trusted,
        }
    }

    /// Whether all of the conditions hold.
    pub(super) fn meets(&self, conditions: &Conditions) -> bool {
        let methods = &conditions.methods;
        (methods.is_empty() || methods.iter().any(|method| method.as_bytes() == self.method))
            && conditions.headers.iter().all(|condition| self.meets_header(condition))
            && conditions.query.iter().all(|condition| self.meets_query(condition))
    }

    /// A field that is not passed on, as `Connection` names it, is as if not there.
    fn meets_header(&self, Condition { name, test }: &Condition) -> bool {
        let mut values = self
            .fields
            .iter()
            .filter(|field| !field.is_hop && (self.is_trusted || !field.kind.is_testimony()))
            .filter(|field| field.name.of(self.buf).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value.of(self.buf));
        match test {
            Test::Exact(text) => values.any(|value| value == text.as_bytes()),
            Test::Prefix(text) => values.any(|value| value.starts_with(text.as_bytes())),
            Test::Pattern(pattern) => values.any(|value| pattern.matches(value)),
            Test::Present => values.next().is_some(),
            Test::Absent => values.next().is_none(),
        }
    }

    fn meets_query(&self, Condition { name, test }: &Condition) -> bool {
        let pairs = self.query.strip_prefix(b"?").unwrap_or_default().split(|&byte| byte == b'&');
        let mut values = pairs.filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (key, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
                None => (pair, &b""[..]),
            };
            decoded(key).eq(name.bytes()).then_some(value)
        });
        match test {
            Test::Exact(text) => values.any(|value| decoded(value).eq(text.bytes())),
            Test::Prefix(text) => values.any(|value| decoded(value).take(text.len()).eq(text.bytes())),
            Test::Present => values.next().is_some(),
            Test::Absent => values.next().is_none(),
            // Config has none of these.
            Test::Pattern(_) => false,
        }
    }
}

/// As form fields are decoded (WHATWG URL, 5.1): `+` is a space, a broken escape stands for itself.
fn decoded(mut text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    std::iter::from_fn(move || {
        let (byte, rest) = match text {
            [b'%', high, low, rest @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                ((digit(*high)? << 4 | digit(*low)?) as u8, rest)
            }
            [b'+', rest @ ..] => (b' ', rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        text = rest;
        Some(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::parse,
        l7::http1::{HeadLimits, Parsed},
    };

    fn meets(route: &str, start: &str, fields: &str, is_trusted: bool) -> bool {
        let text = format!(
            "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n[route.r]\nlistener = \"l\"\n\
             {route}\nrespond = {{}}"
        );
        let config = parse("f", &text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let input = format!("{start} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        assert_eq!(head.parse(input.as_bytes(), &HeadLimits::default()), Ok(Parsed::Complete));
        Asked::new(&head, input.as_bytes(), is_trusted).meets(&config.routes["r"].conditions)
    }

    #[test]
    fn methods() {
        for (start, expected) in [("GET /", true), ("HEAD /", true), ("POST /", false), ("get /", false)] {
            assert_eq!(meets("method = [\"HEAD\", \"GET\"]", start, "", false), expected, "{start}");
        }
    }

    #[test]
    fn headers() {
        let rows: &[(&str, &str, bool)] = &[
            ("X-A = \"1\"", "x-a: 1\r\n", true),
            ("X-A = \"1\"", "X-A: 2\r\nX-A:  1 \r\n", true),
            ("X-A = \"1\"", "X-A: 1, 2\r\n", false),
            ("X-A = \"1\"", "", false),
            ("X-A = { exact = \"\" }", "X-A:\r\n", true),
            ("X-A = { prefix = \"ab\" }", "X-A: abc\r\n", true),
            ("X-A = { prefix = \"ab\" }", "X-A: a\r\n", false),
            ("X-A = { regex = \"[0-9]+\" }", "X-A: 12\r\n", true),
            ("X-A = { regex = \"[0-9]+\" }", "X-A: 12a\r\n", false),
            ("X-A = { present = true }", "X-A: \r\n", true),
            ("X-A = { present = true }", "X-B: 1\r\n", false),
            ("X-A = { present = false }", "X-B: 1\r\n", true),
            ("X-A = { present = false }", "X-A: 1\r\n", false),
            ("X-A = \"1\", X-B = \"2\"", "X-A: 1\r\n", false),
            ("X-A = \"1\", X-B = \"2\"", "X-B: 2\r\nX-A: 1\r\n", true),
            // What Connection names reaches no backend.
            ("X-A = \"1\"", "X-A: 1\r\nConnection: x-a\r\n", false),
            ("X-Forwarded-Proto = \"https\"", "X-Forwarded-Proto: https\r\n", false),
        ];
        for (condition, fields, expected) in rows {
            let route = format!("headers = {{ {condition} }}");
            assert_eq!(meets(&route, "GET /", fields, false), *expected, "{condition} {fields:?}");
        }
        let proto = "headers = { X-Forwarded-Proto = \"https\" }";
        assert!(meets(proto, "GET /", "X-Forwarded-Proto: https\r\n", true));
    }

    #[test]
    fn parameters() {
        for (condition, target, expected) in [
            ("v = \"2\"", "/?v=2", true),
            ("v = \"2\"", "/?a=1&&v=2&v=3", true),
            ("v = \"2\"", "/?%76=%32", true),
            ("v = \"2\"", "/?v=22", false),
            ("v = \"2\"", "/?V=2", false),
            ("v = \"2\"", "/", false),
            ("\"a b\" = \"c=d\"", "/?a+b=c=d", true),
            ("v = \"%\"", "/?v=%", true),
            ("v = \"\"", "/?v", true),
            ("v = { prefix = \"ab\" }", "/?v=a%62c", true),
            ("v = { prefix = \"ab\" }", "/?v=a", false),
            ("v = { present = true }", "/?v", true),
            ("v = { present = true }", "/?vv=1", false),
            ("v = { present = false }", "/?vv=1", true),
            ("v = { present = false }", "/?v=1", false),
        ] {
            let route = format!("query = {{ {condition} }}");
            assert_eq!(meets(&route, &format!("GET {target}"), "", false), expected, "{condition} {target}");
        }
    }
}
