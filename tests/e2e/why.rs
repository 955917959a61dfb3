//! `lb why`: what it says is what happens, and asking leaves no trace.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::{Daemon, Decap},
    scene::{self, Scene},
    topology::VIPS,
    udp::UdpEcho,
    wait::{self, PATIENCE},
};
use serde_json::Value;

pub(crate) const PORT: u16 = 7;

fn config(scene: &Scene) -> String {
    let topology = scene.topology();
    format!(
        r#"
[xdp]
interfaces = ["eth0"]
deny = ["203.0.113.0/24"]

[vip.service]
address = ["{}", "{}"]
ports = ["{PORT}/udp"]
forward = "ipip"
pool = "service"

[listener.web]
bind = ["0.0.0.0:8080"]
protocol = "http"
pool = "web"

[pool.service]
balance = "maglev"
backends = ["{}", "{}"]

[pool.web]
backends = ["{}:80"]
"#,
        VIPS[0], VIPS[1], topology.b1.v4, topology.b2.v4, topology.b1.v4
    )
}

#[test]
fn what_is_said_is_what_happens() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _echo = [UdpEcho::start(&topology.b1, &VIPS, PORT)?, UdpEcho::start(&topology.b2, &VIPS, PORT)?];
        let _decap = [Decap::start(scene, &topology.b1)?, Decap::start(scene, &topology.b2)?];
        let daemon = Daemon::start(scene, &config(scene))?;
        let mut seen = Vec::new();
        for vip in VIPS {
            for port in 40_000..40_006 {
                let name = answered_by(scene, vip, port)?;
                let source = SocketAddr::new(topology.client.address(vip), port);
                let said = daemon.why(&format!("udp {source} -> {}", SocketAddr::new(vip, PORT)))?;
                let host = if name == "b1" { &topology.b1 } else { &topology.b2 };
                let backend = format!("service/{} (id ", host.v4);
                ensure!(
                    step(&said, "backend")?["name"].as_str().is_some_and(|n| n.starts_with(&backend)),
                    "{name}: {said}"
                );
                ensure!(
                    said["outcome"] == "forwarded" && step(&said, "slot")?["phase"] == "settled",
                    "{said}"
                );
                let way = step(&said, "route")?;
                ensure!(
                    way["interface"] == "eth0" && way["outer"]["destination"] == host.v4.to_string(),
                    "{said}"
                );
                seen.push(name);
            }
        }
        ensure!(["b1", "b2"].iter().all(|name| seen.iter().any(|seen| seen == name)), "{seen:?}");
        others(scene, &daemon)?;
        nothing_is_counted(scene, &daemon)?;
        flows_are_estimated(scene, &daemon)
    });
}

/// Twelve flows live: so few are told exactly, but for two in one slot of 65 537.
fn flows_are_estimated(scene: &Scene, daemon: &Daemon<'_>) -> Result<()> {
    wait::until_ok("twelve flows alive", PATIENCE, || {
        for vip in VIPS {
            for port in 40_000..40_006 {
                answered_by(scene, vip, port)?;
            }
        }
        let flows = daemon.show("vips")?.row("vip", "service")?.number("active_flows")?;
        ensure!((11..=12).contains(&flows), "{flows} flows");
        let backends = daemon.show("backends")?;
        let backends: u64 = backends
            .matching("pool", "service")
            .iter()
            .map(|row| row.number("active_flows"))
            .sum::<Result<_>>()?;
        ensure!((11..=13).contains(&backends), "{backends} flows by backend");
        Ok(())
    })?;
    let metrics = daemon.metrics()?;
    let flows = metrics.sum("lb_xdp_vip_active_flows", &["vip=\"service\""]);
    ensure!(flows.is_some_and(|flows| flows >= 11.0), "{flows:?}");
    let page = daemon.verb(&["top", "--every", "1", "--count", "1"])?.success()?;
    let line = page.lines().find(|line| line.starts_with("service ")).context("no line of the vip")?;
    ensure!(line.split_whitespace().count() == 5, "{page}");
    Ok(())
}

/// Sends from one port until an answer says whose it is.
pub(crate) fn answered_by(scene: &Scene, vip: IpAddr, port: u16) -> Result<String> {
    let client = &scene.topology().client;
    let socket = client.netns.run(|| UdpSocket::bind((client.address(vip), port)))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    wait::until_ok("answer", PATIENCE, || {
        socket.send_to(b"who", (vip, PORT))?;
        let mut buffer = [0; 64];
        let size = socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
        text.split(' ').next().map(str::to_owned).context("no name")
    })
}

pub(crate) fn step<'a>(said: &'a Value, name: &str) -> Result<&'a Value> {
    let mut steps = said["steps"].as_array().into_iter().flatten();
    steps.find(|step| step["step"] == name).with_context(|| format!("no step {name} in {said}"))
}

/// What is not forwarded, and what cannot be asked.
fn others(scene: &Scene, daemon: &Daemon<'_>) -> Result<()> {
    let topology = scene.topology();
    for (flow, outcome, words) in [
        (
            format!("tcp 198.51.100.7:1234 -> {}:8080", topology.lb.v4),
            "passed",
            "listener web (http) takes it",
        ),
        (format!("tcp 198.51.100.7:1234 -> {}:7", VIPS[0]), "passed", "no address of this host"),
        (format!("udp 203.0.113.9:1 -> {}:7", VIPS[0]), "dropped", "denied"),
        (format!("udp 198.51.100.7:1 -> {}:7 ttl=1", VIPS[0]), "dropped", "ttl"),
        (format!("udp 198.51.100.7:1 -> {}:7 length=1500", VIPS[0]), "answered", "too-big"),
        (format!("icmp 198.51.100.7 -> {}", VIPS[0]), "answered", "XDP itself"),
    ] {
        let said = daemon.why(&flow)?;
        let text = said["text"].as_str().unwrap_or_default();
        ensure!(said["outcome"] == outcome && text.contains(words), "{flow}: {said}");
    }
    let text = daemon.verb(&["why", &format!("udp 198.51.100.7:1 -> {}:7", VIPS[0])])?.success()?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines[1].starts_with("forwarded by ipip to service/"), "{text}");
    ensure!(lines.iter().any(|line| line.trim().starts_with("slot ")), "{text}");
    let refused = daemon.verb(&["why", "udp 198.51.100.7:1 > 192.0.2.1:7"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("^ -> belongs here"), "{refused:?}");
    let refused = daemon.verb(&["why", "udp 1.1.1.1:1 -> 2.2.2.2:7 interface=eth9"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("these do: eth0"), "{refused:?}");
    Ok(())
}

fn nothing_is_counted(scene: &Scene, daemon: &Daemon<'_>) -> Result<()> {
    let counted = || -> Result<_> {
        let metrics = daemon.metrics()?;
        let of = |reason: &str| metrics.sum("lb_xdp_packets_total", &[&format!("reason=\"{reason}\"")]);
        let reasons = ["forwarded", "echo", "denied", "ttl", "too-big"].map(of);
        let traffic = ["packets", "bytes", "new_flows"];
        let traffic = traffic.map(|what| metrics.sum(&format!("lb_xdp_vip_{what}_total"), &[]));
        Ok((reasons, traffic, metrics.sum("lb_xdp_flow_events", &[])))
    };
    let before = counted()?;
    ensure!(before.0[0] > Some(0.0) && before.1[0] > Some(0.0), "{before:?}");
    for port in 0..20 {
        daemon.why(&format!("udp 198.51.100.7:{port} -> {}:7", VIPS[0]))?;
    }
    others(scene, daemon)?;
    let after = counted()?;
    ensure!(before == after, "{before:?} before, {after:?} after");
    Ok(())
}
