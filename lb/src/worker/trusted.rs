//! Clients whose word is believed: the addresses of some prefixes.

use std::net::IpAddr;

use ipnet::IpNet;

/// Disjoint ranges in ascending order; IPv4 in its mapped form.
#[derive(Debug, Default)]
pub(super) struct Trusted(Box<[(u128, u128)]>);

impl Trusted {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        let mut ranges: Vec<_> =
            nets.iter().map(|net| (number(net.network()), number(net.broadcast()))).collect();
        ranges.sort_unstable();
        // Of prefixes one may lie in another, but no two overlap in part.
        ranges.dedup_by(|later, earlier| later.1 <= earlier.1);
        Self(ranges.into())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let address = number(address);
        let behind = self.0.partition_point(|&(first, _)| first <= address);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(_, last)| address <= last)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_prefix_has_is_trusted_and_nothing_else() {
        let nets =
            ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let trusted = Trusted::new(&nets);
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.2.3.4", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
            ("::10.0.0.1", false),
        ] {
            assert_eq!(trusted.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!Trusted::default().contains("10.0.0.1".parse().unwrap()));
    }
}
