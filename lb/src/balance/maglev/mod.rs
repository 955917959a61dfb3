//! The Maglev table of a pool: slot -> backend, balanced exactly, and moved no more than asked for.
//!
//! A pure Maglev build moves up to one slot in a hundred that need not move. So a table is built from its
//! predecessor: slots that may stay stay, and only the rest are dealt out, each member taking the next free
//! slot of its own permutation. The first build has nothing to keep and is Maglev's.
//! Source: Eisenbud et al., "Maglev: a fast and reliable software network load balancer", NSDI'16, 3.4.
//!
//! Permutations and ties hang on a member's *identity* (what the backend is, such as a hash of its address),
//! never on its id, which each node deals out for itself: nodes with the same members and lineage have the
//! same table, and the same [`Table::digest`].
//!
//! Health is no part of this table. [`Table::overlay`] lays it over.

mod bytes;
mod deal;
mod overlay;
mod share;

use std::sync::Arc;

use lb_abi::hash::sip13;

use crate::model::BackendId;

pub use bytes::LineageError;
pub use overlay::DownSet;

use self::deal::Walk;

/// A backend's part in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What stands in the slots. Not 0, and in no other member of the table.
    pub id: BackendId,
    /// What the backend is, the same on every node and after every restart.
    pub identity: u64,
    /// Share of the slots; 0 takes none.
    pub weight: u16,
}

/// A built table. Immutable: a change is another table, built from this one. A clone shares the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    key: [u64; 2],
    /// By identity; weights above 0.
    members: Vec<Member>,
    /// Backend id by slot; 0 everywhere when there are no members.
    owners: Arc<[u16]>,
}

/// No member yet, while a table is dealt out.
const FREE: u32 = u32::MAX;

impl Table {
    /// Builds a table of `len` slots, `len` a prime (else a permutation would not reach every slot).
    ///
    /// Each member gets its share of the slots by weight, rounded by largest remainder: exact to one slot.
    /// A slot of `previous` keeps its owner while that is a member and under its share. The order of
    /// `members` does not matter; of two with the same id or identity the first counts. A `previous` of
    /// another length is ignored; one of the same members and key is what is built.
    pub fn build(len: u32, key: [u64; 2], members: &[Member], previous: Option<&Self>) -> Self {
        let members = normalise(members);
        match previous.filter(|table| table.is_of(len as usize, key, &members)) {
            Some(same) => same.clone(),
            None => Self::deal(len as usize, key, members, previous),
        }
    }

    fn deal(len: usize, key: [u64; 2], members: Vec<Member>, previous: Option<&Self>) -> Self {
        if members.is_empty() {
            return Self { key, members, owners: vec![0; len].into() };
        }
        let kept = previous.filter(|table| table.len() == len).map(|table| table.by_member(&members));
        let mut held = vec![0; members.len()];
        kept.iter()
            .flatten()
            .filter(|member| **member != FREE)
            .for_each(|member| held[*member as usize] += 1);
        let mut quota = share::targets(len as u32, &members, &held);
        let mut slots = kept.unwrap_or_else(|| vec![FREE; len]);
        give_up(&mut slots, &held, &quota, key);
        quota.iter_mut().zip(held).for_each(|(quota, held)| *quota = quota.saturating_sub(held));
        deal::deal(&mut slots, &quota, key, &members);
        let owners = slots.iter().map(|&member| members[member as usize].id.0).collect();
        Self { key, members, owners }
    }

    fn is_of(&self, len: usize, key: [u64; 2], members: &[Member]) -> bool {
        self.len() == len && self.key == key && self.members == members
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether it has no slots.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Owner by slot; id 0: none.
    pub fn owners(&self) -> impl ExactSizeIterator<Item = BackendId> + '_ {
        self.owners.iter().map(|&id| BackendId(id))
    }

    /// Members with a weight above 0, in an order of their own.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether it has a member of that id.
    pub fn has(&self, id: BackendId) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// What nodes compare before they announce: key, members and the owner of every slot, without the ids.
    pub fn digest(&self) -> u64 {
        let ids = self.members.iter().map(|member| member.id.index()).max().map_or(0, |last| last + 1);
        // By id, as there are many slots; 0: nobody.
        let mut position = vec![0; ids];
        self.members.iter().zip(1u64..).for_each(|(member, at)| position[member.id.index()] = at);
        let mut digest = sip13(self.key, [self.owners.len() as u64, self.members.len() as u64]);
        for member in &self.members {
            digest = sip13(self.key, [digest, member.identity, u64::from(member.weight)]);
        }
        for owner in &*self.owners {
            let at = position.get(usize::from(*owner)).copied().unwrap_or(0);
            digest = sip13(self.key, [digest, at]);
        }
        digest
    }

    /// Which of `members` (in order of identity) owns each slot; [`FREE`] where none does. By identity: an id may
    /// have been dealt out anew.
    fn by_member(&self, members: &[Member]) -> Vec<u32> {
        let ids = self.members.iter().map(|member| member.id.index()).max().map_or(0, |last| last + 1);
        let mut of_id = vec![FREE; ids];
        for ours in &self.members {
            if let Ok(at) = members.binary_search_by_key(&ours.identity, |member| member.identity) {
                of_id[ours.id.index()] = at as u32;
            }
        }
        self.owners.iter().map(|&owner| of_id.get(usize::from(owner)).copied().unwrap_or(FREE)).collect()
    }
}

/// Sorted by identity, no twins, no idle ones.
fn normalise(members: &[Member]) -> Vec<Member> {
    let mut ids = std::collections::HashSet::new();
    let mut sorted: Vec<Member> = members
        .iter()
        .copied()
        .filter(|member| member.weight > 0 && member.id.0 != 0 && ids.insert(member.id))
        .collect();
    sorted.sort_by_key(|member| member.identity);
    sorted.dedup_by_key(|member| member.identity);
    sorted
}

/// Frees what members hold beyond their quota.
///
/// The walk is keyed, so that what a shrinking member gives up is spread over the table: it keeps the slots that the
/// walk comes to first.
fn give_up(slots: &mut [u32], held: &[u32], quota: &[u32], key: [u64; 2]) {
    let mut beyond: u32 = held.iter().zip(quota).map(|(held, quota)| held.saturating_sub(*quota)).sum();
    let mut kept = vec![0; quota.len()];
    let mut walk = Walk::new(key, u64::MAX, slots.len());
    while beyond > 0 {
        let slot = &mut slots[walk.next()];
        if *slot == FREE {
            continue;
        }
        let member = *slot as usize;
        kept[member] += 1;
        if kept[member] > quota[member] {
            *slot = FREE;
            beyond -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
