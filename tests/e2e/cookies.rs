//! SYN floods at listeners: XDP answers, and whoever is real gets through.

use std::{
    io::Read as _,
    net::{IpAddr, Shutdown, SocketAddr},
};

use anyhow::{Result, ensure};
use lb_tests::{
    daemon::Daemon,
    flood::{FORGED, Flood, has_timestamps},
    pattern,
    peer::{EchoClient, Service, TcpServer, connect},
    scene::{self, Scene},
    wait::{self, PATIENCE},
};

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[listener.echo]
bind = ["10.77.0.2:9000", "[::]:9000"]
protocol = "tcp"
pool = "echo"

[listener.upload]
bind = ["0.0.0.0:9001", "[fd77::2]:9001"]
protocol = "tcp"
pool = "upload"

[listener.calm]
bind = ["10.77.0.2:9002", "[fd77::2]:9002"]
protocol = "tcp"
pool = "echo"
syn_cookies = "off"

[pool.echo]
backends = ["10.77.0.11:9000"]

[pool.upload]
backends = ["10.77.0.11:9001"]
"#;

/// Bytes that a client sends through the flood: many windows of a connection whose window cannot be scaled.
const UPLOAD: u64 = 1 << 20;
/// SYNs that XDP answers before clients come.
const BEFORE: f64 = 5_000.0;

/// Short queues, and a way back to whom the kernel itself answers: it does not answer those that it cannot reach.
fn prepare(scene: &Scene) -> Result<()> {
    let topology = scene.topology();
    let (client, lb) = (&topology.client, &topology.lb);
    lb.netns.settings(&[("core/somaxconn", "64"), ("ipv4/tcp_syncookies", "1")])?;
    let [v4, v6] = FORGED;
    lb.netns.ip(&format!("route add {v4} via {}\nroute add {v6} via {}", client.v4, client.v6))
}

fn answered(daemon: &Daemon<'_>) -> Result<f64> {
    let metrics = daemon.metrics()?;
    metrics.sum("lb_xdp_packets_total", &["reason=\"syn-cookie\""]).ok_or(anyhow::anyhow!("no syn-cookie"))
}

fn accepted(daemon: &Daemon<'_>) -> Result<f64> {
    let metrics = daemon.metrics()?;
    let sum = metrics.sum("lb_xdp_returned_syn_cookies_total", &["reason=\"accepted\""]);
    sum.ok_or(anyhow::anyhow!("no account of cookies"))
}

#[test]
fn clients_get_through_a_flood_that_xdp_answers() {
    scene::run_alone(|scene| {
        prepare(scene)?;
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let _echo = TcpServer::start(&topology.b1, 9000, Service::Echo)?;
        let _sink = TcpServer::start(&topology.b1, 9001, Service::Sink)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let status = daemon.status()?;
        ensure!(status["listeners"][0]["syn_cookies"] == "kernel", "calm is off: {status}");
        ensure!(status["listeners"][1]["syn_cookies"] == "xdp", "{status}");
        let addresses: [IpAddr; 2] = [lb.v4.into(), lb.v6.into()];
        let before = addresses.map(|address| EchoClient::connect(client, address, 9000));
        let before = before.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(answered(&daemon)? == 0.0, "nobody floods yet");

        let services = [9000, 9001].map(|port| addresses.map(|at| SocketAddr::new(at, port))).concat();
        let flood = Flood::start(&topology.client, lb, &services)?;
        wait::until_ok("answer by XDP to a flood", PATIENCE, || {
            let answered = answered(&daemon)?;
            ensure!(answered > BEFORE, "{answered} answered of {} sent", flood.sent());
            Ok(())
        })?;
        let mut bare = 0;
        for n in 0..40 {
            let address = addresses[n % 2];
            // A SYN may be one too many for the stack, too: it is sent again after a second.
            let echo = wait::until_ok("connection", PATIENCE, || EchoClient::connect(client, address, 9000))?;
            echo.exchange(&format!("client {n} in the flood"))?;
            bare += u64::from(!has_timestamps(echo.stream())?);
            before.iter().try_for_each(|client| client.exchange("still here"))?;
        }
        ensure!(bare > 0, "no client was answered by XDP: all have timestamps");
        for address in addresses {
            let mut stream = wait::until_ok("connection", PATIENCE, || connect(client, address, 9001))?;
            pattern::write(&mut stream, UPLOAD)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer == format!("ok {UPLOAD}\n"), "{answer}");
        }
        let sent = flood.stop()?;
        let (by_xdp, opened) = (answered(&daemon)?, accepted(&daemon)?);
        println!(
            "{by_xdp} of {sent} SYNs answered by XDP, {opened} cookies came back, {bare} of 40 clients bare"
        );
        ensure!(opened >= bare as f64, "{bare} connections without timestamps, {opened} by cookies");
        Ok(())
    });
}

/// Where a listener says so, or the kernel itself sends none, all goes on as without XDP.
#[test]
fn cookies_can_be_left_to_the_kernel() {
    scene::run_alone(|scene| {
        prepare(scene)?;
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let _echo = TcpServer::start(&topology.b1, 9000, Service::Echo)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let services: [SocketAddr; 2] = [(lb.v4, 9002).into(), (lb.v6, 9002).into()];
        let flood = Flood::start(&topology.client, lb, &services)?;
        wait::until_ok("flood", PATIENCE, || {
            let sent = flood.sent();
            ensure!(sent > 20_000, "{sent} sent");
            Ok(())
        })?;
        let echo =
            wait::until_ok("connection", PATIENCE, || EchoClient::connect(client, lb.v4.into(), 9002))?;
        echo.exchange("by the kernel")?;
        ensure!(has_timestamps(echo.stream())?, "the kernel's cookies keep them");
        flood.stop()?;
        ensure!(answered(&daemon)? == 0.0, "XDP answered for a listener that wants it not");
        drop((echo, daemon));

        lb.netns.settings(&[("ipv4/tcp_syncookies", "0")])?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let status = daemon.status()?;
        let said = status["warnings"].to_string();
        ensure!(said.contains("net.ipv4.tcp_syncookies is 0"), "{said}");
        ensure!(
            status["listeners"][1]["syn_cookies"] == "kernel" && status["xdp"]["syn_cookies"].is_null(),
            "{status}"
        );
        Ok(())
    });
}
