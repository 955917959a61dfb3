//! The PROXY protocol: whom a connection is relayed for, told in front of its first byte.
//!
//! Source: proxy-protocol.txt of HAProxy, 2020/03/05: version 1 (2.1), version 2 (2.2), TLVs (2.2.1 to 2.2.7).

mod crc32c;
mod header;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod write;

pub use header::{BYTES_MAX, Ends, Header, Parsed, ProxyError};
pub use write::{Extras, write_v1, write_v2};

/// Looks for a header at the beginning of a connection, of which `bytes` is all that has come.
///
/// More bytes never change an answer but [`Parsed::Partial`].
///
/// # Errors
/// It is a header, but not a sound one; the connection cannot be used.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    match (begins(v1::SIGNATURE), begins(v2::SIGNATURE)) {
        (true, _) if bytes.len() >= v1::SIGNATURE.len() => v1::parse(bytes),
        (_, true) if bytes.len() >= v2::SIGNATURE.len() => v2::parse(bytes),
        (false, false) => Ok(Parsed::Absent),
        _ => Ok(Parsed::Partial),
    }
}
