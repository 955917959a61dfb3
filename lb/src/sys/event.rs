//! eventfd: a doorbell between threads.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{EventfdFlags, eventfd};

/// A new eventfd at zero. Blocking, so that a ring's read of it waits.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn new() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// Rings it. Never blocks in practice: only a counter near 2^64 would.
pub fn ring(fd: impl AsFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}
