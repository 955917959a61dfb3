//! TLS that goes through untouched, to the backend of the name in its first message.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    curl::{Curl, Reply},
    daemon::Daemon,
    netns::Namespace,
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    topology::Host,
    wait::PATIENCE,
};

const CONFIG: &str = r#"
[listener.secure]
bind = ["10.77.0.2:8443", "[fd77::2]:8443"]
protocol = "tcp"

[route.one]
listener = "secure"
sni = ["one.test", "*.deep.test"]
pool = "b1"

[route.other]
listener = "secure"
sni = ["*.test"]
pool = "b2"

[pool.b1]
backends = ["10.77.0.11:8443"]

[pool.b2]
backends = ["10.77.0.12:8443"]

[log]
access = "text"
format = '$sni $route $backend $reason'
file = "PATH"
"#;

/// openssl's own server, which answers with its command line; the certificate's file is named after the host.
fn serve(scene: &Scene, host: &Host) -> Result<Process> {
    let file = |kind: &str| scene.directory().join(format!("{}.{kind}", host.name));
    let (key, certificate): (PathBuf, PathBuf) = (file("key"), file("pem"));
    let mut make = host.netns.command("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    make.args(["-subj", "/CN=test", "-days", "2", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    process::run(make, PATIENCE)?.success()?;
    let mut server = host.netns.command("openssl");
    server.args(["s_server", "-accept", "8443", "-www", "-key"]).arg(key).arg("-cert").arg(certificate);
    let mut server = Process::spawn("openssl", server, &scene.log(&format!("openssl-{}", host.name)))?;
    let own = host.v4.to_string();
    server.wait_until("answering openssl", PATIENCE, || {
        ensure!(get(&host.netns, "x.test", &own)?.status == 200);
        Ok(())
    })?;
    Ok(server)
}

fn get(netns: &Namespace, name: &str, address: &str) -> Result<Reply> {
    let resolve = format!("{name}:8443:{address}");
    Curl::within(netns).with(&["-k", "--resolve", &resolve]).get(&format!("https://{name}:8443/"))
}

#[test]
fn the_name_that_a_client_asks_for_says_the_backend() {
    if !requirement::is_there("openssl", "openssl") {
        return;
    }
    scene::run(|scene| {
        let topology = scene.topology();
        let _servers = [serve(scene, &topology.b1)?, serve(scene, &topology.b2)?];
        let log = scene.directory().join("access.log");
        let daemon = Daemon::start(scene, &CONFIG.replace("PATH", &log.display().to_string()))?;
        let client = &topology.client.netns;
        let (v4, v6) = (topology.lb.v4.to_string(), format!("[{}]", topology.lb.v6));
        for (name, address, backend) in [
            ("one.test", &v4, "b1.pem"),
            ("a.deep.test", &v6, "b1.pem"),
            ("two.test", &v6, "b2.pem"),
            ("a.one.test", &v4, "b2.pem"),
        ] {
            let reply = get(client, name, address)?;
            ensure!(reply.status == 200 && reply.body.contains(backend), "{name}: {reply:?}");
        }
        ensure!(get(client, "one.example", &v4).is_err(), "a name without a route was served");
        let closes = daemon.metrics()?.sum("lb_worker_closes_total", &["reason=\"no-route\""]);
        ensure!(closes == Some(1.0), "{closes:?}");
        let routes = daemon.show("routes")?;
        ensure!(routes.rows().len() == 3 && routes.row("host", "*.deep.test")?.text("by")? == "sni");
        drop(daemon);
        let log = std::fs::read_to_string(&log).context("access log")?;
        for line in
            ["one.test one 10.77.0.11:8443 -", "two.test other 10.77.0.12:8443 -", "one.example - - no-route"]
        {
            ensure!(log.lines().any(|found| found == line), "no {line:?} in:\n{log}");
        }
        Ok(())
    });
}
