//! The daemon is killed and comes back: L4 goes on in between.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::{Daemon, Decap},
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::{VIP_V4, VIP_V6, VIPS},
    udp::{UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
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
    scene::run_alone(|scene| {
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

/// Connections that never rest while daemons come and go.
const BUSY: usize = 16;
/// Between two exchanges of one: the machine has other work, such as taking a killed daemon's rings down.
const PAUSE: Duration = Duration::from_millis(5);
/// Each of them is killed, or asked to end, while the packets of all flows run through its program.
const DAEMONS: usize = 4;

#[test]
fn daemons_replace_one_another_under_load_and_no_flow_notices() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let client = &topology.client.netns;
        let [b1, b2] = topology.backends();
        let _tcp = [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?];
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let first = Daemon::start(scene, CONFIG)?;
        let probe = UdpProbe::start(client, VIP_V4.into(), 7, Duration::from_millis(1))?;
        let flows: Result<Vec<_>> =
            (0..BUSY).map(|at| EchoClient::connect(client, VIPS[at % VIPS.len()], 9000)).collect();
        let flows = flows?;
        let (stop, exchanges) = (AtomicBool::new(false), AtomicUsize::new(0));
        let spin = |flow: &EchoClient| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                flow.exchange("while daemons come and go")?;
                exchanges.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        let outcomes = thread::scope(|scope| {
            let spinning: Vec<_> = flows.iter().map(|flow| scope.spawn(|| spin(flow))).collect();
            let outcome = successions(scene, first, &exchanges);
            stop.store(true, Ordering::Relaxed);
            let ended = spinning.into_iter().map(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            std::iter::once(outcome).chain(ended.collect::<Vec<_>>()).collect::<Vec<_>>()
        });
        for (at, outcome) in outcomes.into_iter().enumerate() {
            outcome.with_context(|| format!("part {at} of {BUSY} flows and their daemons"))?;
        }
        let tally = probe.finish()?;
        ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
        ensure!(tally.by_backend.len() == 1, "the flow moved: {tally:?}");
        Ok(())
    });
}

/// One daemon after the other; each finds the program of the one before and puts its own in its place.
fn successions(scene: &Scene, first: Daemon<'_>, exchanges: &AtomicUsize) -> Result<()> {
    let more = || {
        let before = exchanges.load(Ordering::Relaxed);
        let is_more = || (exchanges.load(Ordering::Relaxed) > before + 4 * BUSY).then_some(());
        wait::until("exchanges of all flows", PATIENCE, is_more)
    };
    let mut daemon = first;
    for at in 0..DAEMONS {
        more()?;
        if at % 2 == 0 {
            daemon.process().kill();
        } else {
            daemon.process().signal(rustix::process::Signal::TERM)?;
            let status = daemon.process().wait_for_exit(PATIENCE)?;
            ensure!(status.code() == Some(0), "{status}");
        }
        more().context("with nobody at home")?;
        daemon = Daemon::start(scene, CONFIG)?;
        let status = daemon.status()?;
        ensure!(status["xdp"]["interfaces"][0]["adopted"] == true, "{status}");
        let drops = daemon.show("drops")?;
        for row in drops.matching("plane", "xdp") {
            let (reason, count) = (row.text("reason")?, row.number("count")?);
            ensure!(count == 0 || reason == "no-neighbour", "{count} packets dropped as {reason}");
        }
    }
    more()
}
