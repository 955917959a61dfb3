//! Bytes between two peers: what to do next, when to leave user space, and what stands in front of them. Never touches a
//! socket.

pub mod client_hello;
mod flow;
pub mod flows;
mod names;
pub mod proxy;

pub use flow::{Action, Flow};
pub use names::Names;
