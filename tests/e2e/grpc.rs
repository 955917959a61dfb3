//! gRPC's own client and server (grpcio of PyPI), with every kind of call between them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    authority::Authority,
    daemon::Daemon,
    long,
    process::{self, Process},
    requirement,
    scene::{self, Scene},
    topology::Host,
    wait::PATIENCE,
};

/// A year that no certificate of a test lives to see end.
const FAR: i32 = 4000;
const SERVER: &str = include_str!("grpc/server.py");
const CLIENT: &str = include_str!("grpc/client.py");
/// All that a client tries.
const KINDS: [&str; 8] =
    ["unary", "server_stream", "client_stream", "bidi", "fail", "deadline", "cancel", "many"];

/// The host says which pool.
const CONFIG: &str = r#"
[upgrade]
drain_timeout = "120s"

[listener.secure]
bind = ["10.77.0.2:8443"]
protocol = "http"
tls = ["site"]

[listener.clear]
bind = ["10.77.0.2:8080"]
protocol = "http"
h2c = true

[tls.site]
certificate = "site.pem"
key = "site.key"

[pool.plain]
protocol = "h2"
backends = ["10.77.0.11:5000"]

[pool.sealed]
protocol = "h2"
backends = ["10.77.0.11:5001"]
tls = { ca = "file:ours.pem", sni = "inner.test" }

[pool.refusing]
protocol = "h2"
backends = ["10.77.0.11:5009"]
"#;

const POOLS: [&str; 3] = ["plain", "sealed", "refusing"];

/// Ways in: where, and whether through TLS.
const WAYS: [(&str, bool); 2] = [("10.77.0.2:8443", true), ("10.77.0.2:8080", false)];

/// A Python with grpcio; `None`: it is not there, which was said.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
    let python = root.join("target/tests/grpc/bin/python");
    requirement::is_file_there(&python.display().to_string(), "python3-venv; then `cargo xtask setup`")
        .then_some(python)
}

struct Site<'a> {
    scene: &'a Scene,
    python: PathBuf,
    daemon: Daemon<'a>,
    _server: Process,
}

impl<'a> Site<'a> {
    fn set(scene: &'a Scene, python: PathBuf) -> Result<Self> {
        let directory = scene.directory();
        let ours = Authority::new(directory, "ours")?;
        let site = ours.vouch("*.site.test", FAR)?;
        fs::copy(&site.certificate, directory.join("site.pem"))?;
        fs::copy(&site.key, directory.join("site.key"))?;
        let inner = ours.vouch("inner.test", FAR)?;
        let b1 = &scene.topology().b1;
        let mut server = script(scene, b1, &python, "server.py", SERVER)?;
        server.arg(b1.v4.to_string()).arg(inner.certificate).arg(inner.key);
        let mut server = Process::spawn("gRPC server", server, &scene.log("server"))?;
        let log = scene.log("server");
        server.wait_until("server", PATIENCE, || {
            ensure!(fs::read_to_string(&log)?.contains("ready"));
            Ok(())
        })?;
        let mut config = CONFIG.to_owned();
        for (listener, pool) in POOLS.iter().flat_map(|pool| [("secure", pool), ("clear", pool)]) {
            config += &format!(
                "[route.{listener}-{pool}]\nlistener = \"{listener}\"\nhost = [\"{pool}.site.test\"]\npool = \"{pool}\"\n"
            );
        }
        Ok(Self { scene, python, daemon: Daemon::start(scene, &config)?, _server: server })
    }

    /// A client that tries all of these.
    fn client(&self, way: (&str, bool), pool: &str, kinds: &str) -> Result<Command> {
        let host = &self.scene.topology().client;
        let mut client = script(self.scene, host, &self.python, "client.py", CLIENT)?;
        let root = self.scene.directory().join("ours.pem");
        client.args([way.0, &format!("{pool}.site.test")]);
        client.arg(if way.1 { root.as_path() } else { Path::new("-") }).arg(kinds);
        Ok(client)
    }
}

fn script(scene: &Scene, host: &Host, python: &Path, name: &str, text: &str) -> Result<Command> {
    let file = scene.directory().join(name);
    fs::write(&file, text)?;
    let mut command = host.netns.command(python);
    command.arg(file);
    Ok(command)
}

#[test]
fn every_kind_of_call_gets_through() {
    let Some(python) = python() else { return };
    scene::run(|scene| {
        let site = Site::set(scene, python)?;
        let expected: String = KINDS.iter().map(|kind| format!("ok {kind}\n")).collect();
        for way in WAYS {
            for pool in ["plain", "sealed"] {
                let output = process::run(site.client(way, pool, &KINDS.join(","))?, PATIENCE)?;
                ensure!(output.code == 0 && output.stdout == expected, "{way:?} to {pool}: {output:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_backend_that_is_not_there_is_unavailable() {
    let Some(python) = python() else { return };
    scene::run(|scene| {
        let site = Site::set(scene, python)?;
        for way in WAYS {
            process::run(site.client(way, "refusing", "refused")?, PATIENCE)?.success()?;
        }
        Ok(())
    });
}

#[test]
fn a_call_goes_on_through_changes_and_an_upgrade() {
    let Some(python) = python() else { return };
    scene::run(|scene| {
        let mut site = Site::set(scene, python)?;
        for (way, pool, port) in [(WAYS[0], "sealed", 5001), (WAYS[1], "plain", 5000)] {
            let mut client = site.client(way, pool, "long")?;
            let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut input = client.stdin.take().context("no input")?;
            let mut output = BufReader::new(client.stdout.take().context("no output")?).lines();
            let mut number = 0;
            let listener = if way.1 { "secure" } else { "clear" };
            let backend = format!("10.77.0.11:{port}");
            let ended = long::through_changes(&mut site.daemon, (listener, pool, &backend), || {
                number += 1;
                writeln!(input, "message {number}")?;
                let answer = output.next().context("the call has ended")??;
                ensure!(answer == format!("message {number}"), "{way:?} to {pool}: {answer}");
                Ok(())
            });
            drop(input);
            let status = client.wait()?;
            ended?;
            ensure!(status.success() && output.next().context("no end")?? == "ok long", "{status}");
        }
        Ok(())
    });
}
