//! The daemon under test, and its command line.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;

use crate::{
    admin::Admin,
    curl::Curl,
    manager::Manager,
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
    manager: Manager,
    heirs: Vec<Heir>,
}

/// A process that took over from another one of the same daemon.
#[derive(Debug)]
struct Heir {
    pid: Pid,
    /// Readable once it has ended.
    process: OwnedFd,
}

impl Heir {
    fn has_ended(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        poll(&mut [PollFd::new(&self.process, PollFlags::IN)], limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        for heir in &self.heirs {
            // It may have ended.
            let _ = kill_process(heir.pid, Signal::KILL);
            heir.has_ended(PATIENCE);
        }
    }
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

    /// As [`Self::start`], where systemd has kept something for it, and waits so long for each ping.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_kept(scene: &'a Scene, config: &str, kept: &Manager, watchdog: Duration) -> Result<Self> {
        let (host, file) = (&scene.topology().lb, scene.directory().join("lb.toml"));
        let (admin, state) = (scene.directory().join("admin.sock"), scene.directory().join("state"));
        let head = format!(
            "version = 1\n[admin]\nsocket = {admin:?}\nhttp = \"{METRICS}\"\n[state]\ndir = {state:?}\n",
        );
        fs::write(&file, head + config)?;
        // dash takes descriptors of one digit only.
        let mut shell = host.netns.command("bash");
        let lent = kept.lend(&mut shell)?;
        shell.arg(binary()?).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let command = Self::run_command(scene, shell, &file);
        let started =
            Self::launch_under(Manager::start(scene.directory(), true)?, scene, host, admin, command);
        drop(lent);
        started
    }

    /// What it says to systemd.
    pub fn manager(&self) -> &Manager {
        &self.manager
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
    fn launch(scene: &Scene, host: &'a Host, admin: PathBuf, command: Command) -> Result<Self> {
        Self::launch_under(Manager::start(scene.directory(), false)?, scene, host, admin, command)
    }

    fn launch_under(
        manager: Manager,
        scene: &Scene,
        host: &'a Host,
        admin: PathBuf,
        mut command: Command,
    ) -> Result<Self> {
        command.env("NOTIFY_SOCKET", manager.path());
        let process = Process::spawn("lb", command, &scene.log("lb"))?;
        let mut this = Self { process, host, admin, manager, heirs: Vec::new() };
        let manager = &this.manager;
        this.process.wait_until("READY=1 from the daemon", PATIENCE, || manager.told("READY=1"))?;
        Ok(this)
    }

    /// Has another process take over, of `program` or of the one that runs. Which.
    ///
    /// # Errors
    /// It is refused, or does not say what it has to say to systemd.
    pub fn upgrade(&mut self, program: Option<&Path>) -> Result<u32> {
        let query = program.map_or_else(String::new, |program| format!("?binary={}", program.display()));
        let answer = self.admin().change("POST", &format!("/v1/upgrade{query}"), None)?;
        self.follow(&answer)
    }

    /// What the unit's reload does: another process takes over where `program` is another one than runs, else the
    /// config's file is applied. What the verb says.
    ///
    /// # Errors
    /// The verb fails, or the new process does not say what it has to say to systemd.
    pub fn reload(&mut self, program: &Path) -> Result<Value> {
        let program = program.to_str().context("a path that is not UTF-8")?;
        let text = self.ask(&["upgrade", "--json", "--if-changed", program])?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        if answer["upgraded"].is_object() {
            self.follow(&answer)?;
        }
        Ok(answer)
    }

    /// Waits until systemd knows the process that has taken over.
    fn follow(&mut self, answer: &Value) -> Result<u32> {
        let pid = answer["upgraded"]["pid"].as_u64().with_context(|| format!("no pid: {answer}"))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
        self.heirs.push(Heir { pid, process: pidfd_open(pid, PidfdFlags::empty())? });
        let line = format!("MAINPID={}", pid.as_raw_nonzero());
        wait::until_ok("MAINPID from the old process", PATIENCE, || self.manager.told(&line))?;
        wait::until_ok("READY=1 from the new process", PATIENCE, || self.manager.told("READY=1"))?;
        Ok(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Whether the process of the n-th upgrade has ended, or does within `limit`.
    pub fn has_heir_ended(&self, at: usize, limit: Duration) -> bool {
        self.heirs.get(at).is_none_or(|heir| heir.has_ended(limit))
    }

    /// Signals the process of the n-th upgrade.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub fn signal_heir(&self, at: usize, signal: Signal) -> Result<()> {
        let heir = self.heirs.get(at).context("no such upgrade")?;
        Ok(kill_process(heir.pid, signal)?)
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
