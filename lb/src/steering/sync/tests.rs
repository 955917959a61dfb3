use lb_abi::{
    flow::{FlowKey, FlowRecord},
    hash,
    lengths::{LISTS, Lengths, VIP_V4},
    meta::{FLAG_DENY_V4, FLAG_DENY_V6, FLAG_LIMITED, FLAG_WIDE_VIPS},
    slot::GRACE_TICKS,
};

use super::*;
use crate::{
    balance::maglev,
    config::{Transport, VipPort},
    model::Generation,
    steering::{
        desired::{DesiredBackend, DesiredPool},
        maps::Lists,
    },
};

use fake::{Fake, bytes};

mod choosing;
mod fake;
mod nat;

/// Flow memory of the VIPs here, ticks (one more than the duration).
const IDLE: u32 = 101;
/// From the opening of a slot until it may close.
const WINDOW: u32 = IDLE + GRACE_TICKS;

fn vip(name: &str, last: u8, pool: &str) -> DesiredVip {
    DesiredVip {
        name: name.into(),
        addresses: vec![[192, 0, 2, last].into()],
        prefixes: vec![],
        ports: vec![VipPort::one(80, Transport::Tcp)],
        forward: Forward::Ipip,
        pool: pool.into(),
        nat_source: vec![],
        flows_none: false,
        hash: HashBy::Flow,
        flow_idle: std::time::Duration::from_nanos(u64::from(IDLE - 1) << lb_abi::slot::TICK_SHIFT),
        hash_key: [u64::from(last), 2],
    }
}

fn pool(name: &str, ids: impl IntoIterator<Item = u16>) -> DesiredPool {
    let address = |id: u16| [10, 0, 0, id as u8].into();
    let backend = |id| DesiredBackend { id: BackendId(id), address: address(id), port: None, weight: 1 };
    DesiredPool {
        name: name.into(),
        table_key: [3, 4],
        backends: ids.into_iter().map(backend).collect(),
        lineage: None,
    }
}

fn desired(generation: u64, vips: Vec<DesiredVip>, pools: Vec<DesiredPool>) -> Desired {
    Desired { generation: Generation(generation), vips, pools, ..Desired::default() }
}

fn web(generation: u64, ids: impl IntoIterator<Item = u16>) -> Desired {
    desired(generation, vec![vip("web", 1, "web")], vec![pool("web", ids)])
}

fn ids(ids: impl IntoIterator<Item = u16>) -> BTreeSet<BackendId> {
    ids.into_iter().map(BackendId).collect()
}

/// A fresh store brought to a state at tick 1000.
fn started(desired: &Desired) -> (Fake, Sync) {
    let mut store = Fake::default();
    let mut sync = Sync::adopt(&store).unwrap();
    sync.sync(&mut store, desired, 1000).unwrap();
    (store, sync)
}

fn slots(store: &Fake, region: u32) -> Vec<Slot> {
    slots_of(store, Region(region)).iter().collect()
}

/// Of port 80 at an address.
fn key_of(store: &Fake, address: u8) -> VipEntry {
    let flow = FlowKey {
        destination: mapped([192, 0, 2, address].into()),
        destination_port: lb_abi::be::Be16::new(80),
        protocol: 6,
        ..FlowKey::default()
    };
    *wide::Finder::new(&store.vips).vip_of(&flow).unwrap()
}

#[test]
fn a_first_sync_settles_all_and_answers_echo() {
    let (store, sync) = started(&web(7, [1, 2, 3]));
    assert!(slots(&store, 0).iter().all(|slot| slot.phase() == Phase::Settled && slot.owner() != 0));
    let echo = store.vips.iter().find(|(key, _)| key.protocol == 1).unwrap();
    assert_eq!((echo.0.port.host(), echo.1.flags, echo.1.table_len), (0, ECHO, 0));
    assert_eq!((store.meta.abi, store.meta.generation, store.meta.flags), (ABI_VERSION, 7, 0));
    assert_eq!(store.resets, [0]);
    assert_eq!(key_of(&store, 1).flow_idle_ticks, IDLE);
    assert_eq!(sync.phases(&store, Region(0)).settled, LEN);
}

#[test]
fn a_restart_touches_nothing_that_stays() {
    let (mut store, _) = started(&web(7, [1, 2, 3]));
    let (slots_before, vips, backends) = (slots(&store, 0), store.vips.clone(), store.backends.clone());
    let mut sync = Sync::adopt(&store).unwrap();
    sync.sync(&mut store, &web(7, [1, 2, 3]), 9000).unwrap();
    assert_eq!(slots(&store, 0), slots_before);
    assert_eq!((store.vips.clone(), store.backends.clone()), (vips, backends));
    assert_eq!(store.resets, [0], "counters go on");
}

#[test]
fn a_removed_backend_drains_then_goes() {
    let (mut store, mut sync) = started(&web(1, [1, 2, 3]));
    let before = slots(&store, 0);
    sync.sync(&mut store, &web(2, [1, 2]), 2000).unwrap();
    for (old, new) in before.iter().zip(slots(&store, 0)) {
        if old.owner() == 3 {
            assert_eq!(new, Slot::new(new.owner(), 3, Phase::Open, 1, 2000));
        } else {
            assert_eq!(*old, new, "slots of others are not touched");
        }
    }
    assert_eq!(store.backends[&BackendId(3)].flags, PRESENT);
    sync.tick(&mut store, 2000 + WINDOW).unwrap();
    assert!(sync.phases(&store, Region(0)).open > 0, "not before the memory is over");
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).open, 0);
    assert!(sync.phases(&store, Region(0)).closed > 0);
    assert_eq!(store.backends[&BackendId(3)].flags, PRESENT);
    sync.tick(&mut store, 2002 + WINDOW + GRACE_TICKS).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).settled, LEN);
    assert_eq!(store.backends[&BackendId(3)].flags, PRESENT, "a program may hold a record yet");
    sync.tick(&mut store, 2003 + WINDOW + 2 * GRACE_TICKS).unwrap();
    assert_eq!(store.backends[&BackendId(3)].flags, 0);
    assert_eq!(store.meta.flags & FLAG_MOVING, 0);
    // The id may name another backend now, and says so.
    let mut again = web(3, [1, 2, 3]);
    again.pools[0].backends[2].address = [10, 9, 9, 9].into();
    sync.sync(&mut store, &again, 5000).unwrap();
    assert_eq!(store.backends[&BackendId(3)].generation, 1);
}

/// A flow to the VIP `address` whose slot satisfies `wanted`, recorded.
fn record(store: &mut Fake, address: u8, backend: u16, seen: u32, wanted: impl Fn(Slot) -> bool) -> usize {
    let entry = key_of(store, address);
    for port in 1..=u16::MAX {
        let key = FlowKey {
            source: mapped([198, 51, 100, 1].into()),
            destination: mapped([192, 0, 2, address].into()),
            source_port: lb_abi::be::Be16::new(port),
            destination_port: lb_abi::be::Be16::new(80),
            protocol: 6,
            pad: [0; 3],
        };
        let at = hash::slot(hash::flow(entry.hash_key, &key), TABLE_LEN) as usize;
        let slot = store.slots().load(entry.table as usize + at);
        if wanted(slot) {
            let record = FlowRecord { backend, epoch: slot.epoch(), state: 0, seen };
            store.flows.insert(bytes(&key), (key, record));
            return at;
        }
    }
    panic!("no flow lands on such a slot");
}

#[test]
fn a_stray_keeps_its_slot_closed_until_it_dies() {
    let (mut store, mut sync) = started(&web(1, [1, 2, 3]));
    sync.sync(&mut store, &web(2, [1, 2]), 2000).unwrap();
    let at = record(&mut store, 1, 3, 2150, |slot| slot.phase() == Phase::Open);
    record(&mut store, 1, 1, 2150, |slot| slot.phase() == Phase::Settled);
    let closed_at = 2001 + WINDOW;
    sync.tick(&mut store, closed_at).unwrap();
    sync.tick(&mut store, closed_at + GRACE_TICKS + 1).unwrap();
    assert_eq!(
        sync.phases(&store, Region(0)),
        super::super::settle::Phases { settled: LEN - 1, open: 0, closed: 1 }
    );
    assert_eq!(slots(&store, 0)[at].phase(), Phase::Closed);
    assert_eq!(store.flows.len(), 1, "the record of a settled slot is swept");
    assert_eq!(store.backends[&BackendId(3)].flags, PRESENT);
    // It was last seen at 2150; the records are looked through again after a pause.
    sync.tick(&mut store, 2150 + WINDOW).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).closed, 1);
    sync.tick(&mut store, 2400 + IDLE).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).settled, LEN);
    assert!(store.flows.is_empty());
    sync.tick(&mut store, 2500 + IDLE).unwrap();
    assert_eq!(store.backends[&BackendId(3)].flags, 0);
}

#[test]
fn no_slot_closes_while_records_are_refused() {
    let (mut store, mut sync) = started(&web(1, [1, 2]));
    sync.sync(&mut store, &web(2, [1]), 2000).unwrap();
    store.refused_at = 2050;
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).closed, 0);
    sync.tick(&mut store, 2050 + WINDOW).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).closed, 0, "one that was silent since may come yet");
    sync.tick(&mut store, 2051 + WINDOW).unwrap();
    assert_eq!(sync.phases(&store, Region(0)).open, 0);
}

#[test]
fn a_full_table_is_swept() {
    let (mut store, mut sync) = started(&web(1, [1, 2]));
    sync.sync(&mut store, &web(2, [1]), 2000).unwrap();
    let is_open = |slot: Slot| slot.phase() == Phase::Open;
    record(&mut store, 1, 1, 2001, is_open);
    (store.refused, store.refused_at) = (1, 2000 + WINDOW);
    sync.tick(&mut store, 2000 + WINDOW).unwrap();
    assert!(!slots(&store, 0).iter().any(|slot| slot.phase() == Phase::Sweeping), "nothing has ended yet");
    (store.refused, store.refused_at) = (2, 2001 + WINDOW);
    sync.tick(&mut store, 2001 + WINDOW).unwrap();
    assert!(!slots(&store, 0).iter().any(|slot| is_open(*slot)));
    assert_eq!(store.flows.len(), 1, "a program may be writing over it");
    sync.tick(&mut store, 2002 + WINDOW + GRACE_TICKS).unwrap();
    assert!(store.flows.is_empty());
    let opened = slots(&store, 0).into_iter().filter(|slot| is_open(*slot));
    assert!(opened.map(|slot| slot.changed_at()).eq(vec![2002 + WINDOW + GRACE_TICKS; LEN / 2]));
}

#[test]
fn a_death_settles_at_once_and_a_return_opens() {
    let (mut store, mut sync) = started(&web(1, [1, 2, 3]));
    let before = slots(&store, 0);
    sync.set_down(&mut store, &ids([2]), 2000).unwrap();
    assert_eq!(store.backends[&BackendId(2)].flags, PRESENT | DOWN);
    let down = slots(&store, 0);
    assert!(down.iter().all(|slot| slot.phase() == Phase::Settled && slot.owner() != 2));
    assert!(before.iter().zip(&down).all(|(old, new)| old.owner() == 2 || old == new));
    assert_eq!(store.meta.flags & FLAG_MOVING, 0);
    sync.set_down(&mut store, &ids([]), 3000).unwrap();
    for (old, new) in before.iter().zip(slots(&store, 0)) {
        assert_eq!(new.owner(), old.owner());
        assert_eq!(new.phase() == Phase::Open, old.owner() == 2);
    }
    // It dies again: its open slots close, for those who own them have all their flows.
    sync.set_down(&mut store, &ids([2]), 3010).unwrap();
    assert!(
        slots(&store, 0)
            .iter()
            .zip(&before)
            .all(|(slot, old)| (slot.phase() == Phase::Closed) == (old.owner() == 2))
    );
    // A restart remembers who was down, and moves nothing for that.
    let now = slots(&store, 0);
    let mut sync = Sync::adopt(&store).unwrap();
    assert_eq!(sync.down, ids([2]));
    sync.sync(&mut store, &web(1, [1, 2, 3]), 3020).unwrap();
    assert_eq!(slots(&store, 0), now);
}

#[test]
fn a_vip_that_changes_pool_takes_its_flows_along() {
    let two = |first: &str| {
        let vips = vec![vip("one", 1, first), vip("two", 2, "a"), vip("three", 3, "b")];
        desired(1, vips, vec![pool("a", [1, 2]), pool("b", [3, 4])])
    };
    let (mut store, mut sync) = started(&two("a"));
    let before = slots(&store, 0);
    sync.sync(&mut store, &two("b"), 2000).unwrap();
    assert_eq!(key_of(&store, 1).table, 2 * TABLE_LEN);
    assert_eq!(slots(&store, 0), before, "the other VIP of the old pool notices nothing");
    for (old, new) in before.iter().zip(slots(&store, 2)) {
        assert_eq!(new.phase(), Phase::Open);
        assert_eq!(new.previous(), old.owner());
        assert!([3, 4].contains(&new.owner()));
    }
    assert!(slots(&store, 1).iter().all(|slot| slot.phase() == Phase::Settled));
}

#[test]
fn no_record_is_read_for_another_vip() {
    let (any, http) = (VipPort::any(Transport::Tcp), VipPort::one(80, Transport::Tcp));
    let wide = |ports: &[VipPort]| DesiredVip { ports: ports.to_vec(), ..vip("wide", 1, "a") };
    let narrow = || DesiredVip { hash_key: [9, 9], ..vip("narrow", 1, "b") };
    let with = |generation, vips| desired(generation, vips, vec![pool("a", [1, 2]), pool("b", [5, 6])]);
    let before = desired(1, vec![wide(&[any])], vec![pool("a", [1, 2, 3])]);
    let (mut store, mut sync) = started(&before);
    sync.sync(&mut store, &with(2, vec![wide(&[any])]), 2000).unwrap();
    record(&mut store, 1, 3, 2001, |slot| slot.phase() == Phase::Open);
    for ports in [&[any, http][..], &[any]] {
        sync.sync(&mut store, &with(3, vec![wide(ports)]), 2002).unwrap();
        assert_eq!(store.flows.len(), 1, "it is the same table under the same key");
    }
    sync.sync(&mut store, &with(4, vec![wide(&[any]), narrow()]), 3000).unwrap();
    assert_eq!((store.flows.len(), key_of(&store, 1).hash_key), (0, [9, 9]));
    assert!(!sync.patience.vips_are_known(3000 + GRACE_TICKS), "a program may write one for the old VIP yet");
    record(&mut store, 1, 5, 3001, |_| true);
    sync.sync(&mut store, &with(5, vec![wide(&[any])]), 4000).unwrap();
    assert_eq!((store.flows.len(), key_of(&store, 1).hash_key), (0, [1, 2]));
}

#[test]
fn removal_takes_the_vip_first_and_frees_its_place() {
    let both = desired(1, vec![vip("one", 1, "a"), vip("two", 2, "b")], vec![pool("a", [1]), pool("b", [2])]);
    let (mut store, mut sync) = started(&both);
    let one = desired(2, vec![vip("two", 2, "b")], vec![pool("b", [2])]);
    let index_of_two = key_of(&store, 2).vip;
    sync.sync(&mut store, &one, 2000).unwrap();
    assert_eq!(store.vips.len(), 2, "its key and its echo");
    sync.tick(&mut store, 2001).unwrap();
    assert_eq!(store.backends[&BackendId(1)].flags, 0);
    // Counters of the other go on under their index, and a new VIP begins at zero.
    assert_eq!(key_of(&store, 2).vip, index_of_two);
    store.resets.clear();
    sync.sync(&mut store, &both, 3000).unwrap();
    assert_eq!(key_of(&store, 2).vip, index_of_two);
    assert_eq!(store.resets, [key_of(&store, 1).vip]);
}

#[test]
fn a_new_secret_on_a_live_vip_is_refused_whole() {
    let (mut store, mut sync) = started(&web(1, [1, 2]));
    let before = slots(&store, 0);
    let mut other = web(2, [1]);
    other.vips[0].hash_key = [9, 9];
    assert!(matches!(sync.sync(&mut store, &other, 2000), Err(Error::HashKeyChanged { .. })));
    assert_eq!(slots(&store, 0), before);
    assert_eq!(store.meta.generation, 1);
}

#[test]
fn an_id_that_means_another_backend_leaves_no_flows() {
    let (mut store, mut sync) = started(&web(1, [1, 2]));
    let mut other = web(2, [1, 3]);
    other.pools[0].backends[0].address = [10, 9, 9, 9].into();
    sync.sync(&mut store, &other, 2000).unwrap();
    assert_eq!(store.backends[&BackendId(1)].generation, 1);
    assert!(slots(&store, 0).iter().all(|slot| slot.previous() != 1 || slot.owner() == 1));
}

#[test]
fn deny_list_and_flags_follow() {
    const KEY: [u64; 2] = [7, 8];
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    let with = |deny: &[&str], allow: &[&str]| Desired {
        deny: nets(deny).into(),
        allow: nets(allow).into(),
        guard_key: KEY,
        ..web(1, [1])
    };
    let words = |deny: &[&str], allow: &[&str]| -> BTreeSet<u64> {
        Lists::of(KEY, &nets(deny), &nets(allow)).words().iter().copied().collect()
    };
    let (mut store, mut sync) = started(&with(&["203.0.113.7/24", "2001:db8::/32"], &["203.0.113.9/32"]));
    assert_eq!(store.meta.flags, FLAG_DENY_V4 | FLAG_DENY_V6);
    assert_eq!((store.meta.guard_key, store.meta.lengths), (KEY, [1, 1, 0, 0]));
    let host_bits_do_not_count = words(&["203.0.113.0/24", "2001:db8::/32"], &["203.0.113.9/32"]);
    assert_eq!(store.listed, host_bits_do_not_count);
    sync.sync(&mut store, &with(&["2001:db8::/32"], &[]), 2000).unwrap();
    assert_eq!((store.meta.flags, &store.listed), (FLAG_DENY_V6, &words(&["2001:db8::/32"], &[])));
    let mut sync = Sync::adopt(&store).unwrap();
    sync.sync(&mut store, &with(&[], &["203.0.113.9/32"]), 3000).unwrap();
    assert_eq!(store.meta.flags, 0, "who is allowed without anybody being denied is not looked up");
    sync.sync(&mut store, &Desired { guard_key: [9, 9], ..with(&["192.0.2.0/24"], &[]) }, 4000).unwrap();
    assert_eq!((store.meta.flags, store.listed.len()), (FLAG_DENY_V4, 1), "nothing of another key stays");
}

#[test]
fn packets_are_told_of_prefixes_and_ranges() {
    let mut wide = web(1, [1]);
    wide.vips[0].prefixes = vec!["198.51.100.0/24".parse().unwrap()];
    wide.vips[0].ports = vec![VipPort { port: 8000, last: 8100, transport: Transport::Tcp }];
    let (mut store, mut sync) = started(&wide);
    let copy = usize::from(store.meta.lengths[VIP_V4]);
    assert_eq!(store.meta.flags, FLAG_WIDE_VIPS);
    assert_eq!(store.lengths[VIP_V4][copy], Lengths::of([8]));
    let ranges = store.vips.iter().filter(|(_, entry)| entry.last_port == 8100);
    let host_bits: Vec<_> = ranges.map(|(key, _)| (key.port.host(), key.host_bits)).collect();
    assert_eq!(host_bits, [(8000, 0), (8000, 8)]);
    sync.sync(&mut store, &web(2, [1]), 2000).unwrap();
    assert_eq!((store.meta.flags, store.vips.len()), (0, 2), "a port and echo");
}

#[test]
fn a_backend_with_an_address_of_ours_is_local() {
    let mut desired = web(1, [1, 2]);
    desired.local = [[10, 0, 0, 2].into(), [192, 0, 2, 1].into()].into();
    let (mut store, mut sync) = started(&desired);
    let flags = |store: &Fake| [1, 2].map(|id| store.backends[&BackendId(id)].flags);
    assert_eq!(flags(&store), [PRESENT, PRESENT | LOCAL]);
    sync.set_down(&mut store, &ids([2]), 2000).unwrap();
    assert_eq!(flags(&store), [PRESENT, PRESENT | LOCAL | DOWN]);
    sync.sync(&mut store, &web(2, [1, 2]), 3000).unwrap();
    assert_eq!(flags(&store), [PRESENT, PRESENT | DOWN], "the address moved to another box");
}

#[test]
fn lineage_is_the_predecessor_of_a_first_table() {
    let members = pool("web", [1, 2, 3]).members();
    let ancestor = maglev::Table::build(TABLE_LEN, [3, 4], &members, None);
    let ancestor = maglev::Table::build(TABLE_LEN, [3, 4], &members[..2], Some(&ancestor));
    let mut with = web(1, [1, 2]);
    with.pools[0].lineage = Some(Arc::new(ancestor.clone()));
    let (_, sync) = started(&with);
    assert_eq!(sync.tables["web"].digest(), ancestor.digest());
    let (_, without) = started(&web(1, [1, 2]));
    assert_ne!(without.tables["web"].digest(), ancestor.digest());
}

/// What may happen to a plane.
#[derive(Clone, Debug)]
enum Event {
    Config { web: BTreeSet<u16>, one_pool: bool },
    Health(BTreeSet<u16>),
    Time(u32),
    Restart,
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    use proptest::{collection, prelude::*};
    let event = prop_oneof![
        (collection::btree_set(1u16..5, 1..4), any::<bool>())
            .prop_map(|(web, one_pool)| Event::Config { web, one_pool }),
        collection::btree_set(1u16..6, 0..3).prop_map(Event::Health),
        (1u32..150).prop_map(Event::Time),
        Just(Event::Restart),
    ];
    collection::vec(event, 1..12)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(10))]

    /// Whatever happens in whatever order: no index points at nothing (the fake looks at every write), owners
    /// are what table and health say, and given time all slots settle and nothing lingers.
    #[test]
    fn any_order_of_events_ends_settled_on_the_right_owners(events in events()) {
        let two = |web: BTreeSet<u16>, one_pool: bool| {
            let vips = vec![vip("one", 1, "web"), vip("two", 2, if one_pool { "web" } else { "other" })];
            desired(1, vips, vec![pool("web", web), pool("other", [5, 6])])
        };
        let mut last = two([1, 2].into(), false);
        let (mut store, mut sync) = started(&last);
        let mut now = 1000;
        for event in events {
            now += 1;
            match event {
                Event::Config { web, one_pool } => {
                    last = two(web, one_pool);
                    sync.sync(&mut store, &last, now).unwrap();
                }
                Event::Health(down) => sync.set_down(&mut store, &ids(down), now).unwrap(),
                Event::Time(by) => {
                    now += by;
                    sync.tick(&mut store, now).unwrap();
                }
                Event::Restart => {
                    let tables = sync.tables.clone();
                    sync = Sync::adopt(&store).unwrap();
                    for pool in &mut last.pools {
                        pool.lineage = tables.get(&pool.name).cloned().map(Arc::new);
                    }
                    sync.sync(&mut store, &last, now).unwrap();
                }
            }
            store.check();
            for region in sync.regions.keys() {
                let owners = slots_of(&store, *region).iter().map(|slot| BackendId(slot.owner()));
                proptest::prop_assert!(owners.eq(sync.owners(*region)));
            }
        }
        for _ in 0..4 {
            now += WINDOW + 1;
            sync.tick(&mut store, now).unwrap();
        }
        proptest::prop_assert!(sync.regions.keys().all(|region| sync.phases(&store, *region).settled == LEN));
        let present = store.backends.iter().filter(|(_, entry)| entry.flags & PRESENT != 0);
        proptest::prop_assert!(present.map(|(id, _)| *id).eq(sync.wanted.iter().copied()));
        proptest::prop_assert_eq!(store.meta.flags & FLAG_MOVING, 0);
    }
}
