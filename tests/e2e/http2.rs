//! HTTP/2 with clients and with backends, through TLS and in clear text: curl, nghttp and h2load in front of nginx.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::Authority,
    curl::{Curl, Reply},
    daemon::Daemon,
    long,
    nginx::Nginx,
    pattern, process, requirement,
    scene::{self, Scene},
    wait::PATIENCE,
};

/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;
/// Some times what a connection may send ahead of its reader.
const BODY: u64 = 5 << 20;

/// The host says which pool.
const CONFIG: &str = r#"
[upgrade]
drain_timeout = "120s"

[route.events]
listener = "secure"
host = ["events.site.test"]
pool = "events"

[pool.events]
backends = ["10.77.0.11:9090"]

[listener.secure]
bind = ["10.77.0.2:8443"]
protocol = "http"
tls = ["site"]

[listener.clear]
bind = ["10.77.0.2:8080"]
protocol = "http"
h2c = true

[tls.site]
certificate = "site.pem"
key = "site.key"
"#;

/// Name of a pool, where it is, what else is said of it, and what it is spoken to in.
const POOLS: [(&str, u16, &str, &str); 4] = [
    ("h1", 80, "protocol = \"http/1.1\"", "HTTP/1.1"),
    ("h2", 82, "protocol = \"h2\"", "HTTP/2.0"),
    (
        "h1-tls",
        443,
        "protocol = \"http/1.1\"\ntls = { ca = \"file:ours.pem\", sni = \"inner.test\" }",
        "HTTP/1.1",
    ),
    ("h2-tls", 443, "protocol = \"h2\"\ntls = { ca = \"file:ours.pem\", sni = \"inner.test\" }", "HTTP/2.0"),
];

/// Ways in: scheme, port, how curl is told, what it says of the answer.
const WAYS: [(&str, u16, &str, &str); 4] = [
    ("https", 8443, "--http1.1", "HTTP/1.1 "),
    ("https", 8443, "--http2", "HTTP/2 "),
    ("http", 8080, "--http1.1", "HTTP/1.1 "),
    ("http", 8080, "--http2-prior-knowledge", "HTTP/2 "),
];

/// nginx on `b1`, and the daemon.
struct Site<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
    nginx: Nginx,
}

impl<'a> Site<'a> {
    fn set(scene: &'a Scene) -> Result<Self> {
        let ours = Authority::new(scene.directory(), "ours")?;
        let site = ours.vouch("*.site.test", FAR)?;
        fs::copy(&site.certificate, scene.directory().join("site.pem"))?;
        fs::copy(&site.key, scene.directory().join("site.key"))?;
        let nginx = Nginx::start_secure(scene, &scene.topology().b1, &ours.vouch("inner.test", FAR)?)?;
        let mut config = CONFIG.to_owned();
        for (name, port, more, _) in POOLS {
            config += &format!("[pool.{name}]\nbackends = [\"10.77.0.11:{port}\"]\n{more}\n");
            for listener in ["secure", "clear"] {
                let host = format!("{name}.site.test");
                config += &format!(
                    "[route.{listener}-{name}]\nlistener = \"{listener}\"\nhost = [\"{host}\"]\npool = \"{name}\"\n"
                );
            }
        }
        Ok(Self { scene, daemon: Daemon::start(scene, &config)?, nginx })
    }

    /// A curl that finds the pool's host, and its URL.
    fn curl(&self, way: usize, pool: &str, path: &str) -> Result<(Curl, String)> {
        let (scheme, port, option, _) = WAYS[way];
        let resolve = format!("{pool}.site.test:{port}:10.77.0.2");
        let authority = self.scene.directory().join("ours.pem");
        let options = [option, "--resolve", &resolve, "--cacert", authority.to_str().context("a path")?];
        let curl = Curl::within(&self.scene.topology().client.netns).with(&options);
        Ok((curl, format!("{scheme}://{pool}.site.test:{port}{path}")))
    }

    fn get(&self, way: usize, pool: &str, path: &str, options: &[&str]) -> Result<Reply> {
        let (curl, url) = self.curl(way, pool, path)?;
        curl.with(options).get(&url)
    }

    /// Connections that were made to a pool.
    fn dialled(&self, pool: &str) -> Result<u64> {
        self.daemon.show("backends")?.row("pool", pool)?.number("connects")
    }

    /// What a program of the client's says.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.scene.topology().client.netns.command(program);
        command.args(arguments);
        process::run(command, PATIENCE)?.success()
    }
}

#[test]
fn every_way_in_leads_to_every_kind_of_backend() {
    scene::run(|scene| {
        let site = Site::set(scene)?;
        for (way, (scheme, port, option, version)) in WAYS.into_iter().enumerate() {
            for (pool, _, _, spoken) in POOLS {
                let about = format!("{option} by {scheme} to {pool}");
                let reply =
                    site.get(way, pool, "/echo?a=b", &["-H", "X-Env: here", "-H", "Cookie: a=b; c=d"])?;
                ensure!(reply.status == 200 && reply.head.starts_with(version), "{about}: {reply:?}");
                ensure!(reply.header("x-backend") == Some("b1"), "{about}: {reply:?}");
                ensure!(reply.header("connection").is_none() || version == "HTTP/1.1 ", "{about}: {reply:?}");
                let host = format!("{pool}.site.test:{port}");
                for (key, value) in [
                    ("protocol", spoken),
                    ("method", "GET"),
                    ("uri", "/echo?a=b"),
                    ("host", &host),
                    ("x-env", "here"),
                    ("cookie", "a=b; c=d"),
                    ("x-forwarded-for", "10.77.0.1"),
                    ("x-forwarded-proto", scheme),
                ] {
                    ensure!(reply.field(key) == Some(value), "{about}: {key} is not {value}: {reply:?}");
                }
                let head = site.get(way, pool, "/files/none", &["--head"])?;
                ensure!(head.status == 404 && head.body.is_empty(), "{about}: {head:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn bodies_arrive_whole_both_ways() {
    scene::run(|scene| {
        let site = Site::set(scene)?;
        site.nginx.offer("large", BODY)?;
        let (sent, got) = (scene.directory().join("sent"), scene.directory().join("got"));
        pattern::write_file(&sent, BODY)?;
        for (way, (scheme, _, option, _)) in WAYS.into_iter().enumerate() {
            for (pool, ..) in POOLS {
                let about = format!("{option} by {scheme} with {pool}");
                let (curl, url) = site.curl(way, pool, "/files/large")?;
                let reply = curl.download(&url, &got).context(about.clone())?;
                ensure!(reply.status == 200 && reply.received == BODY, "{about}: {reply:?}");
                ensure!(pattern::check(&mut File::open(&got)?)? == BODY, "{about}: not all came");
                // With a length, and without one: then it is chunked, or ends with the stream.
                let chunked = ["-H", "Content-Length:", "-H", "Transfer-Encoding: chunked"];
                let open = if option == "--http1.1" { &chunked[..] } else { &chunked[..2] };
                for (kind, options) in [("length", &[][..]), ("open", open)] {
                    let name = format!("{way}-{pool}-{kind}");
                    let (curl, url) = site.curl(way, pool, &format!("/put/{name}"))?;
                    let reply = curl.with(options).upload(&url, &sent).context(about.clone())?;
                    ensure!(reply.status == 201, "{about}: {reply:?}");
                    let length = pattern::check(&mut File::open(site.nginx.uploaded(&name))?)?;
                    ensure!(length == BODY, "{about}, {kind}: {length} bytes came");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn nghttp_asks_for_several_at_once() {
    if !requirement::is_there("nghttp", "nghttp2-client") {
        return;
    }
    scene::run(|scene| {
        let site = Site::set(scene)?;
        site.nginx.offer("large", BODY)?;
        for pool in ["h1", "h2"] {
            let hosted = format!(":authority: {pool}.site.test");
            let urls = ["/", "/echo", "/files/large", "/files/none"]
                .map(|path| format!("http://10.77.0.2:8080{path}"));
            let mut arguments = vec!["--stat", "--null-out", "--header", &hosted];
            arguments.extend(urls.iter().map(String::as_str));
            let said = site.client("nghttp", &arguments)?;
            // The table's last columns: status, size, path.
            for (status, path) in
                [("200", "/"), ("200", "/echo"), ("200", "/files/large"), ("404", "/files/none")]
            {
                let is_it = |line: &str| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    matches!(words[..], [.., found, _, of] if found == status && of == path)
                };
                ensure!(said.lines().any(is_it), "{pool}: no {status} for {path}: {said}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_crowd_of_streams_shares_few_connections() {
    if !requirement::is_there("h2load", "nghttp2-client") {
        return;
    }
    scene::run(|scene| {
        let site = Site::set(scene)?;
        let workers = u64::try_from(site.daemon.show("workers")?.rows().len())?;
        for (scheme, port) in [("https", 8443), ("http", 8080)] {
            for (pool, _, _, spoken) in POOLS {
                let before = site.dialled(pool)?;
                let url = format!("{scheme}://{pool}.site.test:{port}/");
                let to = format!("--connect-to=10.77.0.2:{port}");
                let said = site.client("h2load", &["-n", "2000", "-c", "4", "-m", "20", &to, &url])?;
                ensure!(
                    said.contains("requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout")
                        && said.contains("status codes: 2000 2xx"),
                    "{url}: {said}"
                );
                let dialled = site.dialled(pool)? - before;
                // One for each that is under way; with HTTP/2 a hundred share one.
                let most = if spoken == "HTTP/2.0" { workers } else { 4 * 20 };
                ensure!(dialled <= most, "{url}: {dialled} connections");
            }
        }
        let accepted = site.daemon.show("listeners")?.row("listener", "clear")?.number("accepted")?;
        ensure!(accepted == 4 * 4, "{accepted} connections of clients");
        Ok(())
    });
}

/// The next event is made when the last one was seen.
#[test]
fn events_go_on_through_changes_and_an_upgrade() {
    scene::run(|scene| {
        let mut site = Site::set(scene)?;
        let b1 = &scene.topology().b1;
        let listener = b1.netns.run(|| TcpListener::bind((b1.v4, 9090)))??;
        let mut curl = scene.topology().client.netns.command("curl");
        curl.args(["-sSN", "--http2", "--resolve", "events.site.test:8443:10.77.0.2", "--cacert"]);
        curl.arg(scene.directory().join("ours.pem")).arg("https://events.site.test:8443/");
        let mut curl = curl.stdout(Stdio::piped()).spawn()?;
        let (mut server, _) = listener.accept()?;
        let mut head = BufReader::new(server.try_clone()?).lines();
        while !head.next().context("half a head")??.is_empty() {}
        server.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let mut output = BufReader::new(curl.stdout.take().context("no output")?).lines();
        let mut number = 0;
        let ended = long::through_changes(&mut site.daemon, ("secure", "events", "10.77.0.11:9090"), || {
            number += 1;
            let event = format!("data: event {number}\n");
            server.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            let seen = output.next().context("the stream has ended")??;
            ensure!(seen == event.trim_end(), "{seen}");
            Ok(())
        });
        if ended.is_ok() {
            server.write_all(b"0\r\n\r\n")?;
        }
        drop(server);
        let status = curl.wait()?;
        ended?;
        ensure!(status.success() && output.next().is_none(), "{status}");
        Ok(())
    });
}
