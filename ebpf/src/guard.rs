//! Whether a source is denied, by the maps of `lb_abi::guard`.

use lb_abi::{
    guard::{self, ALLOWED, SPILLED, WAYS},
    lengths::{self, DENY_V4, DENY_V6},
    meta::{FLAG_DENY_V4, FLAG_DENY_V6, Meta},
};

use crate::{
    address::Address,
    env::{Env, Words},
    numbers::Family,
    parse::Ip,
};

/// The list of [`lb_abi::lengths`] that may say something of a packet's source; none: no prefix covers it.
#[inline(always)]
pub fn gate<E: Env>(env: &E, meta: &Meta, ip: &Ip) -> Option<usize> {
    let (flag, list) = match ip.family {
        Family::V4 => (FLAG_DENY_V4, DENY_V4),
        Family::V6 => (FLAG_DENY_V6, DENY_V6),
    };
    if meta.flags & flag == 0 {
        return None;
    }
    let gate = match ip.family {
        Family::V4 => guard::gate_v4(ip.source.last_double()),
        Family::V6 => guard::gate_v6(ip.source.halves().0),
    };
    if env.gates(gate / 64) >> (gate % 64) & 1 == 0 { None } else { Some(list) }
}

/// What the lists say of an address.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unlisted = 0,
    /// Let in.
    Allow = 1,
    /// Dropped.
    Deny = 2,
}

/// What the longest prefix of a list of [`lb_abi::lengths`] says of an address that it covers.
#[inline(always)]
pub fn verdict<E: Env>(env: &E, list: usize, source: Address) -> Verdict {
    let Some(meta) = env.meta() else { return Verdict::Unlisted };
    let key = meta.guard_key;
    let copy = meta.lengths.get(list).copied().unwrap_or(0);
    let Some(lengths) = env.lengths(lengths::index(list, copy)) else { return Verdict::Unlisted };
    let count = lengths.count as usize;
    let (high, low) = source.halves();
    for (at, length) in lengths.items.iter().enumerate() {
        if at >= count {
            break;
        }
        let word = guard::fingerprint(key, high & length.mask[0], low & length.mask[1], length.host_bits);
        let verdict = find(env, word);
        if !matches!(verdict, Verdict::Unlisted) {
            return verdict;
        }
    }
    Verdict::Unlisted
}

/// What the table says of one prefix, by its word.
#[inline(always)]
fn find<E: Env>(env: &E, word: u64) -> Verdict {
    for bucket in guard::buckets(word) {
        let Some(bucket) = env.guard(bucket) else { return Verdict::Unlisted };
        for way in 1..=WAYS {
            let found = bucket.word(way);
            if found & !ALLOWED == word {
                return if found & ALLOWED != 0 { Verdict::Allow } else { Verdict::Deny };
            }
        }
        if bucket.word(0) & SPILLED == 0 {
            return Verdict::Unlisted;
        }
    }
    Verdict::Unlisted
}
