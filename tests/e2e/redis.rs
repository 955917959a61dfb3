//! The real Redis behind a relay, spoken to by its own client.

use std::io::{Error, ErrorKind, Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    daemon::Daemon,
    peer,
    process::{self, Process},
    requirement, scene,
    topology::Host,
    wait::PATIENCE,
};

const CONFIG: &str = r#"
[listener.redis]
bind = ["10.77.0.2:6379", "[fd77::2]:6379"]
protocol = "tcp"
pool = "redis"

[pool.redis]
backends = ["10.77.0.11:6379"]
"#;

fn cli(host: &Host, server: &str, arguments: &[&str]) -> Result<String> {
    let mut command = host.netns.command("redis-cli");
    command.args(["-h", server]).args(arguments);
    Ok(process::run(command, PATIENCE)?.success()?.trim().to_owned())
}

#[test]
fn commands_large_values_and_pipelines_go_through() {
    if !requirement::is_there("redis-server", "redis-server")
        || !requirement::is_there("redis-cli", "redis-tools")
    {
        return;
    }
    scene::run(|scene| {
        let topology = scene.topology();
        let (b1, client) = (&topology.b1, &topology.client);
        let mut command = b1.netns.command("redis-server");
        command.args(["--bind", &b1.v4.to_string(), "--port", "6379", "--save", "", "--appendonly", "no"]);
        command.args(["--protected-mode", "no", "--dir"]).arg(scene.directory());
        let mut server = Process::spawn("redis-server", command, &scene.log("redis"))?;
        server.wait_until("answering redis", PATIENCE, || {
            ensure!(cli(b1, &b1.v4.to_string(), &["ping"])? == "PONG");
            Ok(())
        })?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let (v4, v6) = (topology.lb.v4.to_string(), topology.lb.v6.to_string());
        ensure!(cli(client, &v4, &["-r", "500", "incr", "n"])?.ends_with("500"));
        ensure!(cli(client, &v6, &["incr", "n"])? == "501");

        // A value that is worth a pipe, there and back.
        let file = scene.directory().join("value");
        std::fs::File::create(&file)?.write_all(&vec![b'v'; 8 << 20])?;
        let fed = |arguments: &str| -> Result<String> {
            let mut command = client.netns.command("sh");
            command.args(["-c", &format!("redis-cli -h {v4} {arguments} < {}", file.display())]);
            Ok(process::run(command, PATIENCE)?.success()?.trim().to_owned())
        };
        ensure!(fed("-x set large")? == "OK");
        ensure!(cli(client, &v6, &["get", "large"])?.len() == 8 << 20);
        ensure!(daemon.show("workers")?.sum("spliced_bytes")? > 8 << 20);

        // Commands without waiting for answers.
        let commands: String = (0..20_000).map(|at| format!("SET key{at} {at}\r\n")).collect();
        std::fs::write(&file, commands)?;
        let said = fed("--pipe")?;
        ensure!(said.contains("errors: 0, replies: 20000"), "{said}");
        ensure!(cli(client, &v4, &["get", "key19999"])? == "19999");

        // Without the server a client is told at once. Redis's own may connect once more by itself before it gives up.
        server.kill();
        ensure!(cli(client, &v4, &["ping"]).is_err());
        let refused = || -> Result<f64> {
            let sum = daemon.metrics()?.sum("lb_worker_closes_total", &["reason=\"connect-failed\""]);
            sum.context("no counter")
        };
        let before = refused()?;
        ensure!(before >= 1.0, "{before}");
        // The reset may come before this client knows that it is connected.
        let told = peer::connect(&client.netns, topology.lb.v4.into(), 6379).and_then(|mut stream| {
            stream.read_exact(&mut [0; 1])?;
            Ok(())
        });
        let kind = told.as_ref().err().and_then(|error| error.downcast_ref::<Error>()).map(Error::kind);
        ensure!(kind == Some(ErrorKind::ConnectionReset), "{told:?}");
        ensure!(refused()? == before + 1.0, "{} after {before}", refused()?);
        Ok(())
    });
}
