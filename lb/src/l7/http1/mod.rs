//! HTTP/1: heads in and out, bodies in and out. Strict where two readers could differ (RFC 9112, 11.2).
//!
//! [`scan`] is the rule: a byte-by-byte reading of a head that gives the same answer however the input is cut.
//! httparse is the quick way to the same answer for heads that came whole and well formed.

mod body;
mod chunk;
mod encode;
mod error;
mod field;
mod forwarding;
mod framing;
mod request;
mod response;
mod scan;
mod upgrade;
mod writer;

#[cfg(test)]
mod bad_input;

pub use body::{BodyReader, Side, Step};
pub use encode::{CONTINUE, Downstream, encode_interim, encode_request, encode_response, encode_switch};
pub use error::encode_error;
pub use field::{Field, Span};
pub(super) use forwarding::scheme;
pub use forwarding::{Forwarding, client_address, push_request_id};
pub(super) use framing::content_length;
pub use request::RequestHead;
pub use response::ResponseHead;
pub(super) use scan::is_target_byte;
pub use upgrade::{Upgrades, protocols};
pub use writer::{BodyWriter, ChunkPrefix};

/// Bounds of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the head, start line and blank line included; at most `u32::MAX`.
    pub bytes: usize,
    /// Fields; beyond [`HeadLimits::FIELDS_MAX`] it counts as that.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
    /// Bytes of the method.
    pub method: usize,
}

impl HeadLimits {
    /// Most fields that a head can be allowed.
    pub const FIELDS_MAX: usize = 256;

    /// Limits of the config, with our own for what it does not name.
    pub const fn new(bytes: usize, fields: usize) -> Self {
        Self { bytes, fields, ..Self::DEFAULT }
    }

    const DEFAULT: Self = Self { bytes: 32 << 10, fields: 100, target: 8 << 10, method: 32 };
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Versions that we speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How the body of a message ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// After so many bytes. In requests never 0.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; only in responses.
    UntilClose,
}

/// How far a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is all there.
    Complete,
    /// Sound so far; read more.
    Partial,
}
