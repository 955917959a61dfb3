//! One pinned thread with its own ring: accepts, relays, speaks HTTP. Composes everything below.

mod api;
mod timer;

pub use api::{BoundListener, Command, Handle, Setup};
