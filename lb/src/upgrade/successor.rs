//! The old process's side of a hand-over.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{
    frame,
    message::{Go, Offer, Ready, Totals, kind},
};

/// Tells a process that it is to take over from the one at its standard input.
pub const TAKE_OVER: &str = "--take-over";
/// From the start of the new process until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take not to read what it is told.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a process that has closed everything.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The process that is to take over. Dropped, it goes on without us.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    stream: UnixStream,
    deadline: Instant,
}

/// Descriptors that go over, in the order that [`Offer`] says.
#[derive(Debug, Default)]
pub struct Lent {
    /// Of directories that are locked.
    pub locks: Vec<OwnedFd>,
    /// Of the admin API: its unix socket, then its TCP endpoint.
    pub doors: Vec<OwnedFd>,
    /// Of each group, by worker.
    pub groups: Vec<Vec<OwnedFd>>,
}

impl Successor {
    /// Starts `program` with the arguments of this process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path) -> Result<Self, String> {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).filter(|word| word != TAKE_OVER).collect();
        let failed = |error: io::Error| format!("{}: {error}", program.display());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(arguments).arg(TAKE_OVER).stdin(Stdio::from(OwnedFd::from(theirs)));
        // They are about this process.
        for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, stream: ours, deadline: Instant::now() + READY_TIMEOUT })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands over, and waits until everything is armed there.
    ///
    /// # Errors
    /// Why it is not; then the process is gone, and nothing has changed.
    pub fn prepare(&mut self, offer: &Offer, lent: &Lent) -> Result<Ready, String> {
        let prepared = self.offer(offer, lent);
        if prepared.is_err() {
            self.end();
        }
        prepared
    }

    fn offer(&mut self, offer: &Offer, lent: &Lent) -> Result<Ready, String> {
        let sockets = lent.groups.iter().flatten();
        let all: Vec<BorrowedFd<'_>> =
            lent.locks.iter().chain(&lent.doors).chain(sockets).map(OwnedFd::as_fd).collect();
        let body = serde_json::to_vec(offer).map_err(|error| error.to_string())?;
        let sent = self
            .stream
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .and_then(|()| frame::send(&self.stream, kind::OFFER, &body, &all));
        if let Err(error) = sent {
            return Err(self.lost(&error));
        }
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let received = self.stream.set_read_timeout(Some(left)).and_then(|()| frame::receive(&self.stream));
        match received {
            Ok(Some(frame)) if frame.kind == kind::READY => {
                let not_ours = |error| format!("the new process says what is not understood: {error}");
                serde_json::from_slice(&frame.body).map_err(not_ours)
            }
            Ok(Some(frame)) if frame.kind == kind::REFUSED => {
                Err(format!("the new process refuses: {}", String::from_utf8_lossy(&frame.body)))
            }
            Ok(Some(frame)) => {
                Err(format!("the new process says what is not understood (message {})", frame.kind))
            }
            Ok(None) => Err(self.lost(&io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Why nothing more comes from there.
    fn lost(&mut self, error: &io::Error) -> String {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            let seconds = READY_TIMEOUT.as_secs();
            return format!(
                "the new process has not said within {seconds} s that it is ready, and was ended"
            );
        }
        let until = Instant::now() + END_TIMEOUT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return format!(
                        "the new process ended before it was ready, {status}; the log has its words"
                    );
                }
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                _ => return format!("the new process does not speak to us: {error}"),
            }
        }
    }

    /// Ends it.
    pub fn end(&mut self) {
        // Both fail only where it has ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Whether it has died; one that has ended as it should may have been taken over from itself. It is left for whoever
    /// inherits our children to see how it ended: that is who restarts it.
    pub fn has_died(&self) -> bool {
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(Pid::from_child(&self.child)), how);
        ended.is_ok_and(|status| status.is_some_and(|status| status.exit_status() != Some(0)))
    }

    /// Leaves everything to it.
    ///
    /// # Errors
    /// It is gone, or deaf.
    pub fn go(&self, go: &Go, flows: &[OwnedFd]) -> io::Result<()> {
        let flows: Vec<_> = flows.iter().map(OwnedFd::as_fd).collect();
        frame::send(&self.stream, kind::GO, &serde_json::to_vec(go)?, &flows)
    }

    /// Tells it what was counted here by now.
    ///
    /// # Errors
    /// It is gone, or deaf.
    pub fn count(&self, totals: &Totals) -> io::Result<()> {
        frame::send(&self.stream, kind::TOTALS, &serde_json::to_vec(totals)?, &[])
    }
}
