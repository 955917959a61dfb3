//! Translated flows: sources dealt out, and expired flows removed.

use lb_abi::{
    be::Be16,
    meta::FLAG_NAT,
    nat::{CLOSING_TICKS, FIN, FORWARD, NatEntry, NatPool, RESET_TICKS, RST, TCP_TICKS, UDP_TICKS},
    vip::{FORWARD_NAT, NAT_SOURCE},
};
use proptest::prelude::*;

use super::*;
use crate::steering::{maps::NatPlace, store::NatStore};

/// Their maps, in memory.
#[derive(Default)]
pub(super) struct Maps {
    pools: BTreeMap<u32, NatPool>,
    sources: BTreeMap<u32, [u8; 16]>,
    flows: BTreeMap<Vec<u8>, (FlowKey, NatEntry)>,
    /// Forward entries removed before their reverse entries, or not.
    removed: Vec<FlowKey>,
}

impl NatStore for Fake {
    fn nat_pools(&self) -> Result<BTreeMap<u32, NatPool>> {
        Ok(self.nat.pools.clone())
    }
    fn put_nat_pool(&mut self, vip: u32, pool: &NatPool) -> Result<()> {
        assert!(self.meta.flags & FLAG_NAT != 0 || pool.count == 0, "replies are not looked for yet");
        self.nat.pools.insert(vip, *pool);
        self.nat.pools.retain(|_, pool| pool.count > 0);
        Ok(())
    }
    fn nat_sources(&self) -> Result<Vec<[u8; 16]>> {
        Ok((0..1024).map(|index| self.nat.sources.get(&index).copied().unwrap_or_default()).collect())
    }
    fn put_nat_source(&mut self, index: u32, source: &[u8; 16]) -> Result<()> {
        for (vip, pool) in &self.nat.pools {
            let of_another = (pool.first..pool.first + pool.count).contains(&index);
            assert!(!of_another, "vip {vip} gives place {index} out");
        }
        self.nat.sources.insert(index, *source);
        Ok(())
    }
    fn nat_cores(&self) -> Result<u32> {
        Ok(4)
    }
    fn nat_read(&self, _: &mut NatPlace, _: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        Ok((self.nat.flows.values().copied().collect(), true))
    }
    fn nat_read_opening(&self, _: &mut NatPlace, _: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        Ok((Vec::new(), true))
    }
    fn nat_get(&self, key: &FlowKey) -> Result<Option<NatEntry>> {
        Ok(self.nat.flows.get(&bytes(key)).map(|(_, entry)| *entry))
    }
    fn nat_remove(&mut self, key: &FlowKey) -> Result<()> {
        if self.nat.flows.remove(&bytes(key)).is_some() {
            self.nat.removed.push(*key);
        }
        Ok(())
    }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 9, last].into()
}

fn nat_vip(name: &str, last: u8, sources: &[u8]) -> DesiredVip {
    DesiredVip {
        forward: Forward::Nat,
        flows_none: true,
        nat_source: sources.iter().map(|last| address(*last)).collect(),
        ..vip(name, last, "web")
    }
}

fn state(generation: u64, vips: &[(&str, u8, &[u8])]) -> Desired {
    let vips = vips.iter().map(|(name, last, sources)| nat_vip(name, *last, sources)).collect();
    desired(generation, vips, vec![pool("web", [1, 2])])
}

/// Sources that a VIP's flows are given.
fn given(store: &Fake, vip: u32) -> Vec<u8> {
    let pool = store.nat.pools[&vip];
    assert_eq!(pool.cores, 4);
    let sources = (pool.first..pool.first + pool.count).map(|index| store.nat.sources[&index]);
    sources.map(|source| source[15]).collect()
}

#[test]
fn a_vip_gets_its_sources_flag_port_and_keys() {
    let mut desired = state(1, &[("web", 1, &[1, 2, 3])]);
    desired.pools[0].backends[0].port = Some(8080);
    let (store, _) = started(&desired);
    let entry = key_of(&store, 1);
    assert_eq!(entry.flags, FORWARD_NAT | FLOWS_NONE);
    assert_eq!(given(&store, entry.vip), [1, 2, 3]);
    assert!(store.meta.flags & FLAG_NAT != 0);
    assert_eq!(store.backends[&BackendId(1)].port, Be16::new(8080));
    assert_eq!(store.backends[&BackendId(2)].port, Be16(0));
    let sources = store.vips.iter().filter(|(_, entry)| entry.flags & NAT_SOURCE != 0);
    let keys: Vec<_> = sources.map(|(key, _)| (key.address[15], key.port.0, key.protocol)).collect();
    assert_eq!(keys, [(1, 0, 1), (2, 0, 1), (3, 0, 1)]);
}

#[test]
fn a_change_moves_only_what_it_must() {
    let (mut store, mut sync) =
        started(&state(1, &[("a", 1, &[1, 2]), ("b", 2, &[3]), ("c", 3, &[4, 5, 6])]));
    let before = store.nat.pools.clone();
    sync.sync(&mut store, &state(2, &[("a", 1, &[1, 2, 7]), ("c", 3, &[4, 5, 6])]), 1001).unwrap();
    let (a, c) = (key_of(&store, 1).vip, key_of(&store, 3).vip);
    assert_eq!(given(&store, a), [1, 2, 7]);
    assert_eq!(store.nat.pools[&c], before[&c], "it was not touched");
    assert_eq!(store.nat.pools.len(), 2);
    assert!(!store.vips.keys().any(|key| key.address[15] == 3 && key.address[14] == 9));
    // A restart finds what is there and leaves it.
    let after = store.nat.pools.clone();
    let mut sync = Sync::adopt(&store).unwrap();
    sync.sync(&mut store, &state(2, &[("a", 1, &[1, 2, 7]), ("c", 3, &[4, 5, 6])]), 1002).unwrap();
    assert_eq!(store.nat.pools, after);
}

/// An entry, forward or not, seen at a tick: key, entry, its peer's the other way round.
fn pair(protocol: u8, port: u16, flags: [u32; 2], seen: [u32; 2]) -> [(FlowKey, NatEntry); 2] {
    let end = |last| super::super::mapped([10, 0, 0, last].into());
    let forward = FlowKey {
        source: end(1),
        destination: end(2),
        source_port: Be16::new(port),
        destination_port: Be16::new(80),
        protocol,
        pad: [0; 3],
    };
    let entry = NatEntry {
        source: end(3),
        destination: end(4),
        source_port: Be16::new(port),
        destination_port: Be16::new(8080),
        backend: 1,
        flags: FORWARD | flags[0],
        seen: seen[0],
        ..NatEntry::default()
    };
    let back = NatEntry {
        source: forward.destination,
        destination: forward.source,
        source_port: forward.destination_port,
        destination_port: forward.source_port,
        backend: 1,
        flags: flags[1],
        seen: seen[1],
        ..NatEntry::default()
    };
    [(forward, entry), (entry.peer(protocol), back)]
}

fn put(store: &mut Fake, entries: &[(FlowKey, NatEntry)]) {
    store.nat.flows.extend(entries.iter().map(|pair| (bytes(&pair.0), *pair)));
}

#[test]
fn flows_go_when_they_have_expired_by_both_ends() {
    let now = 1_000_000;
    let cases: [(u8, [u32; 2], [u32; 2], bool); 12] = [
        (6, [0, 0], [TCP_TICKS, TCP_TICKS], true),
        (6, [0, 0], [TCP_TICKS + 1, TCP_TICKS], true),
        (6, [0, 0], [TCP_TICKS + 1, TCP_TICKS + 1], false),
        (6, [FIN, 0], [CLOSING_TICKS + 1, CLOSING_TICKS + 1], true),
        (6, [FIN, FIN], [CLOSING_TICKS + 1, CLOSING_TICKS], true),
        (6, [FIN, FIN], [CLOSING_TICKS + 1, CLOSING_TICKS + 1], false),
        (6, [RST, 0], [RESET_TICKS, RESET_TICKS], true),
        (6, [RST, 0], [RESET_TICKS + 1, RESET_TICKS + 1], false),
        (6, [0, RST], [RESET_TICKS + 1, RESET_TICKS + 1], false),
        (17, [0, 0], [UDP_TICKS, 0], true),
        (17, [0, 0], [UDP_TICKS + 1, UDP_TICKS], true),
        (17, [0, 0], [UDP_TICKS + 1, UDP_TICKS + 1], false),
    ];
    for (at, (protocol, flags, ago, lives)) in cases.into_iter().enumerate() {
        let (mut store, mut sync) = started(&state(1, &[("web", 1, &[1])]));
        let flow = pair(protocol, 1, flags, ago.map(|ago| now - ago));
        put(&mut store, &flow);
        sync.tick(&mut store, now).unwrap();
        let left = store.nat.flows.len();
        assert_eq!(left, if lives { 2 } else { 0 }, "case {at}");
        // What ends by its reply's entry may have been met by its other one before: the next reading knows better.
        sync.tick(&mut store, now).unwrap();
        let stats = sync.nat_stats();
        assert_eq!((stats.flows, stats.expired), if lives { (1, 0) } else { (0, 1) }, "case {at}");
        if !lives {
            assert_eq!(store.nat.removed, [flow[0].0, flow[1].0], "the forward entry goes first");
        }
    }
}

#[test]
fn half_a_pair_goes_soon_and_takes_no_other_along() {
    let now = 1_000_000;
    let (mut store, mut sync) = started(&state(1, &[("web", 1, &[1])]));
    let [_, orphan] = pair(6, 1, [0, 0], [0, now - UDP_TICKS - TCP_TICKS]);
    // Its forward entry has been given another port.
    let mut other = pair(6, 1, [0, 0], [now, now]);
    other[0].1.source_port = Be16::new(9);
    other[1].0.destination_port = Be16::new(9);
    put(&mut store, &other);
    put(&mut store, &[orphan]);
    sync.tick(&mut store, now).unwrap();
    assert_eq!(store.nat.removed, [orphan.0]);
    assert_eq!(sync.nat_stats().flows, 1);
}

#[test]
fn the_flag_stays_as_long_as_flows_drain() {
    let now = 1_000_000;
    let (mut store, mut sync) = started(&state(1, &[("web", 1, &[1])]));
    put(&mut store, &pair(6, 1, [0, 0], [now, now]));
    sync.sync(&mut store, &web(2, [1, 2]), now).unwrap();
    sync.tick(&mut store, now).unwrap();
    assert!(store.meta.flags & FLAG_NAT != 0, "one flow drains");
    assert!(store.nat.pools.is_empty());
    sync.tick(&mut store, now + TCP_TICKS + 1).unwrap();
    assert_eq!((store.nat.flows.len(), store.meta.flags & FLAG_NAT), (0, 0));
}

proptest! {
    // A case builds tables of 65 537 slots.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However VIPs come, change and go: each has exactly its sources, no place is given to two, and what stays is
    /// not moved. The fake refuses to overwrite a place that is given out.
    #[test]
    fn places_are_dealt_out_once(steps in proptest::collection::vec(proptest::collection::btree_map(1u8..5, 1u8..9, 0..4), 1..6)) {
        let names = ["", "a", "b", "c", "d"];
        let lists: Vec<Vec<u8>> = (0..10u8).map(|len| (1..=len).collect()).collect();
        let (mut store, mut sync) = started(&state(1, &[]));
        for (generation, step) in (2..).zip(&steps) {
            let vips: Vec<(&str, u8, &[u8])> =
                step.iter().map(|(vip, len)| (names[*vip as usize], *vip, &lists[*len as usize][..])).collect();
            sync.sync(&mut store, &state(generation, &vips), 1000).unwrap();
            let mut places = BTreeSet::new();
            for (_, last, sources) in &vips {
                let vip = key_of(&store, *last).vip;
                prop_assert_eq!(&given(&store, vip)[..], *sources);
                let pool = store.nat.pools[&vip];
                for place in pool.first..pool.first + pool.count {
                    prop_assert!(places.insert(place));
                }
            }
            prop_assert_eq!(store.nat.pools.len(), vips.len());
        }
    }
}
