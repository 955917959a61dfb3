//! A flow and what is remembered of it, only while its slot is moving.
//!
//! Map `FLOWS` is a table of buckets that are a cache line each: four tags, and the four records that belong to them. A
//! flow has two buckets; what begins a record takes the emptier one (Azar, Broder, Karlin, Upfal: "Balanced
//! allocations", 1994), so that one flow in a hundred thousand finds no room where half of the places are taken. A tag
//! stands for its flow: 64 bits under keys that nobody outside knows. What flow that was, map `FLOW_KEYS` says to
//! people and to control, by the same place; packets write there and do not read.
//!
//! A place is taken by a compare-and-exchange of its tag, from zero. Then its key is written, and last its record: a
//! record of zero is none yet. A record's place is given back in the other order, by control alone.

#[cfg(feature = "user")]
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{be::Be16, bounds::FLOW_BUCKETS};

/// A flow: the 5-tuple as it came in. Key of the maps of translated flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, the same.
    pub destination: [u8; 16],
    /// Source port, network order.
    pub source_port: Be16,
    /// Destination port, network order.
    pub destination_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Places of a bucket.
pub const BUCKET_LEN: usize = 4;
/// Value of map `FLOW_KEYS`, by place: a line of its own, too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowName {
    /// Who has the place.
    pub key: FlowKey,
    /// Zero.
    pub pad: [u64; 3],
}

/// Value of map `FLOWS`: the tags of its places, and after them their records.
pub type FlowBucket = [u64; 2 * BUCKET_LEN];

/// The first taken place of these buckets at `from` or behind it, as long as there is a whole bucket.
///
/// It is here because this crate is optimised in every profile: there are half a million places, and a walk over them
/// takes a test a hundred times as long where it is not.
#[cfg(feature = "user")]
#[inline(never)]
pub fn next_taken(buckets: &[AtomicU64], from: usize) -> Option<usize> {
    let places = buckets.len() / (2 * BUCKET_LEN) * BUCKET_LEN;
    (from..places).find(|place| {
        let word = place / BUCKET_LEN * 2 * BUCKET_LEN + place % BUCKET_LEN;
        buckets[word].load(Ordering::Relaxed) != 0
    })
}

/// What is remembered of a flow: a word of map `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowRecord {
    /// Backend id the flow goes to.
    pub backend: u16,
    /// Epoch of the slot when it was written; another epoch means absent.
    pub epoch: u8,
    /// `CLOSING` or zero.
    pub state: u8,
    /// Tick of its last packet.
    pub seen: u32,
}

impl FlowRecord {
    /// From the eight bytes in the map, read as one word so that no reader sees half a change.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, epoch, state, s0, s1, s2, s3] = word.to_ne_bytes();
        Self { backend: u16::from_ne_bytes([a, b]), epoch, state, seen: u32::from_ne_bytes([s0, s1, s2, s3]) }
    }

    /// The eight bytes in the map as one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let [a, b] = self.backend.to_ne_bytes();
        let [s0, s1, s2, s3] = self.seen.to_ne_bytes();
        u64::from_ne_bytes([a, b, self.epoch, self.state, s0, s1, s2, s3])
    }
}

/// A FIN or RST was seen: a new SYN may re-home the flow.
pub const CLOSING: u8 = 1;

/// Entry of map `INSERTS`: what one core has written into `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserts {
    /// In which tick.
    pub tick: u32,
    /// How many tries, the refused ones too; at most [`crate::bounds::INSERTS_PER_TICK`].
    pub spent: u32,
}

const _: () = assert!(FLOW_BUCKETS.is_power_of_two() && size_of::<FlowBucket>() == 64);
const _: () = assert!(size_of::<FlowName>() == 64);
const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<FlowRecord>() == 8);
const _: () = assert!(size_of::<Inserts>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_word() {
        let record = FlowRecord { backend: 0x1234, epoch: 63, state: CLOSING, seen: 0x89ab_cdef };
        assert_eq!(FlowRecord::from_word(record.to_word()), record);
    }

    #[cfg(feature = "user")]
    #[test]
    fn taken_places_are_found_by_their_tags() {
        const BUCKETS: usize = 3;
        for taken in 0..1_u32 << (BUCKETS * BUCKET_LEN) {
            let is_taken = |place: usize| taken >> place & 1 == 1;
            // Records say nothing, nor does half a bucket.
            let word = |at: usize| match at % (2 * BUCKET_LEN) {
                tag @ 0..BUCKET_LEN => u64::from(is_taken(at / (2 * BUCKET_LEN) * BUCKET_LEN + tag)),
                _ => 1,
            };
            let words: [AtomicU64; 2 * BUCKET_LEN * BUCKETS + 4] = core::array::from_fn(|at| word(at).into());
            let mut from = 0;
            for place in (0..BUCKETS * BUCKET_LEN).filter(|place| is_taken(*place)) {
                assert_eq!(next_taken(&words, from), Some(place));
                from = place + 1;
            }
            assert_eq!(next_taken(&words, from), None);
        }
    }
}
