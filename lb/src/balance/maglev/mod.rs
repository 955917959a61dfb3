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
mod overlay;
mod share;

use std::collections::HashMap;

use lb_abi::hash::sip13;

use crate::model::BackendId;

pub use bytes::LineageError;
pub use overlay::DownSet;

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

/// A built table. Immutable: a change is another table, built from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    key: [u64; 2],
    /// By identity; weights above 0.
    members: Vec<Member>,
    /// Backend id by slot; 0 everywhere when there are no members.
    owners: Box<[u16]>,
}

/// No member yet, while a table is dealt out.
const FREE: u32 = u32::MAX;

impl Table {
    /// Builds a table of `len` slots, `len` a prime (else a permutation would not reach every slot).
    ///
    /// Each member gets its share of the slots by weight, rounded by largest remainder: exact to one slot.
    /// A slot of `previous` keeps its owner while that is a member and under its share. The order of
    /// `members` does not matter; of two with the same id or identity the first counts. A `previous` of
    /// another length is ignored.
    pub fn build(len: u32, key: [u64; 2], members: &[Member], previous: Option<&Self>) -> Self {
        let members = normalise(members);
        let len = len as usize;
        if members.is_empty() {
            return Self { key, members, owners: vec![0; len].into() };
        }
        let previous = previous.filter(|table| table.len() == len);
        let mut slots = vec![FREE; len];
        let held = previous.map_or_else(|| vec![0; members.len()], |table| table.slots_of(&members));
        let mut quota = share::targets(len as u32, &members, &held);
        if let Some(previous) = previous {
            keep(&mut slots, &mut quota, key, &members, previous);
        }
        deal(&mut slots, &quota, key, &members);
        let owners = slots.iter().map(|&member| members[member as usize].id.0).collect();
        Self { key, members, owners }
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

    /// What nodes compare before they announce: key, members and the owner of every slot, without the ids.
    pub fn digest(&self) -> u64 {
        let position: HashMap<u16, u64> =
            self.members.iter().zip(1u64..).map(|(member, at)| (member.id.0, at)).collect();
        let mut digest = sip13(self.key, [self.owners.len() as u64, self.members.len() as u64]);
        for member in &self.members {
            digest = sip13(self.key, [digest, member.identity, u64::from(member.weight)]);
        }
        for owner in &self.owners {
            digest = sip13(self.key, [digest, position.get(owner).copied().unwrap_or(0)]);
        }
        digest
    }

    /// How many slots each of `members` holds here.
    fn slots_of(&self, members: &[Member]) -> Vec<u32> {
        let index = self.index_in(members);
        let mut held = vec![0; members.len()];
        for owner in &self.owners {
            if let Some(&member) = index.get(owner) {
                held[member as usize] += 1;
            }
        }
        held
    }

    /// Which of `members` (by identity: an id may have been dealt out anew) an owner of ours is.
    fn index_in(&self, members: &[Member]) -> HashMap<u16, u32> {
        let by_identity: HashMap<u64, u32> =
            members.iter().zip(0..).map(|(member, at)| (member.identity, at)).collect();
        self.members
            .iter()
            .filter_map(|member| Some((member.id.0, *by_identity.get(&member.identity)?)))
            .collect()
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

/// A keyed walk over all slots of a table with a prime length: `start`, then `step` further each time.
struct Walk {
    at: u64,
    step: u64,
    len: u64,
}

impl Walk {
    fn new(key: [u64; 2], identity: u64, len: usize) -> Self {
        let len = len as u64;
        let at = sip13(key, [identity, 0]) % len;
        let step = if len > 1 { sip13(key, [identity, 1]) % (len - 1) + 1 } else { 0 };
        Self { at, step, len }
    }

    /// The present slot; moves to the next.
    fn next(&mut self) -> usize {
        let at = self.at;
        self.at = (self.at + self.step) % self.len;
        at as usize
    }
}

/// Leaves slots with their owner while it is under its quota, which counts what was kept.
///
/// The walk is keyed so that what a shrinking member gives up is spread over the table.
fn keep(slots: &mut [u32], quota: &mut [u32], key: [u64; 2], members: &[Member], previous: &Table) {
    let index = previous.index_in(members);
    let mut walk = Walk::new(key, u64::MAX, slots.len());
    for _ in 0..slots.len() {
        let slot = walk.next();
        let Some(&member) = index.get(&previous.owners[slot]) else { continue };
        let left = &mut quota[member as usize];
        if *left > 0 {
            *left -= 1;
            slots[slot] = member;
        }
    }
}

/// Deals the free slots: members take turns in proportion to what they still lack, each the next free slot
/// of its permutation. There are as many free slots as `quota` sums up to.
fn deal(slots: &mut [u32], quota: &[u32], key: [u64; 2], members: &[Member]) {
    let mut turns: Vec<(u64, u32)> = Vec::with_capacity(quota.iter().map(|&lack| lack as usize).sum());
    for (&lack, member) in quota.iter().zip(0u32..) {
        let lack = u64::from(lack);
        turns.extend((0..lack).map(|turn| (((2 * turn + 1) << 32) / lack, member)));
    }
    turns.sort_unstable();
    let mut walks: Vec<Walk> =
        members.iter().map(|member| Walk::new(key, member.identity, slots.len())).collect();
    for (_, member) in turns {
        let walk = &mut walks[member as usize];
        loop {
            let slot = walk.next();
            if slots[slot] == FREE {
                slots[slot] = member;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
