//! What beside the slot of a flow leads packets: groups and their fragments.

use lb_abi::{
    limit::Limits,
    quic::QuicEntry,
    source::SourceKey,
    subject,
    vip::{FRAGMENTS, HASH_SOURCE},
};

use super::*;
use crate::steering::quic::{DesiredQuic, DesiredQuicVip, DesiredServer};

fn by_source(generation: u64, ids: impl IntoIterator<Item = u16>) -> Desired {
    let mut desired = web(generation, ids);
    desired.vips[0].hash = HashBy::Source;
    desired
}

fn fragments(store: &Fake) -> Vec<(u16, VipEntry)> {
    let keys = store.vips.iter().filter(|(key, _)| key.protocol == FRAGMENTS);
    keys.map(|(key, entry)| (key.port.host(), *entry)).collect()
}

#[test]
fn a_vip_by_source_alone_on_its_address_takes_fragments() {
    let mut desired = by_source(1, [1, 2]);
    let (store, mut sync) = started(&desired);
    assert_eq!(key_of(&store, 1).flags, FORWARD_IPIP | HASH_SOURCE);
    assert_eq!(fragments(&store), [(6, key_of(&store, 1))]);
    // Another protocol of the address is another's business; a port of the same protocol is not.
    let mut store = store;
    let udp = VipPort::one(53, Transport::Udp);
    desired.vips.push(DesiredVip { name: "dns".into(), ports: vec![udp], ..vip("dns", 1, "web") });
    sync.sync(&mut store, &desired, 2000).unwrap();
    assert_eq!(fragments(&store).len(), 1);
    let tcp = VipPort::one(81, Transport::Tcp);
    desired.vips.push(DesiredVip { name: "other".into(), ports: vec![tcp], ..vip("other", 1, "web") });
    sync.sync(&mut store, &desired, 3000).unwrap();
    assert_eq!(fragments(&store), []);
}

#[test]
fn a_vip_that_translates_takes_no_fragments() {
    let mut desired = by_source(1, [1, 2]);
    desired.vips[0].forward = Forward::Nat;
    desired.vips[0].nat_source = vec![[10, 0, 9, 1].into()];
    let (store, _) = started(&desired);
    assert_eq!(key_of(&store, 1).flags, FORWARD_NAT | HASH_SOURCE);
    assert_eq!(fragments(&store), []);
}

/// Of every address the longest prefix says whose its fragments are; what is shared in a VIP's prefix is nobody's.
#[test]
fn fragments_of_a_prefix_are_its_vips_but_for_what_others_have_in_it() {
    let mut desired = by_source(1, [1, 2]);
    (desired.vips[0].addresses, desired.vips[0].prefixes) = (vec![], vec!["192.0.2.0/24".parse().unwrap()]);
    let net = |store: &Fake, host_bits| {
        let mut keys = store.vips.iter().filter(|(key, _)| key.protocol == FRAGMENTS);
        keys.find(|(key, _)| key.host_bits == host_bits).map(|(_, entry)| entry.flags)
    };
    let whole = FORWARD_IPIP | HASH_SOURCE;
    let (mut store, mut sync) = started(&desired);
    assert_eq!((net(&store, 8), net(&store, 0)), (Some(whole), None));
    // An address of another VIP, which hashes by source alike, lies in it.
    let inner = DesiredVip {
        hash: HashBy::Source,
        ports: vec![VipPort::one(81, Transport::Tcp)],
        ..vip("other", 1, "web")
    };
    desired.vips.push(inner);
    sync.sync(&mut store, &desired, 2000).unwrap();
    assert_eq!((net(&store, 8), net(&store, 0)), (Some(whole), Some(0)));
    // Elsewhere it has what is its own.
    desired.vips[1].addresses = vec![[198, 51, 100, 1].into()];
    sync.sync(&mut store, &desired, 3000).unwrap();
    assert_eq!((net(&store, 8), net(&store, 0)), (Some(whole), Some(whole)));
    // Another protocol is no obstacle, and no other's business.
    desired.vips[1].addresses = vec![[192, 0, 2, 1].into()];
    desired.vips[1].ports = vec![VipPort::one(53, Transport::Udp)];
    sync.sync(&mut store, &desired, 4000).unwrap();
    assert_eq!(
        fragments(&store).iter().map(|(protocol, entry)| (*protocol, entry.flags)).collect::<BTreeSet<_>>(),
        [(6, whole), (17, whole)].into()
    );
}

/// A VIP that comes while slots move, under the index of one that went, has none of its clients.
#[test]
fn records_of_groups_end_with_their_vip() {
    let mut desired = by_source(1, [1, 2, 3]);
    desired.vips.push(DesiredVip { hash: HashBy::Source, ..vip("other", 2, "web") });
    let (mut store, mut sync) = started(&desired);
    let old = key_of(&store, 2);
    desired.pools[0] = pool("web", [1, 2]);
    sync.sync(&mut store, &desired, 2000).unwrap();
    let group = |entry: &VipEntry| {
        subject::of(entry, &FlowKey { source: mapped([198, 51, 100, 7].into()), ..FlowKey::default() })
    };
    let stays = group(&key_of(&store, 1));
    let record = FlowRecord { backend: 3, epoch: 1, state: 0, seen: 2000 };
    for key in [group(&old), stays] {
        store.flows.insert(bytes(&key), (key, record));
    }
    let other = desired.vips.pop().unwrap();
    sync.sync(&mut store, &desired, 2001).unwrap();
    desired.vips.push(DesiredVip { name: "next".into(), addresses: vec![[192, 0, 2, 3].into()], ..other });
    sync.sync(&mut store, &desired, 2002).unwrap();
    assert_eq!(key_of(&store, 3).vip, old.vip, "its index is given out again");
    assert_eq!(store.flows.keys().collect::<Vec<_>>(), [&bytes(&stays)]);
}

#[test]
fn two_kinds_of_port_of_one_vip_do_not_quarrel_about_fragments() {
    let mut desired = by_source(1, [1, 2]);
    let tcp = VipPort::one(81, Transport::Tcp);
    desired.vips.push(DesiredVip { ports: vec![tcp], flows_none: true, ..desired.vips[0].clone() });
    assert_eq!(fragments(&started(&desired).0).len(), 1);
}

#[test]
fn a_live_vip_does_not_begin_to_hash_otherwise() {
    let (mut store, mut sync) = started(&web(1, [1, 2]));
    let error = sync.sync(&mut store, &by_source(2, [1, 2]), 2000);
    assert!(matches!(error, Err(Error::HashChanged { .. })));
    assert_eq!(store.meta.generation, 1);
    sync.sync(&mut store, &web(3, [1, 2]), 3000).unwrap();
}

/// A client's record keeps its slot from settling, as a flow's does.
#[test]
fn a_client_that_strays_is_waited_for() {
    let (mut store, mut sync) = started(&by_source(1, [1, 2, 3]));
    sync.sync(&mut store, &by_source(2, [1, 2]), 2000).unwrap();
    let entry = key_of(&store, 1);
    let (key, at) = (1..=u8::MAX)
        .map(|last| {
            let whole = FlowKey { source: mapped([198, 51, 100, last].into()), ..FlowKey::default() };
            let key = subject::of(&entry, &whole);
            let at = hash::slot(subject::hash(entry.hash_key, &key), TABLE_LEN);
            (key, (entry.table + at) as usize)
        })
        .find(|(_, at)| store.slots().load(*at).phase() == Phase::Open)
        .unwrap();
    let seen = 2000 + WINDOW;
    let record = FlowRecord { backend: 3, epoch: store.slots().load(at).epoch(), state: 0, seen };
    store.flows.insert(bytes(&key), (key, record));
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    sync.tick(&mut store, 2002 + WINDOW + GRACE_TICKS).unwrap();
    sync.tick(&mut store, 2003 + WINDOW + 2 * GRACE_TICKS).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).closed, 1, "its slot alone");
    assert_eq!(store.slots().load(at).phase(), Phase::Closed);
    assert_eq!(store.backends[&BackendId(3)].flags, PRESENT);
    let later = seen + IDLE + 1000;
    sync.tick(&mut store, later).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).settled, LEN);
    assert!(store.flows.is_empty(), "what expired is removed");
}

const KEY: [u64; 2] = [5, 6];

/// `web` whose ids name its backends: server id 10 * backend id.
fn with_ids(generation: u64, backends: &[u16]) -> Desired {
    let mut desired = web(generation, backends.iter().copied());
    let udp = VipPort::one(443, Transport::Udp);
    desired.vips[0].ports.push(udp);
    let vip = DesiredQuicVip { keys: [(2, KEY)].into(), pools: ["web".into()].into() };
    desired.quic.vips.insert("web".into(), vip);
    desired.quic.servers.extend(backends.iter().map(|&id| (10 * id, server(id))));
    desired
}

fn server(id: u16) -> DesiredServer {
    DesiredServer { backend: BackendId(id), pool: "web".into() }
}

fn flags(store: &Fake, protocol: u8) -> u32 {
    store.vips.iter().find(|(key, _)| key.protocol == protocol).unwrap().1.flags
}

#[test]
fn ids_name_backends_before_a_vip_reads_them_and_keys_go_after() {
    let (mut store, mut sync) = started(&with_ids(1, &[1, 2]));
    assert_eq!((flags(&store, 17) & QUIC, flags(&store, 6) & QUIC), (QUIC, 0), "QUIC is over UDP");
    let entry = store.quic[&key_of(&store, 1).vip];
    assert_eq!((entry.configs, entry.keys[2], entry.keys[0]), (1 << 2, KEY, [0; 2]));
    assert_ne!(entry.pools[0], 0);
    assert_eq!(entry.pools[1..], [0; 7]);
    let (ten, twenty) = (store.servers[&10], store.servers[&20]);
    assert_eq!((ten.backend, twenty.backend, ten.pool), (1, 2, entry.pools[0]));
    let mut without = with_ids(2, &[1, 2]);
    without.quic = DesiredQuic::default();
    sync.sync(&mut store, &without, 2000).unwrap();
    assert_eq!(flags(&store, 17) & QUIC, 0);
    assert_eq!(store.quic[&key_of(&store, 1).vip], QuicEntry::default(), "no key stays that nobody reads");
}

#[test]
fn a_server_id_names_its_backend_as_long_as_that_is_there() {
    let (mut store, mut sync) = started(&with_ids(1, &[1, 2, 3]));
    let thirty = store.servers[&30];
    sync.sync(&mut store, &with_ids(2, &[1, 2]), 2000).unwrap();
    assert_eq!(store.servers[&30], thirty, "its connections drain with it");
    let mut taken = with_ids(3, &[1, 2]);
    taken.quic.servers.insert(30, server(1));
    let error = sync.sync(&mut store, &taken, 2001).unwrap_err();
    assert!(matches!(error, Error::ServerIdTaken { id: 30, by: BackendId(3) }), "{error}");
    assert_eq!(store.meta.generation, 2, "refused whole");
    // Once it is gone, the id is free.
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    sync.tick(&mut store, 2002 + WINDOW + GRACE_TICKS).unwrap();
    sync.tick(&mut store, 2003 + WINDOW + 2 * GRACE_TICKS).unwrap();
    assert_eq!(store.backends[&BackendId(3)].flags, 0);
    sync.sync(&mut store, &with_ids(4, &[1, 2]), 5000).unwrap();
    assert!(!store.servers.contains_key(&30));
    sync.sync(&mut store, &taken, 5001).unwrap();
    assert_eq!(store.servers[&30].backend, 1);
}

#[test]
fn a_down_backends_server_id_may_be_given_away() {
    let (mut store, mut sync) = started(&with_ids(1, &[1, 2]));
    let mut taken = with_ids(2, &[1, 2]);
    taken.quic.servers = [(10, server(2))].into();
    assert!(matches!(sync.sync(&mut store, &taken, 2000), Err(Error::ServerIdTaken { .. })));
    sync.set_down(&mut store, &ids([1]), 2001).unwrap();
    sync.sync(&mut store, &taken, 2002).unwrap();
    assert_eq!(store.servers[&10].backend, 2);
}

#[test]
fn a_restart_knows_who_had_which_server_id() {
    let (mut store, _) = started(&with_ids(1, &[1, 2]));
    let servers = store.servers.clone();
    let mut sync = Sync::adopt(&store).unwrap();
    let mut taken = with_ids(2, &[1, 2]);
    taken.quic.servers = [(10, server(2))].into();
    assert!(matches!(sync.sync(&mut store, &taken, 2000), Err(Error::ServerIdTaken { .. })));
    sync.sync(&mut store, &with_ids(2, &[1, 2]), 2000).unwrap();
    assert_eq!(store.servers, servers);
}

/// An id that means another backend now would else lead old connections there.
#[test]
fn a_renamed_backend_has_another_generation() {
    let (mut store, mut sync) = started(&with_ids(1, &[1, 2]));
    let mut other = with_ids(2, &[1, 2]);
    other.pools[0].backends[0].address = [10, 9, 9, 9].into();
    sync.sync(&mut store, &other, 2000).unwrap();
    assert_eq!(store.backends[&BackendId(1)].generation, 1);
    assert_eq!((store.servers[&10].backend, store.servers[&10].generation), (1, 1));
}

/// `web` of backends 1 and 2, where some clients go to `blue` of backend 8.
fn with_sources(generation: u64, nets: &[&str]) -> Desired {
    let mut desired = web(generation, [1, 2]);
    desired.pools.push(pool("blue", [8]));
    if !nets.is_empty() {
        let nets = nets.iter().map(|net| (net.parse().unwrap(), "blue".into()));
        desired.sources.insert("web".into(), nets.collect());
    }
    desired
}

fn anchored(store: &Fake) -> Option<VipEntry> {
    store.vips.values().find(|entry| entry.vip == u32::MAX).copied()
}

/// Tables that the VIP's present set leads to, without markers.
fn leads_to(store: &Fake) -> Vec<u32> {
    let set = store.sets[&key_of(store, 1).vip];
    let here = store.sources.iter().filter(|(key, table)| key.set == set && **table != lb_abi::source::OWN);
    here.map(|(_, table)| *table).collect()
}

#[test]
fn prefixes_lead_to_a_table_of_their_own() {
    let (store, _) = started(&with_sources(1, &["198.51.100.0/24", "2001:db8::/32"]));
    let anchor = anchored(&store).unwrap();
    assert_eq!(key_of(&store, 1).flags & SOURCES, SOURCES);
    assert_ne!(anchor.table, key_of(&store, 1).table);
    assert_eq!(leads_to(&store), [anchor.table; 2]);
    let slots = slots_of(&store, Region::of_slot(anchor.table));
    assert!(slots.iter().all(|slot| slot.owner() == 8 && slot.phase() == Phase::Settled));
    assert_eq!(anchor.flow_idle_ticks, IDLE);
}

#[test]
fn sets_turn_over_whole_and_the_old_one_is_emptied_later() {
    let (mut store, mut sync) = started(&with_sources(1, &["198.51.100.0/24"]));
    let (first, old) = (store.sets[&0], store.sources.clone());
    sync.sync(&mut store, &with_sources(2, &["198.51.100.0/24", "203.0.113.0/25"]), 2000).unwrap();
    assert_eq!(store.sets[&0], lb_abi::source::other(first));
    assert!(old.keys().all(|key| store.sources.contains_key(key)), "a packet may still read it");
    assert_eq!(leads_to(&store).len(), 2);
    sync.tick(&mut store, 2001).unwrap();
    assert!(!old.keys().any(|key| store.sources.contains_key(key)));
    let (sources, set) = (store.sources.clone(), store.sets[&0]);
    sync.sync(&mut store, &with_sources(3, &["198.51.100.0/24", "203.0.113.0/25"]), 2002).unwrap();
    assert_eq!((&store.sources, store.sets[&0]), (&sources, set), "what stays is not touched");
    // Two changes without a tick between them.
    sync.sync(&mut store, &with_sources(4, &["198.51.100.0/24"]), 2003).unwrap();
    sync.sync(&mut store, &with_sources(5, &["198.51.100.0/25"]), 2004).unwrap();
    sync.tick(&mut store, 2005).unwrap();
    assert_eq!((leads_to(&store).len(), store.sources.len()), (1, 1));
}

#[test]
fn without_prefixes_their_table_goes() {
    let (mut store, mut sync) = started(&with_sources(1, &["198.51.100.0/24"]));
    sync.sync(&mut store, &with_sources(2, &[]), 2000).unwrap();
    assert_eq!((key_of(&store, 1).flags & SOURCES, anchored(&store)), (0, None));
    sync.tick(&mut store, 2001).unwrap();
    assert!(store.sources.is_empty());
    sync.tick(&mut store, 2002).unwrap();
    assert_eq!(store.backends[&BackendId(8)].flags, 0, "nothing names it any more");
    sync.sync(&mut store, &with_sources(3, &["198.51.100.0/24"]), 3000).unwrap();
    assert_eq!(leads_to(&store).len(), 1);
}

#[test]
fn a_restart_keeps_prefixes_and_their_table() {
    let (mut store, _) = started(&with_sources(1, &["198.51.100.0/24", "2001:db8::/32"]));
    let (sources, sets, vips) = (store.sources.clone(), store.sets.clone(), store.vips.clone());
    // A set that an earlier process was about to fill.
    let half = SourceKey { set: 1, ..SourceKey::default() };
    store.sources.insert(half, 0);
    let mut sync = Sync::adopt(&store).unwrap();
    sync.sync(&mut store, &with_sources(2, &["198.51.100.0/24", "2001:db8::/32"]), 2000).unwrap();
    sync.tick(&mut store, 2001).unwrap();
    assert_eq!((store.sources, store.sets, store.vips), (sources, sets, vips));
}

/// A flow of a client with a prefix moves with that prefix's table, not with its VIP's.
#[test]
fn records_belong_to_the_table_of_their_client() {
    let mut desired = with_sources(1, &["198.51.100.0/24"]);
    desired.pools[1] = pool("blue", [8, 9]);
    let (mut store, mut sync) = started(&desired);
    desired.pools[1] = pool("blue", [8]);
    sync.sync(&mut store, &desired, 2000).unwrap();
    let (entry, table) = (key_of(&store, 1), anchored(&store).unwrap().table);
    assert_eq!(sync.phases(&store, Region::of_slot(entry.table)).open, 0);
    let key = |port| FlowKey {
        source: mapped([198, 51, 100, 1].into()),
        destination: mapped([192, 0, 2, 1].into()),
        source_port: lb_abi::be::Be16::new(port),
        destination_port: lb_abi::be::Be16::new(80),
        protocol: 6,
        pad: [0; 3],
    };
    let at = |key: &FlowKey| (table + hash::slot(hash::flow(entry.hash_key, key), TABLE_LEN)) as usize;
    let key = (1..=u16::MAX).map(key).find(|key| store.slots().load(at(key)).phase() == Phase::Open).unwrap();
    let (at, seen) = (at(&key), 2000 + WINDOW);
    let record = FlowRecord { backend: 9, epoch: store.slots().load(at).epoch(), state: 0, seen };
    store.flows.insert(bytes(&key), (key, record));
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    sync.tick(&mut store, 2002 + WINDOW + GRACE_TICKS).unwrap();
    sync.tick(&mut store, 2003 + WINDOW + 2 * GRACE_TICKS).unwrap();
    assert_eq!(store.slots().load(at).phase(), Phase::Closed, "its slot waits for it");
    assert!(!store.flows.is_empty());
}

#[test]
fn limits_are_there_before_their_flag() {
    let limits = Limits::new(1000, 10, 20);
    let mut limited = web(1, [1]);
    limited.limits = Some(limits);
    let (mut store, mut sync) = started(&limited);
    assert_eq!((store.limits, store.meta.flags & FLAG_LIMITED), (limits, FLAG_LIMITED));
    sync.sync(&mut store, &web(2, [1]), 2000).unwrap();
    assert_eq!(store.meta.flags & FLAG_LIMITED, 0);
}
