//! How translated flows end, and what becomes of their ports.
//!
//! Nobody waits for two hours here: the entries of flows are made older, which is all that time does to them.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use lb_abi::{
    flow::FlowKey,
    names,
    nat::{GRACE_TICKS, NatEntry, NatPool, PORTS, TCP_TICKS, UDP_TICKS},
};
use lb_tests::{
    daemon::Daemon,
    netns::Namespace,
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::VIP_V4,
    udp::UdpEcho,
    view::{Metrics, Row},
    wait::{self, PATIENCE},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Family, XDP, route_sources};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn pinned<K: Pod, V: Pod>(scene: &Scene, name: &str) -> Result<HashMap<MapData, K, V>> {
    let data = MapData::from_pin(scene.pin_directory().join(name)).context("no such pin")?;
    Ok(HashMap::try_from(Map::from_map_data(data)?)?)
}

/// Lets time pass for established flows of a protocol, which are silent meanwhile.
fn make_older(scene: &Scene, protocol: u8, ticks: u32) -> Result<()> {
    const EXISTING: u64 = 2;
    let mut flows = pinned::<FlowKey, NatEntry>(scene, names::MAP_NAT_FLOWS)?;
    let entries = flows.iter().collect::<Result<Vec<_>, _>>()?;
    for (key, entry) in entries.into_iter().filter(|(key, _)| key.protocol == protocol) {
        let entry = NatEntry { seen: entry.seen.wrapping_sub(ticks), ..entry };
        flows.insert(key, entry, EXISTING).context("a flow ended meanwhile")?;
    }
    Ok(())
}

/// Where the flow from a port of the client's stands, and what the backend takes for the client; `None`: there is none.
fn flow_from(daemon: &Daemon<'_>, port: u16) -> Result<Option<(String, String)>> {
    let flows = daemon.show("flows")?;
    let source = SocketAddr::from(([10, 77, 0, 1], port)).to_string();
    let rows = flows.matching("source", &source);
    let read =
        |row: &Row| -> Result<_> { Ok((row.text("state")?.to_owned(), row.text("translated")?.to_owned())) };
    rows.first().map(|row| read(row)).transpose()
}

fn wait_for_state(daemon: &Daemon<'_>, port: u16, state: &str) -> Result<String> {
    wait::until_ok("a flow's state", PATIENCE, || {
        let (is, translated) = flow_from(daemon, port)?.context("no flow")?;
        ensure!(is == state, "it is {is}");
        Ok(translated)
    })
}

fn wait_for_end(daemon: &Daemon<'_>, port: u16, limit: Duration) -> Result<()> {
    wait::until_ok("the end of a flow", limit, || {
        let flow = flow_from(daemon, port)?;
        ensure!(flow.is_none(), "{flow:?}");
        Ok(())
    })
}

fn event(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum("lb_xdp_nat_events_total", &[&format!("reason=\"{name}\"")]).unwrap_or(0.0)
}

fn reason(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum("lb_xdp_packets_total", &[&format!("reason=\"{name}\"")]).unwrap_or(0.0)
}

/// A connection from a port of the client's, even if that had one before.
fn connect_from(client: &Namespace, port: u16, to: u16) -> Result<TcpStream> {
    let connect = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        socket.connect_timeout(&SocketAddr::from((VIP_V4, to)).into(), Duration::from_secs(3))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket.into())
    };
    client.run(connect)?.with_context(|| format!("from port {port} to {to}"))
}

fn datagrams_from(client: &Namespace, port: u16, to: u16) -> Result<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.connect((VIP_V4, to))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    };
    client.run(open)?.with_context(|| format!("from port {port} to {to}"))
}

fn ask(socket: &UdpSocket) -> io::Result<()> {
    socket.send(b"who")?;
    socket.recv(&mut [0; 64]).map(drop)
}

#[test]
fn flows_end_and_begin_anew() {
    scene::run(|scene| {
        route_sources(scene)?;
        let family = Family::new(scene, 0);
        let client = &scene.topology().client.netns;
        let [(b1, ip1), (b2, ip2)] = family.backends;
        let mut servers = Vec::new();
        for host in [b1, b2] {
            servers.push(TcpServer::start(host, 9000, Service::Echo)?);
            servers.push(TcpServer::start(host, 9001, Service::Source(100))?);
        }
        let _echo = [UdpEcho::start(b1, &[ip1], 7007)?, UdpEcho::start(b2, &[ip2], 7007)?];
        let _silent = [b1, b2].map(|host| host.netns.run(|| UdpSocket::bind(("0.0.0.0", 9010))));
        let config = [
            XDP.to_owned(),
            family.service("echo", "900/tcp", 9000, ""),
            family.service("source", "901/tcp", 9001, ""),
            family.service("who", "7/udp", 7007, ""),
            family.service("silent", "10/udp", 9010, ""),
        ]
        .concat();
        let daemon = Daemon::start(scene, &config)?;
        finished(&daemon, client).context("FIN")?;
        reset(&daemon, client).context("RST")?;
        idle(scene, &daemon, client).context("silence, TCP")?;
        idle_datagrams(scene, &daemon, client).context("silence, UDP")?;
        unanswered(&daemon, client).context("no answer")
    });
}

/// Both ends are done: the client may come again from the same port at once, and is given another.
fn finished(daemon: &Daemon<'_>, client: &Namespace) -> Result<()> {
    let visit = || -> Result<()> {
        let mut stream = connect_from(client, 45_000, 901)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        ensure!(bytes.len() == 100, "{} bytes", bytes.len());
        Ok(())
    };
    visit()?;
    let first = wait_for_state(daemon, 45_000, "closing")?;
    wait::until_ok("a visit from the same port", PATIENCE, visit)?;
    let second = wait_for_state(daemon, 45_000, "closing")?;
    ensure!(first != second, "the backend saw {first} twice");
    let metrics = daemon.metrics()?;
    ensure!(event(&metrics, "reopened") >= 1.0, "nothing was opened anew");
    Ok(())
}

/// A flow that was reset is remembered for ten seconds.
fn reset(daemon: &Daemon<'_>, client: &Namespace) -> Result<()> {
    let stream = connect_from(client, 45_001, 900)?;
    (&stream).read_exact(&mut [0; 3]).context("the greeting")?;
    wait_for_state(daemon, 45_001, "established")?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    wait_for_state(daemon, 45_001, "closing")?;
    wait_for_end(daemon, 45_001, PATIENCE + Duration::from_secs(10))?;
    let metrics = daemon.metrics()?;
    ensure!(event(&metrics, "expired") >= 1.0, "nothing has expired");
    Ok(())
}

fn idle(scene: &Scene, daemon: &Daemon<'_>, client: &Namespace) -> Result<()> {
    let old = EchoClient::connect(client, VIP_V4.into(), 900)?;
    old.exchange("here I am")?;
    let live = daemon.show("flows")?.matching("state", "established").len();
    ensure!(live == 1, "{live} flows live");
    make_older(scene, TCP, TCP_TICKS - 100)?;
    old.exchange("a little before two hours and four minutes")?;
    make_older(scene, TCP, TCP_TICKS + 1)?;
    wait::until_ok("the end of all", PATIENCE, || {
        let live = daemon.show("flows")?.rows().len();
        ensure!(live == 0, "{live} flows live");
        Ok(())
    })?;
    old.send("too late")?;
    wait::until_ok("a drop by name", PATIENCE, || {
        ensure!(reason(&daemon.metrics()?, "nat-unknown") > 0.0, "none is dropped");
        Ok(())
    })?;
    EchoClient::connect(client, VIP_V4.into(), 900)?.exchange("who begins anew is served")
}

fn idle_datagrams(scene: &Scene, daemon: &Daemon<'_>, client: &Namespace) -> Result<()> {
    let socket = datagrams_from(client, 45_003, 7)?;
    ask(&socket)?;
    wait_for_state(daemon, 45_003, "half-open")?;
    ask(&socket)?;
    wait_for_state(daemon, 45_003, "established")?;
    make_older(scene, UDP, UDP_TICKS + 1)?;
    wait_for_end(daemon, 45_003, PATIENCE)?;
    ask(&socket)?;
    wait_for_state(daemon, 45_003, "half-open").map(drop)
}

fn unanswered(daemon: &Daemon<'_>, client: &Namespace) -> Result<()> {
    let socket = datagrams_from(client, 45_004, 10)?;
    for _ in 0..3 {
        socket.send(b"is anybody there?")?;
        wait_for_state(daemon, 45_004, "half-open")?;
    }
    Ok(())
}

/// Keeps this thread, and all that it starts, to the first core: a veth's packets are taken in where they are sent, so
/// that every flow is given a port of the first core.
fn keep_to_first_core() -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(0);
    sched_setaffinity(None, &cores).context("keeping to the first core")
}

/// Establishes a flow from each of these ports.
fn establish(client: &Namespace, ports: Range<u32>) -> Result<()> {
    let all = || -> Result<()> {
        for port in ports {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port as u16))?;
            socket.connect((VIP_V4, 7))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            ask(&socket).with_context(|| format!("from port {port}"))?;
            socket.send(b"and again")?;
        }
        Ok(())
    };
    client.run(all)?
}

/// Whether one of some flows finds no port. Not each: a timer of another core's may take a packet along.
fn is_one_refused(client: &Namespace, mut ports: Range<u32>) -> bool {
    ports.any(|port| establish(client, port..port + 1).is_err())
}

/// Every port of a core's part is some flow's: the next flow is dropped by name, those that live go on. When time has
/// passed, the ports are given out again, by the program where nobody else does it.
#[test]
fn ports_run_out_and_come_back() {
    scene::run(|scene| {
        keep_to_first_core()?;
        route_sources(scene)?;
        let topology = scene.topology();
        let (client, b1) = (&topology.client.netns, &topology.b1);
        let _echo = UdpEcho::start(b1, &[b1.v4.into()], 7007)?;
        let _server = TcpServer::start(b1, 7007, Service::Echo)?;
        let config = format!(
            "{XDP}[vip.one]\naddress = [\"{VIP_V4}\"]\nports = [\"7/udp\", \"7/tcp\"]\nforward = \"nat\"\n\
             nat_source = [\"10.77.9.1\"]\npool = \"one\"\n[pool.one]\nbackends = [\"{}:7007\"]\n",
            b1.v4
        );
        let mut daemon = Daemon::start(scene, &config)?;
        let data = MapData::from_pin(scene.pin_directory().join(names::MAP_NAT_POOLS))?;
        let pools: Array<_, NatPool> = Array::try_from(Map::from_map_data(data)?)?;
        let pool = pools.iter().flatten().find(|pool| pool.count > 0).context("no sources")?;
        let part = PORTS / pool.cores;

        establish(client, 1024..1024 + part)?;
        ensure!(is_one_refused(client, 800..850), "more flows than ports");
        let metrics = daemon.metrics()?;
        ensure!(reason(&metrics, "nat-ports-exhausted") >= 1.0, "it was not dropped for that");
        ensure!(event(&metrics, "established") >= f64::from(part), "{}", event(&metrics, "established"));
        establish(client, 1024..1034).context("those that live")?;
        EchoClient::connect(client, VIP_V4.into(), 7)?.exchange("TCP has ports of its own")?;

        daemon.process().kill();
        establish(client, 1034..1044).context("those that live, nobody at home")?;
        ensure!(is_one_refused(client, 850..900), "ports came back by themselves");
        make_older(scene, UDP, UDP_TICKS + GRACE_TICKS + 100)?;
        establish(client, 1002..1022).context("by the program")?;
        let daemon = Daemon::start(scene, &config)?;
        ensure!(event(&daemon.metrics()?, "reused") >= 10.0, "by whom, then?");
        wait::until_ok("the end of what is old", PATIENCE, || {
            let left = daemon.metrics()?.sum("lb_xdp_nat_flows", &[]).context("no such gauge")?;
            ensure!((20.0..30.0).contains(&left), "{left} flows");
            Ok(())
        })?;
        establish(client, 950..960).context("by control")
    });
}
