//! System calls: how many, by perf at full speed, and which, by `strace -c`, which slows the subject down (and so has
//! one that takes work in batches make fewer).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    process::{Pid, Signal, kill_process},
};

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
        interrupt(&self.child);
        self.child.wait()?;
        let text = fs::read_to_string(&self.report).context("strace's report")?;
        let calls = calls(&text);
        ensure!(!calls.is_empty(), "no calls in: {text}");
        Ok(calls)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            interrupt(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// Counts entries into the kernel of a process tree between two moments, by the tracepoint `raw_syscalls:sys_enter`.
#[derive(Debug)]
pub(crate) struct PerfCount {
    child: Child,
    report: PathBuf,
    control: File,
    acknowledged: File,
}

impl PerfCount {
    /// Attaches to all processes below `pid` and begins to count.
    ///
    /// # Errors
    /// perf is missing or may not.
    pub(crate) fn begin(pid: u32, directory: &Path) -> Result<Self> {
        let path = |name: &str| directory.join(format!("perf-{pid}-{name}"));
        let (report, control, acknowledged) = (path("report"), path("control"), path("acknowledged"));
        let fifo = |path: &Path| {
            if !path.exists() {
                mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("mkfifo")?;
            }
            // For reading and writing, so that opening waits for nobody.
            let options = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok::<_, anyhow::Error>(File::from(rustix::fs::open(path, options, Mode::empty())?))
        };
        let files = (fifo(&control)?, fifo(&acknowledged)?);
        let processes: Vec<String> = family(pid).iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["stat", "--delay", "-1", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"])
            .arg(&report)
            .arg(format!("--control=fifo:{},{}", control.display(), acknowledged.display()))
            .args(["-p", &processes.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start perf")?;
        let mut this = Self { child, report, control: files.0, acknowledged: files.1 };
        this.tell("enable\n")?;
        Ok(this)
    }

    /// Ends counting.
    ///
    /// # Errors
    /// perf left no count.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.tell("disable\n")?;
        interrupt(&self.child);
        self.child.wait()?;
        let text = fs::read_to_string(&self.report).context("perf's report")?;
        count(&text).with_context(|| format!("no count in: {text}"))
    }

    fn tell(&mut self, order: &str) -> Result<()> {
        self.control.write_all(order.as_bytes())?;
        let deadline = Instant::now() + ATTACH_MAX;
        let mut answer = [0; 16];
        loop {
            match self.acknowledged.read(&mut answer) {
                Ok(read) if read > 0 => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("perf's answer"),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("perf ended ({status})");
            }
            ensure!(Instant::now() < deadline, "perf does not answer");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for PerfCount {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            interrupt(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// First column of perf's table; `<not counted>` where nothing happened at all.
fn count(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    match line.split(',').next()? {
        "<not counted>" => Some(0),
        number => number.parse().ok(),
    }
}

/// Both tools write what they have on SIGINT.
fn interrupt(child: &Child) {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        // Where it is gone already, waiting for it says so.
        let _ = kill_process(pid, Signal::INT);
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
    fn perf_counts_in_the_first_column() {
        let table = "# started on Mon\n\n50213,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(count(table), Some(50_213));
        assert_eq!(count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), Some(0));
        assert_eq!(count("# started on Mon\n"), None);
    }

    #[test]
    fn table_of_calls_without_its_sum() {
        let table = "syscall             calls\n---------------- ----------\nsendto                 12\nepoll_wait              3\n---------------- ----------\ntotal                  15\n";
        assert_eq!(calls(table), BTreeMap::from([("epoll_wait".to_owned(), 3), ("sendto".to_owned(), 12)]));
    }
}
