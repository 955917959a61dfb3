//! `FLOWS` and `FLOW_KEYS`, mapped into our memory (see [`lb_abi::flow`] and [`super::words`]).

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::Map;
use lb_abi::{
    flow::{self, BUCKET_LEN, FlowKey, FlowName, FlowRecord},
    names::{MAP_FLOW_KEYS, MAP_FLOWS},
    tag::FlowTag,
};

use super::{super::error::Result, words::Words};

/// Words of a key, and from one to the next.
const KEY_LEN: usize = size_of::<FlowKey>() / size_of::<u64>();
const KEY_STEP: usize = size_of::<FlowName>() / size_of::<u64>();

/// The maps and their memory.
#[derive(Debug)]
pub struct Flows {
    buckets: Words,
    keys: Words,
}

impl Flows {
    /// Maps the arrays, which must have been created with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// One of them is no such array, or the kernel refuses.
    pub fn map(buckets: Map, keys: Map) -> Result<Self> {
        Ok(Self { buckets: Words::map(buckets, MAP_FLOWS)?, keys: Words::map(keys, MAP_FLOW_KEYS)? })
    }

    /// Every record, in the order of places. One that is begun or taken away meanwhile may be missed.
    pub fn for_each(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) {
        let mut from = 0;
        while let Some(place) = flow::next_taken(self.buckets.array(), from) {
            from = place + 1;
            // The key was written before its record.
            let record = self.record(place / BUCKET_LEN, place % BUCKET_LEN);
            let record = FlowRecord::from_word(record.load(Ordering::Acquire));
            if record.backend != 0
                && let Some(key) = self.key(place)
            {
                each(&key, &record);
            }
        }
    }

    /// Begins a record, as packets do. False: there is no room, or the flow has a record.
    pub fn insert(&self, key: &FlowKey, tag: FlowTag, record: FlowRecord) -> bool {
        if self.find(tag).is_some() {
            return false;
        }
        let [one, two] = tag.buckets().map(|bucket| bucket as usize);
        let taken = |bucket| self.tags(bucket).iter().filter(|tag| tag.load(Ordering::Relaxed) != 0).count();
        let bucket = if taken(two) < taken(one) { two } else { one };
        let take =
            |word: &AtomicU64| word.compare_exchange(0, tag.0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let Some(at) = self.tags(bucket).iter().position(take) else { return false };
        let place = bucket * BUCKET_LEN + at;
        for (word, value) in self.key_words(place).iter().zip(words_of(key)) {
            word.store(value, Ordering::Relaxed);
        }
        self.record(bucket, at).store(record.to_word(), Ordering::Release);
        true
    }

    /// Gives the place of a flow back. Nothing happens where it has none.
    ///
    /// No running program may be about to write its record: it would be lost, or the next flow's for a moment.
    pub fn remove(&self, tag: FlowTag) {
        if let Some((bucket, at)) = self.find(tag) {
            // In this order: who takes the place begins with no record.
            self.record(bucket, at).store(0, Ordering::Release);
            self.tags(bucket)[at].store(0, Ordering::Release);
        }
    }

    /// Bucket of a tag, and its place there.
    fn find(&self, tag: FlowTag) -> Option<(usize, usize)> {
        tag.buckets().into_iter().find_map(|bucket| {
            let bucket = bucket as usize;
            let at = self.tags(bucket).iter().position(|word| word.load(Ordering::Relaxed) == tag.0)?;
            Some((bucket, at))
        })
    }

    /// None where the map is shorter, as where no program of ours reads it.
    fn tags(&self, bucket: usize) -> &[AtomicU64] {
        let first = bucket * 2 * BUCKET_LEN;
        self.buckets.array().get(first..first + BUCKET_LEN).unwrap_or_default()
    }

    /// `bucket` and `at` are of a tag, or a taken place.
    fn record(&self, bucket: usize, at: usize) -> &AtomicU64 {
        &self.buckets.array()[(2 * bucket + 1) * BUCKET_LEN + at]
    }

    fn key_words(&self, place: usize) -> &[AtomicU64] {
        self.keys.array().get(place * KEY_STEP..place * KEY_STEP + KEY_LEN).unwrap_or_default()
    }

    fn key(&self, place: usize) -> Option<FlowKey> {
        let words = self.key_words(place).first_chunk::<KEY_LEN>()?;
        Some(key_of(words.each_ref().map(|word| word.load(Ordering::Relaxed))))
    }
}

/// A key as it lies in memory.
fn words_of(key: &FlowKey) -> [u64; KEY_LEN] {
    let half =
        |octets: &[u8; 16], at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| octets[at + byte]));
    let [s0, s1] = key.source_port.0.to_ne_bytes();
    let [d0, d1] = key.destination_port.0.to_ne_bytes();
    let rest = u64::from_ne_bytes([s0, s1, d0, d1, key.protocol, 0, 0, 0]);
    [half(&key.source, 0), half(&key.source, 8), half(&key.destination, 0), half(&key.destination, 8), rest]
}

fn key_of(words: [u64; KEY_LEN]) -> FlowKey {
    let [source @ .., _, _, _] = words;
    let [_, _, destination @ .., rest] = words;
    let octets = |halves: [u64; 2]| {
        let [low, high] = halves.map(u64::to_ne_bytes);
        std::array::from_fn(|at| if at < 8 { low[at] } else { high[at - 8] })
    };
    let [s0, s1, d0, d1, protocol, ..] = rest.to_ne_bytes();
    FlowKey {
        source: octets(source),
        destination: octets(destination),
        source_port: lb_abi::be::Be16(u16::from_ne_bytes([s0, s1])),
        destination_port: lb_abi::be::Be16(u16::from_ne_bytes([d0, d1])),
        protocol,
        pad: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use lb_abi::be::Be16;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_survives_its_words(
            source in any::<[u8; 16]>(),
            destination in any::<[u8; 16]>(),
            ports in any::<[u16; 2]>(),
            protocol in any::<u8>(),
        ) {
            let [source_port, destination_port] = ports.map(Be16);
            let key = FlowKey { source, destination, source_port, destination_port, protocol, pad: [0; 3] };
            prop_assert_eq!(key_of(words_of(&key)), key);
        }
    }
}
