//! `vip.sources`: prefixes of clients that go to a pool of their own, as the packet path looks them up.
//!
//! The tables of such pools are held in place by anchors (see [`super::anchor`]). Sets turn over whole: the set that packets do not read is
//! filled, then they are told to read it, and the old one is emptied by a later call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv6Addr,
};

use ipnet::IpNet;
use lb_abi::{
    flow::FlowKey,
    source::{NODES, OWN, SourceKey, SourceTree, first_set, other, truncate},
    vip::{SOURCES, VipEntry},
};

use super::{
    error::{Error, Result},
    store::Store,
    terms::mapped,
};

/// What the three maps hold.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The set that packets read, by VIP index.
    pub(super) read: BTreeMap<u32, u32>,
    /// What every set holds.
    pub(super) held: BTreeMap<u32, HashMap<SourceKey, u32>>,
    /// What is read, as it was desired, by VIP index.
    pub(super) prefixes: BTreeMap<u32, Prefixes>,
    /// Sets that no packet reads any more.
    pub(super) retired: BTreeSet<u32>,
}

impl Sources {
    pub(super) fn adopt(store: &impl Store) -> Result<Self> {
        let mut this = Self::default();
        for (key, table) in store.sources()? {
            this.held.entry(key.set).or_default().insert(key, table);
        }
        for &set in this.held.keys() {
            let index = set / 2;
            if store.source_set(index)? == set {
                this.read.insert(index, set);
            }
        }
        this.retired =
            this.held.keys().copied().filter(|set| this.read.get(&(set / 2)) != Some(set)).collect();
        Ok(this)
    }

    /// First slot of the table that a record's client goes by; none: its VIP's own.
    pub(super) fn table(&self, entry: &VipEntry, record: &FlowKey) -> Option<u32> {
        let prefixes = self.prefixes.get(&entry.vip).filter(|_| entry.flags & SOURCES != 0)?;
        prefixes.table(record.source)
    }

    /// First slots of the tables that some clients of a VIP go by.
    pub(super) fn tables(&self, vip: u32) -> BTreeSet<u32> {
        self.prefixes.get(&vip).map(Prefixes::tables).unwrap_or_default()
    }

    /// Brings what a VIP's packets read to `wanted`.
    pub(super) fn put(&mut self, store: &mut impl Store, index: u32, wanted: Prefixes) -> Result<()> {
        if self.prefixes.get(&index) == Some(&wanted) {
            return Ok(());
        }
        if let Some(&read) = self.read.get(&index) {
            let (_, entries) = wanted.entries(read)?;
            if self.held.get(&read) == Some(&entries) {
                // An earlier process wrote just that.
                self.prefixes.insert(index, wanted);
                return Ok(());
            }
        }
        let set = self.read.get(&index).map_or(first_set(index), |read| other(*read));
        self.empty(store, set)?;
        let (tree, entries) = wanted.entries(set)?;
        let held = self.held.entry(set).or_default();
        for (key, table) in entries {
            store.put_source(&key, table)?;
            held.insert(key, table);
        }
        store.put_source_tree(set, &tree)?;
        store.put_source_set(index, set)?;
        self.retired.extend(self.read.insert(index, set));
        self.prefixes.insert(index, wanted);
        Ok(())
    }

    fn empty(&mut self, store: &mut impl Store, set: u32) -> Result<()> {
        if let Some(held) = self.held.get_mut(&set) {
            let keys: Vec<SourceKey> = held.keys().copied().collect();
            for key in keys {
                store.remove_source(&key)?;
                held.remove(&key);
            }
        }
        self.held.remove(&set);
        self.retired.remove(&set);
        Ok(())
    }

    /// Empties what packets have read for the last time; they have done so when a later call begins.
    pub(super) fn empty_retired(&mut self, store: &mut impl Store) -> Result<()> {
        let retired = self.retired.clone();
        retired.into_iter().try_for_each(|set| self.empty(store, set))
    }
}

/// One VIP's prefixes, each with the first slot of its pool's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefixes {
    v4: ByLength,
    v6: ByLength,
}

/// Prefixes of one family: by length as keys have it, then by address.
type ByLength = BTreeMap<u32, HashMap<[u8; 16], u32>>;

impl Prefixes {
    fn tables(&self) -> BTreeSet<u32> {
        self.v4.values().chain(self.v6.values()).flat_map(HashMap::values).copied().collect()
    }

    pub(super) fn new(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let mut this = Self::default();
        for (net, table) in prefixes {
            let (family, mapping) = match net {
                IpNet::V4(_) => (&mut this.v4, 96),
                IpNet::V6(_) => (&mut this.v6, 0),
            };
            let length = u32::from(net.prefix_len()) + mapping;
            family.entry(length).or_default().insert(truncate(mapped(net.addr()), length), table);
        }
        this
    }

    /// The table of an address's longest prefix; none: the VIP's own.
    pub(super) fn table(&self, address: [u8; 16]) -> Option<u32> {
        let is_v4 = Ipv6Addr::from(address).to_ipv4_mapped().is_some();
        longest(if is_v4 { &self.v4 } else { &self.v6 }, address, 128)
    }

    /// What the maps hold of this, under a set.
    ///
    /// # Errors
    /// There are more lengths than a tree has nodes.
    pub(super) fn entries(&self, set: u32) -> Result<(SourceTree, HashMap<SourceKey, u32>)> {
        let mut tree = SourceTree::default();
        let mut entries = HashMap::new();
        for (family, nodes) in [(&self.v4, &mut tree.v4), (&self.v6, &mut tree.v6)] {
            let lengths: Vec<u32> = family.keys().copied().collect();
            if lengths.len() >= NODES {
                return Err(Error::Bounds { what: "lengths of prefixes", is: lengths.len(), max: NODES - 1 });
            }
            plant(nodes, 0, &lengths);
            for (&length, prefixes) in family {
                for (&prefix, &table) in prefixes {
                    mark(nodes, length, prefix, |length, prefix| {
                        let key = SourceKey { set, length, prefix };
                        entries.entry(key).or_insert_with(|| longest(family, prefix, length).unwrap_or(OWN));
                    });
                    entries.insert(SourceKey { set, length, prefix }, table);
                }
            }
        }
        Ok((tree, entries))
    }
}

/// Of prefixes that are at most `length` long.
fn longest(family: &ByLength, address: [u8; 16], length: u32) -> Option<u32> {
    let mut lengths = family.range(..=length).rev();
    lengths.find_map(|(length, prefixes)| prefixes.get(&truncate(address, *length)).copied())
}

/// Makes a balanced tree of lengths, which are in order, below a node.
fn plant(nodes: &mut [u8; NODES], node: usize, lengths: &[u32]) {
    let (shorter, rest) = lengths.split_at(lengths.len() / 2);
    let (Some((&length, longer)), Some(place)) = (rest.split_first(), nodes.get_mut(node)) else { return };
    *place = length as u8;
    plant(nodes, 2 * node + 1, shorter);
    plant(nodes, 2 * node + 2, longer);
}

/// Where the search for a prefix must hit on its way.
fn mark(nodes: &[u8; NODES], length: u32, prefix: [u8; 16], mut leave: impl FnMut(u32, [u8; 16])) {
    let mut node = 0;
    while let Some(&here) = nodes.get(node).filter(|here| u32::from(**here) != length && **here != 0) {
        node = if u32::from(here) < length {
            leave(u32::from(here), truncate(prefix, u32::from(here)));
            2 * node + 2
        } else {
            2 * node + 1
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use lb_abi::source::STEPS_MAX;
    use proptest::prelude::*;

    use super::*;

    /// The packet path's search (`ebpf/src/source.rs`), over what the maps would hold.
    fn search(tree: &SourceTree, entries: &HashMap<SourceKey, u32>, address: IpAddr) -> Option<u32> {
        let nodes = if address.is_ipv4() { &tree.v4 } else { &tree.v6 };
        let (mut node, mut found) = (0, OWN);
        for _ in 0..STEPS_MAX {
            let length = u32::from(nodes[node]);
            if length == 0 {
                break;
            }
            let key = SourceKey { set: 5, length, prefix: truncate(mapped(address), length) };
            node = match entries.get(&key) {
                Some(table) => {
                    found = *table;
                    2 * node + 2
                }
                None => 2 * node + 1,
            };
        }
        (found != OWN).then_some(found)
    }

    fn nets() -> impl Strategy<Value = BTreeMap<IpNet, u32>> {
        // Few bits that differ, so that prefixes cover one another.
        let v4 = (any::<u32>(), 1u8..=32).prop_map(|(bits, length)| {
            let address = Ipv4Addr::from(bits & 0x8181_0303);
            IpNet::from(Ipv4Net::new(address, length).unwrap()).trunc()
        });
        let v6 = (any::<u128>(), 1u8..=128).prop_map(|(bits, length)| {
            let address = Ipv6Addr::from(bits & 0x8001_0000_0003_0000_0001_0000_0000_0003);
            IpNet::from(Ipv6Net::new(address, length).unwrap()).trunc()
        });
        proptest::collection::btree_map(prop_oneof![v4, v6], 0u32..9, 0..60)
    }

    proptest! {
        /// Whatever the prefixes are: the search finds what looking at each of them does.
        #[test]
        fn the_search_finds_the_longest_prefix(nets in nets(), probes in proptest::collection::vec(any::<u128>(), 20)) {
            let prefixes = Prefixes::new(nets.clone());
            let (tree, entries) = prefixes.entries(5).unwrap();
            let near: Vec<IpAddr> = nets.keys().flat_map(|net| [net.addr(), net.broadcast()]).collect();
            let far = probes.iter().flat_map(|bits| {
                let v4 = Ipv4Addr::from(*bits as u32 & 0x8181_0303);
                [IpAddr::V4(v4), Ipv6Addr::from(bits & 0x8001_0000_0003_0000_0001_0000_0000_0003).into()]
            });
            for address in near.iter().copied().chain(far) {
                // An IPv4-mapped address is not one of IPv6.
                if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
                    continue;
                }
                let covering = nets.iter().filter(|(net, _)| net.contains(&address));
                let longest = covering.max_by_key(|(net, _)| net.prefix_len()).map(|(_, table)| *table);
                prop_assert_eq!(search(&tree, &entries, address), longest, "{}", address);
                prop_assert_eq!(prefixes.table(mapped(address)), longest, "{}", address);
            }
        }
    }

    #[test]
    fn one_length_needs_one_step_and_no_marker() {
        let nets = (0..=255u8).map(|n| (IpNet::from(Ipv4Net::new([n, 0, 0, 0].into(), 24).unwrap()), 7));
        let (tree, entries) = Prefixes::new(nets).entries(5).unwrap();
        assert_eq!((tree.v4[0], tree.v4[1], tree.v4[2]), (96 + 24, 0, 0));
        assert_eq!(tree.v6, [0; NODES]);
        assert_eq!(entries.len(), 256);
    }

    #[test]
    fn trees_are_as_deep_as_said() {
        let nets = (2..=128u8).map(|length| {
            (IpNet::from(Ipv6Net::new(Ipv6Addr::from(1 << 127), length).unwrap()), u32::from(length))
        });
        let (tree, entries) = Prefixes::new(nets).entries(5).unwrap();
        assert!(tree.v6[..127].iter().all(|length| *length != 0), "127 lengths fill seven levels");
        assert_eq!(search(&tree, &entries, Ipv6Addr::from(1 << 127).into()), Some(128));
        let all =
            (1..=128u8).map(|length| (IpNet::from(Ipv6Net::new(Ipv6Addr::UNSPECIFIED, length).unwrap()), 0));
        assert!(matches!(Prefixes::new(all).entries(5), Err(Error::Bounds { .. })));
    }
}
