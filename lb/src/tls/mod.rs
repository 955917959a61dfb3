//! TLS, around rustls: whose certificates are good, which of ours are shown to whom, and one connection's records. Holds
//! no socket and reads no certificate's file; rustls keeps its own time and randomness.

mod certificate;
mod client;
mod entry;
#[cfg(test)]
pub(crate) mod fixture;
mod profile;
mod server;
mod session;
mod trust;
mod upstream;

pub use certificate::{Certificate, Flaw};
pub use client::{Client, ClientSession, Fault, Protocols};
pub use entry::{CertificateName, Entry, Parts};
pub use server::{Clash, NoCertificate, Server};
pub use session::{Greeting, Refusal, Session, Terms, Why, sealed_bytes_max};
pub use trust::Trust;
pub use upstream::Upstream;
