//! What a socket2 does not do for a group of SO_REUSEPORT sockets.
#![expect(unsafe_code, reason = "a socket option that no library knows")]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
};

/// Source: asm-generic/socket.h, Linux 5.3.
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;

/// Takes the program off a socket's group, if there is one; the kernel chooses from then on.
///
/// # Errors
/// Those of setsockopt(2), but for that there is none.
pub fn detach_program(socket: impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the kernel reads at most the size it is given of `unused`, which lives until it returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_DETACH_REUSEPORT_BPF,
            (&raw const unused).cast(),
            mem::size_of_val(&unused) as libc::socklen_t,
        )
    };
    match (done, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (_, error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_program_is_as_wanted_and_what_is_no_socket_is_not() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        detach_program(&socket).unwrap();
        assert!(detach_program(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
