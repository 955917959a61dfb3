//! The admin API beside its OpenAPI document, by Schemathesis: what it says of requests and answers is what handlers do,
//! for examples, for values at the edges and for random ones, well-formed or not.

use std::{
    fs, io,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{daemon::Daemon, process, requirement, scene};

const CONFIG: &str = r#"
[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"

[route.all]
listener = "web"
pool = "app"

[pool.app]
backends = ["10.77.0.11:80", "10.77.0.12:80"]
"#;

/// It knows no TOML: what it makes up is a text.
const HOOKS: &str = r#"
import schemathesis

@schemathesis.serializer("application/toml")
def as_text(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
"#;

/// Longest run.
const LIMIT: Duration = Duration::from_secs(300);
/// Random requests per operation; the edges of every parameter come on top.
const EXAMPLES: &str = "12";
/// Does not end by itself, or ends the process: both have tests of their own.
const EXCLUDED: [&str; 2] = ["capture", "upgrade"];

#[test]
fn the_document_is_what_the_handlers_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default();
    let program = root.join("target/tests/venv/bin/schemathesis");
    if !requirement::is_file_there(&program.display().to_string(), "python3-venv; then `cargo xtask setup`") {
        return;
    }
    scene::run(|scene| {
        let daemon = Daemon::start(scene, CONFIG)?;
        let bridge = Bridge::start(daemon.admin().0)?;
        let before = daemon.status()?;
        fs::write(scene.directory().join("hooks.py"), HOOKS)?;
        let mut command = Command::new(&program);
        command
            .arg("run")
            .arg(root.join("lb/docs/openapi.json"))
            .args(["--url", &format!("http://{}", bridge.address)])
            .args(["--max-examples", EXAMPLES, "--seed", "1", "--no-shrink", "--continue-on-failure"])
            .args(["--phases", "examples,coverage,fuzzing", "--no-color", "--generation-database", "none"])
            // A config may be one by its schema and refused all the same, with 422: no schema says what names there are.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", scene.directory())
            .current_dir(scene.directory());
        for operation in EXCLUDED {
            command.args(["--exclude-operation-id", operation]);
        }
        let said = process::run(command, LIMIT)?.success()?;

        ensure!(said.contains("passed"), "nothing was asked: {said}");
        let after = daemon.status()?;
        ensure!(before["pid"] == after["pid"], "another process answers: {before} {after}");
        ensure!(before["generation"] != after["generation"], "no request was a change: {before} {after}");
        Ok(())
    });
}

/// Leads from a TCP port of this machine to a unix socket, for clients that know TCP alone.
struct Bridge {
    address: std::net::SocketAddr,
    is_over: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Bridge {
    fn start(socket: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let accepting = thread::Builder::new().name("bridge".into()).spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    // A daemon that does not answer is seen by the client.
                    _ = join(client, &socket);
                }
            }
        })?;
        Ok(Self { address, is_over, accepting: Some(accepting) })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes it.
        _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            _ = accepting.join();
        }
    }
}

fn join(client: TcpStream, socket: &Path) -> Result<()> {
    let server = UnixStream::connect(socket).context("the admin socket")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let (mut to_client, mut from_server) = (client, server);
    thread::spawn(move || {
        _ = io::copy(&mut from_client, &mut to_server);
        _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        _ = io::copy(&mut from_server, &mut to_client);
        _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}
