//! HTTP/2 (RFC 9113), around the engine `lb-http2`, of which nobody else names a type. Messages go as those of HTTP/1.1: each way,
//! heads and trailers are written out and read again by the one strict reader, so that all versions meet the same checks and
//! nothing can be smuggled from one into the other.
//!
//! ```text
//!  Wire <--> Link: the engine, and what came of it for each stream (Board)
//!              ^--- Server, Client: move bytes whenever they are polled
//!              `--- Inflow, Outflow, Asking: one stream, as bytes of HTTP/1.1
//! ```

mod board;
mod body;
mod budgets;
mod client;
mod fields;
mod flow;
mod link;
mod lost;
mod request;
mod response;
mod server;
mod trailers;
mod tunnel;
mod wire;

#[cfg(test)]
mod tests;

pub use budgets::budgets;
pub use client::{Asking, Client, Grants, Requests, begin};
pub use flow::{Break, Inflow, Outflow};
pub use lb_http2::{Abuse, Budgets};
pub use lost::{Fate, Gone};
pub use server::{Asked, Ended, Next, Server, Settings};
pub use wire::Wire;

/// What frames the body of a message that was written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// There is none.
    None,
    /// So many bytes as they are; never 0.
    Length(u64),
    /// Chunks, with trailers behind the last one.
    Chunked,
    /// Another protocol's, to the end of the stream.
    Tunnel,
}
