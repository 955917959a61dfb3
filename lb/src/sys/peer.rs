//! Who is at the other end of a unix socket.
#![expect(unsafe_code, reason = "the socket is another library's, known by its number; pids may be 0")]

use std::{io, mem, os::fd::AsRawFd};

/// Who connected, as the kernel noted it then (SO_PEERCRED of unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Process; `None`: one of a pid namespace that we do not see.
    pub pid: Option<u32>,
}

/// Asks for the peer of a unix stream socket.
///
/// # Errors
/// It is none.
pub fn peer(socket: &impl AsRawFd) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `found`, which is of plain integers; both live until it returns.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut size,
        )
    };
    match done {
        0 => Ok(Peer { uid: found.uid, pid: u32::try_from(found.pid).ok().filter(|pid| *pid != 0) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pair_is_this_process_on_both_ends() {
        let (left, right) = UnixStream::pair().unwrap();
        let us = Peer { uid: rustix::process::geteuid().as_raw(), pid: Some(std::process::id()) };
        assert_eq!((peer(&left).unwrap(), peer(&right).unwrap()), (us, us));
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(peer(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
