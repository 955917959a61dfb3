//! Where the slot is that a flow record belongs to: the packet path's own way, walked back from the record.

use std::collections::BTreeMap;

use lb_abi::{
    bounds::TABLE_LEN,
    flow::FlowKey,
    hash,
    subject::{self, GROUPS},
    vip::{VipEntry, VipKey},
};

use super::{regions::Region, sources::Sources, wide::Finder};

/// A record's slot.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Of its VIP.
    pub(super) entry: &'a VipEntry,
    pub(super) region: Region,
    /// In that region.
    pub(super) at: usize,
}

/// Finds places, for as long as no VIP changes.
pub(super) struct Places<'a> {
    finder: Finder<'a>,
    /// VIPs that remember groups, by counter index: of each the entry that remembers longest.
    groups: BTreeMap<u32, &'a VipEntry>,
    sources: &'a Sources,
}

impl<'a> Places<'a> {
    pub(super) fn new(vips: &'a BTreeMap<VipKey, VipEntry>, sources: &'a Sources) -> Self {
        let mut groups: BTreeMap<u32, &VipEntry> = BTreeMap::new();
        for entry in vips.values().filter(|entry| has_groups(entry)) {
            let longest = groups.entry(entry.vip).or_insert(entry);
            if entry.flow_idle_ticks > longest.flow_idle_ticks {
                *longest = entry;
            }
        }
        Self { finder: Finder::new(vips), groups, sources }
    }

    /// None: its VIP is gone.
    pub(super) fn of(&self, record: &FlowKey) -> Option<Place<'a>> {
        let entry = match subject::vip_of_group(record) {
            Some(index) => self.groups.get(&index).copied(),
            None => self.finder.vip_of(record),
        }?;
        let hash = subject::hash(entry.hash_key, record);
        let at = hash::slot(hash, entry.table_len) as usize;
        let table = self.sources.table(entry, record).unwrap_or(entry.table);
        Some(Place { entry, region: Region::of_slot(table), at })
    }
}

/// Whether the VIP of an entry remembers groups, not flows.
pub(super) fn has_groups(entry: &VipEntry) -> bool {
    entry.table_len == TABLE_LEN && entry.flags & GROUPS != 0
}

#[cfg(test)]
mod tests {
    use lb_abi::{be::Be16, vip::HASH_SOURCE};

    use super::*;

    fn key(port: u16, protocol: u8) -> VipKey {
        VipKey { address: [1; 16], port: Be16::new(port), protocol, host_bits: 0 }
    }

    fn entry(vip: u32, flags: u32, flow_idle_ticks: u32) -> VipEntry {
        VipEntry {
            vip,
            table: TABLE_LEN,
            table_len: TABLE_LEN,
            flags,
            flow_idle_ticks,
            ..VipEntry::default()
        }
    }

    fn flow(port: u16, protocol: u8) -> FlowKey {
        let [source_port, destination_port] = [Be16::new(40_000), Be16::new(port)];
        let (source, destination) = ([2; 16], [1; 16]);
        FlowKey { source, destination, source_port, destination_port, protocol, ..FlowKey::default() }
    }

    #[test]
    fn a_flow_is_found_by_its_destination() {
        let vips = BTreeMap::from([(key(80, 6), entry(3, 0, 9))]);
        let sources = Sources::default();
        let place = Places::new(&vips, &sources).of(&flow(80, 6)).unwrap();
        assert_eq!((place.entry.vip, place.region), (3, Region(1)));
        assert_eq!(place.at, hash::slot(hash::flow([0; 2], &flow(80, 6)), TABLE_LEN) as usize);
        assert!(Places::new(&vips, &sources).of(&flow(81, 6)).is_none());
    }

    #[test]
    fn a_group_is_found_by_its_vips_index_and_remembered_longest() {
        let vips = BTreeMap::from([
            (key(53, 17), entry(3, HASH_SOURCE, 9)),
            (key(80, 6), entry(3, HASH_SOURCE, 90)),
            (key(81, 6), entry(4, 0, 900)),
        ]);
        let sources = Sources::default();
        let places = Places::new(&vips, &sources);
        let group = subject::of(&vips[&key(53, 17)], &flow(53, 17));
        let place = places.of(&group).unwrap();
        assert_eq!((place.entry.vip, place.entry.flow_idle_ticks), (3, 90));
        assert_eq!(place.at, hash::slot(subject::hash([0; 2], &group), TABLE_LEN) as usize);
        let stranger = subject::of(&entry(4, HASH_SOURCE, 9), &flow(80, 6));
        assert!(places.of(&stranger).is_none(), "that VIP remembers flows, not clients");
    }
}
