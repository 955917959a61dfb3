//! Deals out free slots: members take turns in proportion to what they lack, each the next free slot of its own
//! permutation of the table.
//!
//! The plain way to do that sorts all turns and walks every permutation to its end (it stands in the tests, and this
//! must give the same). Here turns are merged, members that lack equally much taking theirs together; free slots are
//! bits, so that a walk stays in the nearest cache; and once few are free, a member's next one is not walked to but
//! computed: slot s stands at place (s - start) / step of a permutation, modulo the prime length.

use std::{cmp::Reverse, collections::BinaryHeap};

use lb_abi::hash::sip13;

use super::{FREE, Member};

/// A keyed walk over all slots of a table with a prime length: `start`, then `step` further each time.
pub(super) struct Walk {
    start: u32,
    at: u32,
    step: u32,
    len: u32,
}

impl Walk {
    pub(super) fn new(key: [u64; 2], identity: u64, len: usize) -> Self {
        let wide = len as u64;
        let start = (sip13(key, [identity, 0]) % wide) as u32;
        let step = if wide > 1 { (sip13(key, [identity, 1]) % (wide - 1) + 1) as u32 } else { 0 };
        Self { start, at: start, step, len: len as u32 }
    }

    /// The present slot; moves to the next.
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        let at = self.at;
        // Both are below the length, which is below 2^31.
        let next = at + self.step;
        self.at = if next >= self.len { next - self.len } else { next };
        at as usize
    }

    /// Of some slots the one that this walk comes to first, as its place among them.
    fn first_of(&self, inverse: u64, slots: &[u32]) -> usize {
        let (len, start) = (u64::from(self.len), u64::from(self.start));
        let rank = |slot: u32| (u64::from(slot) + len - start) * inverse % len;
        let ranks = slots.iter().map(|slot| rank(*slot));
        ranks.enumerate().min_by_key(|(_, rank)| *rank).map_or(0, |(at, _)| at)
    }

    /// `1 / step` modulo the length, by the extended Euclidean algorithm.
    fn inverse(&self) -> u64 {
        let (mut old, mut new) = ((i64::from(self.len), 0i64), (i64::from(self.step), 1i64));
        while new.0 != 0 {
            let quotient = old.0 / new.0;
            (old, new) = (new, (old.0 - quotient * new.0, old.1 - quotient * new.1));
        }
        old.1.rem_euclid(i64::from(self.len)) as u64
    }
}

/// Deals the free slots, of which there are as many as `quota` sums up to.
pub(super) fn deal(slots: &mut [u32], quota: &[u32], key: [u64; 2], members: &[Member]) {
    let mut free = Free::of(slots);
    let mut walks: Vec<Option<Walk>> = members.iter().map(|_| None).collect();
    let len = slots.len();
    let walk_of = |member: u32| Walk::new(key, members[member as usize].identity, len);
    let mut turns = Turns::new(quota);
    // From here on walking to a free slot costs more than looking at all of them.
    while free.count * free.count * LOOK_COST > len {
        let Some(member) = turns.next() else { return };
        let walk = walks[member as usize].get_or_insert_with(|| walk_of(member));
        loop {
            let slot = walk.next();
            if free.take(slot) {
                slots[slot] = member;
                break;
            }
        }
    }
    let mut left = free.list();
    let mut inverses: Vec<Option<u64>> = members.iter().map(|_| None).collect();
    for member in turns {
        let walk = walks[member as usize].get_or_insert_with(|| walk_of(member));
        let inverse = *inverses[member as usize].get_or_insert_with(|| walk.inverse());
        let slot = left.swap_remove(walk.first_of(inverse, &left));
        slots[slot as usize] = member;
    }
}

/// What looking at one free slot costs, in steps of a walk.
const LOOK_COST: usize = 3;

/// Free slots, a bit each.
struct Free {
    words: Vec<u64>,
    count: usize,
}

impl Free {
    fn of(slots: &[u32]) -> Self {
        let word =
            |slots: &[u32]| slots.iter().rev().fold(0, |word, member| word << 1 | u64::from(*member == FREE));
        let words: Vec<u64> = slots.chunks(64).map(word).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
    }

    /// Takes a slot, if it is free.
    #[inline]
    fn take(&mut self, slot: usize) -> bool {
        let (word, bit) = (&mut self.words[slot / 64], 1 << (slot % 64));
        let is_free = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(is_free);
        is_free
    }

    fn list(&self) -> Vec<u32> {
        let mut list = Vec::with_capacity(self.count);
        for (at, word) in (0u32..).zip(&self.words) {
            let mut rest = *word;
            while rest != 0 {
                list.push(at * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        list
    }
}

/// Whose turn it is: turn t of a member that lacks n slots is due at (2t + 1) / 2n, and of those that are due together
/// the first member comes first.
struct Turns {
    /// Members that lack equally much, in order; with how much that is, and how many turns they had.
    classes: Vec<(u32, u32, Vec<u32>)>,
    /// When the next turn of each class is due.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Members whose turn it is now, last first.
    now: Vec<u32>,
}

impl Turns {
    fn new(quota: &[u32]) -> Self {
        let mut lacking: Vec<(u32, u32)> =
            quota.iter().zip(0u32..).filter(|(lack, _)| **lack > 0).map(|(lack, at)| (*lack, at)).collect();
        lacking.sort_unstable();
        let class = |class: &[(u32, u32)]| (class[0].0, 0, class.iter().rev().map(|(_, at)| *at).collect());
        let classes: Vec<_> = lacking.chunk_by(|one, other| one.0 == other.0).map(class).collect();
        let due = classes.iter().zip(0usize..).map(|((lack, ..), at)| Reverse((due(*lack, 0), at))).collect();
        Self { classes, due, now: Vec::new() }
    }

    fn refill(&mut self) -> Option<()> {
        let &Reverse((now, _)) = self.due.peek()?;
        let mut together = 0;
        while let Some(&Reverse((at, class))) = self.due.peek()
            && at == now
        {
            self.due.pop();
            let (lack, turn, members) = &mut self.classes[class];
            self.now.extend(members.iter());
            *turn += 1;
            if turn < lack {
                self.due.push(Reverse((due(*lack, *turn), class)));
            }
            together += 1;
        }
        if together > 1 {
            self.now.sort_unstable_by_key(|member| Reverse(*member));
        }
        Some(())
    }
}

fn due(lack: u32, turn: u32) -> u64 {
    ((2 * u64::from(turn) + 1) << 32) / u64::from(lack)
}

impl Iterator for Turns {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.now.is_empty() {
            self.refill()?;
        }
        self.now.pop()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::BackendId;

    /// Sorts all turns, walks all the way.
    fn deal_plainly(slots: &mut [u32], quota: &[u32], key: [u64; 2], members: &[Member]) {
        let mut turns: Vec<(u64, u32)> = Vec::new();
        for (&lack, member) in quota.iter().zip(0u32..) {
            turns.extend((0..lack).map(|turn| (due(lack, turn), member)));
        }
        turns.sort_unstable();
        let mut walks: Vec<Walk> =
            members.iter().map(|member| Walk::new(key, member.identity, slots.len())).collect();
        for (_, member) in turns {
            let walk = &mut walks[member as usize];
            let slot = std::iter::repeat_with(|| walk.next()).find(|slot| slots[*slot] == FREE).unwrap();
            slots[slot] = member;
        }
    }

    proptest! {
        #[test]
        fn the_plain_way_and_this_agree(
            len in prop::sample::select(vec![1usize, 2, 3, 7, 251, 1009, 4099]),
            weights in prop::collection::vec(0u32..9, 1..60),
            taken in prop::collection::vec(any::<prop::sample::Index>(), 0..3000),
            key in any::<[u64; 2]>(),
        ) {
            let members: Vec<Member> = (1..)
                .zip(&weights)
                .map(|(id, _)| Member { id: BackendId(id), identity: u64::from(id) * 77, weight: 1 })
                .collect();
            let mut slots = vec![FREE; len];
            taken.iter().for_each(|at| slots[at.index(len)] = 0);
            let free = slots.iter().filter(|slot| **slot == FREE).count() as u32;
            let total: u32 = weights.iter().sum::<u32>().max(1);
            let mut quota: Vec<u32> = weights.iter().map(|weight| free * weight / total).collect();
            quota[0] += free - quota.iter().sum::<u32>();
            let mut plainly = slots.clone();
            deal_plainly(&mut plainly, &quota, key, &members);
            deal(&mut slots, &quota, key, &members);
            prop_assert_eq!(slots, plainly);
        }
    }
}
