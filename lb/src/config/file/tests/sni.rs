//! Routes of relays, by TLS server name.

use super::{super::parse, problems};
use crate::config::{BackendIds, HostKind, HostMatch, Snapshot};
use crate::model::Generation;

fn with(protocol: &str, route: &str) -> String {
    format!(
        "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"{protocol}\"\n\
         [pool.p]\nbackends = [\"10.0.0.1:1\"]\n[route.r]\nlistener = \"l\"\n{route}\n"
    )
}

#[test]
fn names_are_read_and_tried_from_exact_to_wide() {
    let text =
        with("tcp", "sni = [\"*.Example.com\", \"db.example.com\", \"*.db.example.com\"]\npool = \"p\"");
    let config = parse("f", &text).unwrap().config;
    assert_eq!((config.routes["r"].host_kind, config.listeners["l"].pool.as_deref()), (HostKind::Sni, None));
    let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
    let hosts: Vec<_> = snapshot.routes.iter().map(|route| route.host.clone()).collect();
    let suffix = |suffix: &str| HostMatch::Suffix(suffix.into());
    let exact = HostMatch::Exact("db.example.com".into());
    assert_eq!(hosts, [exact, suffix(".db.example.com"), suffix(".example.com")]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (protocol, route, expected) in [
        (
            "tcp",
            "pool = \"p\"",
            "route.r.listener = \"l\": is a relay (protocol = \"tcp\"): its routes go by `sni`",
        ),
        (
            "http",
            "sni = [\"a.test\"]\npool = \"p\"",
            "route.r.sni = [\"a.test\"]: only routes of listeners with protocol = \"tcp\" have it; requests have `host`",
        ),
        (
            "tcp",
            "sni = [\"a.test\"]\npool = \"p\"\npath = \"/x\"",
            "route.r.path = \"/x\": has no meaning with `sni`: what is encrypted is not looked at",
        ),
        (
            "tcp",
            "sni = [\"a.test\"]\npool = \"p\"\nhost = [\"a.test\"]",
            "route.r.host = [\"a.test\"]: has no meaning with `sni`: what is encrypted is not looked at",
        ),
        (
            "tcp",
            "sni = [\"192.0.2.1\"]\npool = \"p\"",
            "route.r.sni[0] = \"192.0.2.1\": must be a host name: TLS clients never name an address",
        ),
        (
            "tcp",
            "sni = [\"*\"]\npool = \"p\"",
            "route.r.sni[0] = \"*\": every name: leave the route out, and give the listener a pool",
        ),
        (
            "tcp",
            "sni = [\"a.test\", \"A.test\"]\npool = \"p\"",
            "route.r.sni[1] = \"A.test\": this host is listed already",
        ),
        ("tcp", "sni = [\"a.test\"]", "route.r.pool: missing: must be the name of a pool"),
    ] {
        let found = problems(&with(protocol, route));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}\n{found:#?}");
    }
}
