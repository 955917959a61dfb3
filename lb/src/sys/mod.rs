//! The syscalls that a ring does not do, or does badly.

mod adopt;
pub mod affinity;
pub mod datagrams;
pub mod event;
pub mod heap;
pub mod interfaces;
pub mod lock;
pub mod news;
mod peer;
pub mod pipe;
pub mod rooms;

pub use adopt::adopt;
pub use peer::{Peer, peer};
