//! The pool of a client's prefix, where its VIP has such.

use lb_abi::source::{NODES, OWN, STEPS_MAX, SourceKey, SourceTree, truncate};

use crate::{address::Address, numbers::Family};

/// The maps that are searched.
pub trait Prefixes {
    /// The set of prefixes of the VIP with a counter index.
    fn set(&self, vip: u32) -> Option<u32>;
    /// In which order the lengths of a set are tried.
    fn tree(&self, set: u32) -> Option<&SourceTree>;
    /// What a prefix or marker says, if there is one.
    fn find(&self, key: &SourceKey) -> Option<u32>;
}

/// Index of the first slot of the table that a source goes by; [`OWN`]: its VIP's own.
#[inline(always)]
pub fn table<P: Prefixes>(prefixes: &P, source: Address, vip: u32) -> u32 {
    search(prefixes, source, vip).unwrap_or(OWN)
}

#[inline(always)]
fn search<P: Prefixes>(prefixes: &P, source: Address, vip: u32) -> Option<u32> {
    let set = prefixes.set(vip)?;
    let tree = prefixes.tree(set)?;
    let lengths = match source.family() {
        Family::V4 => &tree.v4,
        Family::V6 => &tree.v6,
    };
    let mut found = OWN;
    let zero = tree.zero as usize;
    let mut node = zero;
    for _ in 0..STEPS_MAX {
        let length = *lengths.get(node & (NODES - 1))? as u32;
        if length == 0 {
            break;
        }
        let key = SourceKey { set, length, prefix: truncate(source.bytes(), length) };
        let child = match prefixes.find(&key) {
            Some(table) => {
                found = table;
                2 * node + 2
            }
            None => 2 * node + 1,
        };
        node = child.wrapping_add(zero);
    }
    Some(found)
}
