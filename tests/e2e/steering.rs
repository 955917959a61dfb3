//! `lb_steer`: which worker a connection meets.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    keepalive::KeptClient,
    nginx::Nginx,
    scene::{self, Scene},
    wait::{self, PATIENCE},
};
use serde_json::json;

const CONFIG: &str = r#"
[runtime]
workers = [0, 1]

[listener.by-core]
bind = ["10.77.0.2:8080", "[fd77::2]:8080"]
protocol = "http"
pool = "web"
steer = "core"

[listener.by-hash]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "web"
steer = "hash"

[pool.web]
backends = ["10.77.0.11:80"]
"#;

/// Connections each way.
const COUNT: u64 = 24;

fn stage(scene: &Scene) -> Result<Option<(Nginx, Daemon<'_>)>> {
    if thread::available_parallelism()?.get() < 2 {
        ensure!(std::env::var_os("CI").is_none(), "steering wants two cores, here is one");
        eprintln!("SKIPPED: steering wants two cores, here is one");
        return Ok(None);
    }
    Ok(Some((Nginx::start(scene, &scene.topology().b1)?, Daemon::start(scene, CONFIG)?)))
}

/// Connections accepted by the worker on that core, and how many of them came in there.
fn accepted(daemon: &Daemon<'_>, core: u64) -> Result<(u64, u64)> {
    let workers = daemon.show("workers")?;
    for row in workers.rows() {
        if row.number("core")? == core {
            return Ok((row.number("accepted")?, row.number("on_core")?));
        }
    }
    anyhow::bail!("no worker on core {core}: {workers:?}")
}

/// On a veth the packet is handled on the sender's core, so a pinned client chooses it.
#[test]
fn by_core_a_connection_meets_the_worker_of_its_core() {
    scene::run_alone(|scene| {
        let Some((_nginx, daemon)) = stage(scene)? else { return Ok(()) };
        let topology = scene.topology();
        for core in [0, 1] {
            for n in 0..COUNT {
                let address = topology.lb.address(if n % 2 == 0 {
                    topology.b1.v4.into()
                } else {
                    topology.b1.v6.into()
                });
                let curl = Curl::within_on_core(&topology.client.netns, core);
                let reply = curl.get(&url(address, 8080, "/"))?;
                ensure!(reply.status == 200, "{reply:?}");
            }
            ensure!(accepted(&daemon, core as u64)? == (COUNT, COUNT), "{:?}", daemon.show("workers")?);
        }
        let listeners = daemon.show("listeners")?;
        let row = listeners.row("listener", "by-core")?;
        ensure!(row.number("by_core")? == 2 * COUNT && row.number("missing")? == 0, "{row:?}");
        Ok(())
    });
}

#[test]
fn by_hash_one_core_feeds_both_workers() {
    scene::run_alone(|scene| {
        let Some((_nginx, daemon)) = stage(scene)? else { return Ok(()) };
        let topology = scene.topology();
        for _ in 0..COUNT {
            let curl = Curl::within_on_core(&topology.client.netns, 0);
            curl.get(&url(topology.lb.v4.into(), 8081, "/"))?;
        }
        let (on_0, on_1) = (accepted(&daemon, 0)?.0, accepted(&daemon, 1)?.0);
        ensure!(on_0 + on_1 == COUNT && on_0 > 0 && on_1 > 0, "{on_0} and {on_1}");
        wait::until_ok("count of steered connections", PATIENCE.min(Duration::from_secs(5)), || {
            let listeners = daemon.show("listeners")?;
            let row = listeners.row("listener", "by-hash")?;
            ensure!(row.number("by_hash")? == COUNT && row.number("missing")? == 0, "{row:?}");
            Ok(())
        })
    });
}

/// With the sockets that are there: nothing is opened, and nobody who is connected notices.
#[test]
fn the_way_of_choosing_changes_live() {
    scene::run_alone(|scene| {
        let Some((_nginx, daemon)) = stage(scene)? else { return Ok(()) };
        let topology = scene.topology();
        let mut kept = KeptClient::connect(&topology.client.netns, topology.lb.v4.into(), 8081)?;
        kept.get("/")?;
        let set = |steer: &str| {
            let wanted = json!({ "steer": steer, "syn_cookies": "off" });
            daemon.admin().change("PATCH", "/v1/config/listener/by-hash", Some(&wanted))
        };
        let ask = |count: u64| -> Result<()> {
            for _ in 0..count {
                let curl = Curl::within_on_core(&topology.client.netns, 0);
                ensure!(curl.get(&url(topology.lb.v4.into(), 8081, "/"))?.status == 200, "refused");
            }
            Ok(())
        };
        set("core")?;
        let (on_0, on_1) = (accepted(&daemon, 0)?.0, accepted(&daemon, 1)?.0);
        ask(COUNT)?;
        ensure!((accepted(&daemon, 0)?.0, accepted(&daemon, 1)?.0) == (on_0 + COUNT, on_1), "not by core");
        let row = |key: &str| daemon.show("listeners")?.row("listener", "by-hash")?.number(key);
        ensure!(row("by_core")? == COUNT && row("missing")? == 0, "{:?}", daemon.show("listeners")?);
        let status = daemon.status()?;
        let listeners = status["listeners"].as_array().context("no listeners")?;
        let own = listeners.iter().find(|own| own["listener"] == "by-hash").context("no listener")?;
        ensure!(own["steer"] == "core", "{own}");
        set("hash")?;
        ask(COUNT)?;
        ensure!(accepted(&daemon, 1)?.0 > on_1, "not by hash");
        ensure!(row("by_hash")? > COUNT, "{:?}", daemon.show("listeners")?);
        ensure!(kept.get("/")?.0 == 200, "a connection was cut");
        Ok(())
    });
}
