//! A new path from the parts of the one that a route matched.
//!
//! What was matched is the routed form; what is taken over is the forwarded one, so that an escaped slash within a
//! capture or behind a prefix arrives as it came. No part can bring a dot segment or a double slash into the new path:
//! captures are whole segments, and what a `*` took is put behind exactly one slash.

use std::sync::Arc;

use super::path::forwarded_at;
use crate::config::{CAPTURES_MAX, NewPart, NewPath, PathMatch, Segment, Segments};

/// A rewrite of the path that one route matches.
#[derive(Clone, Debug)]
pub struct PathRewrite {
    to: Arc<NewPath>,
    from: From,
}

/// Where the captures and the rest of a matched path begin.
#[derive(Clone, Debug)]
enum From {
    /// Nowhere: nothing is taken over.
    Whole,
    /// The rest behind so many bytes.
    Prefix(usize),
    Segments(Arc<Segments>),
}

/// Places within a routed path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Captured {
    spans: [(usize, usize); CAPTURES_MAX],
    /// Where the segments end.
    end: usize,
}

impl PathRewrite {
    /// `to` was made for `from`.
    pub fn new(to: Arc<NewPath>, from: &PathMatch) -> Self {
        let from = match from {
            PathMatch::Any | PathMatch::Exact(_) => From::Whole,
            PathMatch::Prefix(prefix) => From::Prefix(prefix.len().saturating_sub(1)),
            PathMatch::Segments(segments) => From::Segments(segments.clone()),
        };
        Self { to, from }
    }

    /// Appends the new path for one that the route matched, given in both forms; `*` stays as it is.
    pub fn push(&self, out: &mut Vec<u8>, routed: &[u8], forwarded: &[u8]) {
        if routed == b"*" {
            return out.extend_from_slice(routed);
        }
        let captured = match &self.from {
            From::Whole => Captured::default(),
            From::Prefix(len) => Captured { end: *len, ..Captured::default() },
            From::Segments(segments) => match_segments(segments, routed).unwrap_or_default(),
        };
        let start = out.len();
        for part in &self.to.parts {
            match part {
                NewPart::Literal(text) => out.extend_from_slice(text.as_bytes()),
                NewPart::Capture(place) => {
                    let (from, to) = captured.spans.get(*place).copied().unwrap_or_default();
                    let span = forwarded_at(forwarded, from)..forwarded_at(forwarded, to);
                    out.extend_from_slice(forwarded.get(span).unwrap_or_default());
                }
                NewPart::Rest if captured.end < routed.len() => {
                    out.push(b'/');
                    let behind_slash = forwarded_at(forwarded, captured.end + 1);
                    out.extend_from_slice(forwarded.get(behind_slash..).unwrap_or_default());
                }
                NewPart::Rest => {}
            }
        }
        if out.len() == start {
            out.push(b'/');
        }
    }
}

/// Where the captures lie, if the path matches.
pub(super) fn match_segments(pattern: &Segments, path: &[u8]) -> Option<Captured> {
    let mut captured = Captured::default();
    let mut spans = captured.spans.iter_mut();
    let mut at = 0;
    for segment in &pattern.segments {
        let rest = path.get(at..)?.strip_prefix(b"/")?;
        let len = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let text = rest.get(..len)?;
        let (start, end) = (at + 1, at + 1 + len);
        match segment {
            Segment::Literal(literal) if literal.as_bytes() == text => {}
            Segment::Capture { rule, .. }
                if !text.is_empty() && rule.as_ref().is_none_or(|rule| rule.matches(text)) =>
            {
                *spans.next()? = (start, end);
            }
            _ => return None,
        }
        at = end;
    }
    captured.end = at;
    (pattern.has_rest || at == path.len()).then_some(captured)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{PathPattern, RouteAction, parse},
        l7::path::normalise,
    };

    fn rewrite(from: &str, to: &str) -> PathRewrite {
        let text = format!(
            "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n[route.r]\nlistener = \"l\"\n\
             path = {from:?}\npool = \"p\"\nrewrite = {{ path = {to:?} }}\n[pool.p]\nbackends = [\"10.0.0.1:1\"]\n"
        );
        let config = parse("f", &text).unwrap().config;
        let route = &config.routes["r"];
        let RouteAction::Forward { rewrite, .. } = &route.action else { panic!("forwards") };
        let from = match route.path.clone().unwrap() {
            PathPattern::Exact(path) => PathMatch::Exact(path),
            PathPattern::Prefix(path) => PathMatch::Prefix(path),
            PathPattern::Segments(path) => PathMatch::Segments(path),
        };
        PathRewrite::new(rewrite.path.clone().unwrap(), &from)
    }

    fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
        let (mut forwarded, mut routed) = (Vec::new(), Vec::new());
        normalise(path.as_bytes(), &mut forwarded, &mut routed).unwrap();
        let mut out = b"GET ".to_vec();
        rewrite.push(&mut out, &routed, &forwarded);
        String::from_utf8(out.split_off(4)).unwrap()
    }

    #[test]
    fn prefixes_and_captures() {
        for (from, to, path, expected) in [
            ("/v1/*", "/*", "/v1", "/"),
            ("/v1/*", "/*", "/v1/", "/"),
            ("/v1/*", "/*", "/v1/a/b", "/a/b"),
            ("/v1/*", "/*", "/v1//a//b", "/a//b"),
            ("/v1/*", "/*", "/v1/a%2Fb", "/a%2Fb"),
            ("/v1/*", "/*", "/v1%2Fa", "/a"),
            ("/v1/*", "/api/*", "/v1", "/api"),
            ("/v1/*", "/api/*", "/v1/a", "/api/a"),
            ("/v1/*", "/fixed", "/v1/a", "/fixed"),
            ("/*", "/api/*", "/", "/api/"),
            ("/*", "/api/*", "//x", "/api/x"),
            ("/old", "/new/", "/old", "/new/"),
            ("/u/{id}/*", "/{id}/u/*", "/u/7/x%2Fy", "/7/u/x%2Fy"),
            ("/u/{id}/*", "/{id}/u/*", "/u/7", "/7/u"),
            ("/u/{id}/{x}", "/{x}/{id}/{x}", "//u%2F%37//8", "/8/7/8"),
        ] {
            assert_eq!(rewritten(&rewrite(from, to), path), expected, "{from} {to} {path}");
        }
        let mut out = Vec::new();
        rewrite("/a", "/b").push(&mut out, b"*", b"*");
        assert_eq!(out, b"*");
    }

    proptest! {
        /// Whatever comes in, what goes out is a path that no backend reads as climbing or as an authority.
        #[test]
        fn a_new_path_is_as_safe_as_the_old_one(
            parts in prop::collection::vec(
                prop_oneof![Just("/"), Just("%2F"), Just("%5c"), Just("a"), Just("."), Just("%2e"), Just(";"), Just("u")],
                0..10,
            ),
        ) {
            let path = format!("/u/{}", parts.concat());
            let (mut forwarded, mut routed) = (Vec::new(), Vec::new());
            prop_assume!(normalise(path.as_bytes(), &mut forwarded, &mut routed).is_ok());
            prop_assume!(routed.starts_with(b"/u/"));
            for to in ["/*", "/x/*"] {
                let new = rewritten(&rewrite("/u/*", to), &path);
                prop_assert!(new.starts_with('/') && !new.starts_with("//"), "{}", new);
                let (mut again, mut routed_new) = (Vec::new(), Vec::new());
                prop_assert!(normalise(new.as_bytes(), &mut again, &mut routed_new).is_ok(), "{}", new);
                prop_assert_eq!(&again, new.as_bytes());
                let expected = [to.trim_end_matches("/*").as_bytes(), &routed[2..]].concat();
                prop_assert_eq!(routed_new, expected);
            }
        }
    }
}
