//! Child processes that end with their owner.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program not started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // A Ctrl-C at the terminal is for us, who then end it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Process id. The wrappers of [`crate::netns::Namespace::command`] exec, so this is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The kernel refuses, for instance because the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.name))
    }

    /// Exit status, if it has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::until("exit", limit, || child.try_wait().ok().flatten())
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Tries until `attempt` succeeds, as long as the process lives.
    ///
    /// # Errors
    /// It has ended (the error quotes what it said), or the last error once `limit` has passed.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let outcome = wait::until_ok(what, limit, || match self.status()? {
            Some(status) => Ok(Err(status)),
            None => attempt().map(Ok),
        })?;
        outcome.or_else(|status| bail!("no {what}: {} has ended, {status}:\n{}", self.name, self.log()))
    }

    /// Ends it at once with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        // Both fail only when it has been reaped already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// All it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Names of its threads, kernel-made ones (`iou-wrk-...`) included; empty when it has ended.
    pub fn threads(&self) -> Vec<String> {
        thread_names(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Names of the threads of a process.
pub(crate) fn thread_names(pid: u32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1: ended by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// It ended with another code than 0; the error quotes what it said.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or still runs after `limit` (it is killed then).
pub fn run(mut command: Command, limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} still ran after {limit:?}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Output { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) })
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never blocks the child.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the text early; the exit code still tells.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
