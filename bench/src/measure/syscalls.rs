//! System calls, counted by `strace -c` in a run of their own: it slows the subject down.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::family;

const ATTACH_MAX: Duration = Duration::from_secs(5);

/// Counts the calls of a process tree while it lives.
#[derive(Debug)]
pub(crate) struct Strace {
    child: Child,
    report: PathBuf,
}

impl Strace {
    /// Attaches to all processes below `pid` and waits until their threads are traced.
    ///
    /// # Errors
    /// strace is missing or may not.
    pub(crate) fn attach(pid: u32, directory: &Path) -> Result<Self> {
        let report = directory.join(format!("strace-{pid}"));
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-U", "name,calls", "-o"]).arg(&report);
        let processes = family(pid);
        for process in &processes {
            command.args(["-p", &process.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("start strace")?;
        let mut this = Self { child, report };
        let deadline = Instant::now() + ATTACH_MAX;
        while !processes.iter().all(|&process| is_traced(process)) {
            if let Some(status) = this.child.try_wait()? {
                bail!("strace ended ({status})");
            }
            ensure!(Instant::now() < deadline, "strace does not attach");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(this)
    }

    /// Ends it; calls by name.
    ///
    /// # Errors
    /// strace left no report.
    pub(crate) fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        self.interrupt();
        self.child.wait()?;
        let text = fs::read_to_string(&self.report).context("strace's report")?;
        let calls = calls(&text);
        ensure!(!calls.is_empty(), "no calls in: {text}");
        Ok(calls)
    }

    /// On SIGINT it lets go of what it traces and writes.
    fn interrupt(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // Where it is gone already, waiting for it says so.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

/// Whether every thread has a tracer; a process that has ended needs none.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == "0"))
    })
}

/// Lines `NAME CALLS` of the table; its head, rules and sum are not calls.
fn calls(table: &str) -> BTreeMap<String, u64> {
    table
        .lines()
        .filter_map(|line| {
            let (name, count) = line.trim().split_once(char::is_whitespace)?;
            let count = count.trim().parse().ok()?;
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_calls_without_its_sum() {
        let table = "syscall             calls\n---------------- ----------\nsendto                 12\nepoll_wait              3\n---------------- ----------\ntotal                  15\n";
        assert_eq!(calls(table), BTreeMap::from([("epoll_wait".to_owned(), 3), ("sendto".to_owned(), 12)]));
    }
}
