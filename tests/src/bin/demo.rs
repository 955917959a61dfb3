//! `demo [--seconds N]`: the three ways through the box, live, and what happens when a backend dies.
//!
//! Runs as root, in network namespaces of its own, until Ctrl-C (or N seconds); nothing of it stays.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    net::IpAddr,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_tests::{
    daemon::{Daemon, Decap},
    nginx::Nginx,
    peer::raw_exchange,
    requirement,
    scene::Scene,
    topology::{Topology, VIP_V4},
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

const CONFIG: &str = r#"
[xdp]
interfaces = ["eth0"]

[vip.web]                              # L4: XDP sends each packet on, the answer goes straight back
address = ["192.0.2.10", "2001:db8:10::10"]
ports = ["80/tcp"]
forward = "ipip"
pool = "packets"

[listener.relay]                       # TCP: connections end here, bytes are spliced
bind = ["10.77.0.2:9000"]
protocol = "tcp"
pool = "connections"

[listener.web]                         # HTTP: requests are routed one by one
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "connections"

[pool.packets]
balance = "maglev"
backends = ["10.77.0.11", "10.77.0.12"]
health = { tcp = "80", every = "500ms", timeout = "300ms", fall = 2, rise = 2 }

[pool.connections]
backends = ["10.77.0.11:80", "10.77.0.12:80"]
health = { tcp = "auto", every = "500ms", timeout = "300ms", fall = 2, rise = 2 }
"#;

/// What every request fetches: large enough to be worth splicing.
const BODY: u64 = 256 << 10;
/// Between two requests of one way.
const PACE: Duration = Duration::from_millis(60);
/// From one turn of the story to the next when nobody set an end.
const CHAPTER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let seconds = arguments()?;
    if let Some(missing) = requirement::missing() {
        bail!("it cannot run here: {missing}");
    }
    let stop = Arc::<AtomicBool>::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let scene = Scene::create().context("making the namespaces")?;
    let told = tell(&scene, &stop, seconds);
    // Both matter: why it ended, and whether it ended clean.
    let gone = scene.finish();
    told?;
    gone?;
    let _ = writeln!(io::stdout(), "Everything that was made for this is gone again.");
    Ok(())
}

fn arguments() -> Result<Option<Duration>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        ["--seconds", n] => Ok(Some(Duration::from_secs(n.parse().context("--seconds wants a number")?))),
        _ => bail!("usage: demo [--seconds N]"),
    }
}

/// One of the three ways, as a client sees it.
#[derive(Debug)]
struct Way {
    name: &'static str,
    address: IpAddr,
    port: u16,
    tally: Mutex<Tally>,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    by_backend: BTreeMap<String, u64>,
    failed: u64,
}

impl Way {
    fn new(name: &'static str, address: impl Into<IpAddr>, port: u16) -> Self {
        Self { name, address: address.into(), port, tally: Mutex::default() }
    }

    /// Asks again and again, until told to stop.
    fn drive(&self, topology: &Topology, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let answer = self.ask(topology);
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(backend) => *tally.by_backend.entry(backend).or_default() += 1,
                Err(_) => tally.failed += 1,
            }
            drop(tally);
            thread::sleep(PACE);
        }
    }

    /// One request on a connection of its own; gives the name of the backend that answered.
    fn ask(&self, topology: &Topology) -> Result<String> {
        let request = b"GET /files/body HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";
        let answer = raw_exchange(&topology.client.netns, self.address, self.port, request)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
        let head = String::from_utf8_lossy(&answer[..end]);
        if !head.starts_with("HTTP/1.1 200") || (answer.len() - end - 4) as u64 != BODY {
            bail!("{head}");
        }
        let named = |line: &str| line.strip_prefix("X-Backend: ").map(str::to_owned);
        head.lines().find_map(named).context("no name")
    }

    fn seen(&self) -> String {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |name| tally.by_backend.get(name).copied().unwrap_or(0);
        format!("b1 {:>5}   b2 {:>5}   failed {:>2}", of("b1"), of("b2"), tally.failed)
    }
}

/// Sets the stage, runs the traffic and the story; everything in it ends before this returns.
fn tell(scene: &Scene, stop: &AtomicBool, seconds: Option<Duration>) -> Result<()> {
    let topology = scene.topology();
    let mut screen = Screen::new();
    screen.say("A client, a load balancer and two backends (b1, b2: nginx), each in a network namespace, on one switch.");
    let mut servers = [start_backend(scene, 0)?, start_backend(scene, 1)?];
    let _decap = [Decap::start(scene, &topology.b1)?, Decap::start(scene, &topology.b2)?];
    let mut daemon = Daemon::start(scene, CONFIG)?;
    for host in topology.backends() {
        daemon.wait_until_up(host.v4.into(), true, PATIENCE)?;
    }
    let status = daemon.status()?;
    let mode = status["xdp"]["interfaces"][0]["mode"].as_str().unwrap_or("?");
    screen.say(&format!("lb runs: XDP is {mode} on eth0, a worker with its own io_uring on each core."));
    screen
        .say("  L4    192.0.2.10:80   XDP wraps each packet for a backend; the answer never comes back here");
    screen.say("  TCP   10.77.0.2:9000  the connection ends here; bytes go on by splice");
    screen.say("  HTTP  10.77.0.2:8080  each request is read, and goes to a backend over a kept connection");
    screen.say("Three clients ask for 256 KiB, about fifteen times a second each.");

    let ways = [
        Way::new("L4", VIP_V4, 80),
        Way::new("TCP", topology.lb.v4, 9000),
        Way::new("HTTP", topology.lb.v4, 8080),
    ];
    let idle = AtomicBool::new(false);
    thread::scope(|scope| {
        for way in &ways {
            scope.spawn(|| way.drive(topology, &idle));
        }
        let mut story = Story::new(seconds);
        let result = story.run(scene, &daemon, &ways, &mut servers, &mut screen, stop);
        idle.store(true, Ordering::Relaxed);
        result
    })?;
    screen.say("SIGTERM: the daemon drains and ends; XDP goes on until `lb detach`.");
    daemon.process().signal(Signal::TERM)?;
    let status = daemon.process().wait_for_exit(PATIENCE)?;
    let [l4, ..] = &ways;
    let backend = l4.ask(topology).context("L4 with the daemon gone")?;
    screen.say(&format!("  it ended with {status}, and {backend} still answers through the VIP."));
    Ok(())
}

fn start_backend(scene: &Scene, index: usize) -> Result<Option<Nginx>> {
    let nginx = Nginx::start(scene, scene.topology().backends()[index])?;
    nginx.offer("body", BODY)?;
    Ok(Some(nginx))
}

/// Kills b1 and brings it back, again and again.
struct Story {
    began: Instant,
    end: Option<Duration>,
    chapter: Duration,
}

impl Story {
    /// With an end, death and return fit in by thirds.
    fn new(end: Option<Duration>) -> Self {
        Self { began: Instant::now(), end, chapter: end.map_or(CHAPTER, |end| end / 3) }
    }

    fn is_over(&self, stop: &AtomicBool) -> bool {
        stop.load(Ordering::Relaxed) || self.end.is_some_and(|end| self.began.elapsed() >= end)
    }

    fn run(
        &mut self,
        scene: &Scene,
        daemon: &Daemon<'_>,
        ways: &[Way; 3],
        servers: &mut [Option<Nginx>; 2],
        screen: &mut Screen,
        stop: &AtomicBool,
    ) -> Result<()> {
        let b1 = IpAddr::V4(scene.topology().b1.v4);
        let mut alive = true;
        loop {
            let next = Instant::now() + self.chapter;
            while Instant::now() < next {
                if self.is_over(stop) {
                    return Ok(());
                }
                screen.show(&counters(daemon, ways)?);
                pause(Duration::from_secs(1).min(next - Instant::now().min(next)), stop);
            }
            if self.is_over(stop) {
                return Ok(());
            }
            alive = !alive;
            let began = Instant::now();
            if alive {
                screen.say("b1 is started again.");
                servers[0] = start_backend(scene, 0)?;
            } else {
                screen.say("b1 is killed (SIGKILL).");
                servers[0] = None;
            }
            daemon.wait_until_up(b1, alive, PATIENCE)?;
            let took = began.elapsed().as_secs_f32();
            screen.say(&if alive {
                format!("  after {took:.1} s its checks have passed, and it has its share again in both worlds.")
            } else {
                format!("  after {took:.1} s its checks have failed: the workers pass it over, and its slots of the Maglev table are b2's.")
            });
        }
    }
}

/// Waits, but not beyond a request to stop.
fn pause(time: Duration, stop: &AtomicBool) {
    // Running out of time is what is expected here.
    let _ = wait::until("stop", time, || stop.load(Ordering::Relaxed).then_some(()));
}

/// What clients saw, and what the box counted, by way.
fn counters(daemon: &Daemon<'_>, ways: &[Way; 3]) -> Result<Vec<String>> {
    let (vips, listeners) = (daemon.show("vips")?, daemon.show("listeners")?);
    let (backends, workers) = (daemon.show("backends")?, daemon.show("workers")?);
    let (vip, web) = (vips.row("vip", "web")?, listeners.row("listener", "web")?);
    let relay = listeners.row("listener", "relay")?;
    let counted = [
        format!(
            "{} packets in, {} flows; {} of bodies went past",
            vip.number("packets")?,
            vip.number("new_flows")?,
            size(vip.number("new_flows")? * BODY)
        ),
        format!(
            "{} connections, {} spliced by all workers",
            relay.number("accepted")?,
            size(workers.sum("spliced_bytes")?)
        ),
        format!(
            "{} requests, {} upstream connections reused",
            web.number("requests")?,
            backends.sum("reuses")?
        ),
    ];
    let mut lines: Vec<String> = ways
        .iter()
        .zip(counted)
        .map(|(way, counted)| format!("{:<5} {} | {counted}", way.name, way.seen()))
        .collect();
    let mut states = Vec::new();
    for row in backends.rows() {
        let state = if row.is_up()? { "up" } else { "DOWN" };
        states.push(format!("{}/{} {state}", row.text("pool")?, row.text("backend")?));
    }
    lines.push(format!("      {}", states.join("   ")));
    Ok(lines)
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Lines that stay, above a block that is written anew; without a terminal, plain lines.
struct Screen {
    is_terminal: bool,
    block: usize,
    began: Instant,
}

impl Screen {
    fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), block: 0, began: Instant::now() }
    }

    /// A line that stays.
    fn say(&mut self, line: &str) {
        self.erase();
        self.write(&[format!("[{:5.1} s] {line}", self.began.elapsed().as_secs_f32())]);
        self.block = 0;
    }

    /// The block of counters.
    fn show(&mut self, lines: &[String]) {
        self.erase();
        self.write(lines);
        self.block = lines.len();
    }

    fn erase(&self) {
        if self.is_terminal && self.block > 0 {
            let _ = write!(io::stdout(), "\x1b[{}A\x1b[J", self.block);
        }
    }

    fn write(&self, lines: &[String]) {
        // A reader that has gone away is no reason to leave namespaces behind.
        let mut out = io::stdout().lock();
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    }
}
