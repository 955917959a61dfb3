//! Version 2: binary, with TLVs.
//!
//! ```text
//!  | signature: 12 | version, command: 4 + 4 bits | family, protocol: 4 + 4 bits | length: 2 | addresses | TLVs |
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    crc32c::crc32c,
    header::{BYTES_MAX, Ends, Header, Parsed, ProxyError},
};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Up to the length.
pub(super) const FIXED: usize = 16;

pub(super) const COMMAND_LOCAL: u8 = 0x20;
pub(super) const COMMAND_PROXY: u8 = 0x21;
const FAMILY_UNSPEC: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_INET6: u8 = 2;
const FAMILY_UNIX: u8 = 3;
const PROTOCOL_STREAM: u8 = 1;
const PROTOCOL_DGRAM: u8 = 2;
/// TCP over IPv4, TCP over IPv6.
pub(super) const TCP4: u8 = FAMILY_INET << 4 | PROTOCOL_STREAM;
pub(super) const TCP6: u8 = FAMILY_INET6 << 4 | PROTOCOL_STREAM;

pub(super) const TLV_AUTHORITY: u8 = 0x02;
pub(super) const TLV_CRC32C: u8 = 0x03;
pub(super) const TLV_UNIQUE_ID: u8 = 0x05;

/// Of bytes that begin with [`SIGNATURE`]. What can be refused early is; TLVs are read when all is there.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(&command) = bytes.get(12) else { return Ok(Parsed::Partial) };
    if !matches!(command, COMMAND_LOCAL | COMMAND_PROXY) {
        return Err(ProxyError::Command);
    }
    let Some(&family) = bytes.get(13) else { return Ok(Parsed::Partial) };
    // Of a LOCAL header everything behind the command is ignored.
    let is_local = command == COMMAND_LOCAL;
    let addresses = match family >> 4 {
        _ if is_local => 0,
        _ if family & 0xf > PROTOCOL_DGRAM => return Err(ProxyError::Family),
        FAMILY_UNSPEC => 0,
        FAMILY_INET => 12,
        FAMILY_INET6 => 36,
        FAMILY_UNIX => 216,
        _ => return Err(ProxyError::Family),
    };
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Ok(Parsed::Partial) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len < FIXED + addresses || len > BYTES_MAX {
        return Err(ProxyError::Length);
    }
    let Some(header) = bytes.get(..len) else { return Ok(Parsed::Partial) };
    if is_local || family >> 4 == FAMILY_UNSPEC {
        return Ok(Parsed::Complete(Header { len, ends: None }));
    }
    check_tlvs(header, FIXED + addresses)?;
    Ok(Parsed::Complete(Header { len, ends: ends(family, &header[FIXED..]) }))
}

fn ends(family: u8, bytes: &[u8]) -> Option<Ends> {
    let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match family {
        TCP4 => {
            let (client, rest) = bytes.split_first_chunk::<4>()?;
            let client = SocketAddr::from((Ipv4Addr::from(*client), port(8)?));
            let destination = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(Ends::new(client, SocketAddr::from((destination, port(10)?))))
        }
        TCP6 => {
            let (client, rest) = bytes.split_first_chunk::<16>()?;
            let client = SocketAddr::from((Ipv6Addr::from(*client), port(32)?));
            let destination = Ipv6Addr::from(*rest.first_chunk::<16>()?);
            Some(Ends::new(client, SocketAddr::from((destination, port(34)?))))
        }
        _ => None,
    }
}

/// Walks the TLVs, which begin at `at` and fill the header to its end, and checks the checksum where there is one.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), ProxyError> {
    let mut checksum = None;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(ProxyError::Tlv) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = header.get(value.clone()).ok_or(ProxyError::Tlv)?;
        if kind == TLV_CRC32C {
            let told = <[u8; 4]>::try_from(bytes).map_err(|_| ProxyError::Tlv)?;
            if checksum.replace((value.clone(), u32::from_be_bytes(told))).is_some() {
                return Err(ProxyError::Tlv);
            }
        }
        at = value.end;
    }
    let Some((place, told)) = checksum else { return Ok(()) };
    // Over the whole header, with zeroes in the place of the checksum.
    let bytes = header.iter().enumerate().map(|(at, byte)| if place.contains(&at) { 0 } else { *byte });
    if crc32c(bytes) == told { Ok(()) } else { Err(ProxyError::Checksum) }
}
