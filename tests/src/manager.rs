//! As much of systemd as a daemon speaks to: it hears what is notified, and keeps descriptors.

use std::{
    collections::BTreeMap,
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Result, ensure};
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

/// Descriptors for a shell that hands them on: beyond those that it can name.
const FIRST_LENT: i32 = 50;

/// The other end of `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Mutex<BTreeMap<String, OwnedFd>>,
    pings: AtomicU64,
}

impl Manager {
    /// Listens in a directory.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(directory: &Path) -> Result<Self> {
        let path = directory.join("notify.sock");
        // A second daemon of the same scene.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        // Whoever the daemon runs as.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, kept: Mutex::default(), pings: AtomicU64::new(0) })
    }

    /// Its address.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next message in.
    fn hear(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(batch) = message {
                descriptors.extend(batch);
            }
        }
        let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        let has = |wanted: &str| text.lines().any(|line| line == wanted);
        if has("FDSTORE=1") {
            self.lock().extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
        } else if has("FDSTOREREMOVE=1") {
            self.lock().remove(&name);
        }
        self.pings.fetch_add(u64::from(has("WATCHDOG=1")), Ordering::Relaxed);
        Ok(text)
    }

    /// Takes in what was said up to a message with this line.
    ///
    /// # Errors
    /// There is none yet.
    pub fn told(&self, wanted: &str) -> Result<()> {
        loop {
            if self.hear()?.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    }

    /// Names of what is kept, by now.
    pub fn kept(&self) -> Vec<String> {
        while self.hear().is_ok() {}
        self.lock().keys().cloned().collect()
    }

    /// How often it was told that all is well, by now.
    pub fn pings(&self) -> u64 {
        while self.hear().is_ok() {}
        self.pings.load(Ordering::Relaxed)
    }

    /// A descriptor that is none of the daemon's, as an earlier version may have left one.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.lock().insert(name.to_owned(), descriptor);
    }

    /// Takes what another one has kept.
    pub fn inherit(&self, other: &Self) {
        while other.hear().is_ok() {}
        self.lock().append(&mut other.lock());
    }

    /// `shell` as it is to be run for a program that gets what is kept: further arguments are that program and its own.
    /// The descriptors have to live until it is started.
    ///
    /// # Errors
    /// There are more than a shell can name.
    pub fn lend(&self, shell: &mut Command) -> Result<Vec<OwnedFd>> {
        let (mut script, mut lent) = (String::new(), Vec::new());
        let kept = self.lock();
        ensure!(kept.len() < 7, "a shell names nine descriptors");
        for (at, descriptor) in kept.values().enumerate() {
            let copy = fcntl_dupfd_cloexec(descriptor, FIRST_LENT)?;
            fcntl_setfd(&copy, FdFlags::empty())?;
            script += &format!("exec {}<&{}\n", at + 3, copy.as_raw_fd());
            lent.push(copy);
        }
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        script +=
            &format!("export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}\n", names.len(), names.join(":"));
        shell.args(["-c", &(script + "exec \"$@\""), "sh"]);
        Ok(lent)
    }
}
