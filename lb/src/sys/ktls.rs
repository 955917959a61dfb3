//! A TCP socket of which the kernel makes records of TLS of all that is written (kTLS).
//!
//! Source: Documentation/networking/tls.rst and include/uapi/linux/tls.h, Linux 6.1.
#![expect(unsafe_code, reason = "socket options and a control message that no library knows")]

use std::{
    io, mem,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    ptr,
};

const TLS_TX: libc::c_int = 1;
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
/// Type of a record that is an alert (RFC 8446, 5.1).
const ALERT: u8 = 21;

/// Whether the kernel takes such keys, tried on a connection of our own.
///
/// # Errors
/// It does not; ENOENT where it has no module `tls`, or may not load it.
pub fn try_keys(keys: &[u8]) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    // Who is never accepted is reset, and an operator who counts resets would look for their cause.
    let _peer = listener.accept()?;
    begin(&socket)?;
    seal_with(&socket, keys)
}

/// Puts the kernel's TLS over a connected socket. Bytes go on as they are until there are keys.
///
/// # Errors
/// Those of setsockopt(2): ENOENT without the module, ENOTCONN where the connection is not whole any more.
pub fn begin(socket: impl AsFd) -> io::Result<()> {
    match set(&socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls") {
        // It lies there already.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// From here on what is written is sealed. `keys`: a `struct tls12_crypto_info_*`.
///
/// # Errors
/// Those of setsockopt(2).
pub fn seal_with(socket: impl AsFd, keys: &[u8]) -> io::Result<()> {
    set(&socket, libc::SOL_TLS, TLS_TX, keys)
}

/// Sends an alert behind all that was written, without waiting. Where the socket is writable, all of that is with TCP then: a
/// record that was cut short by a full buffer is of the kernel's own keeping until there is room.
///
/// # Errors
/// Those of sendmsg(2).
pub fn alert(socket: impl AsFd, level_and_description: [u8; 2]) -> io::Result<()> {
    let mut bytes = level_and_description;
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // As long as a header and a byte take, and aligned as a header is.
    let mut control = [0u64; 4];
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(1) as usize, libc::CMSG_LEN(1) as usize) };
    assert!(space <= mem::size_of_val(&control), "a control message of one byte has room");
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: `message` names a control buffer of `space` bytes, aligned, which holds a header and one byte; CMSG_FIRSTHDR and
    // CMSG_DATA stay within it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        ptr::write(
            header,
            libc::cmsghdr { cmsg_len: len as _, cmsg_level: libc::SOL_TLS, cmsg_type: TLS_SET_RECORD_TYPE },
        );
        ptr::write(libc::CMSG_DATA(header), ALERT);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all that `message` names lives until the call returns, and the kernel reads no more than the lengths it is given.
    match unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let (fd, len) = (socket.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of `value`, which lives until it returns.
    match unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_connection_takes_no_keys() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(begin(&listener).is_err());
        assert!(seal_with(&listener, &[0; 40]).is_err());
        assert!(try_keys(b"nothing of the kind").is_err());
        assert!(alert(std::fs::File::open("/dev/null").unwrap(), [1, 0]).is_err());
    }
}
