//! The number of workers changes while everything runs, and nobody notices.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    fault::Holdings,
    keepalive::KeptClient,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    tunnel,
    udp::{UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};
use serde_json::{Value, json};

use crate::doors::doors;

const CONFIG: &str = concat!(
    doors!(),
    r#"
[log]
access = "json"
file = "/dev/null"

[listener.datagrams]
bind = ["10.77.0.2:7"]
protocol = "udp"
pool = "datagrams"

[pool.web]
backends = ["10.77.0.11:80", "10.77.0.12:80"]

[pool.datagrams]
backends = ["10.77.0.11:7", "10.77.0.12:7"]
"#
);

/// Clients that keep their connections, and as many that do not.
const CLIENTS: usize = 4;
/// Tunnels and relays at once, so that each of two workers has some.
const LONG: usize = 8;

/// Whether there are the cores for it.
fn has_cores() -> Result<bool> {
    let has = thread::available_parallelism()?.get() >= 2;
    ensure!(has || std::env::var_os("CI").is_none(), "two workers want two cores");
    if !has {
        eprintln!("SKIPPED: two workers want two cores");
    }
    Ok(has)
}

/// Servers, and a daemon with so many workers.
fn stage(scene: &Scene, workers: usize) -> Result<(impl Sized, Daemon<'_>)> {
    let [b1, b2] = scene.topology().backends();
    let servers = (
        [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?],
        TcpServer::start(b1, 9003, Service::Echo)?,
        [UdpEcho::start(b1, &[b1.v4.into()], 7)?, UdpEcho::start(b2, &[b2.v4.into()], 7)?],
    );
    tunnel::agree(b2, 9100, 100)?;
    let daemon = Daemon::start(scene, &format!("[runtime]\nworkers = {workers}\n{CONFIG}"))?;
    Ok((servers, daemon))
}

fn set_workers(daemon: &Daemon<'_>, workers: usize) -> Result<()> {
    let wanted = json!({ "runtime": { "workers": workers } });
    let answer = daemon.admin().change("PATCH", "/v1/config", Some(&wanted))?;
    ensure!(answer["acknowledged"]["workers"] == workers, "{answer}");
    ensure!(serving(&daemon.status()?)? == workers, "{}", daemon.status()?);
    Ok(())
}

fn serving(status: &Value) -> Result<usize> {
    let workers = status["workers"].as_array().context("no workers")?;
    Ok(workers.iter().filter(|worker| worker["leaves"] == false).count())
}

/// Requests that the daemon has counted.
fn requests(daemon: &Daemon<'_>) -> Result<u64> {
    let sum = daemon.metrics()?.sum("lb_listener_requests_total", &["listener=\"web\""]);
    Ok(sum.context("no requests are counted")? as u64)
}

fn accepted_by(daemon: &Daemon<'_>, worker: u64) -> Result<u64> {
    let workers = daemon.show("workers")?;
    for row in workers.rows() {
        if row.number("worker")? == worker {
            return row.number("accepted");
        }
    }
    // It has not come yet.
    Ok(0)
}

#[test]
fn workers_come_and_go_and_nobody_notices() {
    scene::run_alone(|scene| {
        if !has_cores()? {
            return Ok(());
        }
        let (client, lb) = (&scene.topology().client.netns, &scene.topology().lb);
        let (_servers, mut daemon) = stage(scene, 1)?;
        let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
        let ask = |is_kept: bool| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let mut client = KeptClient::connect(client, lb.v4.into(), 8080)?;
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = client.get("/")?;
                    ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !is_kept || client.is_over() {
                        break;
                    }
                }
                if !is_kept {
                    // Ports of a client do not grow on trees.
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Ok(())
        };
        let probes: Vec<_> = (0..LONG)
            .map(|_| UdpProbe::start(client, lb.v4.into(), 7, Duration::from_millis(5)))
            .collect::<Result<_>>()?;
        let (relay, switched) =
            (EchoClient::connect(client, lb.v4.into(), 9003)?, tunnel::open(client, lb.v4.into(), 8081)?);
        let resize = || -> Result<()> {
            let (mut counted, mut kept) = (0, Vec::new());
            for round in 0..3 {
                let before = accepted_by(&daemon, 1)?;
                set_workers(&daemon, 2)?;
                wait::until_ok("connections of the second worker", PATIENCE, || {
                    let accepted = accepted_by(&daemon, 1)?;
                    ensure!(accepted > before + 20, "{accepted} after {before}");
                    Ok(())
                })?;
                let relays: Vec<_> = (0..LONG)
                    .map(|_| EchoClient::connect(client, lb.v4.into(), 9003))
                    .collect::<Result<_>>()?;
                let tunnels: Vec<_> =
                    (0..LONG).map(|_| tunnel::open(client, lb.v4.into(), 8081)).collect::<Result<_>>()?;
                set_workers(&daemon, 1)?;
                let at_one = accepted_by(&daemon, 0)?;
                wait::until_ok("connections of the first worker", PATIENCE, || {
                    ensure!(accepted_by(&daemon, 0)? > at_one + 20, "none");
                    Ok(())
                })?;
                for relay in relays.iter().chain([&relay]) {
                    relay.exchange("a relay, meanwhile")?;
                }
                for tunnel in tunnels.iter().chain([&switched]) {
                    tunnel::echo(tunnel, b"a tunnel, meanwhile")?;
                }
                let now = requests(&daemon)?;
                ensure!(now > counted, "{now} after {counted}");
                counted = now;
                if round == 0 {
                    // It stays as long as the last of them, unless it comes back.
                    let status = daemon.status()?;
                    let leaves =
                        status["workers"].as_array().into_iter().flatten().any(|own| own["leaves"] == true);
                    ensure!(leaves, "{status}");
                    kept.extend(relays);
                    continue;
                }
                for relay in kept.drain(..) {
                    EchoClient::exchange(&relay, "a relay of a worker that came back")?;
                }
                drop((relays, tunnels));
                wait::until_ok("the end of the second worker", PATIENCE, || {
                    let status = daemon.status()?;
                    let all = status["workers"].as_array().context("no workers")?.len();
                    ensure!(
                        all == 1 && fs::read_to_string(scene.log("lb"))?.contains("has ended"),
                        "{status}"
                    );
                    Ok(())
                })?;
            }
            Ok(())
        };
        thread::scope(|scope| -> Result<()> {
            let ask = &ask;
            let clients: Vec<_> = (0..2 * CLIENTS).map(|at| scope.spawn(move || ask(at % 2 == 0))).collect();
            let resized = resize();
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            resized
        })?;
        let asked = asked.load(Ordering::Relaxed);
        ensure!(requests(&daemon)? == asked, "{} of {asked} are counted", requests(&daemon)?);
        for probe in probes {
            let tally = probe.finish()?;
            ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
            ensure!(tally.by_backend.len() == 1, "a flow has changed its backend: {tally:?}");
        }
        let text = daemon.verb(&["status"])?.stdout;
        ensure!(text.contains("workers   1 on cores 0"), "{text}");
        daemon.process().kill();
        Ok(())
    });
}

/// From the other side: those that were there from the beginning go, with flows of their own, and come back.
#[test]
fn flows_go_with_the_sockets_of_who_leaves_and_come_back() {
    scene::run_alone(|scene| {
        if !has_cores()? {
            return Ok(());
        }
        let (client, lb) = (&scene.topology().client.netns, &scene.topology().lb);
        let (_servers, mut daemon) = stage(scene, 2)?;
        let probes: Vec<_> = (0..2 * LONG)
            .map(|_| UdpProbe::start(client, lb.v4.into(), 7, Duration::from_millis(2)))
            .collect::<Result<_>>()?;
        let begun = || (0..2).map(|at| accepted_by(&daemon, at)).collect::<Result<Vec<_>>>();
        ensure!(begun()?.iter().all(|flows| *flows > 0), "one worker has all flows: {:?}", begun()?);
        let pid = daemon.process().pid();
        let mut held = Vec::new();
        for workers in [1, 2, 1, 2, 1, 2] {
            let sent = probes[0].sent();
            set_workers(&daemon, workers)?;
            wait::until("datagrams meanwhile", PATIENCE, || (probes[0].sent() > sent + 50).then_some(()))?;
            if workers == 2 {
                held.push(Holdings::at_rest(pid)?.files);
            }
        }
        ensure!(held[1] == held[2], "descriptors: {held:?}");
        for probe in probes {
            let tally = probe.finish()?;
            ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
            ensure!(tally.by_backend.len() == 1, "a flow has changed its backend: {tally:?}");
        }
        daemon.process().kill();
        Ok(())
    });
}

/// What cannot be had changes nothing.
#[test]
fn more_workers_than_cores_are_refused_whole() {
    scene::run_alone(|scene| {
        let (_servers, mut daemon) = stage(scene, 1)?;
        let before = daemon.admin().ask("GET", "/v1/config", "", None)?;
        let wanted = json!({ "runtime": { "workers": 256 }, "limits": { "head_fields": 50 } });
        let refused = daemon.admin().ask("PATCH", "/v1/config", "", Some(&wanted))?;
        ensure!(refused.status == 422 && refused.body["error"]["where"] == "runtime.workers", "{refused:?}");
        let after = daemon.admin().ask("GET", "/v1/config", "", None)?;
        ensure!(before.body == after.body && serving(&daemon.status()?)? == 1, "it left something");
        daemon.process().kill();
        Ok(())
    });
}
