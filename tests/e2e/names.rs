//! Backends by name: dnsmasq answers, changes its answers, and dies.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    netns::Namespace,
    nginx::Nginx,
    peer::raw_exchange,
    process::Process,
    requirement,
    scene::{self, Scene},
    topology::Host,
    wait::{self, PATIENCE},
};
use rustix::process::Signal;

const CONFIG: &str = r#"
[runtime]
workers = 1

[dns]
servers = ["10.77.0.2:5300"]
families = ["ipv4"]
timeout = "200ms"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[listener.weighed]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "weighed"

[listener.unknown]
bind = ["10.77.0.2:8082"]
protocol = "http"
pool = "unknown"

[pool.web]
backends = ["app.test:80"]
health = { tcp = "auto", every = "200ms", timeout = "200ms", fall = 2, rise = 1 }

[pool.weighed]
backends = ["srv:_http._tcp.app.test"]

[pool.unknown]
backends = ["nowhere.test:80"]
"#;

/// On the load balancer itself, for whatever ends in `test`.
struct Dns {
    process: Process,
    hosts: PathBuf,
}

impl Dns {
    fn start(scene: &Scene) -> Result<Self> {
        let host = &scene.topology().lb;
        let hosts = scene.directory().join("hosts");
        let fixed = "10.77.0.11 b1.test\n10.77.0.12 b2.test\n";
        fs::write(&hosts, format!("{fixed}10.77.0.11 app.test\n"))?;
        let mut command = host.netns.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=root",
            "--pid-file",
        ]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--port=5300", "--local=/test/"]);
        command
            .args(["--listen-address=10.77.0.2", "--local-ttl=1"])
            .arg(format!("--addn-hosts={}", hosts.display()));
        for (target, weight) in [("b1.test", 30), ("b2.test", 10)] {
            command.arg(format!("--srv-host=_http._tcp.app.test,{target},80,1,{weight}"));
        }
        Ok(Self { process: Process::spawn("dnsmasq", command, &scene.log("dnsmasq"))?, hosts })
    }

    /// From now on the name has these addresses.
    fn answer(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address} app.test\n"));
        let fixed = "10.77.0.11 b1.test\n10.77.0.12 b2.test\n";
        fs::write(&self.hosts, fixed.to_owned() + &lines.collect::<String>())?;
        self.process.signal(Signal::HUP)
    }
}

fn get(client: &Namespace, lb: &Host, port: u16) -> Result<String> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8(raw_exchange(client, IpAddr::V4(lb.v4), port, request)?)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

/// What came of each request, in order.
#[derive(Default)]
struct Requests {
    outcomes: Mutex<Vec<Result<String>>>,
    stop: AtomicBool,
}

impl Requests {
    fn send(&self, client: &Namespace, lb: &Host) {
        while !self.stop.load(Ordering::Relaxed) {
            let outcome = get(client, lb, 8080);
            self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
    }

    fn count(&self) -> usize {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Who answered how often, of `some` more from now on.
    fn next(&self, some: usize) -> Result<BTreeMap<String, usize>> {
        // One may be under way.
        let from = self.count() + 1;
        wait::until("some requests", PATIENCE, || (self.count() >= from + some).then_some(()))?;
        let mut names = BTreeMap::new();
        for outcome in &self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)[from..] {
            *names
                .entry(outcome.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?.clone())
                .or_default() += 1;
        }
        Ok(names)
    }
}

#[test]
fn what_a_name_stands_for_changes_under_traffic() {
    if !requirement::is_there("dnsmasq", "dnsmasq-base") {
        return;
    }
    scene::run(|scene| {
        let topology = scene.topology();
        let _servers = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let dns = Dns::start(scene)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        wait_for_backends(&daemon, &["10.77.0.11:80"])?;
        let requests = Requests::default();
        thread::scope(|scope| {
            scope.spawn(|| requests.send(&topology.client.netns, &topology.lb));
            let result = story(scene, &daemon, &requests, dns);
            requests.stop.store(true, Ordering::Relaxed);
            result
        })?;
        let outcomes = requests.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        ensure!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), outcomes.len(), failed.first());
        Ok(())
    });
}

fn wait_for_backends(daemon: &Daemon<'_>, expected: &[&str]) -> Result<()> {
    wait::until_ok("the answer to be taken over", PATIENCE, || {
        let table = daemon.show("backends")?;
        let mut names = table
            .matching("pool", "web")
            .iter()
            .map(|row| row.text("backend"))
            .collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        ensure!(names == expected, "{names:?}");
        Ok(())
    })
}

fn story(scene: &Scene, daemon: &Daemon<'_>, requests: &Requests, mut dns: Dns) -> Result<()> {
    let topology = scene.topology();
    let (client, lb) = (&topology.client.netns, &topology.lb);
    ensure!(requests.next(20)?.keys().eq(["b1"]));
    ensure!(daemon.show("backends")?.matching("pool", "web")[0].text("name")? == "app.test:80");

    dns.answer(&[topology.b1.v4, topology.b2.v4])?;
    wait_for_backends(daemon, &["10.77.0.11:80", "10.77.0.12:80"])?;
    let names = requests.next(40)?;
    ensure!(names["b1"].abs_diff(names["b2"]) <= 2, "{names:?}");

    dns.answer(&[topology.b2.v4])?;
    wait_for_backends(daemon, &["10.77.0.12:80"])?;
    let names = requests.next(40)?;
    ensure!(names.keys().eq(["b2"]), "{names:?}");

    let mut weighed = BTreeMap::<String, usize>::new();
    for _ in 0..40 {
        *weighed.entry(get(client, lb, 8081)?).or_default() += 1;
    }
    ensure!(weighed == [("b1".to_owned(), 30), ("b2".to_owned(), 10)].into(), "{weighed:?}");

    let refused = get(client, lb, 8082).err().context("a name that is not there")?.to_string();
    ensure!(refused.contains("HTTP/1.1 503 ") && refused.contains("unresolved"), "{refused}");
    ensure!(daemon.show("names")?.row("name", "nowhere.test:80")?.text("state")? == "no-name");

    dns.process.kill();
    wait::until_ok("lookups to fail", PATIENCE, || {
        let table = daemon.show("names")?;
        let state = table.row("name", "app.test:80")?.text("state")?.to_owned();
        ensure!(["timed-out", "unreachable"].contains(&&*state), "{state}");
        Ok(())
    })?;
    let names = requests.next(40)?;
    ensure!(names.keys().eq(["b2"]), "the last good answer is kept: {names:?}");
    let metrics = daemon.metrics()?;
    let name = "name=\"app.test:80\"";
    ensure!(metrics.sum("lb_names_backends", &[name]) == Some(1.0));
    ensure!(
        metrics.sum("lb_names_lookups_total", &[name, "reason=\"good\""]).is_some_and(|good| good >= 3.0)
    );
    ensure!(metrics.sum("lb_names_answer_age_seconds", &[name]).is_some_and(|age| age > 0.0));
    Ok(())
}
