//! What a flow is found by in map `FLOWS` (see [`crate::flow`]).

use crate::{bounds::FLOW_BUCKETS, flow::FlowKey, hash};

/// Buckets of a page of memory, 4 KiB.
const PAGE_LEN: u32 = 64;
/// Keys of [`FlowTag`]s.
pub type TagKeys = [[u64; 2]; 2];

/// What a flow is found by in map `FLOWS`; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTag(pub u64);

impl FlowTag {
    /// Of a flow: two hashes that have nothing to do with each other. Two flows that were chosen without the keys have
    /// one tag by chance alone.
    #[inline(always)]
    pub fn of(keys: &TagKeys, flow: &FlowKey) -> Self {
        Self::of_hashes(hash::flow(keys[0], flow), hash::flow(keys[1], flow))
    }

    /// Of both hashes of a flow.
    #[inline(always)]
    pub const fn of_hashes(high: u32, low: u32) -> Self {
        // Zero is nobody's.
        Self(if high | low == 0 { 1 } else { (high as u64) << 32 | low as u64 })
    }

    /// The two buckets that its record may be in, in the order in which they are looked at: of one page of memory, as
    /// another page would be another look-up of its address.
    #[inline(always)]
    pub const fn buckets(self) -> [u32; 2] {
        let one = self.0 as u32 & (FLOW_BUCKETS - 1);
        let apart = (self.0 >> 32) as u32 & (PAGE_LEN - 1);
        [one, one ^ if apart == 0 { 1 } else { apart }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::be::Be16;

    #[test]
    fn a_tag_is_of_its_flow_and_keys() {
        let keys =
            [[0x9e37_79b9_7f4a_7c15, 0xf39c_c060_5ced_c834], [0x1082_276b_f3a2_7251, 0x2767_f0b1_5386_8b51]];
        let flow = FlowKey { source_port: Be16(7), ..FlowKey::default() };
        let tag = FlowTag::of(&keys, &flow);
        assert_eq!(tag, FlowTag::of(&keys, &flow));
        assert_ne!(tag, FlowTag::of(&keys, &FlowKey { protocol: 6, ..flow }));
        let [high, low] = keys;
        for other in [[high, [low[0], !low[1]]], [[!high[0], high[1]], low]] {
            assert_ne!(tag, FlowTag::of(&other, &flow));
        }
        assert_eq!(FlowTag::of(&[[0; 2]; 2], &FlowKey::default()), FlowTag(1), "zero is no tag");
    }

    #[test]
    fn the_buckets_of_a_tag_are_two() {
        assert_eq!(FlowTag(7 << 32 | 9).buckets(), [9, 14]);
        assert_eq!(FlowTag(64 << 32 | 9).buckets(), [9, 8]);
        assert_eq!(FlowTag(u64::MAX).buckets(), [FLOW_BUCKETS - 1, FLOW_BUCKETS - PAGE_LEN]);
    }
}
