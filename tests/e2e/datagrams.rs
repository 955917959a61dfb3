//! udp listeners: echoes, and the real dnsmasq asked by the real dig.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::{
    daemon::Daemon,
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    topology::Host,
    udp::{self, UdpEcho, UdpProbe},
    wait::PATIENCE,
};

const CONFIG: &str = r#"
[listener.echo]
bind = ["10.77.0.2:7", "[fd77::2]:7"]
protocol = "udp"
pool = "echo"

[listener.names]
bind = ["0.0.0.0:53", "[::]:53"]
protocol = "udp"
pool = "names"
idle = "5s"
replies = 1

[listener.long-names]
bind = ["0.0.0.0:53", "[::]:53"]
protocol = "tcp"
pool = "names"

[pool.echo]
backends = ["10.77.0.11:7", "[fd77::12]:7"]

[pool.names]
backends = ["10.77.0.11:53", "10.77.0.12:53"]
"#;

#[test]
fn a_flow_stays_until_its_backend_goes() {
    scene::run(|scene| {
        let topology = scene.topology();
        let b1 = UdpEcho::start(&topology.b1, &[topology.b1.v4.into()], 7)?;
        let _b2 = UdpEcho::start(&topology.b2, &[topology.b2.v6.into()], 7)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let client = &topology.client.netns;
        let addresses: [IpAddr; 2] = [topology.lb.v4.into(), topology.lb.v6.into()];
        for address in addresses {
            let names: BTreeSet<String> =
                (0..16).map(|_| udp::ask(client, address, 7, "hi")).collect::<Result<_>>()?;
            ensure!(names.len() == 2, "{address}: only {names:?} answered");
        }
        let probe = UdpProbe::start(client, addresses[0], 7, Duration::from_millis(1))?;
        probe.wait_for_more(300)?;
        let tally = probe.finish()?;
        ensure!(tally.lost.is_empty() && tally.by_backend.len() == 1, "{tally:?}");

        // A backend that is gone says so by ICMP; whoever asks again gets the other one.
        drop(b1);
        let mut failures = 0;
        for _ in 0..16 {
            failures += usize::from(udp::ask(client, addresses[1], 7, "hi").is_err());
        }
        ensure!(failures <= 2, "{failures} of 16 were not answered");
        let metrics = daemon.metrics()?;
        let refused = metrics.sum("lb_worker_closes_total", &["reason=\"connect-failed\""]);
        ensure!(refused.is_some_and(|count| (1.0..=2.0).contains(&count)), "{refused:?}");
        let listeners = daemon.show("listeners")?;
        let echo = listeners.row("listener", "echo")?;
        let (received, sent) = (echo.number("received_datagrams")?, echo.number("sent_datagrams")?);
        ensure!(received >= 300 + 48 && received - sent <= 2, "{received} came, {sent} went");
        Ok(())
    });
}

/// Knows `who.test`, which is the host itself, and a text of a kilobyte.
fn serve(scene: &Scene, host: &Host) -> Result<Process> {
    let (address, long) = (host.v4.to_string(), vec!["x".repeat(250); 4].join(","));
    let mut command = host.netns.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--group=root",
        "--pid-file",
    ]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--port=53"]);
    command.arg(format!("--listen-address={address}")).arg(format!("--address=/who.test/{address}"));
    command.arg(format!("--txt-record=long.test,{long}"));
    let mut server = Process::spawn("dnsmasq", command, &scene.log(&format!("dnsmasq-{}", host.name)))?;
    server.wait_until("answering dnsmasq", PATIENCE, || {
        let answer = dig(host, &address, &["who.test"])?;
        ensure!(answer.trim() == address, "{answer:?}");
        Ok(())
    })?;
    Ok(server)
}

fn dig(host: &Host, server: &str, question: &[&str]) -> Result<String> {
    let mut command = host.netns.command("dig");
    command.args(["+short", "+tries=1", "+time=2", &format!("@{server}")]).args(question);
    process::run(command, PATIENCE)?.success()
}

#[test]
fn names_are_found_over_udp_and_long_answers_over_tcp() {
    if !requirement::is_there("dnsmasq", "dnsmasq-base") || !requirement::is_there("dig", "bind9-dnsutils") {
        return;
    }
    scene::run(|scene| {
        let topology = scene.topology();
        let _servers = [serve(scene, &topology.b1)?, serve(scene, &topology.b2)?];
        let daemon = Daemon::start(scene, CONFIG)?;
        let client = &topology.client;
        for server in [topology.lb.v4.to_string(), topology.lb.v6.to_string()] {
            let answers: BTreeSet<String> =
                (0..6).map(|_| dig(client, &server, &["who.test"])).collect::<Result<_>>()?;
            let expected: BTreeSet<String> =
                [topology.b1.v4, topology.b2.v4].iter().map(|address| format!("{address}\n")).collect();
            ensure!(answers == expected, "{answers:?}");
            // By UDP it is cut off, and dig asks again by TCP.
            let long = dig(client, &server, &["+noedns", "long.test", "TXT"])?;
            ensure!(long.matches('x').count() == 1000, "{long}");
        }
        let listeners = daemon.show("listeners")?;
        let names = listeners.row("listener", "names")?;
        for (key, expected) in
            [("accepted", 14), ("received_datagrams", 14), ("sent_datagrams", 14), ("open", 0)]
        {
            ensure!(names.number(key)? == expected, "{key}: {names:?}");
        }
        ensure!(listeners.row("listener", "long-names")?.number("accepted")? == 2);
        Ok(())
    });
}
