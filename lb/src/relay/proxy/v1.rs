//! Version 1: a line of text.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::header::{Ends, Header, Parsed, ProxyError};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Longest line, CR LF included.
const LINE_MAX: usize = 107;

/// Of bytes that begin with [`SIGNATURE`].
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let head = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let Some(end) = head.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(Parsed::Partial) } else { Err(ProxyError::Line) };
    };
    let line = head[..end].strip_suffix(b"\r").ok_or(ProxyError::Line)?;
    let line = line.strip_prefix(SIGNATURE).ok_or(ProxyError::Fields)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Fields)?;
    Ok(Parsed::Complete(Header { len: end + 1, ends: ends(line)? }))
}

fn ends(line: &str) -> Result<Option<Ends>, ProxyError> {
    // Whatever follows is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(ProxyError::Fields);
    let (family, source, destination) = (word()?, word()?, word()?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Fields);
    }
    let ends = match family {
        "TCP4" => both::<Ipv4Addr>((source, from), (destination, to))?,
        "TCP6" => both::<Ipv6Addr>((source, from), (destination, to))?,
        _ => return Err(ProxyError::Fields),
    };
    Ok(Some(ends))
}

fn both<A: FromStr>(source: (&str, u16), destination: (&str, u16)) -> Result<Ends, ProxyError>
where
    SocketAddr: From<(A, u16)>,
{
    let address = |(text, port): (&str, u16)| {
        text.parse().map(|ip: A| SocketAddr::from((ip, port))).map_err(|_| ProxyError::Fields)
    };
    Ok(Ends::new(address(source)?, address(destination)?))
}

/// Decimal, without a sign or a zero in front.
fn port(text: &str) -> Result<u16, ProxyError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(ProxyError::Fields)
}
