//! A change that meets a fault at each of its steps: the old config or the new one, never something between.

use std::{fs, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    admin::{Admin, Answer},
    daemon::{Daemon, Decap},
    fault::Fault,
    keepalive::KeptClient,
    manager::Manager,
    netns::Namespace,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer},
    requirement,
    scene::{self, Scene},
    topology::VIP_V4,
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[runtime]
workers = 2

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[vip.echo]
address = ["192.0.2.10"]
ports = ["9000/tcp"]
forward = "ipip"
pool = "vip"

[pool.web]
backends = ["10.77.0.11:80"]

[pool.vip]
backends = ["10.77.0.11", "10.77.0.12"]
"#;

/// How long the daemon may be silent towards systemd; it pings twice as often.
const PING_WITHIN: Duration = Duration::from_secs(2);

/// What everything runs in.
struct Site<'a> {
    scene: &'a Scene,
    client: &'a Namespace,
    address: Ipv4Addr,
    peers: (Nginx, [TcpServer; 2], [Decap; 2]),
}

impl<'a> Site<'a> {
    fn start(scene: &'a Scene) -> Result<Self> {
        let topology = scene.topology();
        let [b1, b2] = topology.backends();
        let peers = (
            Nginx::start(scene, b1)?,
            [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?],
            [Decap::start(scene, b1)?, Decap::start(scene, b2)?],
        );
        Ok(Self { scene, client: &topology.client.netns, address: topology.lb.v4, peers })
    }

    /// What route `to` of the change at hand answers to a client that just came: its number; 200: there is none.
    fn answer(&self) -> Result<u16> {
        Ok(KeptClient::connect(self.client, self.address.into(), 8080)?.get("/changed")?.0)
    }

    /// The packet path and the listener both serve.
    fn serves(&self) -> Result<()> {
        let _ = &self.peers;
        EchoClient::connect(self.client, VIP_V4.into(), 9000)?.exchange("over the packet path")?;
        self.answer().map(drop)
    }
}

/// A change of every plane: the packet path's pool, and a route that answers with `status`.
fn patch(status: u16) -> Value {
    let backends = json!([{ "address": "10.77.0.11", "weight": status - 400 }, "10.77.0.12"]);
    json!({
        "pool": { "vip": { "backends": backends } },
        "route": { "changed": { "listener": "web", "path": "/changed", "respond": { "status": status } } },
    })
}

fn change(admin: &Admin, status: u16) -> Result<Answer> {
    admin.ask("PATCH", "/v1/config", "", Some(&patch(status)))
}

/// The config, its tag and the number of what runs.
fn state(daemon: &Daemon<'_>) -> Result<(Value, Option<String>, Value)> {
    let config = daemon.admin().ask("GET", "/v1/config", "", None)?;
    Ok((config.body, config.etag, daemon.status()?["generation"].clone()))
}

/// Refused, and nothing has changed; and without the fault it is made.
fn refused_then_made(
    site: &Site<'_>,
    daemon: &mut Daemon<'_>,
    fault: (&str, &str),
    expected: u16,
) -> Result<()> {
    let (thread, inject) = fault;
    let (before, answered) = (state(daemon)?, site.answer()?);
    let status = if answered == 410 { 411 } else { 410 };
    let fault = Fault::begin(site.scene, daemon.process().pid(), thread, inject)?;
    let refused = change(&daemon.admin(), status)?;
    fault.end()?;
    ensure!(refused.status == expected, "{thread} {inject}: {} {}", refused.status, refused.body);
    ensure!(refused.body["error"]["message"].is_string(), "{thread} {inject}: {}", refused.body);
    ensure!(state(daemon)? == before, "{thread} {inject}: a refused change left something");
    ensure!(site.answer()? == answered, "{thread} {inject}: a refused change is in force");
    site.serves()?;
    let made = change(&daemon.admin(), status)?;
    ensure!(made.status == 200, "after {thread} {inject}: {} {}", made.status, made.body);
    ensure!(made.body["acknowledged"] == json!({ "workers": 2, "maps": 1 }), "{}", made.body);
    ensure!(site.answer()? == status, "after {thread} {inject}: the change does not hold");
    site.serves()
}

#[test]
fn a_full_disk_or_a_worker_that_does_not_answer_stops_a_change_whole() {
    scene::run(|scene| {
        if !requirement::is_there("strace", "strace") {
            return Ok(());
        }
        let site = Site::start(scene)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        for (fault, expected) in [
            // Longer than a change waits before it is begun, so in prepare.
            (("lb-worker-1", "io_uring_enter:delay_enter=1500000"), 503),
            (("lb-control", "fsync:error=ENOSPC:when=1"), 422),
            (("lb-control", "rename:error=ENOSPC:when=1"), 422),
        ] {
            refused_then_made(&site, &mut daemon, fault, expected)?;
        }
        daemon.process().kill();
        Ok(())
    });
}

/// Each of the kernel's calls for the maps fails in turn, as where one is full: the change is refused and undone, or it could
/// do without.
#[test]
fn a_full_map_stops_a_change_whole() {
    scene::run(|scene| {
        if !requirement::is_there("strace", "strace") {
            return Ok(());
        }
        let site = Site::start(scene)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let mut refused = 0;
        for at in 1..=12 {
            let (before, answered) = (state(&daemon)?, site.answer()?);
            let status = if answered == 410 { 411 } else { 410 };
            let inject = format!("bpf:error=E2BIG:when={at}");
            let fault = Fault::begin(scene, daemon.process().pid(), "lb-plane", &inject)?;
            let answer = change(&daemon.admin(), status)?;
            fault.end()?;
            match answer.status {
                200 => ensure!(site.answer()? == status, "{inject}: it does not hold"),
                422 => {
                    refused += 1;
                    ensure!(answer.body["error"]["where"] == "xdp", "{inject}: {}", answer.body);
                    ensure!(state(&daemon)? == before, "{inject}: a refused change left something");
                    ensure!(site.answer()? == answered, "{inject}: a refused change is in force");
                }
                other => anyhow::bail!("{inject}: {other} {}", answer.body),
            }
            site.serves()?;
        }
        ensure!(refused > 0, "no call failed where it matters");
        let made = change(&daemon.admin(), 412)?;
        ensure!(made.status == 200 && site.answer()? == 412, "{} {}", made.status, made.body);
        site.serves()?;
        daemon.process().kill();
        Ok(())
    });
}

/// From the rename on it is the new generation that holds, whatever a worker does.
#[test]
fn a_worker_that_does_not_answer_in_commit_follows_later() {
    scene::run(|scene| {
        if !requirement::is_there("strace", "strace") {
            return Ok(());
        }
        let site = Site::start(scene)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let (admin, pid) = (daemon.admin(), daemon.process().pid());
        // Long enough to get hold of the worker meanwhile: between the last step that may fail and the first of the others.
        let pause = Fault::begin(scene, pid, "lb-control", "rename:delay_exit=6000000:when=1")?;
        let changing = thread::spawn(move || change(&admin, 410));
        let next = format!("{}.", daemon.status()?["generation"].as_u64().context("no generation")? + 1);
        let generations = scene.directory().join("state/generations");
        let is_renamed = || {
            let mut names = fs::read_dir(&generations)
                .ok()?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.any(|name| name.starts_with(&next) && !name.ends_with(".prepared")).then_some(())
        };
        wait::until("the rename", PATIENCE, is_renamed)?;
        let silence = Fault::begin(scene, pid, "lb-worker-1", "io_uring_enter:delay_enter=20000000")?;
        let answer = changing.join().map_err(|_| anyhow::anyhow!("whoever asks panicked"))??;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        ensure!(answer.body["acknowledged"]["workers"] == 1, "{}", answer.body);
        let warnings = answer.body["warnings"].as_array().context("no warnings")?;
        ensure!(
            warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains("1 workers"))),
            "{}",
            answer.body
        );
        silence.end()?;
        pause.end()?;
        // Connections come to both workers.
        for _ in 0..16 {
            lb_tests::wait::until_ok("the new config at both workers", lb_tests::wait::PATIENCE, || {
                ensure!(site.answer()? == 410, "an old answer");
                Ok(())
            })?;
        }
        ensure!(daemon.status()?["generation"] == answer.body["generation"], "another generation");
        site.serves()?;
        daemon.process().kill();
        Ok(())
    });
}

/// Killed at a step of the disk, it comes up with the old config before the rename, and with the new one after.
#[test]
fn a_daemon_that_is_killed_in_a_change_comes_up_old_or_new() {
    scene::run(|scene| {
        if !requirement::is_there("strace", "strace") {
            return Ok(());
        }
        let site = Site::start(scene)?;
        let mut status = 400;
        for (inject, is_new) in [
            ("fsync:signal=KILL:when=1", false),
            // Between write and rename.
            ("rename:signal=KILL:when=1", false),
            // The file has its name; its directory is not synced.
            ("fsync:signal=KILL:when=2", true),
        ] {
            status += 10;
            let mut daemon = Daemon::start(scene, CONFIG)?;
            let (before, answered) = (state(&daemon)?, site.answer()?);
            let fault = Fault::begin(scene, daemon.process().pid(), "lb-control", inject)?;
            let answer = change(&daemon.admin(), status);
            ensure!(answer.is_err(), "{inject}: it was not killed: {answer:?}");
            fault.end()?;
            daemon.process().kill();

            let mut daemon = Daemon::start(scene, CONFIG)?;
            let after = state(&daemon)?;
            match is_new {
                false => {
                    ensure!(after == before, "{inject}: {after:?} after {before:?}");
                    ensure!(site.answer()? == answered, "{inject}: something of it is in force");
                }
                true => {
                    ensure!(
                        after.0["route"]["changed"]["respond"]["status"] == status,
                        "{inject}: {after:?}"
                    );
                    ensure!(site.answer()? == status, "{inject}: it is not in force");
                }
            }
            site.serves()?;
            daemon.process().kill();
        }
        Ok(())
    });
}

/// It is named everywhere, and systemd hears of nothing until it turns again; packets are forwarded all the while.
#[test]
fn a_worker_that_hangs_is_named_and_no_ping_is_sent() {
    scene::run(|scene| {
        if !requirement::is_there("strace", "strace") {
            return Ok(());
        }
        let site = Site::start(scene)?;
        let nothing = Manager::start(scene.directory(), true)?;
        let mut daemon = Daemon::start_kept(scene, CONFIG, &nothing, PING_WITHIN)?;
        let pings = |daemon: &Daemon<'_>| daemon.manager().pings();
        let more_than = |daemon: &Daemon<'_>, before| (pings(daemon) > before).then_some(());
        wait::until("a ping", PATIENCE, || more_than(&daemon, 0))?;
        let hang = Fault::begin(
            scene,
            daemon.process().pid(),
            "lb-worker-1",
            "io_uring_enter:delay_enter=120000000",
        )?;
        let stuck = |daemon: &Daemon<'_>| daemon.status().ok()?["workers"][1]["stuck_seconds"].as_u64();
        wait::until("a name for it", PATIENCE, || stuck(&daemon).filter(|seconds| *seconds >= 5).map(drop))?;
        ensure!(daemon.status()?["workers"][0]["stuck_seconds"] == 0, "{}", daemon.status()?);
        let shown = daemon.verb(&["status"])?.success()?;
        ensure!(shown.contains("STUCK") && shown.contains("worker 1 "), "{shown}");
        let seconds = daemon.metrics()?.sum("lb_worker_stuck_seconds", &["worker=\"1\""]);
        ensure!(seconds.is_some_and(|seconds| seconds >= 5.0), "{seconds:?}");
        EchoClient::connect(site.client, VIP_V4.into(), 9000)?.exchange("beside it")?;
        let before = pings(&daemon);
        // Two would have come by then.
        thread::sleep(PING_WITHIN);
        ensure!(pings(&daemon) == before, "systemd is told that all is well");
        hang.end()?;
        wait::until("another ping", PATIENCE, || more_than(&daemon, before))?;
        ensure!(stuck(&daemon) == Some(0), "{}", daemon.status()?);
        site.serves()
    });
}
