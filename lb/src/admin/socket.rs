//! Where the admin API can be bound, and how its socket file comes to be.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

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
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            if !directory.is_dir() {
                fs::create_dir_all(directory)?;
                // Whatever the umask: who may connect is the socket's own mode to say.
                fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
            }
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::other("a file that is no socket lies there"));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(io::Error::other("another process listens there (is lb running?)")),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
        }
        // Short, since the kernel allows 107 bytes of path in all.
        let temporary = path.with_file_name(format!(".{}", std::process::id()));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
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
pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Only so that connections in TIME_WAIT do not count as somebody.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_listening_address_is_not_free_even_for_a_reuseport_group() {
        let group = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        group.set_reuse_port(true).unwrap();
        group.set_reuse_address(true).unwrap();
        group.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        group.listen(1).unwrap();
        let address = TcpListener::from(group.try_clone().unwrap()).local_addr().unwrap();
        assert_eq!(check_free(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(group);
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("roo"), None);
    }
}
