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
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` binds namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    inode: u64,
}

impl Namespace {
    /// Makes it, with its loopback up.
    ///
    /// # Errors
    /// `ip netns add` refuses: not root, or the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name], "")?;
        let inode = fs::metadata(Path::new(DIRECTORY).join(name))?.ino();
        let this = Self { name: name.to_owned(), inode };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inode number, the identity that `/proc/PID/ns/net` shows too.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `ip` commands in it, one per line.
    ///
    /// # Errors
    /// One of them fails; the error quotes it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip(&["-n", &self.name, "-batch", "-"], lines)
    }

    /// A command that will run in it, and die with the thread that starts it.
    ///
    /// Not `ip netns exec`: that one remounts /sys and hides the bpffs. Both wrappers exec, so the child's id
    /// is the program's.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// Runs `work` on a thread in this namespace. Sockets made there stay there, whoever uses them later.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// Where `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
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
    pub fn settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))?;
            }
            Ok(())
        })?
    }

    /// Ids of the processes in it, this one's own threads aside.
    pub fn processes(&self) -> Vec<u32> {
        processes_in(self.inode)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left behind is found by the leak check of the scene.
        let _ = ip(&["netns", "del", &self.name], "");
    }
}

/// Ids of the processes in the namespace with that inode.
pub(crate) fn processes_in(inode: u64) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode))
        .collect()
}

/// Ends what runs in a namespace that a killed run left, and deletes it.
pub(crate) fn delete_left_over(name: &str) {
    if let Ok(meta) = fs::metadata(Path::new(DIRECTORY).join(name)) {
        crate::leak::end_processes(&[meta.ino()]);
    }
    // Somebody else may be sweeping too.
    let _ = ip(&["netns", "del", name], "");
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
