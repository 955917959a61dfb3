//! Many connections for some time, idle and busy ones: nothing grows.
//!
//! `LB_CROWD_SECONDS=300` does with 10 000 idle and 500 busy connections for so long what is otherwise done with fewer for
//! a few seconds.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer, connect},
    scene, tunnel,
    wait::{self, PATIENCE},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::doors::doors;

const CONFIG: &str = concat!(
    doors!(),
    r#"
[limits]
idle_timeout = "1h"
connections_per_ip = 20000

[pool.web]
backends = ["10.77.0.11:80"]
"#
);

/// Growth that is nobody's leak: kept connections come and go, heaps have their grain.
const FILES_SLACK: usize = 80;
const RSS_KIB_SLACK: u64 = 2048;

struct Crowd {
    idle: usize,
    busy: usize,
    /// Of relays, and of tunnels.
    others: usize,
    lasts: Duration,
}

impl Crowd {
    fn asked() -> Result<Self> {
        let Ok(seconds) = std::env::var("LB_CROWD_SECONDS") else {
            return Ok(Self { idle: 400, busy: 60, others: 8, lasts: Duration::from_secs(5) });
        };
        let lasts = Duration::from_secs(seconds.parse().context("LB_CROWD_SECONDS")?);
        Ok(Self { idle: 9_000, busy: 500, others: 30, lasts })
    }
}

/// What the daemon has.
#[derive(Clone, Copy, Debug)]
struct Sample {
    files: usize,
    pipes: usize,
    rss_kib: u64,
}

fn sample(pid: u32) -> Result<Sample> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let targets: Vec<_> = entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let pipes = targets.iter().filter(|target| target.to_string_lossy().starts_with("pipe:")).count();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let rss_kib = rss.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(Sample { files: targets.len(), pipes, rss_kib })
}

fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// Reads an answer of nginx to its end, which its body's newline is.
fn hear(mut stream: &TcpStream) -> Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    while !answer.ends_with(b"\r\n\r\nb1\n") {
        let len = stream.read(&mut buffer)?;
        ensure!(len > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..len]);
        ensure!(answer.len() < 2048, "an answer that does not end: {:?}", String::from_utf8_lossy(&answer));
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Of each third of the time after the first: the most there was.
fn compare(samples: &[Sample]) -> Result<()> {
    let third = samples.len() / 3;
    ensure!(third > 0, "only {} samples", samples.len());
    let most = |of: &[Sample]| {
        let files = of.iter().map(|sample| sample.files).max().unwrap_or(0);
        let pipes = of.iter().map(|sample| sample.pipes).max().unwrap_or(0);
        (files, pipes, of.iter().map(|sample| sample.rss_kib).max().unwrap_or(0))
    };
    let (middle, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
    for at in [0, third, 2 * third, samples.len() - 1] {
        println!("{:?}", samples[at]);
    }
    ensure!(last.0 <= middle.0 + FILES_SLACK, "open files grow: {middle:?}, then {last:?}");
    ensure!(last.1 <= middle.1 + 8, "pipes grow: {middle:?}, then {last:?}");
    ensure!(last.2 <= middle.2 + RSS_KIB_SLACK, "memory grows: {middle:?}, then {last:?}");
    Ok(())
}

#[test]
fn a_crowd_that_stays_costs_no_more_with_time() {
    let whole = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: whole.maximum, ..whole };
    scene::run_alone(|scene| {
        let Crowd { idle, busy, others, lasts } = Crowd::asked()?;
        // The daemon inherits it.
        setrlimit(Resource::Nofile, raised).context("raising the limit of open files")?;
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let _nginx = Nginx::start(scene, &topology.b1)?;
        let _echo = TcpServer::start(&topology.b1, 9003, Service::Echo)?;
        tunnel::agree(&topology.b2, 9100, others)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let pid = daemon.process().pid();
        let before = sample(pid)?;

        let connect_web = || connect(client, lb.v4.into(), 8080);
        let idle: Vec<_> = (0..idle).map(|_| connect_web()).collect::<Result<_>>()?;
        for stream in &idle {
            ask(stream)?;
            hear(stream)?;
        }
        let busy: Vec<_> = (0..busy).map(|_| connect_web()).collect::<Result<_>>()?;
        let relays: Vec<_> =
            (0..others).map(|_| EchoClient::connect(client, lb.v4.into(), 9003)).collect::<Result<_>>()?;
        let tunnels: Vec<_> =
            (0..others).map(|_| tunnel::open(client, lb.v4.into(), 8081)).collect::<Result<_>>()?;

        let (began, mut samples, mut requests) = (Instant::now(), Vec::new(), 0);
        let large = vec![b'x'; 100_000];
        while began.elapsed() < lasts {
            for _ in 0..4 {
                busy.iter().try_for_each(ask)?;
                busy.iter().try_for_each(hear)?;
                requests += busy.len();
            }
            relays.iter().try_for_each(|relay| relay.exchange("still there"))?;
            tunnels.iter().try_for_each(|stream| tunnel::echo(stream, &large))?;
            samples.push(sample(pid)?);
        }
        println!("before {before:?}; {requests} requests in {:?}", began.elapsed());
        compare(&samples)?;

        // Who was idle for all that time is still served.
        for stream in &idle {
            ask(stream)?;
            hear(stream)?;
        }
        drop((idle, busy, relays, tunnels));
        wait::until("an end of all connections", PATIENCE, || {
            let open = daemon.show("listeners").and_then(|table| table.sum("open"));
            open.is_ok_and(|open| open == 0).then_some(())
        })?;
        let after = sample(pid)?;
        println!("after {after:?}");
        // What is left is kept for the backends, and pipes for who comes next.
        let kept = daemon.show("backends")?.sum("idle")?;
        let left = after.files.saturating_sub(after.pipes);
        let base = before.files.saturating_sub(before.pipes);
        ensure!(
            left <= base + kept as usize + 8,
            "{left} files are left, and {kept} are kept; before {base}"
        );
        let stray = daemon.show("workers")?.sum("completions_stray")?;
        ensure!(stray == 0, "{stray} stray completions");
        Ok(())
    });
    let _ = setrlimit(Resource::Nofile, whole);
}
