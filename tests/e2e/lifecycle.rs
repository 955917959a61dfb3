//! The daemon is killed and comes back: L4 goes on in between.

use std::time::Duration;

use anyhow::ensure;
use lb_tests::{
    daemon::{Daemon, Decap},
    peer::{EchoClient, Service, TcpServer},
    scene,
    topology::{VIP_V4, VIP_V6, VIPS},
    udp::{UdpEcho, UdpProbe},
    wait::PATIENCE,
};

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[listener.echo]
bind = ["10.77.0.2:9003"]
protocol = "tcp"
pool = "relayed"

[vip.echo]
address = ["192.0.2.10", "2001:db8:10::10"]
ports = ["9000/tcp", "7/udp"]
forward = "ipip"
pool = "echo"

[pool.echo]
backends = ["10.77.0.11", "10.77.0.12"]

[pool.relayed]
backends = ["10.77.0.11:9000"]
"#;

#[test]
fn kill_9_loses_no_packet_and_the_next_run_adopts() {
    scene::run(|scene| {
        let topology = scene.topology();
        let client = &topology.client.netns;
        let [b1, b2] = topology.backends();
        let _tcp = [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?];
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let fresh = daemon.status()?;
        ensure!(fresh["xdp"]["interfaces"][0]["adopted"] == false, "{fresh}");
        let every = Duration::from_millis(2);
        let probes = [
            UdpProbe::start(client, VIP_V4.into(), 7, every)?,
            UdpProbe::start(client, VIP_V6.into(), 7, every)?,
        ];
        let old = EchoClient::connect(client, VIP_V4.into(), 9000)?;
        let packets_before = daemon.show("vips")?.sum("packets")?;

        daemon.process().kill();
        probes.iter().try_for_each(|probe| probe.wait_for_more(200))?;
        old.exchange("an old flow, nobody at home")?;
        let young = EchoClient::connect(client, VIP_V6.into(), 9000)?;
        young.exchange("a new flow, nobody at home")?;
        ensure!(EchoClient::connect(client, topology.lb.v4.into(), 9003).is_err(), "who accepted that?");

        let mut next = Daemon::start(scene, CONFIG)?;
        probes.iter().try_for_each(|probe| probe.wait_for_more(200))?;
        let adopted = next.status()?;
        ensure!(adopted["xdp"]["interfaces"][0]["adopted"] == true, "{adopted}");
        ensure!(adopted["xdp"]["interfaces"][0]["mode"] == "native", "{adopted}");
        ensure!(adopted["xdp"]["tables"] == fresh["xdp"]["tables"], "another table: {adopted} {fresh}");
        let packets_after = next.show("vips")?.sum("packets")?;
        ensure!(packets_after > packets_before + 400, "{packets_before}, {packets_after}: counters fell");
        old.exchange("an old flow, after the return")?;
        young.exchange("a flow of the gap, after the return")?;
        let relayed = EchoClient::connect(client, topology.lb.v4.into(), 9003)?;
        relayed.exchange("listeners are back")?;
        for probe in probes {
            let tally = probe.finish()?;
            ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
            ensure!(tally.by_backend.len() == 1, "the flow moved: {tally:?}");
        }
        next.process().signal(rustix::process::Signal::TERM)?;
        // The relayed connection is still open: it is what the drain would wait for.
        drop(relayed);
        let status = next.process().wait_for_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    });
}
