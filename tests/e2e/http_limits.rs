//! Limits of HTTP that hold over all workers, and what an operator sees of them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    peer,
    scene::{self, Scene},
};

const CONFIG: &str = r#"
[runtime]
workers = 2

[limits]
body_bytes = "100KiB"

[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
connections = 300

[route.limited]
listener = "web"
path = "/limited"
respond = { body = "let through" }
rate_limit = { rate = "1/h", burst = 50, key = "address" }

[route.read]
listener = "web"
path = "/echo"
method = ["GET"]
pool = "nginx"

[route.again]
listener = "web"
path = "/again"
pool = "both"
retry = { on = ["connect", "reset"], attempts = 2 }

[route.put]
listener = "web"
path = "/put/*"
pool = "nginx"

[pool.nginx]
backends = ["10.77.0.11:80"]

[pool.both]
backends = ["10.77.0.11:9", "10.77.0.12:80"]
"#;

/// Statuses of 200 requests, each on a connection of its own, twenty at a time.
fn storm(scene: &Scene) -> Result<BTreeMap<String, u32>> {
    let topology = scene.topology();
    let one = || -> Result<String> {
        let mut stream = peer::connect(&topology.client.netns, topology.lb.v4.into(), 8080)?;
        stream.write_all(b"GET /limited HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).context("no status")?.to_owned())
    };
    let mut statuses = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..20).map(|_| scope.spawn(|| (0..10).map(|_| one()).collect::<Result<Vec<_>>>())).collect();
        for thread in threads {
            for status in thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?? {
                *statuses.entry(status).or_default() += 1;
            }
        }
        Ok(statuses)
    })
}

#[test]
fn limits_of_http_hold_over_workers_and_are_told() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let daemon = Daemon::start(scene, CONFIG)?;
        let statuses = storm(scene)?;
        let expected = BTreeMap::from([("200".to_owned(), 50), ("429".to_owned(), 150)]);
        ensure!(statuses == expected, "{statuses:?}");
        let workers = daemon.show("workers")?;
        let both = workers.rows().iter().map(|row| row.number("accepted")).collect::<Result<Vec<_>>>()?;
        ensure!(both.len() == 2 && both.iter().all(|&accepted| accepted > 20), "{both:?}");
        let metrics = daemon.metrics()?;
        let of = |reason: &str| {
            metrics.sum("lb_listener_closes_total", &["listener=\"web\"", &format!("reason=\"{reason}\"")])
        };
        ensure!(of("rate-limit") == Some(150.0), "{:?}", of("rate-limit"));

        let curl = || Curl::within(&topology.client.netns);
        let to = |path: &str| url(topology.lb.v4.into(), 8080, path);
        let reply = curl().with(&["-X", "DELETE"]).get(&to("/echo"))?;
        ensure!(reply.status == 405 && reply.header("allow") == Some("GET"), "{reply:?}");
        let reply = curl().get(&to("/limited"))?;
        ensure!(reply.status == 429 && reply.header("retry-after").is_some(), "{reply:?}");
        for _ in 0..4 {
            let reply = curl().get(&to("/again"))?;
            ensure!(reply.header("x-backend") == Some("b2"), "{reply:?}");
        }
        let file = scene.directory().join("large");
        std::fs::write(&file, vec![b'x'; 200 << 10])?;
        for options in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]] {
            let reply = curl().with(options).upload(&to("/put/large"), &file)?;
            ensure!(reply.status == 413, "{options:?}: {reply:?}");
        }
        let drops = daemon.show("drops")?;
        let row = drops.matching("plane", "worker");
        let row = row.iter().find(|row| row.text("reason").is_ok_and(|reason| reason == "body-too-large"));
        let row = row.context("no such reason")?.json();
        ensure!(row["listeners"]["web"] == 3, "{row}");
        Ok(())
    });
}
