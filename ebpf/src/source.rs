//! The pool of a client's prefix, where its VIP has such.

use lb_abi::source::{NODES, OWN, STEPS_MAX, SourceKey, truncate};

use crate::{address::Address, env::Env, numbers::Family};

/// Index of the first slot of the table that a source goes by; [`OWN`]: its VIP's own.
#[inline(always)]
pub fn table<E: Env>(env: &E, source: Address, vip: u32) -> u32 {
    search(env, source, vip).unwrap_or(OWN)
}

#[inline(always)]
fn search<E: Env>(env: &E, source: Address, vip: u32) -> Option<u32> {
    let set = env.source_set(vip)?;
    let tree = env.source_tree(set)?;
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
        let child = match env.source(&key) {
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
