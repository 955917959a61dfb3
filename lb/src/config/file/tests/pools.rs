//! Rules of `[pool.NAME]`, row by row.

use std::time::Duration;

use super::rules::each;
use crate::{
    config::{BackendIds, Balance, Key, Queue, Snapshot, Sticky},
    model::Generation,
};

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
            "^\"10.0.0.321:80\"",
            "pool.db.backends[0] = \"10.0.0.321:80\": must be an address, with a port behind a listener, such as \"10.0.0.11:8080\" or \"[2001:db8::1]:80\", a name with port, \"srv:SERVICE\" or \"unix:PATH\"",
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
        (
            "balance = \"round-robin\"",
            "balance = ^\"roundrobin\"",
            "pool.api.balance = \"roundrobin\": must be one of \"round-robin\", \"least-connections\", \"p2c\", \"peak-ewma\", \"random\", \"maglev\"; did you mean `round-robin`?",
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
            "pool.dns.health.tcp: missing: a check has exactly one of `tcp`, `tls`, `http`, `https`, `grpc`, `grpcs`, `udp`, `redis`, `postgres`, `mysql`, `exec`",
        ),
        ("idle = \"30s\"", "idle = ^\"0s\"", "pool.api.keepalive.idle = \"0s\": must be from 10ms to 24h"),
        (
            "per_worker = 8",
            "per_worker = ^-8",
            "pool.api.keepalive.per_worker = -8: must be a whole number from 0 to 65535",
        ),
    ]);
}

#[test]
fn checks() {
    let tcp = "tcp = \"auto\", every";
    let port = "must be \"auto\" or a port from 1 to 65535, such as \"8080\"";
    let payload = "must be text, \"hex:...\" or \"base64:...\"";
    let row = |with: &str, said: &str| {
        (tcp.to_owned(), format!("{with}, every"), format!("pool.api.health.{said}"))
    };
    let rows = [
        row(
            "tcp = \"auto\", redis = ^\"auto\"",
            "redis = \"auto\": a check has exactly one of `tcp`, `tls`, `http`, `https`, `grpc`, `grpcs`, `udp`, `redis`, `postgres`, `mysql`, `exec`; `tcp` stands there already",
        ),
        row("mysql = ^\"0\"", &format!("mysql = \"0\": {port}")),
        row(
            "postgres = ^5432",
            "postgres = 5432: must be \"auto\" or a port, such as \"8080\"; this is an integer",
        ),
        row("redis = \"auto\", port = ^80", "port = 80: the port stands in `redis` itself"),
        row(
            "tcp = \"auto\", status = ^\"200\"",
            "status = \"200\": goes with `http`, `https`, and this check is `tcp`",
        ),
        row(
            "http = \"/\", sni = ^\"a.example\"",
            "sni = \"a.example\": goes with `tls`, `https`, `grpcs`, and this check is `http`",
        ),
        row(
            "tls = \"auto\", host = ^\"a.example\"",
            "host = \"a.example\": goes with `http`, `https`, `grpc`, `grpcs`, and this check is `tls`",
        ),
        row(
            "grpc = \"a\", ca = ^\"file:a.pem\"",
            "ca = \"file:a.pem\": goes with `tls`, `https`, `grpcs`, and this check is `grpc`",
        ),
        row(
            "grpc = \"a\", status = ^\"200\"",
            "status = \"200\": goes with `http`, `https`, and this check is `grpc`",
        ),
        row("https = \"/\", ca = ^\"a.pem\"", "ca = \"a.pem\": is given by reference, as in \"file:ca.pem\""),
        row(
            "https = \"/\", ca = ^\"file:../a.pem\"",
            "ca = \"file:../a.pem\": must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ),
        row(
            "https = \"/\", ca = \"file:a.pem\", verify = ^false",
            "verify = false: stands beside `ca`, which says whose certificates are good",
        ),
        row(
            "grpcs = ^\"a b\"",
            "grpcs = \"a b\": must be the name of a service, such as \"shop.Orders\", or \"\" for the whole server",
        ),
        row(
            "tls = \"auto\", sni = ^\"*.a.example\"",
            "sni = \"*.a.example\": must be one whole name, such as \"a.example\"",
        ),
        row("tls = ^\"https\"", &format!("tls = \"https\": {port}")),
        row("http = \"/\", send = ^\"x\"", "send = \"x\": goes with `udp`, and this check is `http`"),
        row("http = \"/\", port = ^0", "port = 0: must be a whole number from 1 to 65535"),
        row(
            "http = ^\"healthz\"",
            "http = \"healthz\": must be a path that begins with / and is written as it goes out, such as \"/healthz\"",
        ),
        row(
            "http = ^\"/a b\"",
            "http = \"/a b\": must be a path that begins with / and is written as it goes out, such as \"/healthz\"",
        ),
        row("http = \"/\", method = ^\"POST\"", "method = \"POST\": must be one of \"GET\", \"HEAD\""),
        row(
            "http = \"/\", status = ^\"2xx\"",
            "status = \"2xx\": must be statuses or ranges of them, such as \"200\", \"200-299\" or \"200,301-302\"",
        ),
        row(
            "http = \"/\", method = \"HEAD\", body = ^\"ok\"",
            "body = \"ok\": an answer to HEAD has no body",
        ),
        row("http = \"/\", body = { regex = ^\"(\" }", "body.regex = \"(\": unclosed group"),
        row("http = \"/\", body = { ^text = \"a\", regex = \"b\" }", "body.text: unknown key"),
        row("http = \"/\", body = ^\"\"", "body = \"\": must have 1 to 1200 bytes"),
        row(
            "http = \"/\", headers = { host = ^\"a\" }",
            "headers.host = \"a\": cannot be changed here; `rewrite` has `host` for requests",
        ),
        row(
            "udp = \"auto\", expect = ^\"x\"",
            "expect = \"x\": an answer needs a question: give `send`, too",
        ),
        row(
            "udp = \"auto\", send = ^\"hex:0\"",
            "send = \"hex:0\": must be pairs of hexadecimal digits behind \"hex:\"",
        ),
        row("udp = \"auto\", send = ^7", &format!("send = 7: {payload}; this is an integer")),
        row(
            "exec = ^\"check.sh\"",
            "exec = \"check.sh\": needs `programs_dir` in [health], the directory of such programs",
        ),
        row(
            "exec = ^\"../sh\"",
            "exec = \"../sh\": must be a program beneath [health] programs_dir: a relative path without \".\" and \"..\"",
        ),
        row("tcp = \"auto\", jitter = ^\"6s\"", "jitter = \"6s\": must be at most `every`, which is 5s"),
        row("tcp = \"auto\", recheck = ^\"1ms\"", "recheck = \"1ms\": must be from 10ms to 24h"),
    ];
    let rows: Vec<_> = rows.iter().map(|(old, new, said)| (&**old, &**new, &**said)).collect();
    each(&rows);
}

#[test]
fn outliers() {
    let robin = "balance = \"round-robin\"";
    let percent = "must be a whole percentage from \"1%\" to \"100%\"";
    let times = "must be a multiple from \"1.1x\" to \"1000x\", such as \"3x\"";
    let row =
        |with: &str, said: &str| (format!("outlier = {{ {with} }}"), format!("pool.api.outlier.{said}"));
    let rows = [
        row("^consecutive_error = 5", "consecutive_error: unknown key; did you mean `consecutive_errors`?"),
        row("error_ratio = ^\"0%\"", &format!("error_ratio = \"0%\": {percent}")),
        row("error_ratio = ^50", &format!("error_ratio = 50: {percent}; this is an integer")),
        row("max_ejected = ^\"101%\"", &format!("max_ejected = \"101%\": {percent}")),
        row("latency = ^\"1x\"", &format!("latency = \"1x\": {times}")),
        row("latency = ^\"2.55x\"", &format!("latency = \"2.55x\": {times}")),
        row(
            "ejection = \"2s\", ejection_max = ^\"1s\"",
            "ejection_max = \"1s\": must be at least `ejection`",
        ),
        row(
            "consecutive_errors = ^0",
            "consecutive_errors = 0: without `error_ratio` and `latency` nobody is ever taken out",
        ),
        row("requests = ^0", "requests = 0: must be a whole number from 1 to 1000000"),
    ];
    let rows: Vec<_> = rows.iter().map(|(new, said)| (robin, &**new, &**said)).collect();
    each(&rows);
    let panic = format!("pool.api.panic = \"half\": {percent}");
    each(&[
        (robin, "panic = ^\"half\"", &panic),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"10.0.0.21:5432\"]\npanic = ^\"9%\"",
            "pool.db.panic = \"9%\": has no meaning without `health` or `outlier`: nobody is ever found bad",
        ),
        (
            "health = { tcp = \"53\" }",
            "outlier = ^{}",
            "pool.dns.outlier = {}: vip.dns uses this pool; only pools of listeners have that",
        ),
    ]);
}

#[test]
fn choosing() {
    let robin = "balance = \"round-robin\"";
    let only_maglev = "pool.api.key = \"path\": only balance = \"maglev\" goes by a key";
    let vip = "vip.dns uses this pool; only pools of listeners have";
    each(&[
        (robin, "key = ^\"path\"", only_maglev),
        (robin, "balance = \"p2c\"\nkey = ^\"path\"", only_maglev),
        (
            robin,
            "balance = \"maglev\"\nkey = ^\"uri\"",
            "pool.api.key = \"uri\": must be \"address\", \"path\", \"header:NAME\" or \"cookie:NAME\"",
        ),
        (
            robin,
            "balance = \"maglev\"\nkey = ^\"header:a b\"",
            "pool.api.key = \"header:a b\": the name of a field has 1 to 128 letters, digits and hyphens",
        ),
        (
            robin,
            "balance = \"maglev\"\nkey = ^\"cookie:\"",
            "pool.api.key = \"cookie:\": the name of a cookie has 1 to 128 letters, digits and hyphens",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"10.0.0.21:5432\"]\nbalance = \"maglev\"\nkey = ^\"path\"",
            "pool.db.key = \"path\": listener.db uses this pool, and knows of addresses only",
        ),
        (robin, "slow_start = ^\"0s\"", "pool.api.slow_start = \"0s\": must be from 10ms to 24h"),
        (
            "\"10.0.0.21:5432\"",
            "{ address = ^\"10.0.0.21:5432\", backup = true }",
            "pool.db.backends[0].address = \"10.0.0.21:5432\": every backend of this pool is a backup; one must not be",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"10.0.0.21:5432\"]\nbackup = [^\"10.0.0.22\"]",
            "pool.db.backup[0] = \"10.0.0.22\": needs a port, as listener.db uses this pool",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"10.0.0.21:5432\"]\nbackup = [^\"10.0.0.21:5432\"]",
            "pool.db.backup[0] = \"10.0.0.21:5432\": this backend is listed already; use `weight` for a larger share",
        ),
        (
            "\"10.0.0.21:5432\"",
            "{ address = \"10.0.0.21:5432\", backup = ^1 }",
            "pool.db.backends[0].backup = 1: must be true or false; this is an integer",
        ),
        (
            "balance = \"maglev\"",
            "slow_start = ^\"5s\"",
            &format!("pool.dns.slow_start = \"5s\": {vip} that"),
        ),
        ("balance = \"maglev\"", "key = ^\"address\"", &format!("pool.dns.key = \"address\": {vip} that")),
        (
            "balance = \"maglev\"",
            "backup = [^\"10.0.1.55\"]",
            &format!("pool.dns.backup[0] = \"10.0.1.55\": {vip} backups"),
        ),
    ]);
}

#[test]
fn choosing_is_read_as_written() {
    let keys =
        "balance = \"maglev\"\nkey = \"header:X-User\"\nslow_start = \"30s\"\nbackup = [\"10.0.0.13:80\"]";
    let text = super::EXAMPLE.replace("balance = \"round-robin\"", keys);
    let pool = super::parse("edge.toml", &text).unwrap().config.pools.remove("api").unwrap();
    assert_eq!(pool.choosing.key, Key::Header("x-user".into()));
    assert_eq!(pool.choosing.slow_start, Some(Duration::from_secs(30)));
    assert_eq!(pool.backends.iter().map(|backend| backend.backup).collect::<Vec<_>>(), [false, false, true]);
    for (word, balance) in [
        ("least-connections", Balance::LeastConnections),
        ("p2c", Balance::P2c),
        ("peak-ewma", Balance::PeakEwma),
        ("random", Balance::Random),
    ] {
        let text = super::EXAMPLE.replace("balance = \"round-robin\"", &format!("balance = {word:?}"));
        assert_eq!(super::parse("f", &text).unwrap().config.pools["api"].balance, Some(balance));
    }
}

#[test]
fn limits_of_backends() {
    let robin = "balance = \"round-robin\"";
    let vip = "vip.dns uses this pool; only";
    let of_pools = format!("{vip} pools of listeners have that");
    each(&[
        (
            robin,
            "max_connections = ^0",
            "pool.api.max_connections = 0: must be a whole number from 1 to 1000000",
        ),
        (
            "\"10.0.0.21:5432\"",
            "{ address = \"10.0.0.21:5432\", max_connections = ^-1 }",
            "pool.db.backends[0].max_connections = -1: must be a whole number from 1 to 1000000",
        ),
        (
            robin,
            "queue = ^{ length = 9 }",
            "pool.api.queue = { length = 9 }: nobody ever waits: neither this pool nor a backend of it has max_connections",
        ),
        (
            robin,
            "max_connections = 7\nqueue = { length = ^-1 }",
            "pool.api.queue.length = -1: must be a whole number from 0 to 1000000",
        ),
        (
            robin,
            "max_connections = 7\nqueue = { timeout = ^\"5\" }",
            "pool.api.queue.timeout = \"5\": a duration needs a unit, such as \"60s\" or \"5m\"",
        ),
        (robin, "max_connections = 7\nqueue = { ^size = 1 }", "pool.api.queue.size: unknown key"),
        (
            "balance = \"maglev\"",
            "max_connections = ^5",
            &format!("pool.dns.max_connections = 5: {of_pools}"),
        ),
        (
            "\"10.0.1.53\"",
            "{ address = ^\"10.0.1.53\", max_connections = 5 }",
            &format!(
                "pool.dns.backends[0].address = \"10.0.1.53\": {vip} backends of listeners have max_connections"
            ),
        ),
    ]);
    let text = super::EXAMPLE.replace(robin, "max_connections = 7\nqueue = { length = 9 }");
    let text = text.replace("weight = 2 }", "weight = 2, max_connections = 3 }");
    let config = super::parse("edge.toml", &text).unwrap().config;
    let pool = &config.pools["api"];
    assert_eq!(pool.choosing.queue, Queue { length: 9, timeout: Duration::from_secs(5) });
    let mut ids = BackendIds::new();
    let snapshot = Snapshot::build(&config, Generation(1), &mut ids).unwrap();
    let limits: Vec<_> = snapshot.pools[0].backends.iter().map(|backend| backend.max_connections).collect();
    assert_eq!(limits, [Some(7), Some(3)], "a backend's own comes before the pool's");
}

#[test]
fn sticky() {
    let robin = "balance = \"round-robin\"";
    each(&[
        (
            robin,
            "sticky = ^{}",
            "pool.api.sticky.cookie: missing: must be the name of a cookie, such as \"lb\"",
        ),
        (
            robin,
            "sticky = { cookie = ^\"a=b\" }",
            "pool.api.sticky.cookie = \"a=b\": the name of a cookie has 1 to 128 letters, digits and hyphens",
        ),
        (
            robin,
            "sticky = { cookie = \"lb\", secret = ^\"hunter2\" }",
            "pool.api.sticky.secret: a secret is given by reference, as in \"file:secret\"",
        ),
        (
            robin,
            "sticky = { cookie = \"lb\", ^secure = true }",
            "pool.api.sticky.secure: unknown key; did you mean `secret`?",
        ),
        (
            "[\"10.0.0.21:5432\"]",
            "[\"10.0.0.21:5432\"]\nsticky = ^{ cookie = \"lb\" }",
            "pool.db.sticky = { cookie = \"lb\" }: listener.db uses this pool, and knows of no cookies",
        ),
        (
            "balance = \"maglev\"",
            "sticky = ^{ cookie = \"lb\" }",
            "pool.dns.sticky = { cookie = \"lb\" }: vip.dns uses this pool; only pools of listeners have that",
        ),
    ]);
    let text = super::EXAMPLE.replace(robin, "sticky = { cookie = \"lb\", secret = \"file:a/b\" }");
    let pool = super::parse("edge.toml", &text).unwrap().config.pools.remove("api").unwrap();
    assert_eq!(pool.choosing.sticky, Some(Sticky { cookie: "lb".into(), secret: Some("a/b".into()) }));
}
