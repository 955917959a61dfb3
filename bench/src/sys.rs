//! Load and measurement by the field's own tools.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// Run time of all threads of a process and its children, in nanoseconds.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        total += schedstat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            total += cpu_ns(child.parse()?)?;
        }
    }
    Ok(total)
}

/// What wrk saw.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
}

/// 64 keepalive connections from one thread on core 1.
pub(crate) fn wrk(port: u16, seconds: u64) -> Result<Load> {
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", "-c64", &format!("-d{seconds}s")])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .context("starting wrk (`cargo xtask setup --bench` installs it)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk failed: {text}");
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .with_context(|| format!("no count of requests in: {text}"))?;
    let bad = text.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    Ok(Load { requests, errors: bad.count() as u64 })
}

/// Counts system calls of a process and its children while it lives.
pub(crate) struct Strace {
    child: Child,
    report: std::path::PathBuf,
}

impl Strace {
    pub(crate) fn attach(pid: u32) -> Result<Self> {
        let report = std::env::temp_dir().join(format!("lb-bench-strace-{pid}"));
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-U", "name,calls", "-o"]).arg(&report);
        for pid in family(pid)? {
            command.args(["-p", &pid.to_string()]);
        }
        let child = command
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace (`cargo xtask setup --bench` installs it)")?;
        thread::sleep(Duration::from_millis(300));
        Ok(Self { child, report })
    }

    /// Ends it; the sum of all calls.
    pub(crate) fn finish(mut self) -> Result<u64> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.report)?;
        fs::remove_file(&self.report)?;
        text.lines()
            .find_map(|line| line.trim().strip_prefix("total")?.trim().parse().ok())
            .with_context(|| format!("no total in: {text}"))
    }
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            all.extend(family(child.parse()?)?);
        }
    }
    Ok(all)
}
