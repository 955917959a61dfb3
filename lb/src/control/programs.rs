//! Runs the programs of checks: on threads of their own that gave up every capability, a bounded number at once, each
//! with a time-out and a bounded output.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::AsFd as _,
        unix::{process::CommandExt as _, process::ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    },
};

use super::probe_miss::Miss;
use crate::{health::Fault, metrics::ProbeEnd, sys::owner::is_roots};

/// Programs that run at once.
const RUNNERS: usize = 16;
/// What a program may write; one that writes more is ended.
const OUTPUT_MAX: usize = 64 << 10;
/// What is kept of it.
const KEPT_MAX: usize = 200;

/// One run.
#[derive(Debug)]
pub(super) struct Job {
    /// Beneath the directory.
    pub(super) program: PathBuf,
    /// `LB_*`.
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) deadline: Instant,
    pub(super) reply: flume::Sender<Result<(), Miss>>,
}

/// Gives jobs to the runners.
#[derive(Clone, Debug)]
pub(super) struct Programs(flume::Sender<Job>);

impl Programs {
    /// Starts the runners, for programs beneath `directory`; they end with the last of these.
    ///
    /// # Errors
    /// The directory can be written to by others than root, or the host refuses a thread.
    pub(super) fn start(directory: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        for part in directory.ancestors() {
            is_roots(part)?;
        }
        let (sender, jobs) = flume::bounded::<Job>(0);
        for _ in 0..RUNNERS {
            let (directory, jobs) = (directory.clone(), jobs.clone());
            let run = move || {
                let given_up = give_up_privileges();
                for Job { program, environment, deadline, reply } in jobs {
                    let outcome = match &given_up {
                        Ok(()) => run(&directory, &program, environment, deadline),
                        Err(error) => Err(Miss::Local(format!("cannot give up capabilities: {error}"))),
                    };
                    // Whoever asked may have given up.
                    _ = reply.send(outcome);
                }
            };
            thread::Builder::new().name("lb-program".into()).spawn(run)?;
        }
        Ok(Self(sender))
    }

    /// Runs a program.
    ///
    /// # Errors
    /// See [`Miss`]; too many run already.
    pub(super) async fn run(
        &self,
        program: &Path,
        environment: Vec<(&'static str, String)>,
        deadline: Instant,
    ) -> Result<(), Miss> {
        let (reply, answer) = flume::bounded(1);
        let job = Job { program: program.to_owned(), environment, deadline, reply };
        let gone = || Miss::Local("the runner is gone".to_owned());
        let left = deadline.saturating_duration_since(Instant::now());
        let handed = async { Some(self.0.send_async(job).await) };
        let late = async {
            glommio::timer::sleep(left).await;
            None
        };
        match futures_lite::future::or(handed, late).await {
            Some(handed) => handed.map_err(|_| gone())?,
            None => return Err(Miss::Local(format!("{RUNNERS} other programs run"))),
        }
        answer.recv_async().await.map_err(|_| gone())?
    }
}

/// Of this thread, and so of whatever it starts, root or not.
fn give_up_privileges() -> Result<(), Errno> {
    set_no_new_privs(true)?;
    // Without that, a program of user 0 would have all of them again.
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    match set_capabilities_secure_bits(bits) {
        // Not root's process: there is nothing that user 0 would get.
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
        done => done?,
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn run(
    directory: &Path,
    program: &Path,
    environment: Vec<(&'static str, String)>,
    deadline: Instant,
) -> Result<(), Miss> {
    let local = |error: io::Error| Miss::Local(format!("{}: {error}", program.display()));
    let mut path = directory.to_owned();
    for part in program.components() {
        path.push(part);
        is_roots(&path).map_err(|error| Miss::Local(error.to_string()))?;
    }
    let mut command = Command::new(&path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(environment);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().map_err(local)?;
    let ended = wait(&mut child, deadline);
    // Whatever it left behind in its group goes with it.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().map_err(local)?;
    let (end, output) = ended.map_err(local)?;
    match end {
        End::Late => Err(Miss::Silent { is_connected: true }),
        End::Loud => Err(fault(format!("wrote more than {} KiB", OUTPUT_MAX >> 10))),
        End::Itself if status.success() => Ok(()),
        End::Itself => Err(fault(describe(status, &output))),
    }
}

fn fault(text: String) -> Miss {
    Miss::Fault(Fault { end: ProbeEnd::WrongAnswer, text })
}

/// `exit 2: no replica`.
fn describe(status: ExitStatus, output: &[u8]) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    };
    let line = output.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.get(..KEPT_MAX).unwrap_or(line) {
        [] => how,
        line => format!("{how}: {}", line.escape_ascii()),
    }
}

enum End {
    Itself,
    Late,
    Loud,
}

/// Reads what it writes until it ends. Who inherited the pipe and goes on is not waited for.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<(End, Vec<u8>)> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut pipe = child.stdout.take().map(|out| File::from(std::os::fd::OwnedFd::from(out)));
    let (mut kept, mut read) = (Vec::new(), 0);
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((End::Late, kept));
        }
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        fds.extend(pipe.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        let limit = timespec(left);
        match poll(&mut fds, Some(&limit)) {
            Err(Errno::INTR) => continue,
            polled => _ = polled?,
        }
        let has_ended = !fds[0].revents().is_empty();
        let has_written = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if has_written && let Some(out) = &mut pipe {
            match out.read(&mut buffer)? {
                0 => pipe = None,
                len => {
                    let room = (KEPT_MAX - kept.len()).min(len);
                    kept.extend_from_slice(&buffer[..room]);
                    read += len;
                }
            }
            if read > OUTPUT_MAX {
                return Ok((End::Loud, kept));
            }
        } else if has_ended {
            return Ok((End::Itself, kept));
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A directory of root's with a program in it; only root can make one.
    struct Bench {
        directory: PathBuf,
    }

    impl Bench {
        fn new(name: &str, script: &str) -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                eprintln!("SKIPPED: not root: such programs are root's");
                return None;
            }
            let directory = std::env::temp_dir().join(format!("lb-programs-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
            let bench = Self { directory };
            fs::write(bench.program(), format!("#!/bin/sh\n{script}\n")).unwrap();
            bench.mode(0o755);
            Some(bench)
        }

        fn program(&self) -> PathBuf {
            self.directory.join("check")
        }

        fn mode(&self, mode: u32) {
            fs::set_permissions(self.program(), fs::Permissions::from_mode(mode)).unwrap();
        }

        /// As a runner does, on a thread that gives its capabilities up.
        fn run(&self, patience: Duration) -> Result<(), Miss> {
            let programs = Programs::start(&self.directory).unwrap();
            let (reply, answer) = flume::bounded(1);
            let environment = vec![("LB_PORT", "53".to_owned())];
            let deadline = Instant::now() + patience;
            programs.0.send(Job { program: "check".into(), environment, deadline, reply }).unwrap();
            answer.recv().unwrap()
        }

        fn fault(&self) -> String {
            match self.run(Duration::from_secs(20)) {
                Err(Miss::Fault(fault)) => fault.text,
                Err(Miss::Local(text)) => text,
                other => panic!("{other:?}"),
            }
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn exit_0_is_up_and_others_say_why() {
        let Some(bench) = Bench::new("up", "test \"$LB_PORT\" = 53 && test \"$(pwd)\" = /") else { return };
        assert!(bench.run(Duration::from_secs(20)).is_ok());
        let Some(bench) = Bench::new("down", "echo no replica; echo more; exit 2") else { return };
        assert_eq!(bench.fault(), "exit 2: no replica");
        let Some(bench) = Bench::new("signal", "kill -9 $$") else { return };
        assert_eq!(bench.fault(), "ended by signal 9");
        let Some(bench) = Bench::new("loud", "while :; do echo 0123456789012345678901234567890; done") else {
            return;
        };
        assert_eq!(bench.fault(), "wrote more than 64 KiB");
    }

    #[test]
    fn a_program_has_no_capabilities() {
        let script =
            "grep -E '^(Cap(Eff|Prm|Inh|Amb)|NoNewPrivs)' /proc/self/status | tr -d '\\t\\n'; exit 1";
        let Some(bench) = Bench::new("caps", script) else { return };
        let zero = "0000000000000000";
        let expected = format!("exit 1: CapInh:{zero}CapPrm:{zero}CapEff:{zero}CapAmb:{zero}NoNewPrivs:1");
        assert_eq!(bench.fault(), expected);
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_its_children() {
        let mark = format!("{}", 100_000 + std::process::id());
        let Some(bench) = Bench::new("late", &format!("sleep {mark} & sleep {mark}")) else { return };
        assert!(matches!(bench.run(Duration::from_millis(300)), Err(Miss::Silent { .. })));
        let is_there = || {
            fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{mark}\0").into_bytes()
            })
        };
        let until = Instant::now() + Duration::from_secs(10);
        while is_there() {
            assert!(Instant::now() < until, "a child goes on");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_others_may_change_is_not_run() {
        let Some(bench) = Bench::new("loose", "exit 0") else { return };
        bench.mode(0o775);
        assert!(bench.fault().ends_with("can be written to by others than its owner"));
        bench.mode(0o644);
        assert!(bench.fault().contains("Permission denied"));
        fs::remove_file(bench.program()).unwrap();
        std::os::unix::fs::symlink("/bin/true", bench.program()).unwrap();
        assert!(bench.fault().ends_with("is a link"));
        fs::set_permissions(&bench.directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Programs::start(&bench.directory).is_err());
    }
}
