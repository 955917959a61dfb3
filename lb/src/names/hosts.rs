//! `/etc/hosts` and `/etc/resolv.conf`, as texts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::model::DomainName;

/// Servers that are taken of `resolv.conf`: as many as resolv.conf(5) knows.
const SERVERS_MAX: usize = 3;

/// Addresses of a name in a hosts(5) file, in its order; names are compared without case.
pub fn addresses(text: &str, name: &DomainName) -> Vec<IpAddr> {
    let is_name = |word: &str| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name.as_str());
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(is_name).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// Servers that a resolv.conf(5) names; where it names none, this host. Addresses with a scope are passed over.
pub fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip: IpAddr = (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
        Some(SocketAddr::new(ip, 53))
    };
    let mut servers: Vec<_> = text.lines().filter_map(server).take(SERVERS_MAX).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_has_names_behind_addresses() {
        let text = "127.0.0.1 localhost\n# 10.0.0.9 app\n10.0.0.1\tAPP.internal app # b\nfd00::1 app.Internal.\nx app\n10.0.0.2\n";
        let of = |name| addresses(text, &DomainName::new(name).unwrap());
        assert_eq!(of("app.internal"), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(of("app"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(of("b").is_empty() && of("internal").is_empty());
    }

    #[test]
    fn servers_stand_in_order() {
        let text = "search a.b\n; nameserver 9.9.9.9\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n nameserver fd00::53\nnameserver\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.53:53".parse().unwrap(), "[fd00::53]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
        assert_eq!(servers("options rotate"), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(servers(&"nameserver 10.0.0.1\n".repeat(9)).len(), SERVERS_MAX);
    }
}
