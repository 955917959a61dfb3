//! How a running server is handed over to another process: its doors are lent, then left.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::doors::{Doors, OpenDoors};

/// How long leaving may take; what is let in meanwhile is answered here.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether all are answered.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct Shared {
    has_retired: AtomicBool,
    busy: AtomicUsize,
}

/// The server's end of it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    shared: Arc<Shared>,
    left: flume::Sender<()>,
}

/// A running server, for who hands it over.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    doors: Doors,
    open: Arc<OpenDoors>,
    shared: Arc<Shared>,
    left: flume::Receiver<()>,
}

/// Both ends.
pub(super) fn of(doors: &Doors, open: &OpenDoors) -> io::Result<(ServerHandle, Served)> {
    let tcp = open.tcp.as_ref().map(OwnedFd::try_clone).transpose()?;
    let copies = OpenDoors { unix: open.unix.try_clone()?, tcp };
    let (sender, left) = flume::bounded(1);
    let shared = Arc::<Shared>::default();
    let served = Served { shared: shared.clone(), left: sender };
    Ok((ServerHandle { doors: doors.clone(), open: Arc::new(copies), shared, left }, served))
}

/// Somebody who is being answered.
pub(super) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

impl Served {
    pub(super) fn has_retired(&self) -> bool {
        self.shared.has_retired.load(Ordering::Acquire)
    }

    /// Nobody is let in any more.
    pub(super) fn left(&self) {
        _ = self.left.try_send(());
    }

    pub(super) fn begin(&self) -> Busy {
        self.shared.busy.fetch_add(1, Ordering::Acquire);
        Busy(self.shared.clone())
    }
}

impl ServerHandle {
    pub(super) fn socket(&self) -> &Path {
        &self.doors.socket
    }

    pub(super) fn has_retired(&self) -> bool {
        self.shared.has_retired.load(Ordering::Acquire)
    }

    /// The doors, for another process: where they are, with descriptors of the same sockets.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn lend(&self) -> io::Result<(PathBuf, Option<SocketAddr>, Vec<OwnedFd>)> {
        let all = [Some(&self.open.unix), self.open.tcp.as_ref()];
        let lent = all.into_iter().flatten().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok((self.doors.socket.clone(), self.doors.http, lent))
    }

    /// Lets nobody in any more: what comes waits for the other process. Waits until that is so; false: it is not within
    /// some seconds.
    pub fn retire(&self) -> bool {
        self.shared.has_retired.store(true, Ordering::Release);
        // Whoever waits for the next one at a door has to see one; dropping the wait could drop a client with it. What
        // the other process finds of these has ended.
        let unix = UnixStream::connect(&self.doors.socket);
        let tcp = self.doors.http.map(|address| TcpStream::connect_timeout(&local(address), LEAVE_TIMEOUT));
        let has_left = self.left.recv_timeout(LEAVE_TIMEOUT).is_ok();
        drop((unix, tcp));
        has_left
    }

    /// Waits a little for whoever is still being answered.
    pub fn finish(&self) {
        let until = Instant::now() + LEAVE_TIMEOUT;
        while self.shared.busy.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
}

/// Where an endpoint is reached from here.
fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let is_v4 = address.is_ipv4();
        address.set_ip(if is_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}
