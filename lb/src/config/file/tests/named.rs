//! Rules of backends that are names or unix sockets, and of `[dns]`.

use std::time::Duration;

use super::{EXAMPLE, rules::each};
use crate::{
    config::{Backend, BackendPlace, Dns, Families, NamedBackends, parse},
    model::{BackendName, DomainName, UnixAddress},
};

const DB: &str = "\"10.0.0.21:5432\"";

#[test]
fn names_and_sockets_are_read_as_written() {
    let text = EXAMPLE.replacen(
        DB,
        "\"Db.Internal.:5432\", { address = \"srv:_pg._tcp.internal\", max_connections = 9 }, \"unix:@db\", \
         { address = \"unix:/run/db.sock\", weight = 3 }",
        1,
    )
    .replacen("[pool.db]", "[pool.db]\nbackup = [\"spare:1\"]", 1)
        + "[dns]\nservers = [\"10.0.0.53\", \"[2001:db8::53]:5353\"]\nfamilies = [\"ipv4\"]\n\
         timeout = \"1s\"\nattempts = 3\nttl_min = \"5s\"\nttl_max = \"5m\"\nhold = \"1s\"\n";
    let config = parse("f", &text).unwrap().config;
    let pool = &config.pools["db"];
    let host = |name, port| BackendName::Host(DomainName::new(name).unwrap(), port);
    let named = |name, backup, max_connections| NamedBackends { name, weight: 1, backup, max_connections };
    let service = BackendName::Service(DomainName::new("_pg._tcp.internal").unwrap());
    let expected = [
        named(host("db.internal", 5432), false, None),
        named(service, false, Some(9)),
        named(host("spare", 1), true, None),
    ];
    assert_eq!(pool.names, expected);
    let unix = |text| BackendPlace::Unix(UnixAddress::new(text).unwrap());
    let places: Vec<_> =
        pool.backends.iter().map(|Backend { place, weight, .. }| (place.clone(), *weight)).collect();
    assert_eq!(places, [(unix("@db"), 1), (unix("/run/db.sock"), 3)]);
    let dns = Dns {
        servers: vec!["10.0.0.53:53".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()],
        families: Families { v4: true, v6: false },
        timeout: Duration::from_secs(1),
        attempts: 3,
        ttl_min: Duration::from_secs(5),
        ttl_max: Duration::from_secs(300),
        hold: Duration::from_secs(1),
    };
    assert_eq!(config.dns, dns);
}

#[test]
fn names() {
    each(&[
        (
            DB,
            "^\"db.internal\"",
            "pool.db.backends[0] = \"db.internal\": a name needs a port; did you mean `db.internal:80`?",
        ),
        (
            DB,
            "^\"db.internal:0\"",
            "pool.db.backends[0] = \"db.internal:0\": a name needs a port from 1 to 65535",
        ),
        (
            DB,
            "^\"db.internal:+1\"",
            "pool.db.backends[0] = \"db.internal:+1\": a name needs a port from 1 to 65535",
        ),
        (
            DB,
            "^\"srv:_pg._tcp.internal:5432\"",
            "pool.db.backends[0] = \"srv:_pg._tcp.internal:5432\": must be the name of a service, such as \"srv:_http._tcp.api.internal\"; its answers say the ports",
        ),
        (
            DB,
            "{ address = ^\"srv:_pg._tcp.internal\", weight = 2 }",
            "pool.db.backends[0].address = \"srv:_pg._tcp.internal\": has no `weight` here: a service says itself what its backends weigh",
        ),
        (
            DB,
            "{ address = \"db.internal:1\", server_id = ^2 }",
            "pool.db.backends[0].server_id = 2: only an address has one: packets are led by it",
        ),
        (
            DB,
            "\"db.internal:1\", ^\"DB.internal.:1\"",
            "pool.db.backends[1] = \"DB.internal.:1\": this backend is listed already; use `weight` for a larger share",
        ),
        (
            DB,
            "{ address = ^\"db.internal:1\", backup = true }",
            "pool.db.backends[0].address = \"db.internal:1\": every backend of this pool is a backup; one must not be",
        ),
        (
            "\"10.0.1.53\"",
            "^\"ns.internal:53\"",
            "pool.dns.backends[0] = \"ns.internal:53\": vip.dns uses this pool, and its packets go to addresses that stand in the config: names are for pools of listeners",
        ),
    ]);
}

#[test]
fn sockets() {
    let rule = "must be an absolute path or a name, such as \"unix:/run/app.sock\" or \"unix:@app\", of at most 107 bytes";
    let long = format!("unix:/{}", "x".repeat(107));
    each(&[
        (DB, "^\"unix:app.sock\"", &format!("pool.db.backends[0] = \"unix:app.sock\": {rule}")),
        (DB, "^\"unix:\"", &format!("pool.db.backends[0] = \"unix:\": {rule}")),
        (DB, &format!("^\"{long}\""), &format!("pool.db.backends[0] = \"{}...: {rule}", &long[..59])),
        (
            DB,
            "^\"unix:/run/lb/admin.sock\"",
            "pool.db.backends[0] = \"unix:/run/lb/admin.sock\": is admin.socket: whoever may connect could change everything",
        ),
        (
            DB,
            "{ address = \"unix:/a\", server_id = ^1 }",
            "pool.db.backends[0].server_id = 1: only an address has one: packets are led by it",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"unix:/a\"]\nhealth = { tcp = ^\"5432\" }",
            "pool.db.health.tcp = \"5432\": a unix socket of this pool can be connected to and asked no more: `tcp = \"auto\"`",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"unix:/a\"]\nhealth = { postgres = ^\"auto\" }",
            "pool.db.health.postgres = \"auto\": a unix socket of this pool can be connected to and asked no more: `tcp = \"auto\"`",
        ),
        (
            "\"10.0.1.53\"",
            "^\"unix:/a\"",
            "pool.dns.backends[0] = \"unix:/a\": vip.dns uses this pool, and packets cannot be sent to a socket of this host",
        ),
    ]);
}

#[test]
fn datagrams_go_to_addresses() {
    let text = "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"udp\"\npool = \"p\"\n[pool.p]\nbackends = ";
    let problems = super::problems(&format!("{text}[\"unix:/a\", \"a.internal:1\"]"));
    let rule = "listener.l uses this pool, and sends datagrams to addresses only";
    assert_eq!(problems, [format!("edge.toml:7:13: pool.p.backends[0] = \"unix:/a\": {rule}")]);
}

#[test]
fn servers() {
    let dns = |keys: &str| format!("version = 1\n[dns]\n{keys}\n");
    let rule = "must be the address of a DNS server, with a port where that is not 53, such as \"10.0.0.53\"";
    each(&[
        (
            "version = 1\n",
            &dns("servers = ^[]"),
            "dns.servers = []: must not be empty: must be an array of DNS servers, such as [\"10.0.0.53\"]",
        ),
        ("version = 1\n", &dns("servers = [^\"ns1\"]"), &format!("dns.servers[0] = \"ns1\": {rule}")),
        (
            "version = 1\n",
            &dns("servers = [^\"10.0.0.1:0\"]"),
            &format!("dns.servers[0] = \"10.0.0.1:0\": {rule}"),
        ),
        (
            "version = 1\n",
            &dns("servers = [\"10.0.0.1\", ^\"10.0.0.1:53\"]"),
            "dns.servers[1] = \"10.0.0.1:53\": this server is listed already",
        ),
        (
            "version = 1\n",
            &dns("families = [^\"v4\"]"),
            "dns.families[0] = \"v4\": must be one of \"ipv4\", \"ipv6\"",
        ),
        ("version = 1\n", &dns("timeout = ^\"31s\""), "dns.timeout = \"31s\": must be from 50ms to 30s"),
        ("version = 1\n", &dns("attempts = ^0"), "dns.attempts = 0: must be a whole number from 1 to 10"),
        ("version = 1\n", &dns("ttl_min = ^\"100ms\""), "dns.ttl_min = \"100ms\": must be from 1s to 24h"),
        (
            "version = 1\n",
            &dns("ttl_min = ^\"2m\""),
            "dns.ttl_min = \"2m\": must be at most `ttl_max`, which is 1m",
        ),
    ]);
}

#[test]
fn a_retry_needs_another_backend() {
    let warnings = |backends: &str| {
        let retried = "pool = \"api\"\nretry = { on = [\"connect\"] }\ntimeout = \"30s\"";
        let text = EXAMPLE
            .replace("pool = \"api\"\ntimeout = \"30s\"", retried)
            .replace("[\"10.0.0.11:8080\", { address = \"[2001:db8::1]:8080\", weight = 2 }]", backends);
        let loaded = parse("f", &text).unwrap();
        loaded.warnings.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(warnings("[\"10.0.0.11:8080\"]"), ["has one backend only: `retry` has no other one to try"]);
    assert!(warnings("[\"10.0.0.11:8080\", \"10.0.0.12:8080\"]").is_empty());
    assert!(warnings("[\"api.internal:8080\"]").is_empty(), "a name may stand for several");
}
