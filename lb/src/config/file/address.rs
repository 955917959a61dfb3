//! Addresses with the rules of the place they stand in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::reader::Fault;
use crate::config::Gateway;

/// An address that packets can be sent to or taken for: not unspecified, multicast, broadcast or IPv4-mapped.
pub(super) fn unicast(ip: IpAddr) -> Result<IpAddr, Fault> {
    let ip = unmapped(ip)?;
    if ip.is_unspecified() {
        return Err(Fault::new("must be one address, not the unspecified one"));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Fault::new("must be a unicast address"));
    }
    Ok(ip)
}

/// Refuses `::ffff:a.b.c.d`: the same address would have two spellings.
fn unmapped(ip: IpAddr) -> Result<IpAddr, Fault> {
    let mapped = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    match mapped {
        Some(v4) => Err(Fault::new("must not be an IPv4-mapped address").suggest(Some(v4.to_string()))),
        None => Ok(ip),
    }
}

/// One of `vip.address`.
pub(super) fn vip(text: &str) -> Result<IpAddr, Fault> {
    if let Ok(ip) = text.parse() {
        return unicast(ip);
    }
    if text.parse::<IpNet>().is_ok() {
        return Err(Fault::new("prefixes as VIPs are not supported yet; give single addresses"));
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Err(Fault::new("must be an address without port; ports stand in `ports`"));
    }
    Err(Fault::new("must be an IP address, such as \"192.0.2.53\" or \"2001:db8::53\""))
}

/// An address and a port to listen at.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Fault> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => Fault::new("needs a port").suggest(Some(format!("{text}:80"))),
            Ok(IpAddr::V6(_)) => Fault::new("needs a port").suggest(Some(format!("[{text}]:80"))),
            Err(_) => Fault::new("must be an address with port, such as \"0.0.0.0:80\" or \"[::]:80\""),
        });
    };
    unmapped(address.ip())?;
    if address.ip().is_multicast() {
        return Err(Fault::new("must be a unicast address"));
    }
    if address.port() == 0 {
        return Err(Fault::new("port 0 would be another port at every start; give one from 1 to 65535"));
    }
    Ok(address)
}

/// One of `pool.backends`: an address, and a port where there is one.
pub(super) fn backend(text: &str) -> Result<(IpAddr, Option<u16>), Fault> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err(Fault::new("addresses with a scope are not supported yet"));
        }
        if address.port() == 0 {
            return Err(Fault::new("port 0 cannot be dialled; give one from 1 to 65535"));
        }
        return Ok((unicast(address.ip())?, Some(address.port())));
    }
    if let Ok(ip) = text.parse() {
        return Ok((unicast(ip)?, None));
    }
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let last_label = host.rsplit('.').next().unwrap_or("");
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && last_label.bytes().any(|byte| byte.is_ascii_alphabetic());
    Err(Fault::new(if is_name {
        "host names are not supported yet; give an IP address"
    } else {
        "must be an IP address, with a port behind a listener, such as \"10.0.0.11:8080\" or \"[2001:db8::1]:80\""
    }))
}

/// One of `xdp.outer_source`.
pub(super) fn tunnel_source(text: &str) -> Result<IpNet, Fault> {
    let net = prefix(text)?;
    let address = net.addr();
    let is_usable = match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    };
    if !is_usable || address.is_multicast() || address == IpAddr::from([255; 4]) {
        return Err(Fault::new("must be a prefix that is routed to this machine, or errors never come back"));
    }
    Ok(net)
}

/// `xdp.interfaces[].gateway`.
pub(super) fn gateway(text: &str) -> Result<Gateway, Fault> {
    let rule =
        "must be the IP or Ethernet address of a router, such as \"10.0.0.1\" or \"02:00:00:00:00:01\"";
    if let Ok(address) = text.parse::<IpAddr>() {
        unmapped(address)?;
        let is_host = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
        return if is_host { Ok(Gateway::Address(address)) } else { Err(Fault::new(rule)) };
    }
    let byte =
        |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+'));
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
        // Neither a group's nor nobody's.
        Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(Gateway::Ethernet(mac)),
        _ => Err(Fault::new(rule)),
    }
}

/// One of `xdp.deny`.
pub(super) fn prefix(text: &str) -> Result<IpNet, Fault> {
    let rule = "must be a prefix, such as \"203.0.113.0/24\" or \"2001:db8::/32\"";
    let Ok(net) = text.parse::<IpNet>() else {
        let host = text.parse::<IpAddr>().ok().map(|ip| IpNet::from(ip).to_string());
        return Err(Fault::new(rule).suggest(host));
    };
    unmapped(net.addr())?;
    if net.trunc() != net {
        let fault = Fault::new("has bits set behind its length");
        return Err(fault.suggest(Some(net.trunc().to_string())));
    }
    Ok(net)
}
