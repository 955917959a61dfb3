//! The daemon under test, and its command line.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    admin::Admin,
    curl::Curl,
    process::{self, Output, Process},
    scene::Scene,
    topology::Host,
    view::{Metrics, Table},
    wait::{self, PATIENCE},
};

/// Longest run of a command-line verb.
const VERB_LIMIT: Duration = Duration::from_secs(90);

/// The program: `LB_BIN`, else the debug, else the release build beside this one.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LB_BIN") {
        return Ok(path.into());
    }
    // .../target/debug/deps/e2e-1234 or .../target/debug/demo
    let own = env::current_exe()?;
    let target = own.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release"));
    let target = target.and_then(Path::parent).context("not run from a target directory: set LB_BIN")?;
    let candidates = ["debug", "release"].map(|profile| target.join(profile).join("lb"));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("the daemon is not built (cargo build --package lb, or set LB_BIN)")
}

/// Runs a verb of the command line in a host's namespace.
///
/// # Errors
/// It cannot be started or does not end in time. An exit code is not an error here.
pub fn verb(host: &Host, arguments: &[&str]) -> Result<Output> {
    let mut command = host.netns.command(binary()?);
    command.args(arguments);
    process::run(command, VERB_LIMIT)
}

/// A running daemon with config, sockets and state in the scene; killed when dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    process: Process,
    host: &'a Host,
    admin: PathBuf,
}

impl<'a> Daemon<'a> {
    /// Writes the config (below a head with `version`, `[admin]` and `[state]`), starts the daemon on the
    /// load balancer and waits for its `READY=1`.
    ///
    /// # Errors
    /// It ends, or does not become ready in time.
    pub fn start(scene: &'a Scene, config: &str) -> Result<Self> {
        let (host, file) = (&scene.topology().lb, scene.directory().join("lb.toml"));
        let admin = scene.directory().join("admin.sock");
        let state = scene.directory().join("state");
        let head = format!(
            "version = 1\n[admin]\nsocket = {admin:?}\nhttp = \"{METRICS}\"\n[state]\ndir = {state:?}\n",
        );
        fs::create_dir_all(&state)?;
        fs::write(&file, head + config)?;
        Self::launch(scene, host, admin, Self::run_command(scene, host.netns.command(binary()?), &file))
    }

    /// As [`Self::start`], but as `user`, who is not root, with these capabilities (as setpriv(1) names them) and no
    /// others, and with `no_new_privs`. The pin directory is made for it, as a root's packaging would.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_as(scene: &'a Scene, config: &str, user: u32, capabilities: &[&str]) -> Result<Self> {
        let (host, directory) = (&scene.topology().lb, scene.directory());
        let own = |path: &Path| {
            fs::create_dir_all(path)?;
            std::os::unix::fs::chown(path, Some(user), Some(user))
        };
        let (run, state) = (directory.join("run"), directory.join("state"));
        for path in [&run, &state, &scene.pin_directory()] {
            own(path).with_context(|| format!("making {}", path.display()))?;
        }
        // The way to them, and a program that this user can reach.
        for path in [directory, &scene.bpffs()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
        }
        let (program, file, admin) =
            (directory.join("lb"), directory.join("lb.toml"), run.join("admin.sock"));
        fs::copy(binary()?, &program)?;
        let head = format!(
            "version = 1\n[admin]\nsocket = {admin:?}\nhttp = \"{METRICS}\"\n[state]\ndir = {state:?}\n",
        );
        fs::write(&file, head + config)?;
        let set = capabilities.iter().fold("-all".to_owned(), |set, one| format!("{set},+{one}"));
        let mut command = host.netns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--no-new-privs", "--clear-groups"]);
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command
            .args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|which| format!("{which}={set}")));
        command.arg("--").arg(&program);
        Self::launch(scene, host, admin, Self::run_command(scene, command, &file))
    }

    /// `run` with a config and this scene's pin directory.
    fn run_command(scene: &Scene, mut command: Command, file: &Path) -> Command {
        command.arg("run").arg("--config").arg(file).arg("--bpf-dir").arg(scene.pin_directory());
        command.args(["--log", "debug"]);
        command
    }

    /// Starts the quickstart: `lb run` without a config. Only the directories are not the system's.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn quickstart(scene: &'a Scene) -> Result<Self> {
        let host = &scene.topology().lb;
        let mut command = host.netns.command(binary()?);
        let (run, state) = (scene.directory().join("run"), scene.directory().join("state"));
        command.arg("run").arg("--run-dir").arg(&run).arg("--state-dir").arg(&state);
        command.arg("--bpf-dir").arg(scene.pin_directory());
        Self::launch(scene, host, run.join("admin.sock"), command)
    }

    /// Starts `command`, which is to say `READY=1` on a socket of ours.
    fn launch(scene: &Scene, host: &'a Host, admin: PathBuf, mut command: Command) -> Result<Self> {
        let notify = scene.directory().join("notify.sock");
        // A second daemon of the same scene.
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        // Whoever the daemon runs as.
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        command.env("NOTIFY_SOCKET", &notify);
        let process = Process::spawn("lb", command, &scene.log("lb"))?;
        let mut this = Self { process, host, admin };
        this.process.wait_until("READY=1 from the daemon", PATIENCE, || {
            let mut buffer = [0; 4096];
            let size = socket.recv(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..size]);
            ensure!(text.lines().any(|line| line == "READY=1"), "it says {text:?}");
            Ok(())
        })?;
        Ok(this)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `lb status --json`.
    ///
    /// # Errors
    /// The verb fails, or prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let text = self.ask(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// `lb show WHAT --json`.
    ///
    /// # Errors
    /// The verb fails, or prints no list.
    pub fn show(&self, what: &str) -> Result<Table> {
        Table::parse(what, &self.ask(&["show", what, "--json"])?)
    }

    /// `lb why FLOW --json`.
    ///
    /// # Errors
    /// The verb fails, or prints no JSON.
    pub fn why(&self, flow: &str) -> Result<Value> {
        let text = self.ask(&["why", flow, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Its admin socket.
    pub fn admin(&self) -> Admin {
        Admin(self.admin.clone())
    }

    /// A verb of the command line, put to this daemon.
    ///
    /// # Errors
    /// It cannot be started or does not end in time. An exit code is not an error here.
    pub fn verb(&self, arguments: &[&str]) -> Result<Output> {
        process::run(self.command(arguments)?, VERB_LIMIT)
    }

    /// The same, not started yet.
    ///
    /// # Errors
    /// There is no program.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.host.netns.command(binary()?);
        command.args(arguments).arg("--admin").arg(&self.admin);
        Ok(command)
    }

    /// A scrape of `/metrics`.
    ///
    /// # Errors
    /// No answer.
    pub fn metrics(&self) -> Result<Metrics> {
        let reply = Curl::within(&self.host.netns).get(&format!("http://{METRICS}/metrics"))?;
        ensure!(reply.status == 200, "status {}", reply.status);
        Ok(Metrics::new(reply.body))
    }

    /// Whether a backend is up in every pool that has it, whatever its port; `None` while pools disagree.
    ///
    /// # Errors
    /// No pool has it.
    pub fn is_up(&self, address: IpAddr) -> Result<Option<bool>> {
        let table = self.show("backends")?;
        let same = |name: &str| {
            name.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| name.parse()).is_ok_and(|ip| ip == address)
        };
        let mut states = Vec::new();
        for row in table.rows() {
            if same(row.text("backend")?) {
                states.push(row.is_up()?);
            }
        }
        let first = *states.first().with_context(|| format!("no backend {address} in {table:?}"))?;
        Ok(states.iter().all(|state| *state == first).then_some(first))
    }

    /// Waits until a backend is up (or down) in every pool that has it.
    ///
    /// # Errors
    /// It is not within `limit`.
    pub fn wait_until_up(&self, address: IpAddr, up: bool, limit: Duration) -> Result<()> {
        wait::until_ok("change of health", limit, || {
            let is = self.is_up(address)?;
            ensure!(is == Some(up), "{address}: wanted up = {up}, is {is:?}");
            Ok(())
        })
    }

    /// Names of kernel-made io_uring workers of the daemon; there are to be none.
    pub fn ring_workers(&self) -> Vec<String> {
        self.process.threads().into_iter().filter(|name| name.starts_with("iou-wrk")).collect()
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.verb(arguments)?.success().with_context(|| format!("lb {}", arguments.join(" ")))
    }
}

/// `lb decap` on a backend: takes IPIP apart until dropped.
#[derive(Debug)]
pub struct Decap(Process);

impl Decap {
    /// Starts it on the host's `eth0` and waits until its program hangs there.
    ///
    /// # Errors
    /// It ends, or does not attach in time.
    pub fn start(scene: &Scene, host: &Host) -> Result<Self> {
        let mut command = host.netns.command(binary()?);
        command.args(["decap", "--interface", "eth0"]);
        let mut this =
            Self(Process::spawn("lb decap", command, &scene.log(&format!("decap-{}", host.name)))?);
        this.0.wait_until("XDP program on the backend", PATIENCE, || {
            ensure!(host.has_xdp()?, "none attached");
            Ok(())
        })?;
        Ok(this)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// Where the daemon of a scene serves metrics, inside the load balancer's namespace.
pub const METRICS: &str = "127.0.0.1:9900";
