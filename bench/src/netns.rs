//! One network namespace.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::system::{is_alive, processes};

/// Where `ip netns` binds namespaces.
const DIRECTORY: &str = "/run/netns";
/// What ours are called: `lbb-PID-ROLE`.
const PREFIX: &str = "lbb-";

/// A named network namespace; deleted when dropped, with what still runs in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    inode: u64,
}

impl Namespace {
    /// Makes it, with its loopback up.
    ///
    /// # Errors
    /// `ip netns add` refuses, such as where we are not root.
    pub(crate) fn create(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        ip(&["netns", "add", &name], "")?;
        let inode = fs::metadata(Path::new(DIRECTORY).join(&name))?.ino();
        let this = Self { name, inode };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands in it, one per line.
    ///
    /// # Errors
    /// One of them fails; the error quotes it.
    pub(crate) fn ip(&self, lines: &str) -> Result<()> {
        ip(&["-n", &self.name, "-batch", "-"], lines)
    }

    /// A command that will run in it, and die with the thread that starts it.
    ///
    /// Not `ip netns exec`: that one remounts /sys and hides the bpffs. Both wrappers exec, so the child's id
    /// is the program's.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// Runs `work` on a thread in this namespace. Sockets made there stay there, whoever uses them later; threads
    /// started there are in it too.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// Where `work` does.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(self.path())?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Writes network settings, given as `(path below /proc/sys/net, value)`.
    ///
    /// # Errors
    /// A setting does not exist or refuses the value; the error names it.
    pub(crate) fn settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))?;
            }
            Ok(())
        })?
    }

    fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        end_processes(self.inode);
        let _ = ip(&["netns", "del", &self.name], "");
    }
}

/// Deletes what killed runs left behind: namespaces named after processes that are gone.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if owner.is_some_and(|pid| !is_alive(pid)) {
            if let Ok(meta) = entry.metadata() {
                end_processes(meta.ino());
            }
            // Somebody else may be sweeping too.
            let _ = ip(&["netns", "del", &name], "");
        }
    }
}

fn end_processes(inode: u64) {
    for pid in processes() {
        let inside = fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode);
        if let (true, Some(pid)) = (inside, Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn ip(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip {}: {}\n{input}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
