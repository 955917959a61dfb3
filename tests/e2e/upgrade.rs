//! One process after another at the same sockets, and nobody notices.
//!
//! `LB_UPGRADES=20` does so often what is otherwise done twice.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    admin::Admin,
    daemon::{Daemon, Decap, METRICS},
    keepalive::KeptClient,
    manager::Manager,
    netns::Namespace,
    nginx::Nginx,
    peer::{EchoClient, Service, TcpServer},
    scene::{self, Scene},
    topology::{VIP_V4, VIPS},
    tunnel,
    udp::{UdpEcho, UdpProbe},
    wait::{self, PATIENCE},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::doors::doors;

const CONFIG: &str = concat!(
    doors!(),
    r#"
[upgrade]
drain_timeout = "120s"
max_draining = 64

[listener.datagrams]
bind = ["10.77.0.2:5300"]
protocol = "udp"
pool = "datagrams"

[pool.web]
backends = ["10.77.0.11:80", "10.77.0.12:80"]
health = { http = "/", every = "200ms", fall = 2, rise = 2 }

[pool.datagrams]
backends = ["10.77.0.11:5301"]
"#
);

const XDP: &str = r#"
[xdp]
interfaces = ["eth0"]

[vip.echo]
address = ["192.0.2.10", "2001:db8:10::10"]
ports = ["9000/tcp", "7/udp"]
forward = "ipip"
pool = "vip"

[pool.vip]
backends = ["10.77.0.11", "10.77.0.12"]
"#;

/// Keepalive clients that never rest.
const CLIENTS: usize = 6;
/// Clients that connect anew for every request.
const CALLERS: usize = 2;

fn upgrades() -> Result<usize> {
    std::env::var("LB_UPGRADES").map_or(Ok(2), |text| text.parse().context("LB_UPGRADES"))
}

/// Counters of a namespace's TCP: resets that it sent, connections that a listener had no place for.
fn misfortunes(netns: &Namespace) -> Result<(u64, u64)> {
    let read = |file: &str| netns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")));
    let counter = |text: &str, group: &str, name: &str| -> Result<u64> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        Ok(pairs.find(|(found, _)| *found == name).context("no such counter")?.1.parse()?)
    };
    let resets = counter(&read("snmp")??, "Tcp:", "OutRsts")?;
    Ok((resets, counter(&read("netstat")??, "TcpExt:", "ListenDrops")?))
}

/// Requests that never end while something else is done, which is given how many there were by then.
fn under_load(scene: &Scene, meanwhile: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>) -> Result<usize> {
    let (client, lb) = (&scene.topology().client.netns, &scene.topology().lb);
    let (stop, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let connect = || KeptClient::connect(client, lb.v4.into(), 8080);
    let spin = |keeps: bool| -> Result<()> {
        let mut kept = connect()?;
        while !stop.load(Ordering::Relaxed) {
            if !keeps || kept.is_over() {
                kept = connect()?;
            }
            let (status, body) = kept.get("/")?;
            ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
            requests.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let more = || {
        let goal = requests.load(Ordering::Relaxed) + 20 * (CLIENTS + CALLERS);
        wait::until("requests of all clients", PATIENCE, || {
            (requests.load(Ordering::Relaxed) >= goal).then_some(())
        })
    };
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> =
            (0..CLIENTS + CALLERS).map(|at| scope.spawn(move || spin(at < CLIENTS))).collect();
        let done = meanwhile(&more);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?.context("a client")?;
        }
        done
    })?;
    Ok(requests.load(Ordering::Relaxed))
}

#[test]
fn upgrades_under_load_lose_nothing() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let [b1, b2] = topology.backends();
        let _nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
        let _echo = [TcpServer::start(b1, 9003, Service::Echo)?, TcpServer::start(b1, 9000, Service::Echo)?];
        let _second = TcpServer::start(b2, 9000, Service::Echo)?;
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _relayed = UdpEcho::start(b1, &[b1.v4.into()], 5301)?;
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        let upgrades = upgrades()?;
        tunnel::agree(b2, 9100, upgrades + 1)?;
        let mut daemon = Daemon::start(scene, &format!("{CONFIG}{XDP}"))?;
        let probes = [
            UdpProbe::start(client, VIP_V4.into(), 7, Duration::from_millis(2))?,
            UdpProbe::start(client, lb.v4.into(), 5300, Duration::from_millis(2))?,
        ];
        let mut flows = vec![EchoClient::connect(client, VIP_V4.into(), 9000)?];
        let mut relays = vec![EchoClient::connect(client, lb.v4.into(), 9003)?];
        let mut tunnels = vec![tunnel::open(client, lb.v4.into(), 8081)?];
        let before = misfortunes(&lb.netns)?;
        let metric = |daemon: &Daemon<'_>| -> Result<f64> {
            let requests = daemon.metrics()?.sum("lb_listener_requests_total", &["listener=\"web\""]);
            requests.context("no such series")
        };
        let requests = under_load(scene, |more| {
            for at in 0..upgrades {
                more()?;
                let counted = metric(&daemon)?;
                let pid = daemon.upgrade(None)?;
                let status = daemon.status()?;
                ensure!(status["pid"] == pid, "{status}");
                ensure!(status["draining"].as_array().is_some_and(|all| all.len() == at + 1), "{status}");
                ensure!(metric(&daemon)? >= counted, "a counter fell below {counted}");
                more().with_context(|| format!("after upgrade {at}"))?;
                for ((relay, tunnel), flow) in relays.iter().zip(&tunnels).zip(&flows) {
                    relay.exchange("a relay of an earlier process")?;
                    tunnel::echo(tunnel, b"a tunnel of an earlier process")?;
                    flow.exchange("a flow of an earlier process")?;
                }
                flows.push(EchoClient::connect(client, VIP_V4.into(), 9000)?);
                relays.push(EchoClient::connect(client, lb.v4.into(), 9003)?);
                tunnels.push(tunnel::open(client, lb.v4.into(), 8081)?);
            }
            Ok(())
        })?;
        let after = misfortunes(&lb.netns)?;
        println!("{upgrades} upgrades, {requests} requests");
        ensure!(before == after, "resets and listen drops: {before:?}, then {after:?}");
        for probe in probes {
            let tally = probe.finish()?;
            ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
            ensure!(tally.by_backend.len() == 1, "the flow moved: {tally:?}");
        }
        drop((relays, tunnels, flows));
        let status = daemon.process().wait_for_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        for at in 0..upgrades - 1 {
            ensure!(daemon.has_heir_ended(at, PATIENCE), "process {at} has nothing left and does not end");
        }
        wait::until("end of everything that drains", PATIENCE, || {
            daemon.status().ok()?["draining"].as_array()?.is_empty().then_some(())
        })?;
        daemon.signal_heir(upgrades - 1, Signal::TERM)?;
        ensure!(daemon.has_heir_ended(upgrades - 1, PATIENCE), "the last one does not end");
        Ok(())
    });
}

/// A program of root's that does this.
fn program(scene: &Scene, name: &str, script: &str) -> Result<PathBuf> {
    let path = scene.directory().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn an_upgrade_that_fails_is_noticed_by_nobody_but_who_asked() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let [b1, b2] = topology.backends();
        let _nginx = [Nginx::start(scene, b1)?, Nginx::start(scene, b2)?];
        let _echo = [TcpServer::start(b1, 9000, Service::Echo)?, TcpServer::start(b2, 9000, Service::Echo)?];
        let _udp = [UdpEcho::start(b1, &VIPS, 7)?, UdpEcho::start(b2, &VIPS, 7)?];
        let _decap = [Decap::start(scene, b1)?, Decap::start(scene, b2)?];
        tunnel::agree(b2, 9100, 1)?;
        let mut daemon = Daemon::start(scene, &format!("{CONFIG}{XDP}"))?;
        let pid = daemon.process().pid();
        let fresh = daemon.status()?;
        let interfaces = fresh["xdp"]["interfaces"].clone();
        let probe = UdpProbe::start(client, VIP_V4.into(), 7, Duration::from_millis(2))?;
        let flow = EchoClient::connect(client, VIP_V4.into(), 9000)?;
        let real = lb_tests::daemon::binary()?.canonicalize()?;
        let stranger = program(scene, "stranger", "exec true")?;
        std::os::unix::fs::chown(&stranger, Some(65_534), None)?;
        let loose = program(scene, "loose", "exec true")?;
        fs::set_permissions(&loose, fs::Permissions::from_mode(0o775))?;
        // Maps are written by then, and accepts are armed.
        let late = format!("exec {real:?} \"$@\" --run-dir /proc/none");
        let killed = format!("{real:?} \"$@\" <&0 & child=$!; sleep 0.3; kill -9 $child; exit 9");
        let cases = [
            (program(scene, "crash", "exit 7")?, "exit status: 7"),
            (program(scene, "signal", "kill -SEGV $$")?, "signal: 11"),
            (program(scene, "silent", "exec sleep 1000")?, "has not said within 20 s"),
            (program(scene, "killed", &killed)?, "exit status: 9"),
            (program(scene, "late", &late)?, "the new process refuses: admin endpoint"),
            (
                program(scene, "liar", "printf 'hello, this is no message of yours' >&0; exec sleep 1000")?,
                "no message of a hand-over",
            ),
            (
                program(scene, "early", &format!("exec {real:?} \"$@\" --state-dir /proc/none"))?,
                "the new process refuses: state directory",
            ),
            (stranger, "is not root's"),
            (loose, "can be written to by others"),
            (scene.directory().join("absent"), "No such file"),
        ];
        let before = misfortunes(&lb.netns)?;
        under_load(scene, |more| {
            for (program, part) in &cases {
                more()?;
                let refused = daemon.admin().ask(
                    "POST",
                    &format!("/v1/upgrade?binary={}", program.display()),
                    "",
                    None,
                )?;
                let said = refused.body["error"]["message"].as_str().unwrap_or_default();
                ensure!(
                    refused.status == 422 && said.contains(part),
                    "{}: {}",
                    program.display(),
                    refused.body
                );
                let status = daemon.status()?;
                ensure!(status["pid"] == pid && status["state"] == "ready", "{status}");
                ensure!(status["xdp"]["interfaces"] == interfaces, "{status}");
                ensure!(status["warnings"] == fresh["warnings"], "{status}");
                more().with_context(|| format!("after {}", program.display()))?;
                flow.exchange("an old flow")?;
                EchoClient::connect(client, VIP_V4.into(), 9000)?.exchange("a new flow")?;
            }
            Ok(())
        })?;
        let after = misfortunes(&lb.netns)?;
        ensure!(before == after, "resets and listen drops: {before:?}, then {after:?}");
        let tally = probe.finish()?;
        ensure!(tally.lost.is_empty(), "lost of {}: {:?}", tally.sent, tally.lost);
        // What failed before is no harm to what comes.
        let tunnel = tunnel::open(client, lb.v4.into(), 8081)?;
        daemon.upgrade(None)?;
        ensure!(KeptClient::connect(client, lb.v4.into(), 8080)?.get("/")?.0 == 200, "no answer");
        EchoClient::connect(client, VIP_V4.into(), 9000)?.exchange("a flow after that")?;
        tunnel::echo(&tunnel, b"a tunnel of the old process")?;
        // Whoever restarts the new one has to find nobody at its sockets and locks.
        daemon.signal_heir(0, Signal::KILL)?;
        let status = daemon.process().wait_for_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    });
}

#[test]
fn listeners_outlive_a_daemon_that_is_killed_where_systemd_keeps_them() {
    const KEPT: &str = r#"
[runtime]
workers = 2
[listener.echo]
bind = ["10.77.0.2:9003"]
protocol = "tcp"
pool = "echo"
[listener.datagrams]
bind = ["10.77.0.2:5300"]
protocol = "udp"
pool = "datagrams"
[pool.echo]
backends = ["10.77.0.11:9003"]
[pool.datagrams]
backends = ["10.77.0.11:5301"]
"#;
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client.netns, &topology.lb);
        let b1 = &topology.b1;
        let _echo = TcpServer::start(b1, 9003, Service::Echo)?;
        let _udp = UdpEcho::start(b1, &[b1.v4.into()], 5301)?;
        let nothing = Manager::start(scene.directory(), true)?;
        let mut first = Daemon::start_kept(scene, KEPT, &nothing, Duration::from_secs(60))?;
        EchoClient::connect(client, lb.v4.into(), 9003)?.exchange("before")?;
        let extra = serde_json::json!({ "bind": ["10.77.0.2:9004"], "protocol": "tcp", "pool": "echo" });
        first.admin().change("PUT", "/v1/config/listener/extra", Some(&extra))?;
        ensure!(first.manager().kept().len() == 6, "{:?}", first.manager().kept());
        first.admin().change("DELETE", "/v1/config/listener/extra", None)?;
        ensure!(first.manager().kept().len() == 4, "{:?}", first.manager().kept());
        first.process().kill();
        // What is not of this config, or not ours at all, is closed.
        let manager = Manager::start(scene.directory(), true)?;
        manager.inherit(first.manager());
        drop(first);
        manager.keep("lb-0123-0", std::net::TcpListener::bind("127.0.0.1:0")?.into());
        let (connected, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = || match EchoClient::connect(client, lb.v4.into(), 9003) {
            Ok(echo) => echo.exchange("in the gap").map(|()| _ = connected.fetch_add(1, Ordering::Relaxed)),
            Err(error) => Err(error).inspect_err(|_| _ = refused.fetch_add(1, Ordering::Relaxed)),
        };
        let daemon = thread::scope(|scope| -> Result<_> {
            let calls: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
            let daemon = Daemon::start_kept(scene, KEPT, &manager, Duration::from_secs(2))?;
            for call in calls {
                call.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?.context("a caller")?;
            }
            Ok(daemon)
        })?;
        ensure!(connected.into_inner() == 8 && refused.into_inner() == 0, "who was refused?");
        ensure!(lb_tests::udp::ask(client, lb.v4.into(), 5300, "after")? == b1.name, "no answer");
        drop(manager);
        let status = daemon.status()?;
        ensure!(!status["listeners"][1]["steer"].is_null(), "the sockets are in no map of ours: {status}");
        ensure!(daemon.manager().kept().len() == 4, "{:?}", daemon.manager().kept());
        let before = daemon.manager().pings();
        wait::until("pings of the watchdog", PATIENCE, || {
            (daemon.manager().pings() >= before + 2).then_some(())
        })?;
        Ok(())
    });
}

/// What the unit's ExecReload= does.
#[test]
fn a_reload_applies_the_file_and_takes_another_program_over() {
    scene::run_alone(|scene| {
        let topology = scene.topology();
        let _nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let get =
            |path: &str| KeptClient::connect(&topology.client.netns, topology.lb.v4.into(), 8080)?.get(path);
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let pid = daemon.process().pid();
        let file = scene.directory().join("lb.toml");
        let add = |name: &str, status: u16| -> Result<()> {
            let route = format!(
                "[route.{name}]\nlistener = \"web\"\npath = \"/{name}\"\nrespond = {{ status = {status} }}\n"
            );
            Ok(fs::write(&file, fs::read_to_string(&file)? + &route)?)
        };
        let real = lb_tests::daemon::binary()?;
        let program = scene.directory().join("installed");
        add("first", 410)?;
        let answer = daemon.reload(&real)?;
        ensure!(answer["upgraded"].is_null() && answer["changed"] == json!(["route.first"]), "{answer}");
        // As a package does that is installed once more.
        fs::copy(&real, &program)?;
        add("second", 411)?;
        let answer = daemon.reload(&program)?;
        ensure!(answer["upgraded"].is_null() && answer["changed"] == json!(["route.second"]), "{answer}");
        let status = daemon.status()?;
        ensure!(status["pid"] == pid && status["draining"] == json!([]), "{status}");
        ensure!((get("/first")?.0, get("/second")?.0) == (410, 411), "the file is not applied");

        let sound = fs::read_to_string(&file)?;
        fs::write(&file, format!("{sound}[route.nonsense]\n"))?;
        let refused = daemon.reload(&program).err().context("a file that is no config is applied")?;
        ensure!(format!("{refused:#}").contains("nonsense"), "{refused:#}");
        fs::write(&file, &sound)?;

        // Another one, which comes in its place.
        let mut other = fs::read(&real)?;
        other.extend(b"another version");
        let coming = scene.directory().join("coming");
        fs::copy(&real, &coming)?;
        fs::write(&coming, other)?;
        fs::rename(&coming, &program)?;
        add("third", 412)?;
        let answer = daemon.reload(&program)?;
        let status = daemon.status()?;
        ensure!(status["pid"] == answer["upgraded"]["pid"] && status["pid"] != pid, "{status}, {answer}");
        ensure!((get("/first")?.0, get("/third")?.0) == (410, 412), "the file is not applied");
        let answer = daemon.reload(&program)?;
        ensure!(answer["upgraded"].is_null() && answer["changed"] == json!([]), "{answer}");
        Ok(())
    });
}

/// One after the other: refused with the way out, written into the file, taken over by the next process.
#[test]
fn what_cannot_change_live_is_taken_over_by_an_upgrade() {
    scene::run_alone(|scene| {
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let file = scene.directory().join("lb.toml");
        let (socket, state) = (scene.directory().join("admin.sock"), scene.directory().join("state"));
        let (moved_socket, moved_state) =
            (scene.directory().join("moved.sock"), scene.directory().join("moved"));
        fs::write(scene.directory().join("new.key"), "ab".repeat(32))?;
        let text = |path: &Path| format!("{path:?}");
        // Key, what is asked for, and what becomes of the file; the socket is asked at until it moves.
        let steps: [(&str, Value, String, String); 6] = [
            (
                "admin.http",
                json!({ "admin": { "http": "127.0.0.1:9999" } }),
                METRICS.into(),
                "127.0.0.1:9999".into(),
            ),
            ("state.dir", json!({ "state": { "dir": moved_state } }), text(&state), text(&moved_state)),
            (
                "xdp",
                json!({ "xdp": { "interfaces": [{ "name": "eth0" }] } }),
                "[upgrade]".into(),
                "[xdp]\ninterfaces = [\"eth0\"]\n[upgrade]".into(),
            ),
            (
                "xdp.secret",
                json!({ "xdp": { "secret": "file:new.key" } }),
                "[xdp]".into(),
                "[xdp]\nsecret = \"file:new.key\"".into(),
            ),
            (
                "xdp",
                json!({ "xdp": null }),
                "[xdp]\nsecret = \"file:new.key\"\ninterfaces = [\"eth0\"]\n".into(),
                String::new(),
            ),
            (
                "admin.socket",
                json!({ "admin": { "socket": moved_socket } }),
                text(&socket),
                text(&moved_socket),
            ),
        ];
        for (at, patch, old, new) in steps {
            let refused = daemon.admin().ask("PATCH", "/v1/config", "", Some(&patch))?;
            let error = &refused.body["error"];
            ensure!(refused.status == 422 && error["where"] == at, "{at}: {refused:?}");
            let message = error["message"].as_str().unwrap_or_default();
            ensure!(message.contains("`lb upgrade`"), "{at}: {message}");
            let before = fs::read_to_string(&file)?;
            let after = before.replace(&old, &new);
            ensure!(before != after, "{at}: {before} has no {old}");
            fs::write(&file, after)?;
            let pid = daemon.upgrade(None).with_context(|| at.to_owned())?;
            let admin = if at == "admin.socket" { Admin(moved_socket.clone()) } else { daemon.admin() };
            let status = admin.ask("GET", "/v1/status", "", None)?.body;
            ensure!(status["pid"] == pid, "{at}: {status}");
            let config = admin.ask("GET", "/v1/config", "", None)?.body;
            for (table, wanted) in patch.as_object().into_iter().flatten() {
                let is_it = match wanted {
                    Value::Null => config[table].is_null(),
                    wanted => wanted
                        .as_object()
                        .into_iter()
                        .flatten()
                        .all(|(key, value)| config[table][key] == *value),
                };
                ensure!(is_it, "{at}: {config}");
            }
            if at == "xdp" {
                let attached = status["xdp"]["interfaces"].as_array().is_some_and(|all| !all.is_empty());
                ensure!(attached != patch["xdp"].is_null(), "{at}: {status}");
            }
        }
        ensure!(moved_state.join("audit.log").exists(), "nothing is kept in the other directory");
        Ok(())
    });
}
