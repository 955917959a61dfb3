//! As much of systemd as a daemon speaks to: it hears what is notified, and keeps descriptors.

use std::{
    collections::{BTreeMap, VecDeque},
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
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

/// Descriptors for a shell that hands them on: beyond those that it can name.
const FIRST_LENT: i32 = 50;

/// Between two looks at what was said: descriptors that lie unread are open, too.
const PAUSE: Duration = Duration::from_millis(10);

/// The other end of `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Manager {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixDatagram,
    has_store: bool,
    heard: Mutex<VecDeque<String>>,
    kept: Mutex<BTreeMap<String, OwnedFd>>,
    pings: AtomicU64,
}

impl Manager {
    /// Listens in a directory. Without a store it closes what it is to keep.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(directory: &Path, has_store: bool) -> Result<Self> {
        let path = directory.join("notify.sock");
        // A second daemon of the same scene.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        // Whoever the daemon runs as.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        let (heard, kept, pings) = <(Mutex<_>, Mutex<_>, AtomicU64)>::default();
        let shared = Arc::new(Shared { socket, has_store, heard, kept, pings });
        let listener = Arc::downgrade(&shared);
        thread::spawn(move || {
            while let Some(shared) = Weak::upgrade(&listener) {
                drop(shared.hear());
                drop(shared);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self { path, shared })
    }

    /// Its address.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was said up to a message with this line.
    ///
    /// # Errors
    /// There is none yet.
    pub fn told(&self, wanted: &str) -> Result<()> {
        let mut heard = self.shared.hear();
        while let Some(text) = heard.pop_front() {
            if text.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
        bail!("not told {wanted}")
    }

    /// Names of what is kept, by now.
    pub fn kept(&self) -> Vec<String> {
        drop(self.shared.hear());
        self.lock().keys().cloned().collect()
    }

    /// How often it was told that all is well, by now.
    pub fn pings(&self) -> u64 {
        drop(self.shared.hear());
        self.shared.pings.load(Ordering::Relaxed)
    }

    /// A descriptor that is none of the daemon's, as an earlier version may have left one.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.lock().insert(name.to_owned(), descriptor);
    }

    /// Takes what another one has kept.
    pub fn inherit(&self, other: &Self) {
        drop(other.shared.hear());
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

impl Shared {
    /// Takes in all that was said: what nobody has asked for yet.
    fn hear(&self) -> MutexGuard<'_, VecDeque<String>> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(text) = self.next() {
            heard.push_back(text);
        }
        heard
    }

    fn next(&self) -> Result<String> {
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
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if has("FDSTORE=1") && self.has_store {
            kept.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
        } else if has("FDSTOREREMOVE=1") {
            kept.remove(&name);
        }
        self.pings.fetch_add(u64::from(has("WATCHDOG=1")), Ordering::Relaxed);
        Ok(text)
    }
}
