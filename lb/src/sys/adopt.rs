//! One's descriptor as another library's type.
#![expect(unsafe_code, reason = "a descriptor is handed over by its number")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Gives a descriptor to a type that takes it over by its number only.
pub fn adopt<T: FromRawFd>(descriptor: impl Into<OwnedFd>) -> T {
    // SAFETY: it is open and nobody else's, since an OwnedFd was given away for it; that is all that FromRawFd asks.
    unsafe { T::from_raw_fd(descriptor.into().into_raw_fd()) }
}
