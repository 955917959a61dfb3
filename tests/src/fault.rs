//! Faults in a thread's system calls, put there from outside by strace(1): errors, signals, silence.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    process::Process,
    scene::Scene,
    wait::{self, PATIENCE},
};

/// A fault that lasts until this is dropped, or the thread ends.
#[derive(Debug)]
pub struct Fault(Process);

impl Fault {
    /// Into the thread of `pid` that has this name. `inject` is what strace's `-e inject=` takes, such as
    /// `fsync:error=ENOSPC:when=1`.
    ///
    /// # Errors
    /// There is no such thread, or the kernel does not let strace have it.
    pub fn begin(scene: &Scene, pid: u32, thread: &str, inject: &str) -> Result<Self> {
        let id = thread_of(pid, thread)?;
        let calls = inject.split(':').next().unwrap_or_default();
        let mut command = Command::new("strace");
        command.args(["-p", &id.to_string(), "-o", "/dev/null"]);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")]);
        let log = scene.log("strace");
        let mut process = Process::spawn("strace", command, &log)?;
        let status = format!("/proc/{pid}/task/{id}/status");
        process.wait_until("a hold on the thread", PATIENCE, || {
            let status = fs::read_to_string(&status)?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            ensure!(tracer.is_some_and(|tracer| tracer.trim() != "0"), "nobody traces {thread} yet");
            Ok(())
        })?;
        Ok(Self(process))
    }

    /// Lets go of the thread, which goes on.
    ///
    /// # Errors
    /// strace does not end.
    pub fn end(mut self) -> Result<()> {
        // Of a process that was killed nothing is left to let go of.
        if self.0.status()?.is_none() {
            self.0.signal(Signal::INT)?;
        }
        self.0.wait_for_exit(PATIENCE).map(drop)
    }
}

/// The thread of this name.
///
/// # Errors
/// There is none.
pub fn thread_of(pid: u32, name: &str) -> Result<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let is_wanted =
        |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let found = tasks.filter_map(|task| Some(task.ok()?.path())).find(|path| is_wanted(path));
    let id = found.as_deref().and_then(Path::file_name).and_then(|id| id.to_str()?.parse().ok());
    id.with_context(|| format!("process {pid} has no thread {name}"))
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// Open descriptors.
    pub files: usize,
    /// Of those, BPF maps
    pub maps: usize,
    /// and programs.
    pub programs: usize,
}

impl Holdings {
    /// As it is now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        let mut found =
            Self { resident_kib: resident_kib.context("no VmRSS")?, files: 0, maps: 0, programs: 0 };
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // One that was closed meanwhile is none.
            let Ok(about) = fs::read_to_string(entry?.path()) else { continue };
            found.files += 1;
            found.maps += usize::from(about.lines().any(|line| line.starts_with("map_id:")));
            found.programs += usize::from(about.lines().any(|line| line.starts_with("prog_id:")));
        }
        Ok(found)
    }

    /// The same once two looks agree, but for memory: what a change left behind for a moment is gone then.
    ///
    /// # Errors
    /// The process is gone, or never at rest.
    pub fn at_rest(pid: u32) -> Result<Self> {
        let mut last = Self::of(pid)?;
        let mut same = 0;
        wait::until("rest", PATIENCE, || {
            let now = Self::of(pid).ok()?;
            same = if now.files == last.files { same + 1 } else { 0 };
            last = now;
            (same >= 20).then_some(now)
        })
    }
}
