//! What chooses a backend beside the flow: a client's prefix, and its address in place of its flows.

use std::net::SocketAddr;

use anyhow::ensure;
use lb_tests::{
    daemon::{Daemon, Decap},
    scene::{self, Scene},
    topology::VIPS,
    udp::UdpEcho,
    wait::{self, PATIENCE},
};

use crate::why::{PORT, answered_by, step};

/// The client's IPv4 address has pool `blue`, which is b2; everybody else has b1.
fn config(scene: &Scene) -> String {
    let topology = scene.topology();
    format!(
        r#"
[xdp]
interfaces = ["eth0"]
new_flows_per_source = {{ rate = "1000/s", above = "1000000/s" }}

[vip.service]
address = ["{}", "{}"]
ports = ["{PORT}/udp"]
forward = "ipip"
pool = "service"
hash = "source"
sources = [{{ prefix = "{}/32", pool = "blue" }}]

[pool.service]
balance = "maglev"
backends = ["{}"]

[pool.blue]
balance = "maglev"
backends = ["{}"]
"#,
        VIPS[0],
        VIPS[1],
        topology.client.address(VIPS[0]),
        topology.b1.v4,
        topology.b2.v4
    )
}

#[test]
fn a_client_goes_where_its_prefix_does() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _echo = [UdpEcho::start(&topology.b1, &VIPS, PORT)?, UdpEcho::start(&topology.b2, &VIPS, PORT)?];
        let _decap = [Decap::start(scene, &topology.b1)?, Decap::start(scene, &topology.b2)?];
        let daemon = Daemon::start(scene, &config(scene))?;
        for (vip, expected, pool) in [(VIPS[0], "b2", "blue"), (VIPS[1], "b1", "service")] {
            for port in 40_000..40_004 {
                let name = answered_by(scene, vip, port)?;
                ensure!(name == expected, "{name} answers at {vip}");
                let source = SocketAddr::new(topology.client.address(vip), port);
                let said = daemon.why(&format!("udp {source} -> {}", SocketAddr::new(vip, PORT)))?;
                let slot = step(&said, "slot")?;
                ensure!(slot["pool"] == pool && slot["by"] == "source", "{said}");
                let own = &step(&said, "source")?["pool"];
                ensure!(if pool == "blue" { own == pool } else { own.is_null() }, "{said}");
            }
        }
        // Of both families one client, whatever its flows, over both pools.
        wait::until_ok("two clients alive", PATIENCE, || {
            VIPS.iter().try_for_each(|vip| answered_by(scene, *vip, 40_000).map(drop))?;
            let clients = daemon.show("vips")?.row("vip", "service")?.number("active_flows")?;
            ensure!(clients == 2, "{clients} clients");
            Ok(())
        })
    });
}
