use std::collections::{BTreeMap, BTreeSet};

use lb_abi::bounds::TABLE_LEN;
use proptest::prelude::*;

use super::*;

const KEY: [u64; 2] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];
/// A small prime, so that properties run over many tables.
const SMALL: u32 = 1009;

fn member(id: u16, weight: u16) -> Member {
    Member { id: BackendId(id), identity: sip13([7, 7], [u64::from(id)]), weight }
}

fn equal(count: u16) -> Vec<Member> {
    (1..=count).map(|id| member(id, 1)).collect()
}

fn counts(owners: impl Iterator<Item = BackendId>) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    owners.for_each(|owner| *counts.entry(owner.0).or_default() += 1);
    counts
}

/// Slots whose owner differs, as (old, new).
fn moves(old: &Table, new: &Table) -> Vec<(u16, u16)> {
    old.owners().zip(new.owners()).filter(|(old, new)| old != new).map(|(old, new)| (old.0, new.0)).collect()
}

fn weighted() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::btree_map(1u16..200, 1u16..=1000, 1..40)
        .prop_map(|weights| weights.into_iter().map(|(id, weight)| member(id, weight)).collect())
}

proptest! {
    #[test]
    fn every_member_holds_its_share_to_one_slot(members in weighted(), before in weighted()) {
        let previous = Table::build(SMALL, KEY, &before, None);
        let table = Table::build(SMALL, KEY, &members, Some(&previous));
        let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
        let counts = counts(table.owners());
        for member in &members {
            let share = f64::from(SMALL) * f64::from(member.weight) / total;
            let held = f64::from(counts.get(&member.id.0).copied().unwrap_or(0));
            prop_assert!((held - share).abs() < 1.0, "{member:?} holds {held} of a share of {share}");
        }
        prop_assert_eq!(counts.values().sum::<u32>(), SMALL);
    }

    #[test]
    fn what_is_not_dealt_again_would_be_dealt_the_same(members in weighted(), before in weighted()) {
        let previous = Table::build(SMALL, KEY, &before, None);
        let table = Table::build(SMALL, KEY, &members, Some(&previous));
        let again = Table::deal(SMALL as usize, KEY, table.members.clone(), Some(&table));
        prop_assert_eq!(&again, &table);
        prop_assert_eq!(Table::build(SMALL, KEY, &members, Some(&table)), table);
    }

    #[test]
    fn removing_one_of_equals_moves_its_slots_only(count in 2u16..60, gone in 0usize..60) {
        let mut members = equal(count);
        let old = Table::build(SMALL, KEY, &members, None);
        let gone = members.remove(gone % members.len());
        let new = Table::build(SMALL, KEY, &members, Some(&old));
        let moved = moves(&old, &new);
        prop_assert!(moved.iter().all(|(from, _)| *from == gone.id.0));
        prop_assert_eq!(moved.len(), counts(old.owners())[&gone.id.0] as usize);
    }

    #[test]
    fn adding_one_moves_only_what_it_gains(count in 1u16..60) {
        let old = Table::build(SMALL, KEY, &equal(count), None);
        let new = Table::build(SMALL, KEY, &equal(count + 1), Some(&old));
        let moved = moves(&old, &new);
        prop_assert!(moved.iter().all(|(_, to)| *to == count + 1));
        prop_assert_eq!(moved.len(), counts(new.owners())[&(count + 1)] as usize);
    }

    #[test]
    fn order_and_ids_of_members_do_not_matter(members in weighted(), shift in 1u16..1000) {
        let table = Table::build(SMALL, KEY, &members, None);
        let mut other: Vec<Member> = members
            .iter()
            .rev()
            .map(|member| Member { id: BackendId(member.id.0 + shift), ..*member })
            .collect();
        other.rotate_left(members.len() / 2);
        let renumbered = Table::build(SMALL, KEY, &other, None);
        prop_assert_eq!(table.digest(), renumbered.digest());
        prop_assert!(table.owners().zip(renumbered.owners()).all(|(one, two)| one.0 + shift == two.0));
    }

    #[test]
    fn deaths_and_returns_commute(members in weighted(), events in proptest::collection::vec((0usize..40, any::<bool>()), 0..30)) {
        let table = Table::build(SMALL, KEY, &members, None);
        let mut down = BTreeSet::new();
        let mut before = table.overlay(&DownSet::default());
        for (at, dies) in events {
            let id = members[at % members.len()].id;
            if dies { down.insert(id) } else { down.remove(&id) };
            let now = table.overlay(&down.iter().copied().collect());
            let all_down = down.len() == members.len();
            for (old, new) in before.iter().zip(&now) {
                // A death moves only the dead one's slots, a return gives only to the one that returned.
                prop_assert!(all_down || down.len() + 1 == members.len() || old == new || *old == id || *new == id);
                prop_assert!(all_down || !down.contains(new));
            }
            // The way here does not matter: straight from the base it is the same.
            prop_assert_eq!(&now, &table.overlay(&down.iter().rev().copied().collect()));
            before = now;
        }
    }

    #[test]
    fn bytes_come_back(members in weighted()) {
        let table = Table::build(SMALL, KEY, &members, None);
        let bytes = table.to_bytes();
        prop_assert_eq!(Table::from_bytes(&bytes), Ok(table));
        prop_assert!(Table::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let bytes = Table::build(SMALL, KEY, &equal(3), None).to_bytes();
    for at in [0, 9, 25, 33, 40, bytes.len() / 2, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(Table::from_bytes(&bytes).is_err(), "byte {at}");
    }
}

#[test]
fn heirs_take_over_by_weight() {
    let members: Vec<Member> = [(1, 1), (2, 1), (3, 2)].map(|(id, weight)| member(id, weight)).into();
    let table = Table::build(TABLE_LEN, KEY, &members, None);
    let base = counts(table.owners());
    let after = counts(table.overlay(&[BackendId(1)].into_iter().collect()).into_iter());
    let gained = |id: u16| f64::from(after[&id] - base[&id]);
    assert!((gained(3) / gained(2) - 2.0).abs() < 0.1, "{} to {}", gained(3), gained(2));
}

#[test]
fn one_survivor_of_many_takes_all_and_all_down_leaves_the_base() {
    let members = equal(300);
    let table = Table::build(SMALL, KEY, &members, None);
    let down = members[1..].iter().map(|member| member.id).collect();
    assert!(table.overlay(&down).iter().all(|owner| *owner == members[0].id));
    let down = members.iter().map(|member| member.id).collect();
    assert!(table.overlay(&down).into_iter().eq(table.owners()));
}

#[test]
fn another_key_is_another_table() {
    let one = Table::build(SMALL, KEY, &equal(5), None);
    let two = Table::build(SMALL, [KEY[0] ^ 1, KEY[1]], &equal(5), None);
    assert_ne!(one.digest(), two.digest());
    assert!(moves(&one, &two).len() > SMALL as usize / 2);
}

#[test]
fn no_members_no_owners() {
    let table = Table::build(SMALL, KEY, &[member(1, 0)], None);
    assert!(table.owners().all(|owner| owner.0 == 0));
    assert_eq!(table.overlay(&DownSet::default()).len(), SMALL as usize);
}
