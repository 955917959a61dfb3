//! How pools of listeners choose, limit and keep: keys, cookies, limits, backups.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, Reply, url},
    daemon::Daemon,
    nginx::Nginx,
    peer::{self, EchoClient, Service, TcpServer},
    scene::{self, Scene},
    wait::{self, PATIENCE},
};

const CONFIG: &str = r#"
[listener.keyed]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "keyed"

[listener.sticky]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "sticky"

[listener.limited]
bind = ["10.77.0.2:8082"]
protocol = "http"
pool = "limited"

[listener.relay]
bind = ["10.77.0.2:8083"]
protocol = "tcp"
pool = "relayed"

[listener.spare]
bind = ["10.77.0.2:8084"]
protocol = "http"
pool = "spare"

[pool.keyed]
balance = "maglev"
key = "header:X-User"
backends = ["10.77.0.11:80", "10.77.0.12:80"]

[pool.sticky]
balance = "p2c"
sticky = { cookie = "lb" }
backends = ["10.77.0.11:80", "10.77.0.12:80"]
health = { tcp = "auto", every = "100ms", timeout = "100ms", fall = 1, rise = 1 }

[pool.limited]
max_connections = 1
queue = { length = 0 }
backends = ["10.77.0.11:4000"]

[pool.relayed]
balance = "least-connections"
backends = [{ address = "10.77.0.11:4001", max_connections = 2 }]
queue = { timeout = "1h" }

[pool.spare]
backends = ["10.77.0.11:4002"]
backup = ["10.77.0.12:80"]
slow_start = "1h"
health = { tcp = "auto", every = "100ms", timeout = "100ms", fall = 1, rise = 1 }
"#;

fn get(scene: &Scene, port: u16, field: &str) -> Result<Reply> {
    let topology = scene.topology();
    Curl::within(&topology.client.netns).with(&["-H", field]).get(&url(topology.lb.v4.into(), port, "/"))
}

fn backend(reply: &Reply) -> Result<String> {
    ensure!(reply.status == 200, "{reply:?}");
    Ok(reply.header("x-backend").context("no X-Backend")?.to_owned())
}

/// The keys of the hash are in the state directory.
#[test]
fn keys_lead_to_the_same_backend_after_a_restart() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let homes = || {
            let home = |user: u32| Ok((user, backend(&get(scene, 8080, &format!("X-User: {user}"))?)?));
            (0..16).map(home).collect::<Result<BTreeMap<u32, String>>>()
        };
        let daemon = Daemon::start(scene, CONFIG)?;
        let first = homes()?;
        let seen: BTreeSet<&str> = first.values().map(String::as_str).collect();
        ensure!(seen.into_iter().eq(["b1", "b2"]), "{first:?}");
        ensure!(homes()? == first, "another connection, perhaps another worker");
        let shown = daemon.show("pools")?;
        ensure!(shown.row("pool", "keyed")?.text("key")? == "header:x-user", "{shown:?}");
        drop(daemon);
        let _daemon = Daemon::start(scene, CONFIG)?;
        ensure!(homes()? == first, "after a restart");
        Ok(())
    });
}

#[test]
fn cookies_lead_back_until_the_backend_is_down() {
    scene::run(|scene| {
        let topology = scene.topology();
        let mut nginx = BTreeMap::from([
            ("b1".to_owned(), Nginx::start(scene, &topology.b1)?),
            ("b2".to_owned(), Nginx::start(scene, &topology.b2)?),
        ]);
        let daemon = Daemon::start(scene, CONFIG)?;
        let up = |count: usize| {
            let shown = daemon.show("backends")?;
            let rows = shown.matching("pool", "sticky");
            let up = rows.iter().filter(|row| row.is_up().is_ok_and(|up| up)).count();
            ensure!(up == count, "{up} are up");
            Ok(())
        };
        wait::until_ok("both are up", PATIENCE, || up(2))?;
        let first = get(scene, 8081, "Cookie: lb=forged")?;
        let home = backend(&first)?;
        let cookie = first.header("set-cookie").context("no cookie")?.split(';').next().unwrap_or_default();
        for _ in 0..8 {
            let again = get(scene, 8081, &format!("Cookie: a=b; {cookie}"))?;
            ensure!(backend(&again)? == home && again.header("set-cookie").is_none(), "{again:?}");
        }
        let refused = daemon.metrics()?.sum("lb_worker_refused_cookies_total", &[]);
        ensure!(refused == Some(1.0), "{refused:?}");
        nginx.remove(&home).context("its server")?;
        wait::until_ok("one is down", PATIENCE, || up(1))?;
        let moved = get(scene, 8081, &format!("Cookie: {cookie}"))?;
        ensure!(backend(&moved)? != home && moved.header("set-cookie").is_some(), "{moved:?}");
        Ok(())
    });
}

#[test]
fn limits_hold_and_who_waits_is_shown() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, topology.lb.v4.into());
        let _silent = TcpServer::start(&topology.b1, 4000, Service::Silent)?;
        let echo = TcpServer::start(&topology.b1, 4001, Service::Echo)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let number = |pool: &str, key: &str| {
            let shown = daemon.show("backends")?;
            shown.matching("pool", pool).first().context("no backend")?.number(key)
        };
        let queued = || daemon.show("pools")?.row("pool", "relayed")?.number("queued");

        let mut held = peer::connect(client, lb, 8082)?;
        held.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        wait::until_ok("it is asked", PATIENCE, || {
            ensure!(number("limited", "in_flight")? == 1, "not yet");
            Ok(())
        })?;
        let refused = get(scene, 8082, "X: y")?;
        ensure!(refused.status == 503 && refused.body.contains("queue-full"), "{refused:?}");
        let drops = daemon.show("drops")?;
        let refusals = drops.matching("reason", "queue-full").into_iter();
        let of_requests = refusals.filter(|row| row.text("plane").is_ok_and(|plane| plane == "worker"));
        let counts = of_requests.map(|row| row.number("count")).collect::<Result<Vec<_>>>()?;
        ensure!(counts == [1], "{drops:?}");

        let relays = [EchoClient::connect(client, lb, 8083)?, EchoClient::connect(client, lb, 8083)?];
        relays.iter().try_for_each(|relay| relay.exchange("through"))?;
        let mut waiting = peer::connect(client, lb, 8083)?;
        wait::until_ok("the third waits", PATIENCE, || {
            ensure!(queued()? == 1, "not yet");
            Ok(())
        })?;
        ensure!(echo.accepted() == 2 && number("relayed", "in_flight")? == 2, "{} accepted", echo.accepted());
        drop(relays);
        waiting.read_exact(&mut [0; 1]).context("its turn has come")?;
        ensure!(queued()? == 0 && echo.accepted() == 3, "{} accepted", echo.accepted());
        Ok(())
    });
}

#[test]
fn a_backup_serves_while_nobody_else_is_up() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _nginx = Nginx::start(scene, &topology.b2)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        // Up or not yet found down: it cannot be reached.
        ensure!(backend(&get(scene, 8084, "X: y")?)? == "b2");
        let primary = |key: &str| -> Result<Option<u64>> {
            let shown = daemon.show("backends")?;
            let rows = shown.matching("pool", "spare");
            let row = rows.iter().find(|row| row.text("role").is_ok_and(|role| role == "primary"));
            Ok(row.context("no primary")?.number(key).ok())
        };
        let is_up = |wanted: usize| {
            let up = daemon.show("pools")?.row("pool", "spare")?.number("up")?;
            ensure!(up == wanted as u64, "{up} are up");
            Ok(())
        };
        wait::until_ok("the primary is down", PATIENCE, || is_up(1))?;
        ensure!(backend(&get(scene, 8084, "X: y")?)? == "b2");
        let _back = TcpServer::start(&topology.b1, 4002, Service::Silent)?;
        wait::until_ok("the primary is up", PATIENCE, || is_up(2))?;
        ensure!(primary("share_percent")? == Some(9), "it starts slowly: {:?}", primary("share_percent")?);
        Ok(())
    });
}
