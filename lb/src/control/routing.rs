//! What config accepts and what workers match must agree; only control knows both.

use proptest::prelude::*;

use crate::{
    config::{PathPattern, parse},
    l7::{headers::FieldKind, path::normalise},
};

/// The pattern of a route with this path, where config takes it.
fn pattern(path: &str) -> Option<PathPattern> {
    let text = format!(
        "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n[route.r]\nlistener = \"l\"\n\
         path = {path:?}\npool = \"p\"\n[pool.p]\nbackends = [\"10.0.0.1:1\"]\n"
    );
    parse("f", &text).ok()?.config.routes.get("r")?.path.clone()
}

/// A route may write what means nothing to us, and what we only keep others from stripping.
#[test]
fn no_route_writes_a_field_that_is_ours() {
    let names = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-request-id",
        "accept",
        "authorization",
        "cookie",
        "set-cookie",
        "date",
        "location",
        "server",
        "x-anything",
    ];
    for name in names {
        for name in [name.to_owned(), name.to_uppercase(), name.replace('-', "_")] {
            for edit in [format!("set = {{ {name} = \"1\" }}"), format!("remove = [\"{name}\"]")] {
                let text = format!(
                    "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n[route.r]\n\
                     listener = \"l\"\nset_headers.response = {{ {edit} }}\nrespond = {{}}"
                );
                // A backend may take a look-alike for what it looks like.
                let kind = FieldKind::of(name.replace('_', "-").as_bytes());
                let is_free = matches!(kind, FieldKind::Plain | FieldKind::Protected);
                assert_eq!(parse("f", &text).is_ok(), is_free, "{name}: {edit}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// A route whose path is not its own normal form could never be taken; one that is must be allowed.
    #[test]
    fn paths_are_taken_exactly_where_they_are_their_own_normal_form(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("/"), Just("."), Just(";"), Just("a"), Just("%2F"), Just("%2f"), Just("%5C"), Just("%41"),
                Just("%00"), Just("%C0"), Just("%E0"), Just("%80"), Just("%A0"), Just("%F0"), Just("%F5"),
                Just("%3A"), Just("%25"), Just("~"),
            ],
            0..8,
        ),
    ) {
        let path = format!("/{}", parts.concat());
        let (mut forwarded, mut routed) = (Vec::new(), Vec::new());
        let is_normal = normalise(path.as_bytes(), &mut forwarded, &mut routed).is_ok() && routed == path.as_bytes();
        let taken = pattern(&path);
        prop_assert_eq!(taken.is_some(), is_normal, "{}: {:?}", path, String::from_utf8_lossy(&routed));
        prop_assert!(taken.is_none_or(|taken| taken == PathPattern::Exact(path.as_str().into())));
    }
}
