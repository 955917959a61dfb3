//! Header compression. Source: RFC 7541.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod seen;
mod statics;
mod table;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;
pub use encoder::{FieldWriter, Refused, Request};

/// What is wrong with a header block: its connection cannot go on (RFC 9113, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No field has this index (RFC 7541, 2.3.3).
    Index,
    /// A number is longer than any that makes sense (RFC 7541, 5.1).
    Number,
    /// The block ends within a field.
    Short,
    /// A text in Huffman's code has the sign for its end, or ends with what is no padding (RFC 7541, 5.2).
    Huffman,
    /// The table is to be larger than we granted, to change behind a field, or was not made as small as we said
    /// (RFC 7541, 4.2 and 6.3).
    TableSize,
}

impl Error {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Index => "hpack-index",
            Self::Number => "hpack-number",
            Self::Short => "hpack-short",
            Self::Huffman => "hpack-huffman",
            Self::TableSize => "hpack-table-size",
        }
    }
}
