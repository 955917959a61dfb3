//! `listener.proxy_protocol` and `pool.proxy_protocol`.

use super::{super::parse, problems};
use crate::config::{ProxyHeaders, ProxyVersion};

/// A listener and its pool with some more keys.
fn with(protocol: &str, listener: &str, pool: &str) -> String {
    format!(
        "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"{protocol}\"\npool = \"p\"\n{listener}\n\
         [pool.p]\nbackends = [\"10.0.0.1:1\"]\n{pool}\n"
    )
}

#[test]
fn both_ways_are_read() {
    for (word, expected) in
        [("off", ProxyHeaders::Off), ("accept", ProxyHeaders::Accept), ("require", ProxyHeaders::Require)]
    {
        let listener = format!("trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = \"{word}\"");
        let config = parse("f", &with("http", &listener, "")).unwrap().config;
        assert_eq!(config.listeners["l"].proxy_protocol, expected);
    }
    for (word, expected) in [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)] {
        let pool = format!("proxy_protocol = \"{word}\"");
        let config = parse("f", &with("tcp", "", &pool)).unwrap().config;
        assert_eq!(config.pools["p"].proxy_protocol, Some(expected));
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let vip = "[xdp]\ninterfaces = [\"eth0\"]\n[vip.v]\naddress = [\"192.0.2.1\"]\nports = [\"1/tcp\"]\n\
        forward = \"nat\"\nnat_source = [\"10.9.0.0/24\"]\npool = \"p\"";
    for (listener, pool, expected) in [
        (
            "proxy_protocol = \"require\"",
            "",
            "listener.l.trusted_proxies: missing: must name the proxies whose headers are believed, as `proxy_protocol` is on",
        ),
        (
            "trusted_proxies = [\"10.0.0.0/8\"]",
            "",
            "listener.l.trusted_proxies = [\"10.0.0.0/8\"]: has no meaning here without `proxy_protocol`",
        ),
        (
            "",
            "proxy_protocol = \"v3\"",
            "pool.p.proxy_protocol = \"v3\": must be one of \"v1\", \"v2\"; did you mean `v1`?",
        ),
        (
            "",
            "proxy_protocol = \"v2\"\nkeepalive = {}",
            "pool.p.keepalive = {}: has no meaning with `proxy_protocol`: a connection that tells of one client is not kept for others",
        ),
        (
            "",
            &format!("proxy_protocol = \"v2\"\n{vip}"),
            "pool.p.proxy_protocol = \"v2\": vip.v uses this pool; packets are not headed by anything",
        ),
    ] {
        let found = problems(&with("tcp", listener, pool));
        assert!(found.iter().any(|problem| problem.ends_with(expected)), "{expected}\n{found:#?}");
    }
}
