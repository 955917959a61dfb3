//! TLS, around rustls: whose certificates are good, which of ours is shown to whom, and one connection's records. Holds no
//! socket; rustls keeps its own time and randomness.

mod client;
mod server;
mod session;
mod trust;

pub use client::{Client, ClientSession, Fault, Protocols};
pub use server::{NoCertificate, Server};
pub use session::{Greeting, Refusal, Session, Terms, Why, sealed_bytes_max};
pub use trust::Trust;
