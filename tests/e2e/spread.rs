//! XDP gives listeners' packets to the core of the worker that owns their flow.

use std::{net::IpAddr, thread};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    pattern::{self, LARGE},
    scene,
};

const CONFIG: &str = r#"
[runtime]
workers = [0, 1]

[xdp]
interfaces = ["eth0"]
spread = "on"

[listener.web]
bind = ["10.77.0.2:8080", "[fd77::2]:8080"]
protocol = "http"
pool = "web"

[pool.web]
backends = ["10.77.0.11:80"]
"#;

/// Connections from each core, and by each family.
const COUNT: u64 = 12;

/// On a veth a packet is handled on its sender's core. All the same every connection comes in on the core of the worker
/// that accepts it, both workers have their share, and nobody said `steer = "core"`.
#[test]
fn a_connection_comes_in_on_the_core_of_its_worker() {
    scene::run_alone(|scene| {
        if thread::available_parallelism()?.get() < 2 {
            ensure!(std::env::var_os("CI").is_none(), "spreading wants two cores, here is one");
            eprintln!("SKIPPED: spreading wants two cores, here is one");
            return Ok(());
        }
        let topology = scene.topology();
        let nginx = Nginx::start(scene, &topology.b1)?;
        nginx.offer("large", LARGE)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let status = daemon.status()?;
        ensure!(status["xdp"]["spread"]["on"] == true, "{status}");
        ensure!(status["listeners"][0]["steer"] == "core", "{status}");
        let said = status["warnings"].to_string();
        ensure!(said.contains("eth0 is a device of the kernel's own"), "{said}");
        let addresses: [IpAddr; 2] = [topology.lb.v4.into(), topology.lb.v6.into()];
        for core in [0, 1] {
            let before = accepted(&daemon)?;
            for address in addresses {
                for _ in 0..COUNT {
                    let curl = Curl::within_on_core(&topology.client.netns, core);
                    let reply = curl.get(&url(address, 8080, "/"))?;
                    ensure!(reply.status == 200, "{reply:?}");
                }
            }
            let after = accepted(&daemon)?;
            let met: [u64; 2] = std::array::from_fn(|worker| after[worker].0 - before[worker].0);
            ensure!(met[0] > 0 && met[1] > 0, "all from core {core} met one worker: {met:?}");
        }
        // And a connection with many packets, both ways.
        let file = scene.directory().join("download");
        for address in addresses {
            let client = Curl::within(&topology.client.netns);
            client.download(&url(address, 8080, "/files/large"), &file)?;
            ensure!(pattern::check_file(&file)? == LARGE);
            let reply =
                Curl::within(&topology.client.netns).upload(&url(address, 8080, "/put/large"), &file)?;
            ensure!([201, 204].contains(&reply.status), "{reply:?}");
        }
        let accepted = accepted(&daemon)?;
        ensure!(
            accepted.iter().all(|(all, on_core)| all == on_core),
            "accepted, on their core: {accepted:?}"
        );
        ensure!(accepted.iter().map(|(all, _)| all).sum::<u64>() == 4 * COUNT + 4, "{accepted:?}");
        let listeners = daemon.show("listeners")?;
        let row = listeners.row("listener", "web")?;
        ensure!(row.number("by_core")? == 4 * COUNT + 4 && row.number("missing")? == 0, "{row:?}");
        let moved = daemon.metrics()?.sum("lb_xdp_packets_total", &["reason=\"spread\""]);
        ensure!(moved.context("no such reason")? > 100.0, "{moved:?}");
        Ok(())
    });
}

/// Of each worker: connections accepted, and how many of them came in on its core.
fn accepted(daemon: &Daemon<'_>) -> Result<[(u64, u64); 2]> {
    let workers = daemon.show("workers")?;
    let [one, two] = workers.rows() else { anyhow::bail!("not two workers: {workers:?}") };
    let counts =
        |row: &lb_tests::view::Row| Ok::<_, anyhow::Error>((row.number("accepted")?, row.number("on_core")?));
    Ok([counts(one)?, counts(two)?])
}
