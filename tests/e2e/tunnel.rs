//! Health checks of DSR backends go the way of traffic: one that does not take our packets apart, or does not hold
//! the VIP, is down, whatever its own address answers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::{Daemon, Decap},
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::{Host, VIP_V4, VIP_V6},
    wait::PATIENCE,
};

/// A few probes, each with its time-out, on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

fn config(forward: &str, backends: [String; 2]) -> String {
    format!(
        r#"
[xdp]
interfaces = ["eth0"]

[vip.echo]
address = ["{VIP_V4}", "{VIP_V6}"]
ports = ["9000/tcp"]
forward = "{forward}"
pool = "echo"

[pool.echo]
backends = {backends:?}
health = {{ tcp = "9000", every = "200ms", timeout = "150ms", fall = 2, rise = 2 }}
"#
    )
}

/// Its service answers on its own address.
fn answers(scene: &Scene, host: &Host) -> Result<()> {
    let client = &scene.topology().client.netns;
    for address in [host.v4.into(), host.v6.into()] {
        EchoClient::connect(client, address, 9000)?.exchange("its own address")?;
    }
    Ok(())
}

fn story(
    scene: &Scene,
    daemon: &Daemon<'_>,
    like: std::net::IpAddr,
    break_b1: impl FnOnce() -> Result<()>,
    mend_b1: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let [b1, b2] = scene.topology().backends();
    let b1_is = |up, when| daemon.wait_until_up(b1.address(like), up, LIMIT).context(when);
    b1_is(true, "at first")?;
    break_b1()?;
    b1_is(false, "once its way is broken")?;
    answers(scene, b1)?;
    ensure!(daemon.is_up(b2.address(like))? == Some(true), "the other backend went down, too");
    mend_b1()?;
    b1_is(true, "once its way is mended")
}

fn ipip(like: std::net::IpAddr) {
    scene::run(|scene| {
        let [b1, b2] = scene.topology().backends();
        let servers =
            [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?];
        let _second = Decap::start(scene, b2)?;
        let first = std::cell::RefCell::new(Some(Decap::start(scene, b1)?));
        let backends = [b1, b2].map(|host| host.address(like).to_string());
        let daemon = Daemon::start(scene, &config("ipip", backends))?;
        let break_it = || {
            *first.borrow_mut() = None;
            Ok(())
        };
        let mend = || {
            *first.borrow_mut() = Some(Decap::start(scene, b1)?);
            Ok(())
        };
        story(scene, &daemon, like, break_it, mend)?;
        // A probe is a connection to the VIP that is reset once it stands: the service sees it and goes on.
        let before = servers[1].accepted();
        lb_tests::wait::until("more probes", PATIENCE, || {
            (servers[1].accepted() > before + 2).then_some(())
        })?;
        // Traffic is not touched by what the probes do.
        let vip = if like.is_ipv4() { VIP_V4.into() } else { VIP_V6.into() };
        for _ in 0..8 {
            EchoClient::connect(&scene.topology().client.netns, vip, 9000)?.exchange("by the VIP")?;
        }
        Ok(())
    });
}

#[test]
fn a_backend_that_takes_nothing_apart_is_down() {
    ipip(VIP_V4.into());
}

#[test]
fn the_same_over_ipv6() {
    ipip(VIP_V6.into());
}

#[test]
fn a_backend_without_the_vip_is_down() {
    scene::run(|scene| {
        let [b1, b2] = scene.topology().backends();
        let _servers =
            [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?];
        let backends = [b1, b2].map(|host| host.v4.to_string());
        let daemon = Daemon::start(scene, &config("l2dsr", backends))?;
        let addresses = |verb: &str| b1.netns.ip(&format!("addr {verb} {VIP_V4}/32 dev lo"));
        story(scene, &daemon, VIP_V4.into(), || addresses("del"), || addresses("add"))
    });
}
