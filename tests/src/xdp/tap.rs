//! A wire end of a test.
#![expect(unsafe_code, reason = "packet sockets have no safe wrapper")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Result, ensure};

/// A wire end: sends frames out of an interface, and sees all that come in by it.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// On the interface with an index.
    pub fn new(interface: u32) -> Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(protocol)) };
        ensure!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: just made, and nobody else's.
        let tap = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: integers and a byte array.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = interface as i32;
        let len = size_of_val(&address) as u32;
        // SAFETY: `address` is `len` bytes of ours.
        let error = unsafe { libc::bind(tap.0.as_raw_fd(), (&raw const address).cast(), len) };
        ensure!(error == 0, "bind: {}", io::Error::last_os_error());
        Ok(tap)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = rustix::io::write(&self.0, frame)?;
        ensure!(sent == frame.len(), "a frame is sent whole");
        Ok(())
    }

    /// A frame that came in, if one is there.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let len = rustix::io::read(&self.0, &mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }
}
