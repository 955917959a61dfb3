//! L4 services: the packet passes the box one way, the answer goes straight back.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::{Daemon, Decap},
    nginx::{self, Nginx},
    pattern,
    scene::{self, Scene},
    topology::{Host, VIPS},
    udp::{self, UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};

/// What one download carries: enough that its bytes cannot hide among acknowledgements.
const BODY: u64 = 8 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forward {
    Ipip,
    Gue,
    L2dsr,
}

fn config(forward: Forward, backends: [IpAddr; 2]) -> String {
    let forward = match forward {
        Forward::Ipip => "ipip",
        Forward::Gue => "gue",
        Forward::L2dsr => "l2dsr",
    };
    format!(
        r#"
[xdp]
interfaces = ["eth0"]

[vip.service]
address = ["{}", "{}"]
ports = ["80/tcp", "7/udp"]
forward = "{forward}"
pool = "service"

[pool.service]
balance = "maglev"
backends = ["{}", "{}"]
"#,
        VIPS[0], VIPS[1], backends[0], backends[1]
    )
}

#[test]
fn ipip_to_ipv4_backends() {
    scene::run(|scene| both_families(scene, Forward::Ipip, IpAddr::V4([0; 4].into())));
}

#[test]
fn ipip_to_ipv6_backends() {
    scene::run(|scene| both_families(scene, Forward::Ipip, IpAddr::V6([0; 16].into())));
}

#[test]
fn gue_to_ipv4_backends() {
    scene::run(|scene| both_families(scene, Forward::Gue, IpAddr::V4([0; 4].into())));
}

#[test]
fn gue_to_ipv6_backends() {
    scene::run(|scene| both_families(scene, Forward::Gue, IpAddr::V6([0; 16].into())));
}

#[test]
fn l2dsr_to_ipv4_backends() {
    scene::run(|scene| both_families(scene, Forward::L2dsr, IpAddr::V4([0; 4].into())));
}

#[test]
fn l2dsr_to_ipv6_backends() {
    scene::run(|scene| both_families(scene, Forward::L2dsr, IpAddr::V6([0; 16].into())));
}

/// A client that thinks that 1500 bytes get through is told what does, and gets through.
#[test]
fn who_sends_too_much_is_told() {
    scene::run(|scene| {
        let topology = scene.topology();
        let [b1, b2] = topology.backends();
        let _nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let daemon = Daemon::start(scene, &config(Forward::Gue, [b1.v6.into(), b2.v6.into()]))?;
        let told = || -> Result<f64> {
            let told = daemon.metrics()?.sum("lb_xdp_packets_total", &["reason=\"too-big\""]);
            told.context("no counter of packets that are too big")
        };
        for vip in VIPS {
            let gateway = topology.lb.address(vip);
            topology.client.netns.ip(&format!("route replace {vip} via {gateway}"))?;
            let curl =
                || Curl::within(&topology.client.netns).with(&["--connect-timeout", "2", "--max-time", "5"]);
            wait::until_ok("a short answer", PATIENCE, || curl().get(&url(vip, nginx::PORT, "/")).map(drop))?;
            let before = told()?;
            // Some segments' worth of request, that is of packets on the way to the backend.
            let header = format!("x-long: {}", "x".repeat(6000));
            curl().with(&["-H", &header]).get(&url(vip, nginx::PORT, "/"))?;
            ensure!(told()? > before, "nobody was told, so the request was never too big");
        }
        Ok(())
    });
}

/// A client whose port is closed says so to the VIP; the backend that answered it hears that.
#[test]
fn errors_reach_the_backend_of_their_flow() {
    scene::run(|scene| {
        let topology = scene.topology();
        let [b1, b2] = topology.backends();
        let _echo = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let _daemon = Daemon::start(scene, &config(Forward::Ipip, [b1.v4.into(), b2.v4.into()]))?;
        for vip in VIPS {
            wait::until_ok("an error at each backend", PATIENCE, || {
                let client = SocketAddr::new(topology.client.address(vip), 0);
                topology.client.netns.run(|| -> Result<()> {
                    let socket = UdpSocket::bind(client)?;
                    socket.send_to(b"who", SocketAddr::new(vip, 7))?;
                    Ok(())
                })??;
                for backend in topology.backends() {
                    ensure!(unreachable_seen(backend, vip)? > 0, "{} has heard nothing", backend.name);
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}

/// How often a host was told that a destination cannot be reached, in the family of `vip`.
fn unreachable_seen(host: &Host, vip: IpAddr) -> Result<u64> {
    let (file, key) = match vip {
        IpAddr::V4(_) => ("/proc/thread-self/net/snmp", "InDestUnreachs"),
        IpAddr::V6(_) => ("/proc/thread-self/net/snmp6", "Icmp6InDestUnreachs"),
    };
    let table = host.netns.run(|| std::fs::read_to_string(file))??;
    let count = match vip {
        IpAddr::V4(_) => {
            let mut lines = table.lines().filter_map(|line| line.strip_prefix("Icmp:"));
            let names = lines.next().context("no names")?.split_whitespace();
            let values = lines.next().context("no values")?.split_whitespace();
            names.zip(values).find(|(name, _)| *name == key).map(|(_, value)| value)
        }
        IpAddr::V6(_) => table.lines().find_map(|line| line.strip_prefix(key)),
    };
    Ok(count.with_context(|| format!("no {key} in {table}"))?.trim().parse()?)
}

/// A client that speaks to the VIP over IPv4 and over IPv6, TCP and UDP; backends of the family of `like`.
fn both_families(scene: &Scene, forward: Forward, like: IpAddr) -> Result<()> {
    let topology = scene.topology();
    let [b1, b2] = topology.backends();
    let nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
    for server in &nginx {
        server.offer("body", BODY)?;
    }
    let _echo = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
    let _decap = match forward {
        Forward::Ipip | Forward::Gue => vec![Decap::start(scene, b1)?, Decap::start(scene, b2)?],
        Forward::L2dsr => vec![],
    };
    let daemon = Daemon::start(scene, &config(forward, [b1.address(like), b2.address(like)]))?;
    let status = daemon.status()?;
    ensure!(status["xdp"]["interfaces"][0]["mode"] == "native", "{status}");
    for vip in VIPS {
        tcp(scene, vip).with_context(|| format!("TCP to {vip}"))?;
        udp(scene, vip).with_context(|| format!("UDP to {vip}"))?;
        echo(scene, &daemon, vip).with_context(|| format!("ICMP to {vip}"))?;
    }
    counters(&daemon)
}

fn tcp(scene: &Scene, vip: IpAddr) -> Result<()> {
    let topology = scene.topology();
    let curl = || Curl::within(&topology.client.netns);
    let mut seen = BTreeSet::new();
    wait::until_ok("answers of both backends", PATIENCE, || {
        let reply = curl().with(&["--connect-timeout", "2"]).get(&url(vip, nginx::PORT, "/"))?;
        seen.insert(reply.body);
        ensure!(seen.len() == 2, "only {seen:?}");
        Ok(())
    })?;
    let file = scene.directory().join("body");
    // Each time so that a late packet between the two readings is one more of the load balancer's.
    let (lb, client) = (topology.lb.link_counters("eth0")?, topology.client.link_counters("eth0")?);
    curl().download(&url(vip, nginx::PORT, "/files/body"), &file)?;
    ensure!(pattern::check_file(&file)? == BODY, "the download is short");
    let client = topology.client.link_counters("eth0")? - client;
    let lb = topology.lb.link_counters("eth0")? - lb;
    // Each of the client's packets comes in once and leaves once; of the body not one passes.
    ensure!(client.rx_bytes > BODY, "{client:?}");
    ensure!(lb.rx_bytes + lb.tx_bytes < BODY / 4, "the answer passed the load balancer: {lb:?}");
    ensure!(lb.rx_packets >= client.tx_packets, "{client:?} {lb:?}: somebody else forwarded");
    Ok(())
}

fn udp(scene: &Scene, vip: IpAddr) -> Result<()> {
    let topology = scene.topology();
    let client = &topology.client.netns;
    let probe = UdpProbe::start(client, vip, 7, Duration::from_millis(2))?;
    let before = topology.lb.link_counters("eth0")?;
    probe.wait_for_more(250)?;
    let tally = probe.finish()?;
    let lb = topology.lb.link_counters("eth0")? - before;
    ensure!(tally.lost.is_empty(), "{tally:?}");
    ensure!(tally.by_backend.len() == 1, "one flow, several backends: {tally:?}");
    // What was on its way when the count began had passed before it; answers would double the count.
    ensure!((240..400).contains(&lb.rx_packets), "{lb:?}");
    let names: Result<BTreeSet<String>> = (0..40).map(|_| udp::ask(client, vip, 7, "who")).collect();
    let names = names?;
    ensure!(names.len() == 2, "40 flows, only {names:?}");
    Ok(())
}

/// The load balancer does not have the address: only XDP can answer.
fn echo(scene: &Scene, daemon: &Daemon<'_>, vip: IpAddr) -> Result<()> {
    let answered = || {
        let metrics = daemon.metrics()?;
        metrics.sum("lb_xdp_packets_total", &["reason=\"echo\""]).context("no counter of echoes")
    };
    let before = answered()?;
    scene.topology().client.ping(vip)?;
    let after = answered()?;
    ensure!(after == before + 1.0, "{before} echoes before, {after} after");
    Ok(())
}

/// What was counted by VIP, by backend and by reason is the same traffic.
fn counters(daemon: &Daemon<'_>) -> Result<()> {
    // Late acknowledgements may still move between two readings.
    wait::until_ok("agreement of the counters", PATIENCE, || {
        let vip = daemon.show("vips")?;
        let vip = vip.row("vip", "service")?;
        let backends = daemon.show("backends")?;
        for row in backends.rows() {
            ensure!(row.number("packets")? > 0 && row.number("new_flows")? > 0, "{row:?}");
        }
        for key in ["packets", "bytes", "new_flows"] {
            let (one, all) = (vip.number(key)?, backends.sum(key)?);
            ensure!(one == all, "{key}: {one} by VIP, {all} by backend");
        }
        let forwarded = daemon.metrics()?.sum("lb_xdp_packets_total", &["reason=\"forwarded\""]);
        ensure!(forwarded == Some(vip.number("packets")? as f64), "{forwarded:?} {vip:?}");
        Ok(())
    })?;
    let drops = daemon.show("drops")?;
    for row in drops.matching("plane", "xdp") {
        let (reason, count) = (row.text("reason")?, row.number("count")?);
        // The first packets may come before the backend's Ethernet address is known; nothing else is lost.
        ensure!(count == 0 || reason == "no-neighbour", "{count} packets dropped as {reason}");
    }
    Ok(())
}
