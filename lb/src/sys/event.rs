//! eventfd: a doorbell between threads.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

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

/// Blocks until it rings, and quiets it; for `limit` at most, or until a signal comes.
pub fn wait(fd: impl AsFd, limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut ready = [PollFd::new(&fd, PollFlags::IN)];
    if poll(&mut ready, limit.as_ref()).is_ok_and(|count| count > 0) {
        let _ = rustix::io::read(&fd, &mut [0; 8]);
    }
}
