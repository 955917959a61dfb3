//! Translated services: backends know nothing of us, and both ways pass the box in XDP.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    pattern::{self, LARGE},
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::{Host, VIP_V4, VIP_V6},
    udp::{self, UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};

mod ends;

/// Addresses that sources are translated to, by family.
const SOURCES: [&str; 2] = ["10.77.9.0/28", "fd77:9::/124"];
const SOURCE_STARTS: [&str; 2] = ["10.77.9.", "fd77:9::"];

/// One family's addresses.
struct Family<'a> {
    at: usize,
    vip: IpAddr,
    backends: [(&'a Host, IpAddr); 2],
}

impl<'a> Family<'a> {
    fn new(scene: &'a Scene, at: usize) -> Self {
        let topology = scene.topology();
        let vip = [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)][at];
        Self { at, vip, backends: topology.backends().map(|host| (host, host.address(vip))) }
    }

    /// `[vip.NAME]` of one port, and its pool with another.
    fn service(&self, name: &str, port: &str, backend_port: u16, health: &str) -> String {
        let backends = self.backends.map(|(_, ip)| SocketAddr::new(ip, backend_port));
        format!(
            "[vip.{name}]\naddress = [\"{}\"]\nports = [\"{port}\"]\nforward = \"nat\"\nnat_source = [\"{}\"]\n\
             pool = \"{name}\"\n[pool.{name}]\nbackends = [\"{}\", \"{}\"]\n{health}\n",
            self.vip, SOURCES[self.at], backends[0], backends[1]
        )
    }
}

const XDP: &str = "[xdp]\ninterfaces = [\"eth0\"]\n";

/// The sources are routed to the box; and the backends do not know a single VIP.
fn route_sources(scene: &Scene) -> Result<()> {
    let topology = scene.topology();
    for host in topology.backends() {
        let lb = &topology.lb;
        host.netns.ip(&format!(
            "addr del {VIP_V4}/32 dev lo\naddr del {VIP_V6}/128 dev lo\nroute add {} via {}\nroute add {} via {}",
            SOURCES[0], lb.v4, SOURCES[1], lb.v6
        ))?;
    }
    Ok(())
}

#[test]
fn ipv4_to_ipv4() {
    scene::run(|scene| service(scene, &Family::new(scene, 0)));
}

#[test]
fn ipv6_to_ipv6() {
    scene::run(|scene| service(scene, &Family::new(scene, 1)));
}

fn service(scene: &Scene, family: &Family<'_>) -> Result<()> {
    route_sources(scene)?;
    let [(b1, ip1), (b2, ip2)] = family.backends;
    let nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
    for server in &nginx {
        server.offer("large", LARGE)?;
    }
    let _echo = [UdpEcho::start(b1, &[ip1], 7007)?, UdpEcho::start(b2, &[ip2], 7007)?];
    let config = [
        XDP.to_owned(),
        family.service("web", "8080/tcp", 80, ""),
        family.service("echo", "7/udp", 7007, ""),
        family.service("closed", "9/udp", 9009, ""),
    ]
    .concat();
    let daemon = Daemon::start(scene, &config)?;
    let status = daemon.status()?;
    ensure!(status["xdp"]["interfaces"][0]["mode"] == "native", "{status}");
    tcp(scene, family, &nginx).context("TCP")?;
    datagrams(scene, family).context("UDP")?;
    refused(scene, family).context("ICMP")?;
    shown(&daemon, family)
}

fn tcp(scene: &Scene, family: &Family<'_>, nginx: &[Nginx; 2]) -> Result<()> {
    let topology = scene.topology();
    let curl = || Curl::within(&topology.client.netns).with(&["--connect-timeout", "2"]);
    let mut names = BTreeSet::new();
    wait::until_ok("answers of both backends", PATIENCE, || {
        let reply = curl().get(&url(family.vip, 8080, "/echo"))?;
        let remote = reply.field("remote").context("no remote address")?;
        ensure!(remote.starts_with(SOURCE_STARTS[family.at]), "the backend saw {remote}");
        names.insert(reply.field("name").context("no name")?.to_owned());
        ensure!(names.len() == 2, "only {names:?}");
        Ok(())
    })?;
    let file = scene.directory().join("large");
    let before = topology.lb.link_counters("eth0")?;
    curl().download(&url(family.vip, 8080, "/files/large"), &file)?;
    ensure!(pattern::check_file(&file)? == LARGE, "the download is short");
    let lb = topology.lb.link_counters("eth0")? - before;
    ensure!(lb.rx_bytes > LARGE && lb.tx_bytes > LARGE, "another way: {lb:?}");
    let reply = curl().upload(&url(family.vip, 8080, "/put/large"), &file)?;
    ensure!(reply.status == 201, "{reply:?}");
    let uploaded = nginx.iter().filter_map(|server| pattern::check_file(&server.uploaded("large")).ok());
    ensure!(uploaded.collect::<Vec<_>>() == [LARGE], "the upload is not whole");
    Ok(())
}

fn datagrams(scene: &Scene, family: &Family<'_>) -> Result<()> {
    let client = &scene.topology().client.netns;
    let probe = UdpProbe::start(client, family.vip, 7, Duration::from_millis(2))?;
    probe.wait_for_more(250)?;
    let tally = probe.finish()?;
    ensure!(tally.lost.is_empty() && tally.by_backend.len() == 1, "{tally:?}");
    let names: Result<BTreeSet<String>> = (0..40).map(|_| udp::ask(client, family.vip, 7, "who")).collect();
    let names = names?;
    ensure!(names.len() == 2, "40 flows, only {names:?}");
    Ok(())
}

/// Nobody listens there: what the backend's kernel says of it reaches the client's socket.
fn refused(scene: &Scene, family: &Family<'_>) -> Result<()> {
    let target = SocketAddr::new(family.vip, 9);
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let client = &scene.topology().client.netns;
    let socket = client.run(|| UdpSocket::bind(any))??;
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"anybody?")?;
    let error = socket.recv(&mut [0; 64]).err().context("somebody answered")?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
    Ok(())
}

/// What was counted, and what is shown of flows.
fn shown(daemon: &Daemon<'_>, family: &Family<'_>) -> Result<()> {
    let flows = daemon.show("flows")?;
    let live = flows.matching("vip", "web");
    ensure!(!live.is_empty(), "no flow of the web is shown: {flows:?}");
    for row in flows.rows() {
        let translated: SocketAddr = row.text("translated")?.parse()?;
        ensure!(translated.to_string().contains(SOURCE_STARTS[family.at]), "{row:?}");
        ensure!(translated.port() >= 1024, "{row:?}");
    }
    let probe = flows
        .matching("vip", "echo")
        .iter()
        .filter(|row| row.text("state").is_ok_and(|s| s == "established"))
        .count();
    ensure!(probe >= 1, "the probe's flow was established: {flows:?}");
    let metrics = daemon.metrics()?;
    let event = |name: &str| {
        metrics.sum("lb_xdp_nat_events_total", &[&format!("reason=\"{name}\"")]).context("no such event")
    };
    ensure!(event("opened")? >= 43.0 && event("established")? >= 4.0, "{} opened", event("opened")?);
    let returned = metrics.sum("lb_xdp_packets_total", &["reason=\"nat-returned\""]).unwrap_or(0.0);
    ensure!(returned > 1000.0, "{returned} packets returned");
    ensure!(metrics.sum("lb_xdp_packets_total", &["reason=\"nat-error\""]) == Some(1.0), "one error came by");
    wait::until_ok("a look through the flows", PATIENCE, || {
        let flows = daemon.metrics()?.sum("lb_xdp_nat_flows", &[]);
        ensure!(flows.is_some_and(|flows| flows >= 1.0), "{flows:?}");
        Ok(())
    })?;
    let drops = daemon.show("drops")?;
    for row in drops.matching("plane", "xdp") {
        ensure!(row.number("count")? == 0, "{row:?}");
    }
    Ok(())
}

/// A backend dies: its flows are over, and new ones find the other. Then the daemon dies, and nothing else.
#[test]
fn a_backend_dies_and_then_the_daemon() {
    scene::run(|scene| {
        route_sources(scene)?;
        let family = Family::new(scene, 0);
        let client = &scene.topology().client.netns;
        let [(b1, _), (b2, ip2)] = family.backends;
        let mut servers = [
            Some(TcpServer::start(b1, 9000, Service::Echo)?),
            Some(TcpServer::start(b2, 9000, Service::Echo)?),
        ];
        let health =
            "health = { tcp = \"auto\", every = \"300ms\", timeout = \"200ms\", fall = 2, rise = 2 }";
        let config = [XDP.to_owned(), family.service("echo", "900/tcp", 9000, health)].concat();
        let mut daemon = Daemon::start(scene, &config)?;
        let connect = || EchoClient::connect(client, family.vip, 900);
        let mut clients = Vec::new();
        wait::until_ok("connections to both", PATIENCE, || {
            clients.push(connect()?);
            let names: BTreeSet<_> = clients.iter().map(|one| one.backend.as_str()).collect();
            ensure!(names.len() == 2, "only {names:?}");
            Ok(())
        })?;
        clients.iter().try_for_each(|one| one.exchange("both live"))?;

        // No FIN and no RST: the host is gone from one moment to the next.
        b2.netns.ip("link set eth0 down")?;
        daemon.wait_until_up(ip2, false, PATIENCE)?;
        for _ in 0..20 {
            let young = connect()?;
            ensure!(young.backend == "b1", "a new flow to {}", young.backend);
            young.exchange("to the other")?;
        }
        let (old, lost): (Vec<_>, Vec<_>) = clients.into_iter().partition(|one| one.backend == "b1");
        old.iter().try_for_each(|one| one.exchange("flows of the other stay"))?;
        lost.iter().try_for_each(|one| one.send("is anybody there?"))?;
        wait::until_ok("drops by name", PATIENCE, || {
            let down = daemon.metrics()?.sum("lb_xdp_packets_total", &["reason=\"backend-down\""]);
            ensure!(down.is_some_and(|down| down > 0.0), "{down:?} dropped");
            Ok(())
        })?;

        daemon.process().kill();
        old.iter().try_for_each(|one| one.exchange("an old flow, nobody at home"))?;
        let young = connect()?;
        young.exchange("a new flow, nobody at home")?;
        let daemon = Daemon::start(scene, &config)?;
        old.iter().chain([&young]).try_for_each(|one| one.exchange("after the return"))?;
        ensure!(daemon.show("flows")?.rows().len() > old.len(), "flows were forgotten");
        servers.iter_mut().for_each(|server| drop(server.take()));
        Ok(())
    });
}
