//! Clients that break HTTP/2 by another implementation of it than ours, in the clear and over TLS.

use std::{fs, path::Path};

use anyhow::ensure;
use lb_tests::{
    authority::Authority,
    daemon::Daemon,
    peer::{Service, TcpServer},
    process, requirement, scene,
    wait::PATIENCE,
};

const CLIENT: &str = include_str!("h2/client.py");
/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;
/// Cases that the client has at least, each of both ways.
const CASES_MIN: usize = 20;

/// `/` is a backend's that never says anything, `/sound` is answered here.
const CONFIG: &str = r#"
[listener.clear]
bind = ["10.77.0.2:8080"]
protocol = "http"
h2c = true
pool = "silent"

[listener.sealed]
bind = ["10.77.0.2:8443"]
protocol = "http"
pool = "silent"
tls = ["site"]

[tls.site]
certificate = "site.pem"
key = "site.key"

[route.clear]
listener = "clear"
path = "/sound"
respond = { status = 200 }

[route.sealed]
listener = "sealed"
path = "/sound"
respond = { status = 200 }

[pool.silent]
backends = ["10.77.0.11:4000"]
"#;

#[test]
fn each_way_to_break_it_has_its_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
    let python = root.join("target/tests/h2/bin/python");
    if !requirement::is_file_there(&python.display().to_string(), "python3-venv; then `cargo xtask setup`") {
        return;
    }
    scene::run(|scene| {
        let directory = scene.directory();
        let site = Authority::new(directory, "ours")?.vouch("a.test", FAR)?;
        fs::copy(&site.certificate, directory.join("site.pem"))?;
        fs::copy(&site.key, directory.join("site.key"))?;
        let topology = scene.topology();
        let _silent = TcpServer::start(&topology.b1, 4000, Service::Silent)?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let file = directory.join("client.py");
        fs::write(&file, CLIENT)?;
        let mut command = topology.client.netns.command(&python);
        command.arg(&file).arg(topology.lb.v4.to_string()).arg(directory.join("ours.pem"));
        let output = process::run(command, 6 * PATIENCE)?;
        let wrong: Vec<_> = output.stdout.lines().filter(|line| !line.starts_with("ok")).collect();
        ensure!(wrong.is_empty() && output.code == 0, "{wrong:#?} {}", output.stderr);
        let tried = output.stdout.lines().count();
        ensure!(tried >= 2 * CASES_MIN, "{tried} tried: {}", output.stdout);
        daemon.process().kill();
        Ok(())
    });
}
