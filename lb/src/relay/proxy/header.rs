//! What a PROXY header says, and why one is refused.

use std::net::{IpAddr, SocketAddr};

/// Longest version 2 header that is read: 16 bytes, addresses and TLVs. A sender that tells a client's certificate needs
/// a few KiB; the format itself would allow 64.
pub const BYTES_MAX: usize = 16 << 10;

/// Between whom the connection runs that is relayed to us. Never IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who opened it.
    pub client: SocketAddr,
    /// What it was opened to.
    pub destination: SocketAddr,
}

impl Ends {
    /// Of addresses as they were told.
    pub fn new(client: SocketAddr, destination: SocketAddr) -> Self {
        Self { client: canonical(client), destination: canonical(destination) }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip(), address.ip().to_canonical()) {
        (IpAddr::V6(_), ip @ IpAddr::V4(_)) => SocketAddr::new(ip, address.port()),
        _ => address,
    }
}

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; the connection's own begin behind them.
    pub len: usize,
    /// `None`: the sender speaks for itself (LOCAL), or for a client that has no IP address (UNKNOWN, UNSPEC, AF_UNIX, a
    /// protocol without connections). The connection's own ends count then.
    pub ends: Option<Ends>,
}

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header.
    Complete(Header),
    /// The beginning of one, or of something else: more bytes decide.
    Partial,
    /// No header.
    Absent,
}

/// A rule that a header breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// Version 1: no CR LF within 107 bytes, or LF without CR.
    Line,
    /// Version 1: not `PROXY TCP4|TCP6 source destination port port`, or a part of it is malformed.
    Fields,
    /// Version 2: another version, or a command other than LOCAL and PROXY.
    Command,
    /// Version 2: an unknown address family or protocol.
    Family,
    /// Version 2: too short for its addresses, or longer than [`BYTES_MAX`].
    Length,
    /// Version 2: a TLV ends behind the header, or a checksum is not of four bytes or there twice.
    Tlv,
    /// Version 2: the checksum is another one.
    Checksum,
}
