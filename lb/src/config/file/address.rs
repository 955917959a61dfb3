//! Addresses with the rules of the place they stand in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::reader::Fault;
use crate::{
    config::{BackendPlace, BindRange, Gateway},
    model::{BackendName, DomainName, UNIX_BYTES_MAX, UnixAddress},
};

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

/// One of `listener.trusted_proxies`: an address or a prefix.
pub(super) fn peer(text: &str) -> Result<IpNet, Fault> {
    match text.parse() {
        Ok(ip) => unicast(ip).map(IpNet::from),
        Err(_) => prefix(text),
    }
}

/// What a listener listens at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bind {
    /// One address and port.
    One(SocketAddr),
    /// More than one.
    Range(BindRange),
}

/// An address and a port to listen at, either of which may be a range: `192.0.2.0/24:8000-8999`.
pub(super) fn listen(text: &str) -> Result<Bind, Fault> {
    match range(text) {
        Some((net, first, last)) => bind_range(net, first, last).map(Bind::Range),
        None => bind(text).map(Bind::One),
    }
}

/// Prefix and ports, if that is what the text is; the prefix may be one address, and the ports one port, but not both.
fn range(text: &str) -> Option<(IpNet, u16, u16)> {
    let (net, ports) = text.rsplit_once(':')?;
    let net = match net.strip_prefix('[') {
        Some(net) => net.strip_suffix(']').filter(|net| net.contains(':'))?,
        None => Some(net).filter(|net| !net.contains(':'))?,
    };
    if !net.contains('/') && !ports.contains('-') {
        return None;
    }
    let net = net.parse().or_else(|_| net.parse().map(|ip: IpAddr| IpNet::from(ip))).ok()?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some((net, first.parse().ok()?, last.parse().ok()?))
}

fn bind_range(net: IpNet, first: u16, last: u16) -> Result<BindRange, Fault> {
    let spelled = |net, first, last| Some(BindRange { net, first, last }.to_string());
    unmapped(net.addr())?;
    if net.trunc() != net {
        let fault = Fault::new("has bits set behind the length of its prefix");
        return Err(fault.suggest(spelled(net.trunc(), first, last)));
    }
    if net.addr().is_multicast() {
        return Err(Fault::new("must be unicast addresses"));
    }
    if first == 0 {
        return Err(Fault::new("port 0 is no port; ranges begin at 1").suggest(spelled(net, 1, last.max(1))));
    }
    if first > last {
        return Err(Fault::new("the range of ports ends before it begins").suggest(spelled(net, last, first)));
    }
    Ok(BindRange { net, first, last })
}

/// An address and a port.
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

/// What stands for backends in a pool.
#[derive(Debug, PartialEq)]
pub(super) enum Written {
    /// One of them.
    Place(BackendPlace),
    /// Any number.
    Name(BackendName),
}

/// One of `pool.backends`: an address, and a port where there is one.
pub(super) fn backend(text: &str) -> Result<Written, Fault> {
    if let Some(socket) = text.strip_prefix("unix:") {
        return match UnixAddress::new(socket) {
            Some(address) => Ok(Written::Place(BackendPlace::Unix(address))),
            None => Err(Fault::new(format!(
                "must be an absolute path or a name, such as \"unix:/run/app.sock\" or \"unix:@app\", of at most \
                 {UNIX_BYTES_MAX} bytes"
            ))),
        };
    }
    if let Some(name) = text.strip_prefix("srv:") {
        let rule = "must be the name of a service, such as \"srv:_http._tcp.api.internal\"; its answers say the ports";
        return DomainName::new(name)
            .map(|name| Written::Name(BackendName::Service(name)))
            .ok_or_else(|| Fault::new(rule));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err(Fault::new("addresses with a scope are not supported yet"));
        }
        if address.port() == 0 {
            return Err(Fault::new("port 0 cannot be dialled; give one from 1 to 65535"));
        }
        return Ok(Written::Place(BackendPlace::Ip(unicast(address.ip())?, Some(address.port()))));
    }
    if let Ok(ip) = text.parse() {
        return Ok(Written::Place(BackendPlace::Ip(unicast(ip)?, None)));
    }
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_decimal = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    match (DomainName::new(host), port) {
        (Some(_), None) => Err(Fault::new("a name needs a port").suggest(Some(format!("{text}:80")))),
        (Some(name), Some(port)) => match Some(port).filter(is_decimal).and_then(|port| port.parse().ok()) {
            Some(port @ 1..) => Ok(Written::Name(BackendName::Host(name, port))),
            _ => Err(Fault::new("a name needs a port from 1 to 65535")),
        },
        (None, _) => Err(Fault::new(
            "must be an address, with a port behind a listener, such as \"10.0.0.11:8080\" or \"[2001:db8::1]:80\", a \
             name with port, \"srv:SERVICE\" or \"unix:PATH\"",
        )),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_from_addresses_and_spelled_as_read() {
        for text in [
            "192.0.2.0/24:8000-8999",
            "192.0.2.1/32:80-81",
            "[2001:db8::/64]:443",
            "[2001:db8::1/128]:1-65535",
            "0.0.0.0/0:443",
        ] {
            match listen(text) {
                Ok(Bind::Range(range)) => assert_eq!(range.to_string(), text),
                other => panic!("{text}: {:?}", other.map_err(|fault| fault.message)),
            }
        }
        for (short, long) in [("192.0.2.1:80-81", "192.0.2.1/32:80-81"), ("[::1]:80-81", "[::1/128]:80-81")] {
            assert!(matches!(listen(short), Ok(Bind::Range(range)) if range.to_string() == long), "{short}");
        }
        for text in ["192.0.2.1:80", "[2001:db8::1]:80"] {
            assert!(matches!(listen(text), Ok(Bind::One(address)) if address.to_string() == text), "{text}");
        }
    }

    #[test]
    fn bad_ranges_say_what_would_be_right() {
        for (text, says, instead) in [
            ("192.0.2.1/24:80", "bits set", "192.0.2.0/24:80"),
            ("[2001:db8::1/64]:80", "bits set", "[2001:db8::/64]:80"),
            ("192.0.2.0/24:0-9", "begin at 1", "192.0.2.0/24:1-9"),
            ("192.0.2.0/24:9-8", "ends before it begins", "192.0.2.0/24:8-9"),
        ] {
            let Err(fault) = listen(text) else { panic!("{text} was taken") };
            assert!(fault.message.contains(says), "{text}: {}", fault.message);
            assert_eq!(fault.suggestion.as_deref(), Some(instead), "{text}");
        }
        for text in [
            "192.0.2.0/33:80",
            "192.0.2.0/24",
            "192.0.2.0/24:x-y",
            "::/0:80",
            "[192.0.2.0/24]:80",
            "a/b:1-2",
            ":1-2",
        ] {
            assert!(listen(text).is_err(), "{text} was taken");
        }
        for text in ["224.0.0.0/8:80", "[::ffff:1.2.3.0/120]:80"] {
            assert!(listen(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn ranges_meet_where_an_address_and_a_port_are_in_both() {
        let range = |text| match listen(text) {
            Ok(Bind::Range(range)) => range,
            _ => panic!("{text}"),
        };
        let one = range("192.0.2.0/24:80-90");
        for (other, meets) in [
            ("192.0.2.0/24:90-99", true),
            ("192.0.2.128/25:85", true),
            ("192.0.0.0/16:1-80", true),
            ("192.0.2.0/24:91-99", false),
            ("192.0.3.0/24:80-90", false),
            ("[::/0]:80", false),
        ] {
            let other = range(other);
            assert_eq!((one.meets(&other), other.meets(&one)), (meets, meets), "{other}");
        }
        assert!(one.contains("192.0.2.9:85".parse().unwrap()));
        assert!(
            !one.contains("192.0.2.9:91".parse().unwrap()) && !one.contains("192.0.3.9:85".parse().unwrap())
        );
    }
}
