//! The config changes while everything runs, and nobody notices.
//!
//! `LB_CHANGE_SECONDS=60` does for so long what is otherwise done for a few seconds, `LB_CHANGE_ROUTES=10000` with so many
//! routes, `LB_CHANGES=10000` lets so many follow each other before it is looked what has grown.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    admin::Admin,
    daemon::{Daemon, Decap},
    fault::Holdings,
    keepalive::KeptClient,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer},
    scene,
    topology::{VIP_V4, VIPS},
    tunnel,
    udp::{UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

use crate::doors::doors;

const CONFIG: &str = concat!(
    doors!(),
    r#"
[xdp]
interfaces = ["eth0"]

[vip.echo]
address = ["192.0.2.10", "2001:db8:10::10"]
ports = ["9000/tcp", "7/udp"]
forward = "ipip"
pool = "vip"

[pool.web]
backends = ["10.77.0.11:80", "10.77.0.12:80"]

[pool.vip]
backends = ["10.77.0.11", "10.77.0.12"]
"#
);

/// However long that takes.
const CHANGES_MIN: usize = 30;
/// Keepalive clients that never rest.
const CLIENTS: usize = 8;

fn seconds() -> Result<u64> {
    std::env::var("LB_CHANGE_SECONDS").map_or(Ok(4), |text| text.parse().context("LB_CHANGE_SECONDS"))
}

fn routes() -> Result<usize> {
    std::env::var("LB_CHANGE_ROUTES").map_or(Ok(10), |text| text.parse().context("LB_CHANGE_ROUTES"))
}

fn changes_wanted() -> Result<usize> {
    std::env::var("LB_CHANGES").map_or(Ok(300), |text| text.parse().context("LB_CHANGES"))
}

/// Changes at random that are sound, or are not.
struct Changes {
    admin: Admin,
    seed: u64,
    took_ms: Vec<f64>,
    refused: usize,
    /// After so many refused ones the whole config is compared; else what says most of it.
    whole_every: usize,
}

/// Where the config is large, reading it takes longer than a change.
const LARGE: usize = 1000;

impl Changes {
    fn begin(admin: Admin, seed: u64) -> Result<Self> {
        let whole_every = if routes()? > LARGE { 10 } else { 1 };
        Ok(Self { admin, seed, took_ms: Vec::new(), refused: 0, whole_every })
    }

    /// The config, or its ETag and what a refused change would touch: the ETag is the whole config's, of whatever is
    /// asked for.
    fn look(&self) -> Result<(Option<String>, Vec<Value>)> {
        let paths: &[&str] = match self.refused.is_multiple_of(self.whole_every) {
            true => &["/v1/config"],
            false => &[
                "/v1/config/pool/web",
                "/v1/config/route/bad",
                "/v1/config/listener/good",
                "/v1/config/listener/zbad",
            ],
        };
        let read = paths.iter().map(|path| self.admin.ask("GET", path, "", None));
        let read = read.collect::<Result<Vec<_>>>()?;
        ensure!(read[0].status == 200 && read[0].etag.is_some(), "{}", read[0].body);
        Ok((read[0].etag.clone(), read.into_iter().map(|answer| answer.body).collect()))
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn is_there(&self, path: &str) -> Result<bool> {
        Ok(self.admin.ask("GET", path, "", None)?.status == 200)
    }

    /// One that has to be made.
    fn sound(&mut self) -> Result<()> {
        let at = self.random(4);
        let weight = 1 + self.random(9);
        let (route, spare, extra) = (
            format!("/v1/config/route/r{at}"),
            format!("/v1/config/pool/s{at}"),
            format!("/v1/config/listener/x{at}"),
        );
        let (method, path, body): (_, String, Option<Value>) = match self.random(9) {
            0 => {
                ("PUT", route, Some(json!({ "listener": "web", "path": format!("/r{at}/*"), "pool": "web" })))
            }
            1 if self.is_there(&route)? => ("DELETE", route, None),
            2 => ("PUT", spare, Some(json!({ "backends": [format!("10.77.0.11:{}", 9000 + weight)] }))),
            3 if self.is_there(&spare)? => ("DELETE", spare, None),
            4 => {
                let bind = [format!("10.77.0.2:{}", 8100 + at)];
                ("PUT", extra, Some(json!({ "bind": bind, "protocol": "http", "pool": "web" })))
            }
            5 if self.is_there(&extra)? => ("DELETE", extra, None),
            // One of the two leaves for a while, with requests under way.
            6 => {
                let first = json!({ "address": "10.77.0.11:80", "weight": weight });
                let both = json!([first, "10.77.0.12:80"]);
                let backends = if at == 0 { json!([first]) } else { both };
                ("PATCH", "/v1/config/pool/web".into(), Some(json!({ "backends": backends })))
            }
            7 => {
                let backends = json!([{ "address": "10.77.0.11", "weight": weight }, "10.77.0.12"]);
                ("PATCH", "/v1/config".into(), Some(json!({ "pool": { "vip": { "backends": backends } } })))
            }
            _ => (
                "PATCH",
                "/v1/config".into(),
                Some(json!({ "limits": { "head_timeout": format!("{weight}0s") } })),
            ),
        };
        let answer = self.admin.change(method, &path, body.as_ref())?;
        ensure!(answer["acknowledged"]["maps"] == 1 || answer["changed"] == json!([]), "{answer}");
        self.took_ms.push(answer["took_ms"].as_f64().context("no took_ms")?);
        Ok(())
    }

    /// Brings what they touch to one and the same state.
    fn rest(&mut self) -> Result<()> {
        let mut patch = json!({ "route": {}, "pool": {}, "listener": {} });
        for at in 0..4 {
            for (table, letter) in [("route", 'r'), ("pool", 's'), ("listener", 'x')] {
                patch[table][format!("{letter}{at}")] = Value::Null;
            }
        }
        let both = json!(["10.77.0.11:80", "10.77.0.12:80"]);
        patch["pool"]["web"] = json!({ "backends": both });
        self.admin.change("PATCH", "/v1/config", Some(&patch)).map(drop)
    }

    /// One that has to be refused, whole.
    fn unsound(&mut self) -> Result<()> {
        let before = self.look()?;
        let web = |bind: &str| json!({ "bind": [bind], "protocol": "http", "pool": "web" });
        let (method, path, fields, body, expected) = match self.random(5) {
            0 => ("PUT", "/v1/config/route/bad", "", json!({ "listener": "web", "pool": "nobody" }), 400),
            1 => ("PATCH", "/v1/config", "", json!({ "limits": { "head_timeout": "soon" } }), 400),
            // Half of it could be had.
            2 => {
                let listeners = json!({ "good": web("10.77.0.2:8200"), "zbad": web("192.0.2.99:80") });
                ("PATCH", "/v1/config", "", json!({ "listener": listeners }), 422)
            }
            3 => (
                "PATCH",
                "/v1/config",
                "If-Match: \"0\"\r\n",
                json!({ "limits": { "head_fields": 50 } }),
                409,
            ),
            _ => ("PATCH", "/v1/config", "", json!({ "state": { "dir": "/nowhere" } }), 422),
        };
        let refused = self.admin.ask(method, path, fields, Some(&body))?;
        ensure!(refused.status == expected, "{method} {path} {body}: {} {}", refused.status, refused.body);
        ensure!(self.look()? == before, "a refused change left something: {method} {path} {body}");
        self.refused += 1;
        Ok(())
    }

    fn report(&mut self) {
        self.took_ms.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| self.took_ms[((self.took_ms.len() - 1) as f64 * share) as usize];
        println!(
            "{} changes, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms; {} refused",
            self.took_ms.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            self.refused
        );
    }
}

#[test]
fn changes_at_random_under_load_lose_nothing() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let [b1, b2] = topology.backends();
        let _nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
        let _echo = [TcpServer::start(b1, 9003, Service::Echo)?, TcpServer::start(b1, 9000, Service::Echo)?];
        let _second = TcpServer::start(b2, 9000, Service::Echo)?;
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        tunnel::agree(b2, 9100, 2)?;
        let mut config = CONFIG.to_owned();
        for at in 0..routes()? {
            config += &format!("[route.n{at}]\nlistener = \"web\"\npath = \"/n{at}/*\"\npool = \"web\"\n");
        }
        let mut daemon = Daemon::start(scene, &config)?;
        let pid = daemon.process().pid();

        let probe = UdpProbe::start(client, VIP_V4.into(), 7, Duration::from_millis(2))?;
        let flow = EchoClient::connect(client, VIP_V4.into(), 9000)?;
        let relay = EchoClient::connect(client, lb.v4.into(), 9003)?;
        let switched = tunnel::open(client, lb.v4.into(), 8081)?;
        let (stop, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut changes = Changes::begin(daemon.admin(), 1)?;
        let spin = || -> Result<()> {
            let mut kept = KeptClient::connect(client, lb.v4.into(), 8080)?;
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = kept.get("/")?;
                ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        let before = files()?;
        thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(spin)).collect();
            let mut change = || -> Result<()> {
                let until = Instant::now() + Duration::from_secs(seconds()?);
                // A busy machine makes fewer in that time.
                while Instant::now() < until || changes.took_ms.len() < CHANGES_MIN {
                    changes.sound()?;
                    if changes.took_ms.len().is_multiple_of(5) {
                        changes.unsound()?;
                        relay.exchange("a relay, meanwhile")?;
                        flow.exchange("a flow, meanwhile")?;
                        tunnel::echo(&switched, b"a tunnel, meanwhile")?;
                    }
                }
                Ok(())
            };
            let changed = change();
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            changed
        })?;
        changes.report();
        println!("{} requests", requests.load(Ordering::Relaxed));
        ensure!(changes.refused > 3, "too few changes");
        let tally = probe.finish()?;
        ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
        wait::until("an end of what was opened meanwhile", PATIENCE, || {
            files().ok().filter(|now| *now <= before + 40).map(drop)
        })?;
        Ok(())
    });
}

/// 200 of them, with sound ones in between; [`Changes::unsound`] compares before and after.
#[test]
fn refused_changes_leave_nothing() {
    scene::run(|scene| {
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let mut changes = Changes::begin(daemon.admin(), 7)?;
        let held = Holdings::at_rest(daemon.process().pid())?;
        while changes.refused < 200 {
            changes.unsound()?;
        }
        let now = Holdings::at_rest(daemon.process().pid())?;
        ensure!(
            (now.files, now.maps, now.programs) == (held.files, held.maps, held.programs),
            "{now:?}, {held:?}"
        );
        daemon.process().kill();
        Ok(())
    });
}

/// Memory that may come and go between two looks, in KiB: the allocator's, not ours.
const MEMORY_SLACK_KIB: u64 = 12 << 10;

#[test]
fn nothing_grows_with_the_number_of_changes() {
    scene::run(|scene| {
        let mut config = CONFIG.to_owned();
        for at in 0..routes()? {
            config += &format!("[route.n{at}]\nlistener = \"web\"\npath = \"/n{at}/*\"\npool = \"web\"\n");
        }
        let mut daemon = Daemon::start(scene, &config)?;
        let pid = daemon.process().pid();
        let mut changes = Changes::begin(daemon.admin(), 3)?;
        // So many that every kind of entry was there once, and everything that is kept is full.
        let make = |changes: &mut Changes, count: usize| -> Result<Holdings> {
            let until = changes.took_ms.len() + count;
            while changes.took_ms.len() < until {
                changes.sound()?;
            }
            changes.rest()?;
            Holdings::at_rest(pid)
        };
        let count = changes_wanted()?;
        let before = make(&mut changes, (count / 3).max(150))?;
        let after = make(&mut changes, count)?;
        changes.report();
        println!("before {before:?}, after {after:?}");
        ensure!(after.files == before.files, "descriptors: {before:?}, {after:?}");
        ensure!((after.maps, after.programs) == (before.maps, before.programs), "BPF: {before:?}, {after:?}");
        let grown = after.resident_kib.saturating_sub(before.resident_kib);
        ensure!(grown <= MEMORY_SLACK_KIB, "memory: {before:?}, {after:?}");
        daemon.process().kill();
        Ok(())
    });
}

#[test]
fn a_restart_runs_what_ran_last_and_an_invalid_file_does_not_stop_it() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let _nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let get = |path: &str| KeptClient::connect(client, lb.v4.into(), 8080)?.get(path);
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let gone = json!({ "listener": "web", "path": "/gone", "respond": { "status": 410 } });
        let first = daemon.admin().change("PUT", "/v1/config/route/gone", Some(&gone))?;
        let number = first["generation"].as_u64().context("no generation")?;
        daemon.admin().change("POST", "/v1/backends/web/10.77.0.12:80/drain", None)?;
        ensure!(get("/gone")?.0 == 410, "the change does not hold");
        daemon.process().kill();

        let mut daemon = Daemon::start(scene, CONFIG)?;
        let status = daemon.status()?;
        ensure!(status["generation"] == number, "{status}");
        ensure!(get("/gone")?.0 == 410, "it does not hold after a restart");
        for _ in 0..8 {
            let (_, body) = get("/")?;
            ensure!(body == b"b1\n", "a drained backend answers: {:?}", String::from_utf8_lossy(&body));
        }
        daemon.process().kill();

        let mut daemon = Daemon::start(scene, "[route.nonsense]\nlistener = \"none\"\n")?;
        let status = daemon.status()?;
        ensure!(status["generation"] == number && status["degraded"].is_string(), "{status}");
        ensure!(get("/gone")?.0 == 410, "it does not hold beside an invalid file");
        let back = daemon.admin().change("POST", &format!("/v1/rollback/{}", number - 1), None)?;
        ensure!(back["generation"].as_u64() > Some(number), "{back}");
        ensure!(get("/gone")?.0 == 200 || get("/gone")?.0 == 404, "the rollback does not hold");
        daemon.process().kill();
        Ok(())
    });
}
