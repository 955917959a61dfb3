//! The daemon as a user that is not root, with the capabilities of its unit file.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::{Daemon, Decap},
    nginx::Nginx,
    scene::{self, Scene},
    topology::{VIP_V4, VIP_V6, VIPS},
    udp::{UdpEcho, UdpProbe},
    wait::PATIENCE,
};
use rustix::process::Signal;

const UNIT: &str = include_str!("../../lb/packaging/lb.service");
/// Nobody's.
const USER: u32 = 64_999;

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[listener.web]
bind = ["10.77.0.2:80"]
protocol = "http"
pool = "web"

[vip.echo]
address = ["192.0.2.10", "2001:db8:10::10"]
ports = ["7/udp"]
forward = "ipip"
pool = "echo"

[pool.echo]
backends = ["10.77.0.11", "10.77.0.12"]

[pool.web]
backends = ["10.77.0.11:80"]
"#;

/// As setpriv names them.
fn unit_capabilities() -> anyhow::Result<Vec<String>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let words = line.context("no AmbientCapabilities")?.split_whitespace();
    let name = |word: &str| word.strip_prefix("CAP_").map(str::to_lowercase);
    words.map(|word| name(word).with_context(|| format!("not a capability: {word}"))).collect()
}

#[test]
fn the_units_capabilities_are_enough() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let client = &topology.client.netns;
        let [b1, b2] = topology.backends();
        let _nginx = Nginx::start(scene, b1)?;
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let capabilities = unit_capabilities()?;
        let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        for expects_adopted in [false, true] {
            let mut daemon = Daemon::start_as(scene, CONFIG, USER, &capabilities)?;
            let process = format!("/proc/{}", daemon.process().pid());
            let told = fs::read_to_string(format!("{process}/status"))?;
            let uids = told.lines().find(|line| line.starts_with("Uid:")).context("no uid")?;
            ensure!(uids.split_whitespace().skip(1).all(|uid| uid == USER.to_string()), "{uids}");
            let status = daemon.status()?;
            let interface = &status["xdp"]["interfaces"][0];
            ensure!(interface["mode"] == "native" && interface["adopted"] == expects_adopted, "{status}");
            ensure!(!status["listeners"][0]["steer"].is_null(), "not steered: {status}");
            ensure!(fs::metadata(scene.pin_directory().join("link-eth0"))?.uid() == USER);

            // A port below 1024, through lb_steer.
            let reply = Curl::within(client).get(&url(topology.lb.v4.into(), 80, "/echo"))?;
            ensure!(reply.status == 200, "{reply:?}");
            for vip in [VIP_V4.into(), VIP_V6.into()] {
                let probe = UdpProbe::start(client, vip, 7, Duration::from_millis(5))?;
                probe.wait_for_more(50)?;
                let tally = probe.finish()?;
                ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
            }
            ensure!(daemon.show("vips")?.sum("packets")? >= 100);
            if expects_adopted {
                upgrade(scene, &mut daemon)?;
                continue;
            }
            daemon.process().signal(Signal::TERM)?;
            let ended = daemon.process().wait_for_exit(PATIENCE)?;
            ensure!(ended.code() == Some(0), "{ended}");
        }
        Ok(())
    });
}

/// To a program of root's, and to no other.
fn upgrade(scene: &Scene, daemon: &mut Daemon<'_>) -> anyhow::Result<()> {
    let own = scene.directory().join("run/lb");
    fs::copy(scene.directory().join("lb"), &own)?;
    std::os::unix::fs::chown(&own, Some(USER), Some(USER))?;
    let path = format!("/v1/upgrade?binary={}", own.display());
    let refused = daemon.admin().ask("POST", &path, "", None)?;
    let said = refused.body["error"]["message"].as_str().unwrap_or_default();
    ensure!(refused.status == 422 && said.contains("is not root's"), "{}", refused.body);
    let pid = daemon.upgrade(None)?;
    let status = daemon.status()?;
    ensure!(status["pid"] == pid && !status["listeners"][0]["steer"].is_null(), "{status}");
    let ended = daemon.process().wait_for_exit(PATIENCE)?;
    ensure!(ended.code() == Some(0), "{ended}");
    Ok(())
}

#[test]
fn without_capabilities_a_vip_is_refused_by_name_and_listeners_are_served() {
    scene::run_alone(|scene| {
        let refused =
            Daemon::start_as(scene, CONFIG, USER, &["net_bind_service"]).err().context("it started")?;
        let log = fs::read_to_string(scene.log("lb"))?;
        let lost = "no vip would be forwarded: this process lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN";
        ensure!(log.contains(lost), "{refused:#}\n{log}");

        let _nginx = Nginx::start(scene, &scene.topology().b1)?;
        let web = "[listener.web]\nbind = [\"10.77.0.2:8080\"]\nprotocol = \"http\"\npool = \"web\"\n\
                   [pool.web]\nbackends = [\"10.77.0.11:80\"]\n";
        let daemon = Daemon::start_as(scene, web, USER, &[])?;
        let reply = Curl::within(&scene.topology().client.netns).get(&url(
            scene.topology().lb.v4.into(),
            8080,
            "/echo",
        ))?;
        ensure!(reply.status == 200, "{reply:?}");
        let status = daemon.status()?;
        let warning = status["warnings"][0].as_str().unwrap_or_default();
        ensure!(
            warning.contains("lacks CAP_BPF") && warning.contains("lb_steer is not attached"),
            "{status}"
        );
        ensure!(status["warnings"].as_array().is_some_and(|warnings| warnings.len() == 1), "{status}");
        Ok(())
    });
}
