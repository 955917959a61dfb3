//! HTTP/2 as HTTP/1.1 messages: each way, heads and trailers are written out and read again by the one strict reader, so that
//! all versions meet the same checks and nothing can be smuggled from one into the other.

mod fields;
pub mod meter;
mod request;
mod response;
mod trailers;

pub use request::{read_request, write_request};
pub use response::{read_response, write_response};
pub use trailers::{read_trailers, write_trailers};

/// What frames the body of a message that was written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// There is none: whatever data comes nevertheless breaks the protocol.
    None,
    /// So many bytes as they are; never 0.
    Length(u64),
    /// Chunks, with trailers behind the last one.
    Chunked,
}
