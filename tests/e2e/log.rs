//! The access log beside the counters: one line for whatever was begun, however it ended.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    keepalive::KeptClient,
    nginx::Nginx,
    peer::{self, Service, TcpServer},
    process::Process,
    scene::{self, Scene},
    view::Metrics,
    wait::{self, PATIENCE},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::SockRef;

const CONFIG: &str = r#"
[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
trusted_proxies = ["10.77.0.1"]

[listener.relay]
bind = ["10.77.0.2:9003"]
protocol = "tcp"
pool = "echo"

[listener.nowhere]
bind = ["10.77.0.2:9004"]
protocol = "tcp"
pool = "refusing"

[route.all]
listener = "web"
host = ["a.test"]
pool = "both"

[route.silent]
listener = "web"
host = ["silent.test"]
pool = "silent"

[route.refusing]
listener = "web"
host = ["refusing.test"]
pool = "refusing"

[pool.both]
backends = ["10.77.0.11:80", "10.77.0.12:80"]

[pool.silent]
backends = ["10.77.0.11:4000"]

[pool.refusing]
backends = ["10.77.0.11:4001"]

[pool.echo]
backends = ["10.77.0.12:9003"]
"#;

/// Clients at the same time, and what each does.
const CLIENTS: usize = 8;
const DEEDS: usize = 120;
/// Bytes of the file that downloads break off in.
const FILE: u64 = 4 << 20;

/// Two nginx, an echo and a silent server, and the daemon with an access log.
struct Stage<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
    _servers: (Nginx, Nginx, TcpServer, TcpServer),
}

impl<'a> Stage<'a> {
    fn set(scene: &'a Scene, log: &str, limits: &str) -> Result<Self> {
        let [b1, b2] = scene.topology().backends();
        let servers = (
            Nginx::start(scene, b1)?,
            Nginx::start(scene, b2)?,
            TcpServer::start(b2, 9003, Service::Echo)?,
            TcpServer::start(b1, 4000, Service::Silent)?,
        );
        servers.0.offer("large", FILE)?;
        servers.1.offer("large", FILE)?;
        let daemon = Daemon::start(scene, &format!("[log]\n{log}\n{limits}\n{CONFIG}"))?;
        Ok(Self { scene, daemon, _servers: servers })
    }

    fn connect(&self, port: u16) -> Result<TcpStream> {
        let topology = self.scene.topology();
        peer::connect(&topology.client.netns, topology.lb.v4.into(), port)
    }

    /// Waits until nothing is open and nothing waits to be written; the counters then.
    fn settled(&self) -> Result<Metrics> {
        wait::until_ok("end of the connections", PATIENCE, || {
            let metrics = self.daemon.metrics()?;
            ensure!(count(&metrics, "lb_listener_open_connections", &[])? == 0, "connections are open");
            Ok(())
        })?;
        self.daemon.metrics()
    }

    fn wait_for_lines(&self, file: &Path, lines: usize) -> Result<Vec<Value>> {
        wait::until_ok("lines of the access log", PATIENCE, || {
            let read = read(file)?;
            ensure!(read.len() >= lines, "{} of {lines} lines", read.len());
            Ok(read)
        })
    }
}

fn log_file(scene: &Scene) -> PathBuf {
    scene.directory().join("access.log")
}

fn to_file(scene: &Scene) -> String {
    format!("access = \"json\"\nfile = {:?}", log_file(scene))
}

fn read(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
}

fn count(metrics: &Metrics, name: &str, labels: &[&str]) -> Result<u64> {
    metrics.sum(name, labels).map(|sum| sum as u64).with_context(|| format!("no metric {name} {labels:?}"))
}

/// Ends a connection by a reset.
fn reset(stream: &TcpStream) -> Result<()> {
    Ok(SockRef::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// One of the ways in which clients behave.
fn deed(stage: &Stage<'_>, number: usize) -> Result<()> {
    const GET: &str = "GET /?secret=1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let http = |bytes: &str| -> Result<TcpStream> {
        let mut stream = stage.connect(8080)?;
        stream.write_all(bytes.as_bytes())?;
        Ok(stream)
    };
    let last = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    // A reset by either side may end the reading; the lines tell what became of it.
    let mut read_all = |stream: &mut TcpStream| _ = stream.read_to_end(&mut answer);
    match number % 12 {
        // Well: kept, pipelined, with a body.
        0 => read_all(&mut http(&[GET, GET, GET, last].concat())?),
        1 => read_all(&mut http(&format!(
            "PUT /put/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc{last}"
        ))?),
        // Refused.
        2 => read_all(&mut http("GET / HTTP/1.1\r\nHost : a.test\r\n\r\n")?),
        3 => read_all(&mut http(&format!("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n{last}"))?),
        4 => read_all(&mut http(&format!("GET / HTTP/1.1\r\nHost: refusing.test\r\n\r\n{last}"))?),
        // Broken off: in the head, before the answer, in the answer, in the body.
        5 => reset(&http("GET / HTTP/1.1\r\nHo")?)?,
        6 => reset(&http(GET)?)?,
        7 => {
            let mut stream = http("GET /files/large HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
            stream.read_exact(&mut [0; 1000])?;
            reset(&stream)?;
        }
        8 => reset(&http("PUT /put/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nabc")?)?,
        // Nothing was begun.
        9 => drop(http("")?),
        // Relays: well, and reset; and one that leads nowhere.
        10 => {
            let mut stream = stage.connect(9003)?;
            stream.write_all(b"hello\n")?;
            stream.read_exact(&mut [0; 5])?;
            if number.is_multiple_of(2) {
                reset(&stream)?;
            }
        }
        // The reset may come before connecting has ended.
        _ => stage.connect(9004).iter_mut().for_each(read_all),
    }
    Ok(())
}

#[test]
fn whatever_was_begun_has_one_line() {
    scene::run(|scene| {
        let (file, old) = (log_file(scene), scene.directory().join("access.log.1"));
        let mut stage = Stage::set(scene, &to_file(scene), "")?;
        load(&stage)?;
        fs::rename(&file, &old)?;
        stage.daemon.process().signal(Signal::USR1)?;
        load(&stage)?;
        let all = || Ok::<_, anyhow::Error>([read(&old)?, read(&file)?].concat());
        // What a client has left behind may still wait to be accepted.
        wait::until_ok("all lines", PATIENCE, || compare(&all()?, &stage.settled()?))?;
        let lines = all()?;
        ensure!(!read(&old)?.is_empty() && !read(&file)?.is_empty(), "the file was not rotated");
        let metrics = stage.settled()?;
        let total = |name: &str| count(&metrics, name, &[]);
        ensure!(total("lb_log_dropped_total")? == 0 && total("lb_log_failed_total")? == 0, "lines were lost");
        ensure!(total("lb_log_lines_total")? == lines.len() as u64, "lines were counted twice");

        for reason in ["header-syntax", "no-route", "connect-failed", "client-gone"] {
            ensure!(lines.iter().any(|line| line["reason"] == reason), "none of the lines is of {reason}");
        }
        ensure!(lines.iter().any(|line| line["reused"] == true), "no connection was reused");
        let text = fs::read_to_string(&old)?;
        ensure!(!text.contains("secret"), "query strings are logged");
        Ok(())
    });
}

fn load(stage: &Stage<'_>) -> Result<()> {
    thread::scope(|scope| {
        let client = |client| move || (0..DEEDS).try_for_each(|number| deed(stage, client + number));
        let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(client(at))).collect();
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

/// Lines against counters, kind by kind.
fn compare(lines: &[Value], metrics: &Metrics) -> Result<()> {
    let lines_of = |is: &dyn Fn(&Value) -> bool| lines.iter().filter(|line| is(line)).count() as u64;
    let same = |what: &str, lines: u64, counted: u64| {
        ensure!(lines == counted, "{what}: {lines} lines, counted {counted}");
        Ok(())
    };
    same(
        "requests with a head",
        lines_of(&|line| line.get("version").is_some()),
        count(metrics, "lb_listener_requests_total", &[])?,
    )?;
    same(
        "answers of 2xx",
        lines_of(&|line| {
            line["status"].as_u64().is_some_and(|s| s / 100 == 2) && line.get("reason").is_none()
        }),
        count(metrics, "lb_listener_responses_total", &["code=\"2xx\""])?,
    )?;
    let mut reasons = BTreeMap::<&str, u64>::new();
    for reason in lines.iter().filter_map(|line| line["reason"].as_str()) {
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, lines) in &reasons {
        let label = format!("reason=\"{reason}\"");
        same(reason, *lines, count(metrics, "lb_worker_closes_total", &[&label])?)?;
    }
    same("all reasons", reasons.values().sum(), count(metrics, "lb_worker_closes_total", &[])?)?;
    for listener in ["relay", "nowhere"] {
        let label = format!("listener=\"{listener}\"");
        let of = |line: &Value| line["listener"] == listener;
        let accepted = count(metrics, "lb_listener_accepted_connections_total", &[&label])?;
        same(listener, lines_of(&of), accepted)?;
        for (key, name) in [
            ("received_bytes", "lb_listener_received_bytes_total"),
            ("sent_bytes", "lb_listener_sent_bytes_total"),
        ] {
            let bytes = lines.iter().filter(|line| of(line)).filter_map(|line| line[key].as_u64()).sum();
            same(key, bytes, count(metrics, name, &[&label])?)?;
        }
    }
    Ok(())
}

#[test]
fn a_line_says_what_happened() {
    scene::run(|scene| {
        let include = "\ninclude = [\"user_agent\", \"referer\"]";
        let stage = Stage::set(scene, &(to_file(scene) + include), "[limits]\nconnections_per_ip = 3")?;
        let lb = scene.topology().lb.v4;
        let curl = |options: &[&str], path: &str| {
            let curl =
                Curl::within(&scene.topology().client.netns).with(&["-H", "Host: a.test"]).with(options);
            curl.get(&url(lb.into(), 8080, path))
        };
        let secrets = ["-b", "session=hidden", "-H", "Authorization: Bearer hidden"];
        let agent = ["-A", "x\"y", "-e", "http://from.test/page?token=hidden", "-H", "X-Request-Id: id-7"];
        curl(&[secrets, [agent[0], agent[1], agent[2], agent[3]]].concat(), "/a%20b?password=hidden")?;
        curl(&agent[4..], "/")?;
        let lines = stage.wait_for_lines(&log_file(scene), 2)?;
        // In the order of the workers, where they are of one batch.
        let second = lines.iter().find(|line| line["path"] == "/").context("no line of the second")?;
        let first = lines.iter().find(|line| line["path"] != "/").context("no line of the first")?;
        for (key, value) in [
            ("client", "10.77.0.1"),
            ("listener", "web"),
            ("protocol", "http"),
            ("method", "GET"),
            ("authority", "a.test"),
            ("version", "HTTP/1.1"),
            ("route", "all"),
            ("pool", "both"),
            ("user_agent", "x\"y"),
            ("referer", "http://from.test/page"),
        ] {
            ensure!(first[key] == value, "{key}: {first}");
        }
        ensure!(first["path"].as_str().is_some_and(|path| path.starts_with("/a")), "{first}");
        ensure!(first["backend"].as_str().is_some_and(|backend| backend.starts_with("10.77.0.1")), "{first}");
        let number = |key: &str| first[key].as_u64().with_context(|| format!("no number {key}: {first}"));
        let parts = ["head_us", "queue_us", "connect_us", "first_byte_us"].map(number);
        let parts = parts.into_iter().sum::<Result<u64>>()?;
        ensure!(number("total_us")? >= parts && number("connect_us")? > 0, "{first}");
        ensure!(number("received_bytes")? > 100 && number("sent_bytes")? > 100, "{first}");
        ensure!((number("attempts")?, &first["reused"]) == (1, &Value::Bool(false)), "{first}");
        let made = first["request_id"].as_str().with_context(|| format!("no id: {first}"))?;
        ensure!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        ensure!(second["request_id"] == "id-7", "{second}");
        ensure!(!fs::read_to_string(log_file(scene))?.contains("hidden"), "secrets are logged");

        // Refused for their number, before anything was asked.
        let held: Vec<_> = (0..3).map(|_| stage.connect(8080)).collect::<Result<_>>()?;
        wait::until_ok("three connections", PATIENCE, || {
            let open = count(&stage.daemon.metrics()?, "lb_listener_open_connections", &[])?;
            ensure!(open == 3, "{open} are open");
            Ok(())
        })?;
        let _refused = stage.connect(8080)?;
        let line = stage.wait_for_lines(&log_file(scene), 3)?.remove(2);
        ensure!(line["reason"] == "connections-per-ip" && line["fault"] == "us", "{line}");
        drop(held);
        Ok(())
    });
}

#[test]
fn what_the_end_cuts_off_has_its_line() {
    scene::run(|scene| {
        let mut stage = Stage::set(scene, &to_file(scene), "")?;
        let mut waiting = stage.connect(8080)?;
        waiting.write_all(b"GET /waiting HTTP/1.1\r\nHost: silent.test\r\n\r\n")?;
        let mut half = stage.connect(8080)?;
        half.write_all(b"GET /half HT")?;
        let mut relay = stage.connect(9003)?;
        relay.write_all(b"x")?;
        relay.read_exact(&mut [0; 1])?;
        wait::until_ok("two exchanges", PATIENCE, || {
            let metrics = stage.daemon.metrics()?;
            let in_flight = count(&metrics, "lb_upstream_in_flight_exchanges", &[])?;
            let open = count(&metrics, "lb_listener_open_connections", &[])?;
            ensure!((in_flight, open) == (2, 3), "{in_flight} exchanges on {open} connections");
            Ok(())
        })?;
        let process: &mut Process = stage.daemon.process();
        process.signal(Signal::TERM)?;
        wait::until_ok("the drain", PATIENCE, || {
            ensure!(fs::read_to_string(scene.log("lb"))?.contains("draining"), "not yet");
            Ok(())
        })?;
        process.signal(Signal::TERM)?;
        ensure!(process.wait_for_exit(PATIENCE)?.success(), "it did not end well");
        let lines = read(&log_file(scene))?;
        let mut seen: Vec<_> =
            lines.iter().map(|line| (line["protocol"].as_str(), line["path"].as_str())).collect();
        seen.sort_unstable();
        ensure!(lines.iter().all(|line| line["reason"] == "draining"), "{lines:?}");
        ensure!(
            seen == [(Some("http"), None), (Some("http"), Some("/waiting")), (Some("tcp"), None)],
            "{lines:?}"
        );
        Ok(())
    });
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    scene::run(|scene| {
        let stage = Stage::set(scene, "access = \"text\"\nfile = \"/dev/full\"", "")?;
        for at in 1..=3 {
            let curl = Curl::within(&scene.topology().client.netns).with(&["-H", "Host: a.test"]);
            let reply = curl.get(&url(scene.topology().lb.v4.into(), 8080, "/"))?;
            ensure!(reply.status == 200, "{}", reply.status);
            wait::until_ok("a lost line", PATIENCE, || {
                let failed = count(&stage.daemon.metrics()?, "lb_log_failed_total", &[])?;
                ensure!(failed == at, "{failed} lines are counted");
                Ok(())
            })?;
        }
        let said = fs::read_to_string(scene.log("lb"))?.matches("access log cannot be written").count();
        ensure!(said == 1, "said {said} times");
        Ok(())
    });
}

#[test]
fn a_log_changes_while_it_is_written() {
    scene::run(|scene| {
        let (one, two) = (log_file(scene), scene.directory().join("two.log"));
        let stage = Stage::set(scene, &to_file(scene), "")?;
        let api = stage.daemon.admin();
        let log = |log: Value| api.change("PATCH", "/v1/config", Some(&json!({ "log": log })));
        let ended = AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            let keep_asking = || {
                let mut asked = 0;
                while !ended.load(Ordering::Relaxed) {
                    let topology = scene.topology();
                    let mut client =
                        KeptClient::connect(&topology.client.netns, topology.lb.v4.into(), 8080)?;
                    for _ in 0..100 {
                        ensure!(client.get("/")?.0 == 200, "a request failed");
                        asked += 1;
                    }
                }
                Ok(asked)
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(keep_asking)).collect();
            let changed = (0..10).try_for_each(|at| {
                // Now and then in another form, too.
                let file = if at % 2 == 0 { &two } else { &one };
                log(json!({ "file": file, "include": if at % 3 == 0 { vec!["query"] } else { vec![] } }))?;
                let before = count(&stage.daemon.metrics()?, "lb_log_lines_total", &[])?;
                wait::until_ok("lines", PATIENCE, || {
                    let lines = count(&stage.daemon.metrics()?, "lb_log_lines_total", &[])?;
                    ensure!(lines > before + 100, "{lines} after {before}");
                    Ok(())
                })
            });
            ended.store(true, Ordering::Relaxed);
            let asked =
                clients.into_iter().map(|client| client.join().map_err(|_| anyhow::anyhow!("a panic"))?);
            let asked = asked.sum::<Result<u64>>();
            changed.and(asked)
        })?;
        let counted = |name: &str| count(&stage.daemon.metrics()?, name, &[]);
        wait::until_ok("all lines", PATIENCE, || {
            let there = (read(&one)?.len() + read(&two)?.len()) as u64;
            let dropped = counted("lb_log_dropped_total")? + counted("lb_log_failed_total")?;
            ensure!(there + dropped == asked, "{there} lines and {dropped} lost of {asked}");
            Ok(())
        })?;
        let (at_one, at_two) = (read(&one)?.len(), read(&two)?.len());
        ensure!(at_one > 0 && at_two > 0, "{at_one} lines, {at_two} lines");

        // What cannot be opened changes nothing, and a change that is not made makes no file.
        let refused =
            api.ask("PATCH", "/v1/config", "", Some(&json!({ "log": { "file": "/nowhere/x.log" } })))?;
        ensure!(refused.status == 422 && refused.body["error"]["where"] == "log.file", "{refused:?}");
        let (three, dry) = (scene.directory().join("three.log"), "/v1/config?dry_run=1");
        api.change("PATCH", dry, Some(&json!({ "log": { "file": three } })))?;
        ensure!(!three.exists(), "a file of nobody");

        // Off: what began before is counted; then nothing is. On again, by workers that had none.
        let mut waiting = stage.connect(8080)?;
        waiting.write_all(b"GET /waiting HTTP/1.1\r\nHost: silent.test\r\n\r\n")?;
        wait::until_ok("an exchange", PATIENCE, || {
            let in_flight = count(&stage.daemon.metrics()?, "lb_upstream_in_flight_exchanges", &[])?;
            ensure!(in_flight == 1, "{in_flight} exchanges");
            Ok(())
        })?;
        log(json!({ "access": "off" }))?;
        reset(&waiting)?;
        drop(waiting);
        wait::until_ok("a line that is lost", PATIENCE, || {
            ensure!(counted("lb_log_failed_total")? == 1, "{}", counted("lb_log_failed_total")?);
            Ok(())
        })?;
        let topology = scene.topology();
        let get = || Curl::within(&topology.client.netns).with(&["-H", "Host: a.test"]);
        get().get(&url(topology.lb.v4.into(), 8080, "/unseen"))?;
        log(json!({ "access": "json", "file": three }))?;
        get().get(&url(topology.lb.v4.into(), 8080, "/seen"))?;
        let lines = stage.wait_for_lines(&three, 1)?;
        ensure!(lines.len() == 1 && lines[0]["path"] == "/seen", "{lines:?}");
        ensure!((read(&one)?.len(), read(&two)?.len()) == (at_one, at_two), "an old file was written to");
        Ok(())
    });
}

#[test]
fn a_log_begins_on_a_daemon_that_had_none() {
    scene::run(|scene| {
        let stage = Stage::set(scene, "access = \"off\"", "")?;
        let file = log_file(scene);
        let wanted = json!({ "log": { "access": "text", "format": "{\"path\":\"$path\"}", "file": file } });
        let topology = scene.topology();
        let mut client = KeptClient::connect(&topology.client.netns, topology.lb.v4.into(), 8080)?;
        client.get("/unseen")?;
        stage.daemon.admin().change("PATCH", "/v1/config", Some(&wanted))?;
        // On the same connection: its next request has a line.
        client.get("/seen")?;
        let lines = stage.wait_for_lines(&file, 1)?;
        ensure!(lines.len() == 1 && lines[0]["path"] == "/seen", "{lines:?}");
        Ok(())
    });
}
