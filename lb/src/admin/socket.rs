//! Where the admin API can be bound, and how its socket file comes to be.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// Read and write for owner and group, nothing for others.
const SOCKET_MODE: u32 = 0o660;

/// The directory lets others through to the socket.
const DIRECTORY_MODE: u32 = 0o755;

/// A socket file in the making: bound under a temporary name beside its place, then given its mode and renamed, so
/// that nobody can connect before the mode holds, and a stale file is replaced in one step.
#[derive(Debug)]
pub(super) struct Placed {
    path: PathBuf,
    temporary: PathBuf,
}

impl Placed {
    /// Makes the directory, and makes sure that nobody listens at `path`.
    ///
    /// # Errors
    /// Somebody listens there, or something else than a socket lies there, or the directory cannot be made.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            fs::create_dir_all(directory)?;
            // Whatever the umask: who may connect is the socket's own mode to say.
            fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::other("a file that is no socket lies there"));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(Errno::ADDRINUSE.into()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
        }
        // Short, since the kernel allows 107 bytes of path in all.
        let temporary = path.with_file_name(format!(".{}", std::process::id()));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self { path: path.to_owned(), temporary }),
        }
    }

    /// Where to bind.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Puts the bound socket in its place.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn publish(self) -> io::Result<()> {
        fs::set_permissions(&self.temporary, fs::Permissions::from_mode(SOCKET_MODE))?;
        if rustix::process::geteuid().is_root()
            && let Some(group) = group_id("lb")
        {
            std::os::unix::fs::lchown(&self.temporary, None, Some(group))?;
        }
        fs::rename(&self.temporary, &self.path)
    }
}

/// Whether nobody answers at `address`.
///
/// For glommio's listeners, which come without SO_REUSEADDR: what they accepted and closed waits in TIME_WAIT and
/// would meet [`check_free`] for a minute. They have SO_REUSEPORT, so a second daemon would share the port in silence.
///
/// # Errors
/// `EADDRINUSE`: somebody does.
pub(crate) fn check_unanswered(mut address: SocketAddr) -> io::Result<()> {
    if address.ip().is_unspecified() {
        let is_v4 = address.is_ipv4();
        address.set_ip(if is_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    match TcpStream::connect_timeout(&address, ANSWER_MAX) {
        Ok(_) => Err(Errno::ADDRINUSE.into()),
        // Whatever else is wrong with the address, bind will say better.
        Err(_) => Ok(()),
    }
}

/// How long somebody on this host may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// How long a predecessor may still seem to be there.
const PREDECESSOR_MAX: Duration = Duration::from_secs(2);
/// Between two attempts.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(50);

/// Tries again for a while where an address is taken: a killed process is gone before its rings are, and an accept
/// in flight keeps the socket listening until a kernel worker has taken the ring down (io_ring_exit_work in
/// io_uring/io_uring.c, Linux 6.12).
///
/// # Errors
/// The last attempt's.
pub(crate) fn outlive_predecessor<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + PREDECESSOR_MAX;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(PREDECESSOR_PAUSE);
            }
            done => return done,
        }
    }
}

/// Id of a local group, from `/etc/group`.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Whether nobody listens at `address`: a group of SO_REUSEPORT sockets can only be joined by sockets that say so
/// too, so a socket without it meets whoever is there, another daemon of ours included.
///
/// # Errors
/// The bind's error, `EADDRINUSE` above all.
pub(crate) fn check_free(address: SocketAddr, is_udp: bool) -> io::Result<()> {
    let kind = if is_udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if !is_udp {
        // Only so that connections in TIME_WAIT do not count as somebody.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listening_address_is_not_free_even_for_a_reuseport_group() {
        let group = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        group.set_reuse_port(true).unwrap();
        group.set_reuse_address(true).unwrap();
        group.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        group.listen(1).unwrap();
        let address = TcpListener::from(group.try_clone().unwrap()).local_addr().unwrap();
        for check in [|address| check_free(address, false), check_unanswered] {
            assert_eq!(check(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        drop(group);
        check_unanswered(address).unwrap();
    }

    #[test]
    fn a_predecessor_may_take_a_moment_to_go() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let ends = thread::spawn(move || {
            thread::sleep(PREDECESSOR_PAUSE * 3);
            drop(listener);
        });
        outlive_predecessor(|| check_free(address, false)).unwrap();
        ends.join().unwrap();
        let began = Instant::now();
        let refused = outlive_predecessor(|| Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(began.elapsed() < PREDECESSOR_MAX, "only a taken address is waited for");
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("roo"), None);
    }
}
