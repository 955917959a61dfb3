//! `xdp.new_flows_per_source`: who opens flows too fast is stopped by name, and nobody else.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    flood::Flood,
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::VIPS,
    wait::{self, PATIENCE},
};

const PORT: u16 = 9000;

fn config(scene: &Scene) -> String {
    let [b1, b2] = scene.topology().backends().map(|host| host.v4);
    format!(
        r#"
[xdp]
interfaces = ["eth0"]
new_flows_per_source = {{ rate = "100/s", above = "500/s" }}

[vip.echo]
address = ["{}", "{}"]
ports = ["{PORT}/tcp"]
forward = "l2dsr"
pool = "echo"

[pool.echo]
backends = ["{b1}", "{b2}"]
"#,
        VIPS[0], VIPS[1]
    )
}

fn packets(daemon: &Daemon<'_>, reason: &str) -> Result<f64> {
    let sum = daemon.metrics()?.sum("lb_xdp_packets_total", &[&format!("reason=\"{reason}\"")]);
    sum.with_context(|| format!("no {reason}"))
}

#[test]
fn a_flood_from_one_source_is_stopped_and_another_client_is_served() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client, &topology.lb);
        let _servers = [
            TcpServer::start(&topology.b1, PORT, Service::Echo)?,
            TcpServer::start(&topology.b2, PORT, Service::Echo)?,
        ];
        let daemon = Daemon::start(scene, &config(scene))?;
        let connect = |vip| EchoClient::connect(&client.netns, vip, PORT);
        for vip in VIPS {
            wait::until_ok("a first connection", PATIENCE, || connect(vip))?.exchange("in peace")?;
        }
        ensure!(packets(&daemon, "rate-limited")? == 0.0, "nobody floods yet");

        let flood = Flood::of_one(client, lb, &VIPS.map(|vip| SocketAddr::new(vip, PORT)))?;
        wait::until_ok("a flood that is stopped", PATIENCE, || {
            let stopped = packets(&daemon, "rate-limited")?;
            ensure!(stopped > 5_000.0, "{stopped} of {} stopped", flood.sent());
            Ok(())
        })?;
        for number in 0..20 {
            let echo = connect(VIPS[number % 2])?;
            echo.exchange(&format!("client {number} in the flood"))?;
        }
        let sent = flood.stop()?;
        let (stopped, forwarded) = (packets(&daemon, "rate-limited")?, packets(&daemon, "forwarded")?);
        println!("{stopped} of {sent} SYNs stopped, {forwarded} packets forwarded");
        // What came before the meters had counted so many, 100 a second and family, and the clients' own.
        ensure!(forwarded < sent as f64 / 4.0, "{forwarded} packets forwarded, {sent} SYNs sent");
        let drops = daemon.show("drops")?;
        let named = drops.matching("plane", "xdp");
        let named =
            named.iter().filter(|row| row.text("reason").is_ok_and(|reason| reason == "rate-limited"));
        let count = named.map(|row| row.number("count")).sum::<Result<u64>>()?;
        ensure!(count as f64 == stopped, "{count} by `lb show drops`, {stopped} by the metrics");
        Ok(())
    });
}
