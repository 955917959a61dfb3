//! Which VIP an address, port and protocol mean, found as the programs find it: of all keys that fit, the one with the
//! longest prefix, and of these an exact port before a range before any port.

use std::collections::{BTreeMap, BTreeSet};

use lb_abi::{
    be::Be16,
    bounds::TABLE_LEN,
    flow::FlowKey,
    lengths::{Lengths, VIP_LENGTHS_MAX},
    vip::{RANGE, VipEntry, VipKey},
};

use super::error::{Error, Result};

/// The VIPs, to look up many flows in.
pub(super) struct Finder<'a> {
    vips: &'a BTreeMap<VipKey, VipEntry>,
    /// Of all keys, ascending.
    host_bits: BTreeSet<u8>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(vips: &'a BTreeMap<VipKey, VipEntry>) -> Self {
        Self { vips, host_bits: vips.keys().map(|key| key.host_bits).collect() }
    }

    /// The VIP that a recorded flow goes to.
    pub(super) fn vip_of(&self, flow: &FlowKey) -> Option<&'a VipEntry> {
        self.key_of(flow).map(|(_, entry)| entry)
    }

    /// As [`Self::vip_of`], with the key by which it has the flow.
    pub(super) fn key_of(&self, flow: &FlowKey) -> Option<(&'a VipKey, &'a VipEntry)> {
        let found = self.find(flow.destination, flow.destination_port, flow.protocol);
        found.filter(|(_, entry)| entry.table_len == TABLE_LEN)
    }

    /// The entry that a packet of TCP or UDP is for.
    fn find(&self, address: [u8; 16], port: Be16, protocol: u8) -> Option<(&'a VipKey, &'a VipEntry)> {
        self.host_bits.iter().find_map(|&host_bits| {
            let address = masked(address, host_bits);
            let key = VipKey { address, port, protocol, host_bits };
            self.vips.get_key_value(&key).or_else(|| self.in_range(&key)).or_else(|| {
                let any = self.vips.get_key_value(&VipKey { port: Be16(0), ..key })?;
                (any.1.flags != 0).then_some(any)
            })
        })
    }

    fn in_range(&self, key: &VipKey) -> Option<(&'a VipKey, &'a VipEntry)> {
        let first = VipKey { address: key.address, ..VipKey::default() };
        let of_address = self.vips.range(first..).take_while(|(other, _)| other.address == key.address);
        let mut ranges = of_address
            .filter(|(other, _)| other.host_bits == key.host_bits && other.protocol == key.protocol | RANGE);
        ranges.find(|(other, entry)| (other.port.host()..=entry.last_port).contains(&key.port.host()))
    }
}

/// An address without its last bits.
pub(super) fn masked(address: [u8; 16], host_bits: u8) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(host_bits.into()).unwrap_or(0);
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}

/// Whether packets have to be told of keys beyond exact ones.
pub(super) fn is_wide<'k>(keys: impl IntoIterator<Item = &'k VipKey>) -> bool {
    let is_any = |key: &VipKey| key.port.0 == 0 && matches!(key.protocol, 6 | 17);
    keys.into_iter().any(|key| key.host_bits != 0 || key.protocol & RANGE != 0 || is_any(key))
}

/// The prefix lengths among keys, IPv4 and IPv6.
///
/// # Errors
/// There are more than fit.
pub(super) fn lengths<'k>(keys: impl IntoIterator<Item = &'k VipKey>) -> Result<[Lengths; 2]> {
    let mut host_bits = [BTreeSet::new(), BTreeSet::new()];
    for key in keys.into_iter().filter(|key| key.host_bits != 0) {
        let is_v4 = key.address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        host_bits[usize::from(!is_v4)].insert(u32::from(key.host_bits));
    }
    if let Some(is) = host_bits.iter().map(BTreeSet::len).find(|len| *len > VIP_LENGTHS_MAX) {
        let what = "prefix lengths of one family among vip addresses";
        return Err(Error::Bounds { what, is, max: VIP_LENGTHS_MAX });
    }
    Ok(host_bits.map(Lengths::of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, host_bits: u8, port: u16, protocol: u8) -> VipKey {
        let address: std::net::IpAddr = address.parse().unwrap();
        let address = crate::steering::terms::mapped(address);
        VipKey { address, port: Be16::new(port), protocol, host_bits }
    }

    fn entry(vip: u32, last_port: u16) -> VipEntry {
        VipEntry { vip, last_port, flags: 1, ..VipEntry::default() }
    }

    #[test]
    fn the_most_specific_key_is_found() {
        let vips = BTreeMap::from([
            (key("192.0.2.1", 0, 80, 6), entry(1, 0)),
            (key("192.0.2.1", 0, 70, 6 | RANGE), entry(2, 90)),
            (key("192.0.2.1", 0, 0, 6), entry(3, 0)),
            (key("192.0.2.0", 8, 80, 6), entry(4, 0)),
            (key("192.0.2.0", 8, 0, 17), entry(5, 0)),
            (key("192.0.0.0", 16, 0, 6), entry(6, 0)),
            (key("::", 128, 443, 6), entry(7, 0)),
            (key("192.0.2.1", 0, 0, 1), VipEntry { flags: 0, ..entry(8, 0) }),
        ]);
        let finder = Finder::new(&vips);
        let find = |address: &str, port, protocol| {
            let wanted = key(address, 0, port, protocol);
            finder.find(wanted.address, wanted.port, protocol).map(|(_, entry)| entry.vip)
        };
        assert_eq!(find("192.0.2.1", 80, 6), Some(1));
        assert_eq!(find("192.0.2.1", 90, 6), Some(2));
        assert_eq!(find("192.0.2.1", 91, 6), Some(3));
        assert_eq!(find("192.0.2.1", 91, 17), Some(5), "an address without the protocol is no obstacle");
        assert_eq!(find("192.0.2.2", 80, 6), Some(4));
        assert_eq!(find("192.0.2.2", 81, 6), Some(6), "nor is a prefix without the port");
        assert_eq!(find("192.0.3.2", 81, 6), Some(6));
        assert_eq!(find("192.1.0.0", 80, 6), None);
        assert_eq!(find("2001:db8::1", 443, 6), Some(7));
        assert_eq!(find("2001:db8::1", 444, 6), None);
    }

    #[test]
    fn single_addresses_and_ports_are_not_wide() {
        assert!(!is_wide(&[key("192.0.2.1", 0, 80, 6), key("192.0.2.1", 0, 0, 1)]));
        assert!(is_wide(&[key("192.0.2.1", 0, 0, 6)]));
        assert!(is_wide(&[key("192.0.2.1", 0, 1, 6 | RANGE)]));
        assert!(is_wide(&[key("192.0.2.0", 1, 80, 6)]));
        let [v4, v6] = lengths(&[key("192.0.2.0", 8, 80, 6), key("::", 128, 1, 6)]).unwrap();
        assert_eq!((v4.items[0].host_bits, v6.items[0].host_bits, v6.count), (8, 128, 1));
    }
}
