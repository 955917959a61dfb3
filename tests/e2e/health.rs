//! A backend dies and comes back: both worlds notice, and what need not move stays.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::{Daemon, Decap},
    netns::Namespace,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer, raw_exchange},
    scene::{self, Scene},
    topology::{Host, VIP_V4, VIPS},
    udp::{self, UdpEcho},
    wait::{self, PATIENCE},
};

const EVERY: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(200);
const FALL: u32 = 2;
/// From a verdict to the last slot that it changes, on a busy machine.
const TABLE_LIMIT: Duration = Duration::from_millis(300);

/// From a death to the verdict: the probe under way may just have succeeded, then `fall` fail, the last one
/// by its time-out. The rest is what a busy machine takes to run a probe, store a verdict, and be asked.
fn verdict_limit() -> Duration {
    EVERY * FALL + TIMEOUT + Duration::from_millis(500)
}

fn config() -> String {
    let health = |tcp| {
        format!(
            r#"health = {{ tcp = "{tcp}", every = "400ms", timeout = "200ms", fall = {FALL}, rise = 2 }}"#
        )
    };
    format!(
        r#"
[xdp]
interfaces = ["eth0"]

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[vip.echo]
address = ["{VIP_V4}"]
ports = ["9000/tcp", "7/udp"]
forward = "ipip"
pool = "echo"

[pool.web]
backends = ["10.77.0.11:80", "10.77.0.12:80"]
{}

[pool.echo]
backends = ["10.77.0.11", "10.77.0.12"]
{}
"#,
        health("auto"),
        health("80")
    )
}

/// Everything that dies with a backend.
struct Servers {
    _nginx: Nginx,
    _tcp: TcpServer,
    _udp: UdpEcho,
}

impl Servers {
    fn start(scene: &Scene, host: &Host) -> Result<Self> {
        Ok(Self {
            _nginx: Nginx::start(scene, host)?,
            _tcp: TcpServer::start(host, 9000, Service::Echo)?,
            _udp: UdpEcho::start(host, &VIPS[..1], 7)?,
        })
    }
}

/// One request after the other; what came of each, by when it began.
struct Requests {
    outcomes: Mutex<Vec<(Instant, Result<String>)>>,
    stop: AtomicBool,
}

impl Requests {
    fn send(&self, client: &Namespace, lb: &Host) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let outcome = get(client, lb);
            self.lock().push((began, outcome));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Result<String>)>> {
        self.outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Requests that failed though they began after `since`, and the names of those that answered.
    fn since(&self, since: Instant) -> (Vec<String>, BTreeSet<String>, usize) {
        let outcomes = self.lock();
        let later: Vec<_> = outcomes.iter().filter(|(began, _)| *began > since).collect();
        let failed = later.iter().filter_map(|(_, o)| o.as_ref().err().map(|e| format!("{e:#}"))).collect();
        let names = later.iter().filter_map(|(_, o)| o.as_ref().ok().cloned()).collect();
        (failed, names, later.len())
    }
}

fn get(client: &Namespace, lb: &Host) -> Result<String> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw_exchange(client, lb.v4.into(), 8080, request)?;
    let answer = String::from_utf8(answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_dead_backend_leaves_both_worlds_and_returns_to_both() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (client, b1, b2) = (&topology.client.netns, &topology.b1, &topology.b2);
        let mut first = Some(Servers::start(scene, b1)?);
        let _second = Servers::start(scene, b2)?;
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let daemon = Daemon::start(scene, &config())?;
        for host in [b1, b2] {
            daemon.wait_until_up(host.v4.into(), true, PATIENCE)?;
        }
        let requests = Requests { outcomes: Mutex::default(), stop: AtomicBool::new(false) };
        thread::scope(|scope| {
            scope.spawn(|| requests.send(client, &topology.lb));
            let result = story(scene, &daemon, &requests, &mut first);
            requests.stop.store(true, Ordering::Relaxed);
            result
        })
    });
}

fn story(scene: &Scene, daemon: &Daemon<'_>, requests: &Requests, first: &mut Option<Servers>) -> Result<()> {
    let topology = scene.topology();
    let (client, b1) = (&topology.client.netns, &topology.b1);
    let connect = || EchoClient::connect(client, VIP_V4.into(), 9000);
    let flows = wait::until_ok("flows to both backends", PATIENCE, || {
        let flows: Vec<EchoClient> = (0..24).map(|_| connect()).collect::<Result<_>>()?;
        let names: BTreeSet<&str> = flows.iter().map(|flow| &*flow.backend).collect();
        ensure!(names.len() == 2, "{names:?}");
        Ok(flows)
    })?;
    let living: Vec<EchoClient> = flows.into_iter().filter(|flow| flow.backend == "b2").collect();
    let all_answer = |flows: &[EchoClient], when: &str| -> Result<()> {
        flows.iter().try_for_each(|flow| flow.exchange(when)).with_context(|| format!("a flow to b2, {when}"))
    };

    *first = None;
    let death = Instant::now();
    daemon.wait_until_up(b1.v4.into(), false, verdict_limit())?;
    let known = Instant::now();
    // Whoever comes now finds only the living one, on either way. The verdict is shown a moment before the last
    // slot of the table is stored.
    let young = wait::until_ok("XDP to follow the verdict", TABLE_LIMIT, || {
        let young: Vec<EchoClient> = (0..24).map(|_| connect()).collect::<Result<_>>()?;
        ensure!(young.iter().all(|flow| flow.backend == "b2"), "{young:?}");
        Ok(young)
    })?;
    let asked: BTreeSet<String> =
        (0..24).map(|_| udp::ask(client, VIP_V4.into(), 7, "who")).collect::<Result<_>>()?;
    ensure!(asked.iter().eq(["b2"]), "{asked:?}");
    all_answer(&living, "after the death of b1")?;
    wait::until("40 requests", PATIENCE, || (requests.since(known).2 >= 40).then_some(()))?;
    let (failed, names, _) = requests.since(known);
    ensure!(failed.is_empty() && names.iter().eq(["b2"]), "{failed:?} {names:?}");

    *first = Some(Servers::start(scene, b1)?);
    daemon.wait_until_up(b1.v4.into(), true, PATIENCE)?;
    let back = Instant::now();
    wait::until_ok("b1's return", PATIENCE, || {
        ensure!(requests.since(back).1.contains("b1"), "no request goes there");
        ensure!(connect()?.backend == "b1", "no flow goes there");
        Ok(())
    })?;
    all_answer(&living, "after the return of b1")?;
    all_answer(&young, "opened while b1 was down, after its return")?;
    // Between death and verdict connects were refused; the client was never to hear of it.
    let (failed, ..) = requests.since(death);
    ensure!(failed.is_empty(), "{} requests failed: {:?}", failed.len(), failed.first());
    Ok(())
}
