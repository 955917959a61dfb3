//! Health over a base table, without touching it.

use lb_abi::{bounds::BACKENDS_MAX, hash::sip13};

use super::Table;
use crate::model::BackendId;

/// Tries along a slot's order before the scan over all members takes over. With half of a pool down it is
/// needed once in 2^64 slots; it is there for the pool with one of thousands left.
const TRIES_MAX: u64 = 64;

/// Backends that take nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownSet(Box<[u64]>);

impl Default for DownSet {
    fn default() -> Self {
        Self(vec![0; BACKENDS_MAX as usize / 64].into())
    }
}

impl DownSet {
    /// Whether `id` is down. An id beyond the bound of backends is.
    #[inline]
    pub fn contains(&self, id: BackendId) -> bool {
        self.0.get(id.index() / 64).is_none_or(|word| word >> (id.index() % 64) & 1 == 1)
    }

    /// Puts `id` down; beyond the bound it is anyway.
    pub fn insert(&mut self, id: BackendId) {
        if let Some(word) = self.0.get_mut(id.index() / 64) {
            *word |= 1 << (id.index() % 64);
        }
    }
}

impl FromIterator<BackendId> for DownSet {
    fn from_iter<I: IntoIterator<Item = BackendId>>(ids: I) -> Self {
        let mut down = Self::default();
        ids.into_iter().for_each(|id| down.insert(id));
        down
    }
}

impl Table {
    /// Owners with the down ones' slots handed to others, by slot.
    ///
    /// A function of this table and the set alone: whatever the order of deaths and returns, the owners are
    /// the same, and nodes with the same view agree. A slot's order of heirs is a keyed draw of other slots'
    /// base owners, so heirs take over in proportion to their slots, that is to their weights, and the death
    /// of one moves nothing but its own. When all are down the base owners stand.
    pub fn overlay(&self, down: &DownSet) -> Vec<BackendId> {
        let someone_lives = self.members.iter().any(|member| !down.contains(member.id));
        self.owners()
            .enumerate()
            .map(|(slot, owner)| {
                if someone_lives && down.contains(owner) {
                    self.heir(slot as u64, |id| !down.contains(id)).unwrap_or(owner)
                } else {
                    owner
                }
            })
            .collect()
    }

    /// Who takes what has this hash: the owner of its slot, or else the first in that slot's order of heirs that
    /// `takes`, as in [`Table::overlay`]. `None` where nobody does.
    pub fn owner_of(&self, hash: u64, takes: impl Fn(BackendId) -> bool) -> Option<BackendId> {
        let slot = ((hash >> 32) * self.owners.len() as u64) >> 32;
        let owner = BackendId(*self.owners.get(slot as usize)?);
        if owner.0 != 0 && takes(owner) { Some(owner) } else { self.heir(slot, takes) }
    }

    /// The first backend that `takes` in the order of `slot`.
    fn heir(&self, slot: u64, takes: impl Fn(BackendId) -> bool) -> Option<BackendId> {
        if self.members.is_empty() {
            return None;
        }
        let len = self.owners.len() as u64;
        for attempt in 0..TRIES_MAX {
            let draw = sip13(self.key, [slot, attempt, HEIR]) % len;
            let candidate = BackendId(self.owners[draw as usize]);
            if takes(candidate) {
                return Some(candidate);
            }
        }
        self.members
            .iter()
            .filter(|member| takes(member.id))
            .max_by_key(|member| sip13(self.key, [slot, member.identity, HEIR]))
            .map(|member| member.id)
    }
}

/// Sets these hashes apart from those of the permutations.
const HEIR: u64 = u64::from_be_bytes(*b"lb: heir");
