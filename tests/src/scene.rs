//! One test's world: the topology, a directory, a bpffs; and the proof that all of it went away.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{leak, requirement, topology::Topology, turn::Turn, wait};

static COUNT: AtomicU32 = AtomicU32::new(0);

const NAME: &str = "lbtest";
/// Lines of each log that a failing test shows.
const LOG_LINES: usize = 60;

/// Begins the names of all that this process makes.
pub(crate) fn prefix() -> String {
    format!("{NAME}{}", std::process::id())
}

/// Process that made something of this name, if it was made by a scene.
pub(crate) fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(NAME)?.split('-').next()?.parse().ok()
}

/// Runs a test body in a scene of its own, beside one other; skips it where [`requirement::is_met`] says no.
///
/// # Panics
/// The body fails, or leaves something behind.
pub fn run(body: impl FnOnce(&Scene) -> Result<()>) {
    within(Turn::beside, body);
}

/// As [`run`], with no other scene: the machine's cores, or what it has in memory, are part of what is tested.
///
/// # Panics
/// As [`run`].
pub fn run_alone(body: impl FnOnce(&Scene) -> Result<()>) {
    within(Turn::alone, body);
}

fn within(turn: fn() -> Turn, body: impl FnOnce(&Scene) -> Result<()>) {
    if !requirement::is_met() {
        return;
    }
    let scene = match Scene::furnish(turn()) {
        Ok(scene) => scene,
        Err(error) => panic!("no scene: {error:?}"),
    };
    if let Err(error) = body(&scene) {
        // The scene falls while this unwinds, and shows the logs.
        panic!("{error:?}");
    }
}

/// Everything a test stands on. Servers and daemons started in it must be dropped before it.
#[derive(Debug)]
pub struct Scene {
    /// Machines; taken out when the scene ends.
    topology: Option<Topology>,
    directory: PathBuf,
    prefix: String,
    ended: bool,
    _turn: Turn,
}

impl Scene {
    /// Removes what dead runs left, and makes everything; for programs that are no tests.
    ///
    /// # Errors
    /// Some part cannot be made.
    pub fn create() -> Result<Self> {
        Self::furnish(Turn::alone())
    }

    fn furnish(turn: Turn) -> Result<Self> {
        leak::sweep_dead_runs();
        let prefix = format!("{}-{}", prefix(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let mut this = Self { topology: None, directory, prefix, ended: false, _turn: turn };
        let bpf = this.bpffs();
        fs::create_dir(&bpf)?;
        mount("bpf", &bpf, "bpf", MountFlags::empty(), None).context("mounting a bpffs")?;
        this.topology = Some(Topology::create(&this.prefix)?);
        Ok(this)
    }

    /// The machines.
    ///
    /// # Panics
    /// Never while the scene stands.
    pub fn topology(&self) -> &Topology {
        match &self.topology {
            Some(topology) => topology,
            None => unreachable!("taken only by drop"),
        }
    }

    /// Where this test may keep files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mount point of a bpffs of this test's own.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// Where in it the daemon is to pin; made by the daemon.
    pub fn pin_directory(&self) -> PathBuf {
        self.bpffs().join("lb")
    }

    /// Where the log of a process goes; a failing test shows all of them.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Takes everything down; for programs that are no tests.
    ///
    /// # Errors
    /// Something was left behind; the error names it.
    pub fn finish(mut self) -> Result<()> {
        let left = self.tear_down();
        ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
        Ok(())
    }

    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "log")) {
            let text = fs::read_to_string(path).unwrap_or_default();
            let skipped = text.lines().count().saturating_sub(LOG_LINES);
            eprintln!("--- {} (last {LOG_LINES} lines)", path.display());
            text.lines().skip(skipped).for_each(|line| eprintln!("{line}"));
        }
    }

    /// Takes everything down; gives what was still in use, or would not go.
    fn tear_down(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if std::mem::replace(&mut self.ended, true) {
            return left;
        }
        if let Some(topology) = self.topology.take() {
            let inodes: Vec<u64> = topology.namespaces().iter().map(|n| n.inode()).collect();
            left.extend(leak::processes(&inodes));
            leak::end_processes(&inodes);
            let gone = || leak::processes(&inodes).is_empty().then_some(());
            if let Err(error) = wait::until("end of the processes", Duration::from_secs(5), gone) {
                left.push(error.to_string());
            }
        }
        left.extend(leak::ring_workers());
        let bpf = self.bpffs();
        if let Err(error) = unmount(&bpf, UnmountFlags::empty()) {
            left.push(format!("{} does not unmount: {error}", bpf.display()));
        }
        leak::remove_tree(&self.directory);
        left.extend(leak::mounts(&self.directory));
        left.extend(leak::namespaces(&format!("{}-", self.prefix)));
        if self.directory.exists() {
            left.push(format!("directory {}", self.directory.display()));
        }
        left
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        let left = self.tear_down();
        if left.is_empty() {
            return;
        }
        let left = left.join("\n  ");
        if thread::panicking() {
            eprintln!("left behind as well:\n  {left}");
        } else {
            panic!("left behind:\n  {left}");
        }
    }
}
