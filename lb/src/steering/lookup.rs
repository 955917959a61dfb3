//! Whole prefixes and port ranges for a listener: `lb_lookup`, and the maps that it asks.
//!
//! The link is not pinned: without the sockets of this process the program would have nothing to give.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use lb_abi::{
    bounds::{LOOKUP_PREFIXES_MAX, STEER_SOCKETS_MAX},
    lookup::{LookupEntry, LookupRange, RANGES_MAX},
    names,
};

use super::{
    Plane,
    error::{Error, Result},
    loader,
    terms::mapped,
};
use crate::config::BindRange;

/// Ranges and the group that serves them.
#[derive(Clone, Copy, Debug)]
pub struct LookupGroup<'a> {
    /// Of the family of the group.
    pub ranges: &'a [BindRange],
    /// What its sockets are bound to.
    pub address: SocketAddr,
    /// 6 or 17.
    pub protocol: u8,
}

impl Plane {
    /// Gives prefixes and port ranges to listener groups, each [steered](Plane::steer) before; these and no others.
    ///
    /// # Errors
    /// The verifier's log, the map that refused, or more ranges than a map holds.
    pub fn look_up(&mut self, groups: &[LookupGroup<'_>]) -> Result<()> {
        let place = |group: &LookupGroup<'_>| self.groups.place(group.address, group.protocol);
        // One that could not be steered was said to be lost.
        let placed: Vec<_> = groups.iter().filter_map(|group| Some((*group, place(group)?))).collect();
        let failed = || Error::map(names::MAP_LOOKUP_PREFIXES);
        let before: Vec<_> =
            self.maps.lookup_prefixes.keys().collect::<std::result::Result<_, _>>().map_err(failed())?;
        let mut put = BTreeSet::new();
        for (net, entry) in entries(&placed)? {
            let bits = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
            let address = mapped(net.network());
            self.maps.lookup_prefixes.insert(&Key::new(bits, address), entry, 0).map_err(failed())?;
            put.insert((bits, address));
        }
        for key in before.iter().filter(|key| !put.contains(&(key.prefix_len(), key.data()))) {
            self.maps.lookup_prefixes.remove(key).map_err(failed())?;
        }
        if std::mem::replace(&mut self.looks_up, true) {
            return Ok(());
        }
        let path = std::path::Path::new("/proc/thread-self/ns/net");
        let namespace = File::open(path).map_err(Error::file("open", path))?;
        let program = loader::sk_lookup(&mut self.object, names::PROGRAM_LOOKUP)?;
        program.attach(namespace).map(drop).map_err(|source| Error::Program {
            action: format!("attach {} to the network namespace", names::PROGRAM_LOOKUP),
            source: Box::new(source),
        })
    }
}

/// The ranges of every prefix: its own, then those of the prefixes around it, nearest first. Groups come with their
/// places.
fn entries(groups: &[(LookupGroup<'_>, u32)]) -> Result<BTreeMap<IpNet, LookupEntry>> {
    let all = groups.iter().flat_map(|group| group.0.ranges.iter().map(move |range| (group, range)));
    let ranges: Vec<_> = all.collect();
    let mut entries = BTreeMap::new();
    for net in ranges.iter().map(|(_, range)| range.net) {
        let mut around: Vec<_> = ranges.iter().filter(|(_, range)| range.net.contains(&net)).collect();
        around.sort_by_key(|(_, range)| std::cmp::Reverse(range.net.prefix_len()));
        if around.len() > RANGES_MAX {
            return Err(Error::Bounds {
                what: "port ranges of one prefix",
                is: around.len(),
                max: RANGES_MAX,
            });
        }
        let mut entry = LookupEntry::default();
        for (at, ((group, place), range)) in entry.ranges.iter_mut().zip(around) {
            *at = LookupRange {
                first: range.first,
                last: range.last,
                socket: *place as u16,
                protocol: group.protocol.into(),
            };
        }
        entries.insert(net, entry);
    }
    let max = LOOKUP_PREFIXES_MAX as usize;
    if entries.len() > max {
        return Err(Error::Bounds { what: "prefixes of listeners", is: entries.len(), max });
    }
    Ok(entries)
}

/// A place fits the 16 bits of a range.
const _: () = assert!(STEER_SOCKETS_MAX <= 1 << 16);

/// Where the sockets of a group for ranges are bound: every socket has to be bound to something, and to this nobody
/// comes from outside.
pub fn parking(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> BindRange {
        let (net, ports) = text.split_once(' ').unwrap();
        let (first, last) = ports.split_once('-').unwrap();
        BindRange { net: net.parse().unwrap(), first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    fn group(ranges: &[BindRange]) -> LookupGroup<'_> {
        LookupGroup { ranges, address: SocketAddr::new(parking(ranges[0].net.addr()), 1), protocol: 6 }
    }

    #[test]
    fn a_prefix_has_the_ranges_of_those_around_it_behind_its_own() {
        let [one, two, three] = [
            vec![range("10.0.0.0/8 80-90"), range("10.1.0.0/16 443-443")],
            vec![range("10.1.0.0/16 80-80"), range("10.2.0.0/16 1-2")],
            vec![range("2001:db8::/32 80-80")],
        ];
        let entries = entries(&[(group(&one), 0), (group(&two), 256), (group(&three), 512)]).unwrap();
        let of = |net: &str| {
            let used = entries[&net.parse().unwrap()].ranges.into_iter().filter(|range| range.protocol == 6);
            used.map(|range| (range.first, range.last, range.socket)).collect::<Vec<_>>()
        };
        assert_eq!(of("10.0.0.0/8"), [(80, 90, 0)]);
        assert_eq!(of("10.1.0.0/16"), [(443, 443, 0), (80, 80, 256), (80, 90, 0)]);
        assert_eq!(of("10.2.0.0/16"), [(1, 2, 256), (80, 90, 0)]);
        assert_eq!(of("2001:db8::/32"), [(80, 80, 512)]);
    }

    #[test]
    fn too_many_ranges_around_one_prefix_are_refused() {
        let ranges: Vec<_> = (0..=RANGES_MAX as u16)
            .map(|port| BindRange { first: port, last: port, ..range("10.0.0.0/8 1-1") })
            .collect();
        assert!(matches!(entries(&[(group(&ranges), 0)]), Err(Error::Bounds { is: 9, max: 8, .. })));
    }
}
