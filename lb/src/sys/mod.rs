//! The syscalls that a ring does not do, or does badly.

mod adopt;
pub mod affinity;
pub mod datagrams;
pub mod event;
pub mod heap;
pub mod interfaces;
pub mod ktls;
pub mod lock;
pub mod news;
pub mod owner;
mod peer;
pub mod pipe;
pub mod reuseport;
pub mod rooms;

pub use adopt::{adopt, listen_fds};
pub use peer::{Peer, peer};
