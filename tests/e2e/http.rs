//! The HTTP listener between curl and two nginx.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, Reply, url},
    daemon::Daemon,
    nginx::Nginx,
    peer::{self, Service, TcpServer},
    scene::{self, Scene},
    wait::{self, PATIENCE},
};

const CONFIG: &str = r#"
[listener.web]
bind = ["10.77.0.2:8080", "[fd77::2]:8080"]
protocol = "http"
pool = "both"

[listener.routed]
bind = ["10.77.0.2:8081"]
protocol = "http"

[listener.silent]
bind = ["10.77.0.2:8082"]
protocol = "http"
pool = "silent"

[route.api]
listener = "routed"
host = ["api.example.com"]
path = "/v1/*"
pool = "one"

[route.wild]
listener = "routed"
host = ["*.example.com"]
pool = "two"

[route.refusing]
listener = "routed"
host = ["refusing.example.com"]
pool = "refusing"

[route.down]
listener = "routed"
host = ["down.example.com"]
pool = "down"

[pool.both]
balance = "round-robin"
backends = ["10.77.0.11:80", "10.77.0.12:80"]

[pool.one]
backends = ["10.77.0.11:80"]

[pool.two]
backends = ["10.77.0.12:80"]

[pool.silent]
backends = ["10.77.0.11:4000"]

[pool.refusing]
backends = ["10.77.0.11:4001", "10.77.0.12:4001"]

[pool.down]
backends = ["10.77.0.11:4001"]
health = { tcp = "auto", every = "100ms", timeout = "100ms", fall = 1, rise = 1 }
"#;

/// Both nginx and the daemon.
struct Stage<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
    _nginx: [Nginx; 2],
}

impl<'a> Stage<'a> {
    fn set(scene: &'a Scene) -> Result<Self> {
        let topology = scene.topology();
        let nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        Ok(Self { scene, daemon: Daemon::start(scene, CONFIG)?, _nginx: nginx })
    }

    fn curl(&self) -> Curl {
        Curl::within(&self.scene.topology().client.netns)
    }

    fn get(&self, port: u16, path: &str, options: &[&str]) -> Result<Reply> {
        self.curl().with(options).get(&url(self.scene.topology().lb.v4.into(), port, path))
    }

    /// As [`Self::get`], for a host of the routed listener.
    fn get_of(&self, host: &str, path: &str) -> Result<Reply> {
        self.get(8081, path, &["-H", &format!("Host: {host}")])
    }

    fn raw(&self, port: u16, bytes: &[u8]) -> Result<String> {
        let topology = self.scene.topology();
        let answer = peer::raw_exchange(&topology.client.netns, topology.lb.v4.into(), port, bytes)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Count of a worker-plane reason.
    fn reason(&self, name: &str) -> Result<u64> {
        self.daemon
            .show("drops")?
            .matching("plane", "worker")
            .iter()
            .find_map(|row| (row.text("reason").ok()? == name).then(|| row.number("count")))
            .with_context(|| format!("no reason {name}"))?
    }
}

#[test]
fn requests_go_round_and_upstream_connections_are_kept() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let mut seen = BTreeMap::<String, u32>::new();
        for _ in 0..20 {
            let reply = stage.get(8080, "/", &[])?;
            ensure!(reply.status == 200, "{reply:?}");
            *seen.entry(reply.body.trim().to_owned()).or_default() += 1;
        }
        let workers = u32::try_from(stage.daemon.show("workers")?.rows().len())?;
        ensure!(seen.keys().eq(["b1", "b2"]), "{seen:?}");
        // Each worker goes round by itself, and is at most one ahead on either side.
        ensure!(seen["b1"].abs_diff(seen["b2"]) <= workers, "{seen:?} with {workers} workers");

        let backends = stage.daemon.show("backends")?;
        let (dialled, reused) = (backends.sum("connects")?, backends.sum("reuses")?);
        ensure!(dialled + reused == 20, "{dialled} dialled, {reused} reused");
        ensure!(dialled <= u64::from(2 * workers), "{dialled} dialled: nothing was kept");
        let requests = stage.daemon.show("listeners")?.row("listener", "web")?.number("requests")?;
        ensure!(requests == 20, "{requests}");
        let scraped = stage.daemon.metrics()?.sum("lb_listener_responses_total", &["code=\"2xx\""]);
        ensure!(scraped == Some(20.0), "{scraped:?}");
        Ok(())
    });
}

#[test]
fn one_client_connection_carries_many_requests() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let again = url(scene.topology().lb.v6.into(), 8080, "/");
        let reply = stage.curl().with(&[&again, &again, &again]).get(&again)?;
        ensure!(reply.connects == 0, "the last of four requests dialled: {reply:?}");
        let accepted = stage.daemon.show("listeners")?.row("listener", "web")?.number("accepted")?;
        ensure!(accepted == 1, "{accepted}");
        Ok(())
    });
}

#[test]
fn the_backend_learns_who_asked_and_nothing_hop_by_hop() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let options = [
            "-H",
            "Host: Example.COM:8080",
            "-H",
            "Connection: x-private",
            "-H",
            "X-Private: secret",
            "-H",
            "Keep-Alive: 5",
        ];
        let reply = stage.get(8080, "/echo?a=b", &options)?;
        let client = scene.topology().client.v4.to_string();
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(reply.field("uri") == Some("/echo?a=b"), "{reply:?}");
        ensure!(reply.field("x-forwarded-for") == Some(&client), "{reply:?}");
        ensure!(reply.field("x-forwarded-proto") == Some("http"), "{reply:?}");
        let host = reply.field("x-forwarded-host").unwrap_or_default();
        ensure!(host.eq_ignore_ascii_case("example.com:8080"), "{reply:?}");
        ensure!(reply.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{reply:?}");
        ensure!(reply.field("x-private") == Some(""), "{reply:?}");
        ensure!(reply.field("keep-alive") == Some(""), "{reply:?}");
        ensure!(reply.field("remote") == Some(&scene.topology().lb.v4.to_string()), "{reply:?}");
        // A client cannot write itself a past: whatever it claims, the last address is the one we saw.
        let reply = stage.get(8080, "/echo", &["-H", "X-Forwarded-For: 203.0.113.9"])?;
        let last = reply.field("x-forwarded-for").and_then(|list| list.rsplit(", ").next());
        ensure!(last == Some(&client), "{reply:?}");
        Ok(())
    });
}

#[test]
fn host_and_path_choose_the_route() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let name = |host: &str, path: &str| -> Result<(u16, String)> {
            let reply = stage.get_of(host, path)?;
            Ok((reply.status, reply.header("x-backend").unwrap_or_default().to_owned()))
        };
        let found = |backend: &str| (200, backend.to_owned());
        ensure!(name("api.example.com", "/v1/")? == found("b1"));
        ensure!(name("API.example.com:8081", "/v1/x?y")? == found("b1"));
        // The exact host has no such path; the wildcard has.
        ensure!(name("api.example.com", "/v2")? == found("b2"));
        ensure!(name("a.b.example.com", "/v1/")? == found("b2"));
        ensure!(name("example.com", "/v1/")? == (404, String::new()));
        ensure!(name("other.test", "/")? == (404, String::new()));
        ensure!(stage.reason("no-route")? == 2);
        Ok(())
    });
}

#[test]
fn nobody_to_ask_is_502_or_503() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        // Both backends are tried before the client hears of it.
        let reply = stage.get_of("refusing.example.com", "/")?;
        ensure!(reply.status == 502, "{reply:?}");
        ensure!(stage.reason("connect-failed")? == 1);
        let backends = stage.daemon.show("backends")?;
        let failed: Result<u64> =
            backends.matching("pool", "refusing").iter().map(|row| row.number("connect_failures")).sum();
        ensure!(failed? == 2, "{backends:?}");
        wait::until_ok("verdict", PATIENCE, || {
            let backends = stage.daemon.show("backends")?;
            ensure!(!backends.row("pool", "down")?.is_up()?, "still up");
            Ok(())
        })?;
        let reply = stage.get_of("down.example.com", "/")?;
        ensure!(reply.status == 503, "{reply:?}");
        ensure!(stage.reason("no-backend")? == 1);
        Ok(())
    });
}

/// Rows of bad-input: what is sent, the status it must get, the reason it must count.
const MALFORMED: [(&str, u16, &str); 12] = [
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "framing-conflict",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        "framing-conflict",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        400,
        "content-length",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, "content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "unknown-coding"),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "transfer-encoding"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400, "header-syntax"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, "header-syntax"),
    ("GET / HTTP/1.1\nHost: a\n\n", 400, "request-line"),
    ("GET / HTTP/1.1\r\n\r\n", 400, "host"),
    ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, "version"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "http2-preface"),
];

#[test]
fn malformed_requests_are_answered_and_reach_nobody() {
    scene::run(|scene| {
        let backend = TcpServer::start(&scene.topology().b1, 4000, Service::Silent)?;
        let stage = Stage::set(scene)?;
        for (request, status, reason) in MALFORMED {
            let before = stage.reason(reason)?;
            // Ends only when the connection is closed.
            let answer = stage.raw(8082, request.as_bytes())?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
            ensure!(answer.matches("HTTP/1.1 ").count() == 1, "{request:?} was answered twice: {answer:?}");
            ensure!(stage.reason(reason)? == before + 1, "{request:?} is not counted as {reason}");
        }
        ensure!(backend.received() == 0, "{} bytes reached the backend", backend.received());
        // The same backend does hear what is well formed.
        let topology = scene.topology();
        let mut good = peer::connect(&topology.client.netns, topology.lb.v4.into(), 8082)?;
        good.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        wait::until("bytes at the backend", PATIENCE, || (backend.received() > 0).then_some(()))
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let requests: String = (0..8)
            .map(|n| {
                let last = if n == 7 { "Connection: close\r\n" } else { "" };
                // Bodies in between: the next request begins right behind them.
                let body = if n % 2 == 1 { "Content-Length: 3\r\n" } else { "" };
                let (method, text) = if n % 2 == 1 { ("POST", "xyz") } else { ("GET", "") };
                format!("{method} /echo?{n} HTTP/1.1\r\nHost: a\r\n{body}{last}\r\n{text}")
            })
            .collect();
        let answer = stage.raw(8080, requests.as_bytes())?;
        let order: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("uri=/echo?")).collect();
        ensure!(order == ["0", "1", "2", "3", "4", "5", "6", "7"], "{order:?} in {answer}");
        Ok(())
    });
}
