//! The VIP directory of a world: for the host as it is, for the kernel to be written into its two maps.

use std::collections::BTreeMap;

use lb_abi::{
    be::Be16,
    directory::{Bucket, PortRange, PortRanges, VipSlot, bucket_of},
    vip::{RANGE, VipEntry, VipKey},
};

/// The maps: buckets that are not empty, entries and ranges, of which the first is no one's.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// `VIP_BUCKETS`.
    pub buckets: BTreeMap<u32, Bucket>,
    /// `VIP_ENTRIES`.
    pub slots: Vec<VipSlot>,
    /// `VIP_RANGES`.
    pub ranges: Vec<PortRanges>,
}

impl Directory {
    /// The directory of these keys.
    pub fn of(vips: &[(VipKey, VipEntry)]) -> Self {
        let mut this =
            Self { slots: vec![VipSlot::default()], ranges: vec![PortRanges::default()], ..Self::default() };
        let mut keys: BTreeMap<VipKey, VipSlot> =
            vips.iter().map(|&(key, entry)| (key, VipSlot { key, ranges: 0, entry })).collect();
        let mut ranges: BTreeMap<VipKey, Vec<PortRange>> = BTreeMap::new();
        for (key, entry) in vips.iter().filter(|(key, _)| key.protocol & RANGE != 0) {
            let any = VipKey { port: Be16(0), protocol: key.protocol & !RANGE, ..*key };
            let range = PortRange { first: key.port.host(), last: entry.last_port };
            ranges.entry(any).or_default().push(range);
        }
        for (key, ranges) in ranges {
            let slot = keys.entry(key).or_insert(VipSlot { key, ..VipSlot::default() });
            slot.ranges = this.ranges.len() as u32;
            let mut value = PortRanges::default();
            value.0[..ranges.len()].copy_from_slice(&ranges);
            this.ranges.push(value);
        }
        let mut indexes: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
        // In the order of their ports: those of any port stand where each bucket shows them.
        let mut in_order: Vec<_> = keys.into_values().collect();
        in_order.sort_by_key(|slot| slot.key.port);
        for slot in in_order {
            indexes.entry(bucket_of(&slot.key)).or_default().push(this.slots.len() as u16);
            this.slots.push(slot);
        }
        this.buckets = indexes.iter().map(|(bucket, indexes)| (*bucket, Bucket::of(indexes))).collect();
        this
    }
}
