//! What chooses a backend beside the flow hash: `vip.sources`, `vip.quic`, server ids.

use crate::config::NewFlows;

use super::{EXAMPLE, problems, rules::one_problem};

#[test]
fn new_flows_per_source() {
    let old = "secret = \"file:secrets/hash\"";
    for (new, expected) in [
        (
            "^{}",
            "xdp.new_flows_per_source.rate: missing: a rate is a string with a unit, such as \"200/s\" or \"600/m\"",
        ),
        (
            "{ rate = ^\"200\" }",
            "xdp.new_flows_per_source.rate = \"200\": a rate is a string with a unit, such as \"200/s\" or \"600/m\"; \
             did you mean `200/s`?",
        ),
        (
            "{ rate = \"200/s\", above = ^\"0/s\" }",
            "xdp.new_flows_per_source.above = \"0/s\": must be a whole number per second, from 1/s to 10000000/s",
        ),
        (
            "{ rate = \"200/s\", burst = ^0 }",
            "xdp.new_flows_per_source.burst = 0: must be a whole number from 1 to 10000000",
        ),
    ] {
        one_problem(old, &format!("{old}\nnew_flows_per_source = {new}"), expected);
    }
    let text = EXAMPLE.replace(old, &format!("{old}\nnew_flows_per_source = {{ rate = \"200/s\" }}"));
    let xdp = super::parse("edge.toml", &text).unwrap().config.xdp.unwrap();
    let NewFlows { rate, burst, above } = xdp.new_flows.unwrap();
    assert_eq!((rate, burst, above), (200, 400, 20_000));
}

#[test]
fn hash() {
    let expected = "vip.dns.hash = \"src\": must be one of \"5-tuple\", \"source\", \"destination-port\"";
    one_problem("flows = \"none\"", "hash = ^\"src\"", expected);
}

#[test]
fn sources() {
    let sources = |list: &str| format!("sources = [{list}]\nflows");
    for (new, expected) in [
        ("^7", "vip.dns.sources[0] = 7: must be a table; this is an integer"),
        (
            "^{ pool = \"dns\" }",
            "vip.dns.sources[0].prefix: missing: must be a prefix, such as \"198.51.100.0/24\"",
        ),
        (
            "{ prefix = ^\"198.51.100.7/24\", pool = \"dns\" }",
            "vip.dns.sources[0].prefix = \"198.51.100.7/24\": has bits set behind its length; did you mean `198.51.100.0/24`?",
        ),
        (
            "{ prefix = ^\"0.0.0.0/0\", pool = \"dns\" }",
            "vip.dns.sources[0].prefix = \"0.0.0.0/0\": is every client: that is what the VIP's own `pool` is for",
        ),
        (
            "{ prefix = \"198.51.100.0/24\", pool = ^\"dnss\" }",
            "vip.dns.sources[0].pool = \"dnss\": there is no pool of this name; did you mean `dns`?",
        ),
        (
            "{ prefix = \"198.51.100.0/24\", pool = \"dns\" }, ^{ prefix = \"198.51.100.0/24\", pool = \"dns\" }",
            "vip.dns.sources[1] = { prefix = \"198.51.100.0/24\", pool = \"dns\" }: this prefix is listed already",
        ),
    ] {
        one_problem("flows", &sources(new), expected);
    }
}

#[test]
fn quic() {
    let quic = |keys: &str| format!("quic = {keys}\nflows");
    let rows = [
        ("^{}", "vip.dns.quic.keys: missing: ids are checked by keys, such as { 0 = \"file:quic-0.key\" }"),
        (
            "{ keys = ^{} }",
            "vip.dns.quic.keys = {}: must not be empty: ids are checked by keys, such as { 0 = \"file:quic-0.key\" }",
        ),
        ("{ keys = { ^7 = \"file:k\" } }", "vip.dns.quic.keys.7: unknown key"),
        (
            "{ keys = { 0 = ^\"0123\" } }",
            "vip.dns.quic.keys.0: a secret is given by reference, as in \"file:secret\"",
        ),
        (
            "{ keys = { 0 = ^\"file:../k\" } }",
            "vip.dns.quic.keys.0: must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ),
        ("^7", "vip.dns.quic = 7: must be a table; this is an integer"),
        (
            "^{ keys = { 0 = \"file:k\" } }",
            "vip.dns.quic: no backend of pool.dns has a `server_id`, so no id names one",
        ),
    ];
    for (new, expected) in rows {
        one_problem("flows", &quic(new), expected);
    }
    let servers = |list: &str| format!("backends = [{list}]\nhealth = {{ tcp = \"53\" }}");
    let old = "backends = [\"10.0.1.53\", \"10.0.1.54:53\"]\nhealth = { tcp = \"53\" }";
    one_problem(
        old,
        &servers("{ address = \"10.0.1.53\", server_id = ^4096 }"),
        "pool.dns.backends[0].server_id = 4096: must be a whole number from 1 to 4095",
    );
    one_problem(
        old,
        &servers("{ address = \"10.0.1.53\", server_id = 7 }, { address = ^\"10.0.1.54\", server_id = 7 }"),
        "pool.dns.backends[1].address = \"10.0.1.54\": server_id 7 is that of 10.0.1.53 in \
         pool.dns already",
    );
}

#[test]
fn quic_needs_udp_and_servers() {
    let text = EXAMPLE
        .replace("flows", "quic = { keys = { 0 = \"file:k\" } }\nflows")
        .replace("[\"10.0.1.53\",", "[{ address = \"10.0.1.53\", server_id = 7 },");
    let loaded = super::parse("edge.toml", &text).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "edge.toml:66:55: warning: pool.dns.backends[1] = \"10.0.1.54:53\": has no `server_id`: connections to it \
             through vip.dns do not survive a change of the client's address"
        ]
    );
    let dns = &loaded.config.pools["dns"].backends;
    assert_eq!((dns[0].server_id, dns[1].server_id), (Some(7), None));
    let text = text.replace("\"53/udp\", ", "");
    assert_eq!(
        problems(&text),
        ["edge.toml:33:8: vip.dns.quic: vip.dns has no udp port, and QUIC is over UDP"]
    );
}
