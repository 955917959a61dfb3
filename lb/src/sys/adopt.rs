//! Descriptors that come by their number.
#![expect(unsafe_code, reason = "a descriptor is handed over by its number")]

use std::{
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Gives a descriptor to a type that takes it over by its number only.
pub fn adopt<T: FromRawFd>(descriptor: impl Into<OwnedFd>) -> T {
    // SAFETY: it is open and nobody else's, since an OwnedFd was given away for it; that is all that FromRawFd asks.
    unsafe { T::from_raw_fd(descriptor.into().into_raw_fd()) }
}

/// What systemd started this process with, each by its name; the first call has them. Where it says what cannot be
/// meant, there are none.
pub fn listen_fds() -> Vec<(String, OwnedFd)> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(named) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    // SAFETY: LISTEN_PID says that they were opened for this process, and sd_notify has found each of them open; nobody
    // else knows of them, and they are given out once.
    named.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect()
}
