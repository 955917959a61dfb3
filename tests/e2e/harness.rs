//! The ground the other tests stand on, without the daemon.

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;
use lb_tests::{
    curl::{Curl, url},
    nginx::{self, Nginx},
    pattern::{self, LARGE},
    peer::{EchoClient, Service, TcpServer, connect},
    scene,
    topology::VIPS,
    udp::{self, UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};

/// Direct server return, done by hand: the client's VIP route points at a backend.
#[test]
fn the_switch_carries_everything() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (client, b1) = (&topology.client, &topology.b1);
        let nginx = Nginx::start(scene, b1)?;
        nginx.offer("large", LARGE)?;
        for vip in VIPS {
            client.netns.ip(&format!("route replace {vip} via {}", b1.address(vip)))?;
            let reply = Curl::within(&client.netns).get(&url(vip, nginx::PORT, "/echo"))?;
            ensure!(
                reply.field("name") == Some("b1") && reply.header("x-backend") == Some("b1"),
                "{reply:?}"
            );
            let _echo = UdpEcho::start(b1, &[vip], 7)?;
            let probe = UdpProbe::start(&client.netns, vip, 7, Duration::from_millis(2))?;
            probe.wait_for_more(200)?;
            let tally = probe.finish()?;
            ensure!(tally.lost.is_empty() && tally.by_backend.len() == 1, "{tally:?}");
            ensure!(udp::ask(&client.netns, vip, 7, "hi")? == "b1");
        }
        let file = scene.directory().join("download");
        let target = url(IpAddr::V6(b1.v6), nginx::PORT, "/files/large");
        let before = client.link_counters("eth0")?;
        Curl::within(&client.netns).download(&target, &file)?;
        ensure!(pattern::check_file(&file)? == LARGE);
        let carried = client.link_counters("eth0")? - before;
        ensure!(carried.rx_bytes > LARGE && carried.tx_bytes < LARGE / 4, "{carried:?}");
        let target = url(IpAddr::V4(b1.v4), nginx::PORT, "/put/large");
        let reply = Curl::within(&client.netns).upload(&target, &file)?;
        ensure!(reply.status == 201, "{reply:?}");
        ensure!(pattern::check_file(&nginx.uploaded("large"))? == LARGE);
        Ok(())
    });
}

#[test]
fn servers_say_who_they_are_and_stop_when_dropped() {
    scene::run(|scene| {
        let (client, b2) = (&scene.topology().client.netns, &scene.topology().b2);
        let server = TcpServer::start(b2, 9000, Service::Echo)?;
        let echo = EchoClient::connect(client, b2.v4.into(), 9000)?;
        ensure!(echo.backend == "b2");
        echo.exchange("something")?;
        ensure!(server.accepted() == 1 && server.received() == 10);
        drop(server);
        ensure!(echo.exchange("more").is_err(), "the connection outlived its server");
        ensure!(connect(client, b2.v4.into(), 9000).is_err(), "the listener outlived its server");
        Ok(())
    });
}

/// The leak check is itself under test: an orphan must be found, named, and ended.
#[test]
fn what_is_left_behind_is_named() {
    if !lb_tests::requirement::is_met() {
        return;
    }
    let mut orphan = None;
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        scene::run(|scene| {
            let netns = &scene.topology().b1.netns;
            orphan = Some(netns.command("sleep").arg("1000").spawn()?);
            wait::until("orphan", PATIENCE, || (!netns.processes().is_empty()).then_some(()))
        });
    }));
    let status = orphan.as_mut().map(std::process::Child::wait);
    let message = panic.err().and_then(|panic| panic.downcast::<String>().ok()).unwrap_or_default();
    assert!(message.contains("sleep 1000"), "{message}");
    assert!(matches!(status, Some(Ok(status)) if !status.success()), "it was not ended: {status:?}");
}
