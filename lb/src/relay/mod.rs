//! Bytes between two peers: what to do next, and when to leave user space. Never touches a socket.

mod flow;

pub use flow::{Action, Flow};
