//! Large bodies through the `tcp` and the `http` listener, and half-closed connections.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    pattern::{self, LARGE},
    peer::{EchoClient, Service, TcpServer, connect},
    scene,
    wait::{self, PATIENCE},
};

const CONFIG: &str = r#"
[listener.source]
bind = ["10.77.0.2:9001", "[fd77::2]:9001"]
protocol = "tcp"
pool = "source"

[listener.sink]
bind = ["10.77.0.2:9002", "[fd77::2]:9002"]
protocol = "tcp"
pool = "sink"

[listener.echo]
bind = ["10.77.0.2:9003"]
protocol = "tcp"
pool = "echo"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[pool.source]
backends = ["10.77.0.11:9001"]

[pool.sink]
backends = ["10.77.0.12:9002"]

[pool.echo]
backends = ["10.77.0.11:9003", "10.77.0.12:9003"]

[pool.web]
backends = ["10.77.0.11:80"]
"#;

/// Runs `work`, and meanwhile looks for kernel-made workers of the daemon's rings: one would mean that an
/// operation blocked, and that a thread per connection does what the worker was to do.
fn without_ring_workers<T>(daemon: &Daemon<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) && seen.is_empty() {
                seen = daemon.ring_workers();
                thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().unwrap_or_else(|_| vec!["the watcher panicked".to_owned()]);
        ensure!(seen.is_empty(), "threads of the daemon: {seen:?}");
        result
    })
}

#[test]
fn tcp_carries_64_mib_both_ways_by_splice() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _source = TcpServer::start(&topology.b1, 9001, Service::Source(LARGE))?;
        let _sink = TcpServer::start(&topology.b2, 9002, Service::Sink)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let client = &topology.client.netns;
        let spliced = || daemon.show("workers")?.sum("spliced_bytes");

        without_ring_workers(&daemon, || {
            let mut stream = connect(client, topology.lb.v4.into(), 9001)?;
            ensure!(pattern::check(&mut stream)? == LARGE, "the download is short");
            Ok(())
        })?;
        let down = spliced()?;
        ensure!(down > LARGE / 2, "only {down} bytes of the download were spliced");

        without_ring_workers(&daemon, || {
            let mut stream = connect(client, topology.lb.v6.into(), 9002)?;
            pattern::write(&mut stream, LARGE)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer == format!("ok {LARGE}\n"), "{answer}");
            Ok(())
        })?;
        let up = spliced()? - down;
        ensure!(up > LARGE / 2, "only {up} bytes of the upload were spliced");
        let stray = daemon.show("workers")?.sum("completions_stray")?;
        ensure!(stray == 0, "{stray} stray completions");
        Ok(())
    });
}

#[test]
fn each_side_may_end_while_the_other_goes_on() {
    scene::run(|scene| {
        let topology = scene.topology();
        let source = TcpServer::start(&topology.b1, 9001, Service::Source(100_000))?;
        let _echo = TcpServer::start(&topology.b1, 9003, Service::Echo)?;
        let _other = TcpServer::start(&topology.b2, 9003, Service::Echo)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let client = &topology.client.netns;

        // The backend ends first; the client still has something to say.
        let mut stream = connect(client, topology.lb.v4.into(), 9001)?;
        ensure!(pattern::check(&mut stream)? == 100_000);
        pattern::write(&mut stream, 1 << 20)?;
        stream.shutdown(Shutdown::Write)?;
        wait::until("rest at the backend", PATIENCE, || (source.received() == 1 << 20).then_some(()))?;

        // The client ends first; the backend still has all of it to send back.
        let mut stream = connect(client, topology.lb.v4.into(), 9003)?;
        stream.write_all(&[b'x'; 50_000])?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.len() == 50_000 + "b1\n".len(), "{} bytes came back", answer.len());

        // New connections go round.
        let names =
            [0; 8].map(|_| EchoClient::connect(client, topology.lb.v4.into(), 9003).map(|c| c.backend));
        let names: Vec<String> = names.into_iter().collect::<Result<_>>()?;
        ensure!(names.iter().any(|n| n == "b1") && names.iter().any(|n| n == "b2"), "{names:?}");
        wait::until_ok("end of the connections", PATIENCE, || {
            let open = daemon.show("listeners")?.sum("open")?;
            ensure!(open == 0, "{open} connections still open");
            Ok(())
        })
    });
}

#[test]
fn http_carries_64_mib_both_ways() {
    scene::run(|scene| {
        let topology = scene.topology();
        let nginx = Nginx::start(scene, &topology.b1)?;
        nginx.offer("large", LARGE)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let file = scene.directory().join("download");
        let curl = || Curl::within(&topology.client.netns);
        let to = |path: &str| url(topology.lb.v4.into(), 8080, path);
        without_ring_workers(&daemon, || {
            let reply = curl().download(&to("/files/large"), &file)?;
            ensure!(reply.status == 200 && pattern::check_file(&file)? == LARGE, "{reply:?}");
            let reply = curl().upload(&to("/put/sized"), &file)?;
            ensure!(reply.status == 201, "{reply:?}");
            // Without a length curl sends chunks.
            let reply =
                curl().with(&["-H", "Transfer-Encoding: chunked"]).upload(&to("/put/chunked"), &file)?;
            ensure!(reply.status == 201, "{reply:?}");
            Ok(())
        })?;
        ensure!(pattern::check_file(&nginx.uploaded("sized"))? == LARGE);
        ensure!(pattern::check_file(&nginx.uploaded("chunked"))? == LARGE);
        let listeners = daemon.show("listeners")?;
        let web = listeners.row("listener", "web")?;
        ensure!(web.number("sent_bytes")? >= LARGE && web.number("received_bytes")? >= 2 * LARGE, "{web:?}");
        Ok(())
    });
}
