//! Two arms: clients come in by one interface of `[xdp]`, backends are behind another one, with and without VLANs.

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{IpAddr, Shutdown},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    arms::{Arms, TAGS},
    daemon::{Daemon, Decap},
    pattern,
    peer::{EchoClient, Service, TcpServer, connect},
    requirement,
    scene::{self, Scene},
    topology::{LinkCounters, VIPS},
    udp::{self, UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};

/// Bytes of a download, and of an upload: whole segments, both ways.
const BODY: u64 = 2 << 20;
const SERVICES: [(u16, Service); 3] =
    [(9000, Service::Echo), (9001, Service::Source(BODY)), (9002, Service::Sink)];
/// Addresses that sources are translated to, by family.
const SOURCES: [&str; 2] = ["10.78.9.0/28", "fd78:9::/124"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forward {
    /// To backends of the family of this address.
    Ipip(IpAddr),
    /// To backends of the VIP's own family.
    Nat,
}

const IPIP_V4: Forward = Forward::Ipip(VIPS[0]);
const IPIP_V6: Forward = Forward::Ipip(VIPS[1]);

#[test]
fn ipip_to_ipv4_backends_by_the_other_arm() {
    scene::run(|scene| story(scene, IPIP_V4, None));
}

#[test]
fn ipip_to_ipv6_backends_by_the_other_arm() {
    scene::run(|scene| story(scene, IPIP_V6, None));
}

#[test]
fn nat_and_back_by_the_other_arm() {
    scene::run(|scene| story(scene, Forward::Nat, None));
}

#[test]
fn ipip_to_ipv4_backends_from_vlan_to_vlan() {
    scene::run(|scene| story(scene, IPIP_V4, Some(TAGS)));
}

#[test]
fn ipip_to_ipv6_backends_from_vlan_to_vlan() {
    scene::run(|scene| story(scene, IPIP_V6, Some(TAGS)));
}

#[test]
fn nat_and_back_from_vlan_to_vlan() {
    scene::run(|scene| story(scene, Forward::Nat, Some(TAGS)));
}

/// `[vip.NAME]` of one address, and its pool.
fn service(scene: &Scene, arms: &Arms, at: usize, forward: Forward) -> String {
    let (vip, name) = (VIPS[at], ["v4", "v6"][at]);
    let (way, like) = match forward {
        Forward::Ipip(like) => ("forward = \"ipip\"".to_owned(), like),
        Forward::Nat => (format!("forward = \"nat\"\nnat_source = [\"{}\"]", SOURCES[at]), vip),
    };
    let [b1, b2] = scene.topology().backends().map(|host| arms.address(host, like));
    format!(
        "[vip.{name}]\naddress = [\"{vip}\"]\nports = [\"9000-9002/tcp\", \"7/udp\"]\n{way}\npool = \"{name}\"\n\
         [pool.{name}]\nbackends = [\"{b1}\", \"{b2}\"]\n"
    )
}

fn story(scene: &Scene, forward: Forward, tags: Option<[u16; 2]>) -> Result<()> {
    if tags.is_some() && !requirement::has_vlans() {
        return Ok(());
    }
    let topology = scene.topology();
    let arms = Arms::lay(scene, tags)?;
    let (mut servers, mut echo, mut decap) = (Vec::new(), Vec::new(), Vec::new());
    for host in topology.backends() {
        for (port, service) in SERVICES {
            servers.push(TcpServer::start(host, port, service)?);
        }
        let own = VIPS.map(|vip| arms.address(host, vip));
        match forward {
            Forward::Ipip(_) => {
                echo.push(UdpEcho::start(host, &VIPS, 7)?);
                decap.push(Decap::start(scene, host)?);
            }
            Forward::Nat => {
                echo.push(UdpEcho::start(host, &own, 7)?);
                let routes = SOURCES.iter().zip(VIPS).map(|(source, like)| {
                    format!("route add {source} via {}\n", arms.address(&topology.lb, like))
                });
                host.netns.ip(&routes.collect::<String>())?;
            }
        }
    }
    let services = [0, 1].map(|at| service(scene, &arms, at, forward)).concat();
    // With VLANs the interfaces of `[xdp]` have no address of their own.
    let [v4, v6] = VIPS.map(|like| arms.address(&topology.lb, like));
    let outer = [format!("{v4}/32"), format!("{v6}/128")];
    let outer = if tags.is_some() { format!("outer_source = {outer:?}\n") } else { String::new() };
    let daemon =
        Daemon::start(scene, &format!("[xdp]\ninterfaces = [\"eth0\", \"eth1\"]\n{outer}{services}"))?;
    let status = daemon.status()?;
    for at in 0..2 {
        ensure!(status["xdp"]["interfaces"][at]["mode"] == "native", "{status}");
    }
    for vip in VIPS {
        known(scene, vip).with_context(|| format!("first answers of {vip}"))?;
        let before = [topology.lb.link_counters("eth0")?, topology.lb.link_counters("eth1")?];
        tcp(scene, vip).with_context(|| format!("TCP to {vip}"))?;
        datagrams(scene, vip).with_context(|| format!("UDP to {vip}"))?;
        let after = [topology.lb.link_counters("eth0")?, topology.lb.link_counters("eth1")?];
        ways(forward, after[0] - before[0], after[1] - before[1])?;
    }
    counters(&daemon, forward)
}

/// Both backends have answered, so their Ethernet addresses are known.
fn known(scene: &Scene, vip: IpAddr) -> Result<()> {
    let mut seen = BTreeSet::new();
    wait::until_ok("answers of both backends", PATIENCE, || {
        seen.insert(udp::ask(&scene.topology().client.netns, vip, 7, "who")?);
        ensure!(seen.len() == 2, "only {seen:?}");
        Ok(())
    })
}

fn tcp(scene: &Scene, vip: IpAddr) -> Result<()> {
    let client = &scene.topology().client.netns;
    let mut seen = BTreeSet::new();
    for number in 0..16 {
        let echo = EchoClient::connect(client, vip, 9000)?;
        echo.exchange(&format!("line {number}"))?;
        seen.insert(echo.backend);
    }
    ensure!(seen.len() == 2, "16 connections, only {seen:?}");
    let mut download = connect(client, vip, 9001)?;
    ensure!(pattern::check(&mut download)? == BODY, "the download is short");
    let mut upload = connect(client, vip, 9002)?;
    pattern::write(&mut upload, BODY)?;
    upload.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    upload.read_to_string(&mut answer)?;
    ensure!(answer == format!("ok {BODY}\n"), "{answer}");
    Ok(())
}

fn datagrams(scene: &Scene, vip: IpAddr) -> Result<()> {
    let probe = UdpProbe::start(&scene.topology().client.netns, vip, 7, Duration::from_millis(2))?;
    probe.wait_for_more(250)?;
    let tally = probe.finish()?;
    ensure!(tally.lost.is_empty() && tally.by_backend.len() == 1, "{tally:?}");
    Ok(())
}

/// Requests come in by the first arm and leave by the second; answers of translated flows go the same way back, and
/// the others by none.
fn ways(forward: Forward, front: LinkCounters, back: LinkCounters) -> Result<()> {
    let all = format!("first arm {front:?}, second arm {back:?}");
    ensure!(front.rx_bytes > BODY && back.tx_bytes > BODY, "no upload: {all}");
    match forward {
        Forward::Ipip(_) => ensure!(front.tx_bytes + back.rx_bytes < BODY / 8, "answers: {all}"),
        Forward::Nat => ensure!(back.rx_bytes > BODY && front.tx_bytes > BODY, "no answers: {all}"),
    }
    Ok(())
}

fn counters(daemon: &Daemon<'_>, forward: Forward) -> Result<()> {
    let metrics = daemon.metrics()?;
    let packets = |reason: &str| {
        metrics.sum("lb_xdp_packets_total", &[&format!("reason=\"{reason}\"")]).context("no such reason")
    };
    let forwarded = packets("forwarded")?;
    ensure!(forwarded > 2000.0, "{forwarded} forwarded");
    if forward == Forward::Nat {
        let returned = packets("nat-returned")?;
        ensure!(returned > 2000.0, "{returned} returned");
    }
    for row in daemon.show("drops")?.matching("plane", "xdp") {
        let (reason, count) = (row.text("reason")?, row.number("count")?);
        // The first packets may come before the backend's Ethernet address is known; nothing else is lost.
        ensure!(count == 0 || reason == "no-neighbour", "{count} packets dropped as {reason}");
    }
    Ok(())
}
