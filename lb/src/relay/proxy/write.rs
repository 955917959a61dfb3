//! Headers for backends.

use std::net::{IpAddr, SocketAddr};

use super::{
    crc32c::crc32c,
    header::Ends,
    v1,
    v2::{
        COMMAND_LOCAL, COMMAND_PROXY, FIXED, SIGNATURE, TCP4, TCP6, TLV_AUTHORITY, TLV_CRC32C, TLV_UNIQUE_ID,
    },
};

/// What a version 2 header tells beside the addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// Host that the client asked for by TLS (PP2_TYPE_AUTHORITY); at most 255 bytes.
    pub authority: Option<&'a [u8]>,
    /// A name of this connection that no other has (PP2_TYPE_UNIQUE_ID); at most 128 bytes.
    pub unique_id: Option<&'a [u8]>,
}

/// Appends a version 1 header; `PROXY UNKNOWN` where the ends are not known.
pub fn write_v1(out: &mut Vec<u8>, ends: Option<Ends>) {
    out.extend_from_slice(v1::SIGNATURE);
    match ends {
        None => out.extend_from_slice(b"UNKNOWN"),
        Some(Ends { client, destination }) => {
            let (family, from, to) = match (client.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => ("TCP4", from.to_string(), to.to_string()),
                (from, to) => ("TCP6", as_v6(from).to_string(), as_v6(to).to_string()),
            };
            let line = format!("{family} {from} {to} {} {}", client.port(), destination.port());
            out.extend_from_slice(line.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a version 2 header with its checksum; a LOCAL one where the ends are not known.
pub fn write_v2(out: &mut Vec<u8>, ends: Option<Ends>, extras: &Extras<'_>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    match ends {
        None => out.extend_from_slice(&[COMMAND_LOCAL, 0, 0, 0]),
        Some(ends) => {
            out.extend_from_slice(&[COMMAND_PROXY, 0, 0, 0]);
            out[start + 13] = addresses(out, ends);
            for (kind, value) in [(TLV_AUTHORITY, extras.authority), (TLV_UNIQUE_ID, extras.unique_id)] {
                value.into_iter().for_each(|value| tlv(out, kind, value));
            }
            tlv(out, TLV_CRC32C, &[0; 4]);
            let len = (out.len() - start - FIXED) as u16;
            out[start + 14..start + FIXED].copy_from_slice(&len.to_be_bytes());
            let checksum = crc32c(out[start..].iter().copied());
            let place = out.len() - 4;
            out[place..].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// Their family and protocol.
fn addresses(out: &mut Vec<u8>, Ends { client, destination }: Ends) -> u8 {
    let kind = match (client.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            TCP4
        }
        (from, to) => {
            out.extend_from_slice(&as_v6(from).octets());
            out.extend_from_slice(&as_v6(to).octets());
            TCP6
        }
    };
    for end in [client, destination] {
        out.extend_from_slice(&SocketAddr::port(&end).to_be_bytes());
    }
    kind
}

fn as_v6(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    assert!(value.len() <= 255, "what we tell of a connection is short");
    out.extend_from_slice(&[kind, 0, value.len() as u8]);
    out.extend_from_slice(value);
}
