//! Which clients go to another pool than their VIP's own: the longest prefix of theirs says.
//!
//! A hash map per prefix length, in one: its key says the length. Of the lengths that are there, a search tree says
//! which to try next: a longer one after a hit, a shorter one after a miss. So a look-up costs as many hash look-ups
//! as the tree is deep, at most [`STEPS_MAX`] and one where all prefixes have one length, however many prefixes there
//! are. For a miss never to hide a longer prefix, every prefix leaves a *marker* at each shorter length where the
//! search for it must hit; a marker says what the longest prefix up to its length says.
//! Source: Waldvogel et al., "Scalable High Speed IP Routing Lookups", SIGCOMM '97, sections 3 and 4.
//!
//! A VIP has two *sets* of prefixes, of which packets read one: control fills the other and turns them over by one
//! store.

/// Key of map `SOURCES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    /// Which set: an index of `SOURCE_TREES`.
    pub set: u32,
    /// Bits of the prefix that count; of an IPv4 prefix 96 more than it has.
    pub length: u32,
    /// The prefix, zero behind its length; IPv4 as `::ffff:a.b.c.d`.
    pub prefix: [u8; 16],
}

/// Value of map `SOURCES` of a marker that no prefix covers: the VIP's own pool.
pub const OWN: u32 = u32::MAX;

/// Nodes of one tree: a complete binary tree of [`STEPS_MAX`] levels, and one more to round up.
pub const NODES: usize = 128;
/// Levels of a tree: enough for every length from 1 to 127, or 128 of which one is not there.
pub const STEPS_MAX: usize = 7;

/// Entry of map `SOURCE_TREES`, by set.
///
/// Node n's children are 2 n + 1, for shorter prefixes, and 2 n + 2, for longer ones. Zero: there is no node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// Lengths of IPv6 prefixes.
    pub v6: [u8; NODES],
    /// Lengths of IPv4 prefixes, 96 more than they have.
    pub v4: [u8; NODES],
    /// Zero, which the kernel's verifier does not know: added to a node's number it keeps the verifier from walking
    /// every way through the tree by itself.
    pub zero: u32,
}

impl Default for SourceTree {
    fn default() -> Self {
        Self { v6: [0; NODES], v4: [0; NODES], zero: 0 }
    }
}

/// The set that a VIP does not read while it reads `set`, and the other way round.
pub const fn other(set: u32) -> u32 {
    set ^ 1
}

/// The first set of the VIP with a counter index; the second is [`other`] of it.
pub const fn first_set(vip: u32) -> u32 {
    2 * vip
}

/// An address with all bits behind the first `length` cleared.
#[inline(always)]
pub const fn truncate(address: [u8; 16], length: u32) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let low = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
    let (high, low) = if length <= 64 { (high & mask(length), 0) } else { (high, low & mask(length - 64)) };
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (high.to_be_bytes(), low.to_be_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The first `bits` of 64; from 0 to 64.
#[inline(always)]
const fn mask(bits: u32) -> u64 {
    if bits == 0 { 0 } else { u64::MAX << ((64 - bits) & 63) }
}

const _: () = assert!(size_of::<SourceKey>() == 24);
const _: () = assert!(size_of::<SourceTree>() == 2 * NODES + 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_length_goes() {
        let all = [0xff; 16];
        for length in 0..=128 {
            let truncated = u128::from_be_bytes(truncate(all, length));
            assert_eq!(truncated.leading_ones(), length);
            assert_eq!(truncated.count_ones(), length);
        }
    }

    #[test]
    fn a_vip_has_two_sets() {
        assert_eq!((first_set(3), other(first_set(3)), other(other(first_set(3)))), (6, 7, 6));
    }
}
