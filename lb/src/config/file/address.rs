//! Addresses with the rules of the place they stand in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::reader::Fault;

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

/// One of `vip.address`: an address, as a prefix of full length, or a prefix.
pub(super) fn vip(text: &str) -> Result<IpNet, Fault> {
    if let Ok(ip) = text.parse() {
        return unicast(ip).map(IpNet::from);
    }
    if let Ok(net) = text.parse::<IpNet>() {
        let net = prefix(text).and(Ok(net))?;
        if net.prefix_len() == net.max_prefix_len() {
            return Err(Fault::new("is a single address").suggest(Some(net.addr().to_string())));
        }
        // Of all addresses everything is one; only what is multicast alone is a mistake.
        if net.addr().is_multicast() {
            return Err(Fault::new("must be unicast addresses"));
        }
        return Ok(net);
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Err(Fault::new("must be an address without port; ports stand in `ports`"));
    }
    Err(Fault::new("must be an IP address, such as \"192.0.2.53\" or \"2001:db8::53\", or a prefix"))
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
