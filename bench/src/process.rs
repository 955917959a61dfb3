//! Programs that we start: pinned, in a namespace, and ended with us.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{interrupt::check_interrupted, netns::Namespace, system::processes};

/// How long a server may take to come up: Envoy needs a second on a quiet machine.
const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Where a program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) cores: &'a [usize],
}

impl Pinned<'_> {
    /// A command that will run there, and die with the thread that starts it.
    ///
    /// All wrappers exec, so that the child's id is the program's.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let cores: Vec<String> = self.cores.iter().map(usize::to_string).collect();
        let mut command = self.namespace.command("taskset");
        command.args(["-c", &cores.join(",")]).arg(program);
        command
    }

    /// Runs a program to its end and takes what it says.
    ///
    /// # Errors
    /// It cannot be started, fails, runs for longer than `time_max`, or we are interrupted.
    pub(crate) fn output(&self, program: &Path, arguments: &[String], time_max: Duration) -> Result<Output> {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        // Both pipes are read by threads of their own, so that neither can stop the program.
        let readers = (drain(child.stdout.take()), drain(child.stderr.take()));
        let deadline = Instant::now() + time_max;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let late = Instant::now() > deadline;
            if late || check_interrupted().is_err() {
                child.kill()?;
                child.wait()?;
                check_interrupted()?;
                bail!("{} did not end within {} s", program.display(), time_max.as_secs());
            }
            thread::sleep(POLL);
        };
        let output = Output { status, stdout: readers.0.join()?, stderr: readers.1.join()? };
        ensure!(
            output.status.success(),
            "{} failed ({}): {}",
            program.display(),
            output.status,
            tail(&String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()))
        );
        Ok(output)
    }
}

struct Reader(Option<thread::JoinHandle<std::io::Result<Vec<u8>>>>);

impl Reader {
    fn join(self) -> Result<Vec<u8>> {
        match self.0.map(thread::JoinHandle::join) {
            None => Ok(Vec::new()),
            Some(Ok(bytes)) => Ok(bytes?),
            Some(Err(_)) => bail!("a reader of output panicked"),
        }
    }
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> Reader {
    Reader(pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes)?;
            Ok(bytes)
        })
    }))
}

/// A server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    directory: PathBuf,
}

impl Process {
    /// Starts it; standard output and errors go to files in `directory`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(
        place: Pinned<'_>,
        program: &Path,
        arguments: &[String],
        directory: &Path,
        stdout: &str,
    ) -> Result<Self> {
        let name = program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let child = place
            .command(program)
            .args(arguments)
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::null())
            .stdout(File::create(directory.join(stdout))?)
            .stderr(File::create(directory.join("stderr"))?)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, directory: directory.to_path_buf() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// It ends, or does not take any in time; its last words are quoted.
    pub(crate) fn wait_until_connects(&mut self, from: &Namespace, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            check_interrupted()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once ({status}): {}", self.name, self.last_words());
            }
            if from.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} takes no connection: {}", self.name, self.last_words());
            thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The signal is none that we know, or the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.id()?, signal).with_context(|| format!("signal to {}", self.name))
    }

    /// Asks it to end, waits, and kills it where that takes too long.
    ///
    /// # Errors
    /// It had to be killed.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let family = family(self.pid());
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_MAX;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                for pid in family.into_iter().filter(|&pid| pid != self.pid()) {
                    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                        // Most are gone with their parent.
                        let _ = kill_process(pid, Signal::KILL);
                    }
                }
                bail!("{} did not end within {} s of SIGTERM", self.name, STOP_MAX.as_secs());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn id(&self) -> Result<Pid> {
        Pid::from_raw(self.pid().cast_signed()).context("process id 0")
    }

    fn last_words(&self) -> String {
        let words = ["stdout", "stderr"].map(|name| fs::read(self.directory.join(name)).unwrap_or_default());
        tail(&String::from_utf8_lossy(&words.concat()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What is left behind is ended with the namespace.
        let _ = self.stop();
    }
}

/// The last few lines, on one.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// A process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in processes() {
        if let Some(parent) = parent(process) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        all.extend(children.get(&all[at]).into_iter().flatten());
        at += 1;
    }
    all
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: what follows its last parenthesis is state and parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_of_the_family() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
