//! Map `LINKS`: what stands beneath VLAN devices and bonds, and which gateway an interface has.
//!
//! Read from the kernel again and again, so that an interface that comes, goes or changes is known within a second. Not
//! pinned: it is filled before a program of ours is attached, and a program keeps its map.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_abi::{bounds::LINKS_MAX, link::LinkEntry, names};

use super::{
    error::{Error, Result},
    maps,
    netlink::{self, Device},
};
use crate::config::Gateway;

/// Tags that a frame may carry.
const TAGS_MAX: usize = 2;

/// What is wanted of interfaces, and what the map holds.
#[derive(Default)]
pub(super) struct Links {
    /// By interface name.
    gateways: BTreeMap<Arc<str>, Gateway>,
    written: BTreeMap<u32, LinkEntry>,
}

impl Links {
    /// Sets the gateways, by interface name.
    pub(super) fn set_gateways(&mut self, gateways: &BTreeMap<Arc<str>, Gateway>) {
        self.gateways.clone_from(gateways);
    }

    /// Addresses whose Ethernet address the kernel should know.
    pub(super) fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.gateways.values().filter_map(|gateway| match gateway {
            Gateway::Address(address) => Some(*address),
            Gateway::Ethernet(_) => None,
        })
    }

    /// Brings the map to what the kernel says now. A gateway whose Ethernet address is not known yet, or no more, is
    /// none.
    ///
    /// # Errors
    /// The kernel does not list its interfaces, or the map refused.
    pub(super) fn refresh(&mut self, map: &mut maps::Links) -> Result<()> {
        let devices = netlink::devices()?;
        let neighbours = if self.gateways().next().is_some() { netlink::neighbours()? } else { Vec::new() };
        let gateway = |(name, gateway): (&Arc<str>, &Gateway)| {
            let device = devices.iter().find(|device| device.name == **name)?;
            let mac = match gateway {
                Gateway::Ethernet(mac) => *mac,
                Gateway::Address(address) => {
                    neighbours.iter().find(|(index, at, _)| *index == device.index && at == address)?.2
                }
            };
            Some((device.index, mac))
        };
        let gateways = self.gateways.iter().filter_map(gateway).collect();
        let wanted = entries(&devices, &gateways);
        if wanted.len() > LINKS_MAX as usize {
            let what = "VLAN devices, ports of bonds and gateways";
            return Err(Error::Bounds { what, is: wanted.len(), max: LINKS_MAX as usize });
        }
        let gone: BTreeSet<u32> =
            self.written.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
        for index in gone {
            map.remove(&index).map_err(Error::map(names::MAP_LINKS))?;
            self.written.remove(&index);
        }
        for (index, entry) in wanted {
            if self.written.get(&index) != Some(&entry) {
                map.insert(index, entry, 0).map_err(Error::map(names::MAP_LINKS))?;
                self.written.insert(index, entry);
            }
        }
        Ok(())
    }
}

/// The map's content; `gateways` are Ethernet addresses by interface.
fn entries(devices: &[Device], gateways: &BTreeMap<u32, [u8; 6]>) -> BTreeMap<u32, LinkEntry> {
    let by_index: BTreeMap<u32, &Device> = devices.iter().map(|device| (device.index, device)).collect();
    let entry = |device: &Device| {
        let mut entry = LinkEntry { upper: device.bond.unwrap_or(0), ..LinkEntry::default() };
        (entry.lower, entry.tags) = beneath(device, &by_index).unwrap_or_default();
        // A port has its bond's gateway and address.
        let routed = device.bond.and_then(|bond| by_index.get(&bond).copied()).unwrap_or(device);
        if let (Some(gateway), Some(own)) = (gateways.get(&routed.index), routed.address) {
            let [a, b, c] = words(*gateway);
            let [d, e, f] = words(own);
            entry.gateway = [a, b, c, d, e, f];
            entry.gateway_mtu = u16::try_from(routed.mtu).unwrap_or(u16::MAX);
        }
        (entry != LinkEntry::default()).then_some((device.index, entry))
    };
    devices.iter().filter_map(entry).collect()
}

/// The interface that a VLAN device sends by, and its tags, outermost first. None: it is no VLAN device, or has more
/// tags than a frame may.
fn beneath(device: &Device, by_index: &BTreeMap<u32, &Device>) -> Option<(u32, [u32; 2])> {
    let mut stack = Vec::new();
    let mut at = device;
    while let Some((kind, number)) = at.vlan {
        if stack.len() == TAGS_MAX {
            return None;
        }
        stack.push(tag(kind, number));
        at = by_index.get(&at.lower?)?;
    }
    let mut tags = [0; 2];
    // The lowest device puts the outermost tag on.
    tags.iter_mut().zip(stack.iter().rev()).for_each(|(tag, found)| *tag = *found);
    (!stack.is_empty()).then_some((at.index, tags))
}

/// Four bytes as on the wire.
fn tag(kind: u16, number: u16) -> u32 {
    let ([a, b], [c, d]) = (kind.to_be_bytes(), number.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

fn words([a, b, c, d, e, f]: [u8; 6]) -> [u16; 3] {
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32) -> Device {
        let name = format!("dev{index}");
        Device { index, name, mtu: 1500, address: Some([2, 0, 0, 0, 0, index as u8]), ..Device::default() }
    }

    fn vlan(index: u32, lower: u32, kind: u16, number: u16) -> Device {
        Device { lower: Some(lower), vlan: Some((kind, number)), ..device(index) }
    }

    fn tags(tags: &[(u16, u16)]) -> [u32; 2] {
        std::array::from_fn(|at| tags.get(at).map_or(0, |(kind, number)| tag(*kind, *number)))
    }

    #[test]
    fn vlan_devices_are_seen_through() {
        let devices = [
            device(1),
            vlan(2, 1, 0x88a8, 9),
            vlan(3, 2, 0x8100, 7),
            vlan(4, 3, 0x8100, 5),
            vlan(5, 99, 0x8100, 5),
        ];
        let entries = entries(&devices, &BTreeMap::new());
        assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [2, 3], "three tags are too many");
        assert_eq!((entries[&2].lower, entries[&2].tags), (1, tags(&[(0x88a8, 9)])));
        assert_eq!((entries[&3].lower, entries[&3].tags), (1, tags(&[(0x88a8, 9), (0x8100, 7)])));
    }

    #[test]
    fn ports_of_a_bond_have_its_gateway() {
        let port = |index| Device { bond: Some(4), ..device(index) };
        let bond = Device { mtu: 70_000, ..device(4) };
        let devices = [port(1), port(2), device(3), bond, vlan(5, 4, 0x8100, 7)];
        let entries = entries(&devices, &[(4, [6; 6])].into());
        assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5]);
        assert_eq!((entries[&1].upper, entries[&4].upper), (4, 0));
        let expected = [0x0606, 0x0606, 0x0606].into_iter().chain(words([2, 0, 0, 0, 0, 4]));
        assert_eq!(entries[&1].gateway.to_vec(), expected.collect::<Vec<_>>());
        assert_eq!((entries[&1].gateway_mtu, entries[&5].gateway_mtu), (u16::MAX, 0));
        assert_eq!((entries[&5].lower, entries[&5].tags), (4, tags(&[(0x8100, 7)])));
    }
}
