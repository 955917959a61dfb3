//! TLS, around rustls: whose certificates are good, and one connection's records. Holds no socket; rustls keeps its own
//! time and randomness.

mod client;
mod trust;

pub use client::{Client, Fault, Protocols, Session};
pub use trust::Trust;
