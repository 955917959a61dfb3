//! HTTP/2 (RFC 9113), around the h2 crate, of which nobody else names a type. Messages go as those of HTTP/1.1: each way, heads
//! and trailers are written out and read again by the one strict reader, so that all versions meet the same checks and nothing
//! can be smuggled from one into the other.

mod client;
mod fields;
mod flow;
mod io;
mod meter;
mod request;
mod response;
mod server;
mod trailers;
mod tunnel;

pub use client::{Asking, Client, Fate, Grants, Requests, begin};
pub use flow::{Break, Gone, Inflow, Outflow};
pub use io::Wire;
pub use meter::{Abuse, Budgets};
pub use request::{read_request, write_request};
pub use response::{read_response, write_response};
pub use server::{Asked, Ended, Server, Settings};

/// What frames the body of a message that was written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// There is none: whatever data comes nevertheless breaks the protocol.
    None,
    /// So many bytes as they are; never 0.
    Length(u64),
    /// Chunks, with trailers behind the last one.
    Chunked,
    /// Another protocol's, to the end of the stream.
    Tunnel,
}
