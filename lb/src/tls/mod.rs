//! TLS, around rustls: whose certificates are good, which of ours are shown to whom, and one connection's records. Holds
//! no socket and reads no certificate's file; rustls keeps its own time and randomness.

mod certificate;
mod client_auth;
mod entry;
#[cfg(test)]
pub(crate) mod fixture;
mod ktls;
mod name;
pub mod ocsp;
mod offer;
mod opener;
mod pem_flaw;
mod profile;
mod refusal;
mod server;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod tickets;
mod trust;
mod upstream;
mod wipe;
mod wording;

pub use certificate::{Certificate, Flaw};
pub use client_auth::{Clients, next_update, revocations, tell};
pub use entry::{EarlyData, Entry, Parts};
pub use ktls::KernelSuites;
pub use name::CertificateName;
pub use opener::Opener;
pub use refusal::{Refusal, Why};
pub use server::{Clash, NoCertificate, Server};
pub use session::{Greeting, Session, Terms, sealed_bytes_max};
pub use sessions::Sessions;
pub use tickets::{KEY_BYTES, TicketKeys, Tickets};
pub use trust::Trust;
pub use upstream::Upstream;
pub use wipe::Wiped;
