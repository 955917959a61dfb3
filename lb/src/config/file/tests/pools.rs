//! Rules of `[pool.NAME]`, row by row.

use super::rules::each;

#[test]
fn pools() {
    let weight = |weight| format!("address = \"[2001:db8::1]:8080\", weight = {weight}");
    let second = "address = \"[2001:db8::1]:8080\", weight = 2";
    each(&[
        (
            "\"10.0.0.21:5432\"",
            "^\"10.0.0.21\"",
            "pool.db.backends[0] = \"10.0.0.21\": needs a port, as listener.db uses this pool",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"db.internal:5432\"",
            "pool.db.backends[0] = \"db.internal:5432\": host names are not supported yet; give an IP address",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"10.0.0.321:80\"",
            "pool.db.backends[0] = \"10.0.0.321:80\": must be an IP address, with a port behind a listener, such as \"10.0.0.11:8080\" or \"[2001:db8::1]:80\"",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"0.0.0.0:80\"",
            "pool.db.backends[0] = \"0.0.0.0:80\": must be one address, not the unspecified one",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"255.255.255.255:80\"",
            "pool.db.backends[0] = \"255.255.255.255:80\": must be a unicast address",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"[fe80::1%2]:80\"",
            "pool.db.backends[0] = \"[fe80::1%2]:80\": addresses with a scope are not supported yet",
        ),
        (
            "\"10.0.0.21:5432\"",
            "^\"10.0.0.21:0\"",
            "pool.db.backends[0] = \"10.0.0.21:0\": port 0 cannot be dialled; give one from 1 to 65535",
        ),
        (
            "\"10.0.0.21:5432\"",
            "\"10.0.0.21:5432\", ^\"10.0.0.21:5432\"",
            "pool.db.backends[1] = \"10.0.0.21:5432\": this backend is listed already; use `weight` for a larger share",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "^[]",
            "pool.db.backends = []: must not be empty: must be an array of backends, such as [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]",
        ),
        (second, &weight("^0"), "pool.api.backends[1].weight = 0: must be a whole number from 1 to 1000"),
        (
            second,
            &weight("^1001"),
            "pool.api.backends[1].weight = 1001: must be a whole number from 1 to 1000",
        ),
        ("balance = \"round-robin\"", "balance = ^\"p2c\"", "pool.api.balance = \"p2c\": not supported yet"),
        (
            "balance = \"round-robin\"",
            "balance = ^\"roundrobin\"",
            "pool.api.balance = \"roundrobin\": must be one of \"round-robin\", \"maglev\"; did you mean `round-robin`?",
        ),
        (
            "balance = \"round-robin\"",
            "balance = ^\"maglev\"",
            "pool.api.balance = \"maglev\": listener.web uses this pool; behind listeners only \"round-robin\" is supported yet",
        ),
        (
            "timeout = \"500ms\"",
            "timeout = ^\"6s\"",
            "pool.api.health.timeout = \"6s\": must be at most `every`, which is 5s",
        ),
        ("fall = 5", "fall = ^0", "pool.api.health.fall = 0: must be a whole number from 1 to 100"),
        (
            "tcp = \"auto\", every",
            "tcp = ^\"http\", every",
            "pool.api.health.tcp = \"http\": must be \"auto\" or a port from 1 to 65535, such as \"8080\"",
        ),
        (
            "health = { tcp = \"53\" }",
            "health = ^{}",
            "pool.dns.health.tcp: missing: must be \"auto\" or a port, such as \"8080\"",
        ),
        ("health = { tcp = \"53\" }", "health = { ^udp = \"53\" }", "pool.dns.health.udp: not supported yet"),
        ("idle = \"30s\"", "idle = ^\"0s\"", "pool.api.keepalive.idle = \"0s\": must be from 10ms to 24h"),
        (
            "per_worker = 8",
            "per_worker = ^-8",
            "pool.api.keepalive.per_worker = -8: must be a whole number from 0 to 65535",
        ),
    ]);
}
