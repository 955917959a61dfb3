//! Why slots move, for people: what gave each its present owner, and since when.
//!
//! Kept by this process alone; of slots that an earlier one moved it says so.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use lb_abi::{
    bounds::TABLE_LEN,
    slot::{Phase, Slot},
};

use super::regions::Region;

/// Changes that are told apart in one region; later ones count with the last of these.
const CHANGES_MAX: usize = 250;

/// What gave a slot another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Moved before this process came.
    Earlier,
    /// A backend left the config.
    Removed(IpAddr, u64),
    /// A backend's weight became 0.
    Drained(IpAddr, u64),
    /// A backend came into the config.
    Added(IpAddr, u64),
    /// Weights changed.
    Reweighted(u64),
    /// A VIP came from another pool.
    Repooled(u64),
    /// A backend is down.
    Down(IpAddr),
    /// A backend is up again.
    Up(IpAddr),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier => write!(f, "changed before this process started"),
            Self::Removed(backend, generation) => {
                write!(f, "backend {backend} removed by generation {generation}")
            }
            Self::Drained(backend, generation) => {
                write!(f, "backend {backend} drained by generation {generation}")
            }
            Self::Added(backend, generation) => {
                write!(f, "backend {backend} added by generation {generation}")
            }
            Self::Reweighted(generation) => write!(f, "weights changed by generation {generation}"),
            Self::Repooled(generation) => write!(f, "vip came from another pool by generation {generation}"),
            Self::Down(backend) => write!(f, "health: {backend} down"),
            Self::Up(backend) => write!(f, "health: {backend} up again"),
        }
    }
}

/// Moving slots of one pool that one change gave their owner.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Move {
    /// Which change, in words.
    pub why: String,
    /// Tick of it; `None` where an earlier process saw it.
    pub since: Option<u32>,
    /// Slots that are open.
    pub open: usize,
    /// Slots that are closed and wait for strays.
    pub closed: usize,
}

/// By region.
#[derive(Default)]
pub(super) struct Causes(BTreeMap<Region, OfRegion>);

struct OfRegion {
    changes: Vec<(Cause, Option<u32>)>,
    /// By slot, as a place in `changes`.
    of_slot: Box<[u8]>,
}

impl Default for OfRegion {
    fn default() -> Self {
        Self { changes: vec![(Cause::Earlier, None)], of_slot: vec![0; TABLE_LEN as usize].into() }
    }
}

impl Causes {
    /// A slot has another owner.
    pub(super) fn note(&mut self, region: Region, at: usize, cause: Cause, now: u32) {
        let of_region = self.0.entry(region).or_default();
        let place = of_region.place(cause, now);
        if let Some(slot) = of_region.of_slot.get_mut(at) {
            *slot = place;
        }
    }

    /// A region came into being as a copy of another.
    pub(super) fn copy(&mut self, from: Region, to: Region) {
        if let Some(of_region) = self.0.get(&from) {
            let (changes, of_slot) = (of_region.changes.clone(), of_region.of_slot.clone());
            self.0.insert(to, OfRegion { changes, of_slot });
        }
    }

    /// Nothing moves there any more.
    pub(super) fn forget(&mut self, region: Region) {
        self.0.remove(&region);
    }

    /// Moving slots by change, oldest first.
    pub(super) fn report(&self, region: Region, slots: impl Iterator<Item = Slot>) -> Vec<Move> {
        let unknown = OfRegion::default();
        let of_region = self.0.get(&region).unwrap_or(&unknown);
        let change = |(cause, since): &(Cause, Option<u32>)| Move {
            why: cause.to_string(),
            since: *since,
            open: 0,
            closed: 0,
        };
        let mut moves: Vec<Move> = of_region.changes.iter().map(change).collect();
        for (slot, place) in slots.zip(&of_region.of_slot) {
            let Some(of_change) = moves.get_mut(usize::from(*place)) else { continue };
            match slot.phase() {
                Phase::Settled => {}
                Phase::Open | Phase::Sweeping => of_change.open += 1,
                Phase::Closed => of_change.closed += 1,
            }
        }
        moves.retain(|change| change.open + change.closed > 0);
        moves
    }
}

impl OfRegion {
    /// Of a change, which is a new one unless it is the last.
    fn place(&mut self, cause: Cause, now: u32) -> u8 {
        let is_same = |(other, since): &(Cause, Option<u32>)| *other == cause && *since == Some(now);
        let known = self.changes.iter().rposition(is_same);
        let place = known.unwrap_or_else(|| {
            if self.changes.len() >= CHANGES_MAX {
                self.compact();
            }
            if self.changes.len() < CHANGES_MAX {
                self.changes.push((cause, Some(now)));
            }
            self.changes.len() - 1
        });
        place as u8
    }

    /// Forgets changes that no slot stands under.
    fn compact(&mut self) {
        let mut is_used = vec![false; self.changes.len()];
        self.of_slot.iter().for_each(|place| is_used[usize::from(*place)] = true);
        is_used[0] = true;
        let mut next = 0u8;
        let moved: Vec<u8> = is_used
            .iter()
            .map(|used| {
                let place = next;
                next += u8::from(*used);
                place
            })
            .collect();
        self.of_slot.iter_mut().for_each(|place| *place = moved[usize::from(*place)]);
        let mut used = is_used.into_iter();
        self.changes.retain(|_| used.next().unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: Region = Region(2);

    fn backend(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn slots_are_told_apart_by_what_moved_them_last() {
        let mut causes = Causes::default();
        causes.note(REGION, 0, Cause::Removed(backend(3), 7), 100);
        causes.note(REGION, 1, Cause::Removed(backend(3), 7), 100);
        causes.note(REGION, 2, Cause::Down(backend(4)), 120);
        causes.note(REGION, 1, Cause::Down(backend(4)), 120);
        let slot = |phase| Slot::new(1, 2, phase, 0, 0);
        let phases = [Phase::Open, Phase::Closed, Phase::Sweeping, Phase::Open, Phase::Settled];
        let report = causes.report(REGION, phases.map(slot).into_iter());
        let row = |why: &str, since, open, closed| Move { why: why.to_owned(), since, open, closed };
        assert_eq!(
            report,
            [
                row("changed before this process started", None, 1, 0),
                row("backend 10.0.0.3 removed by generation 7", Some(100), 1, 0),
                row("health: 10.0.0.4 down", Some(120), 1, 1),
            ]
        );
        causes.copy(REGION, Region(5));
        causes.forget(REGION);
        assert_eq!(causes.report(Region(5), phases.map(slot).into_iter()), report);
        assert_eq!(causes.report(REGION, [slot(Phase::Open)].into_iter())[0].since, None);
    }

    #[test]
    fn more_changes_than_can_be_told_apart_are_no_trouble() {
        let mut causes = Causes::default();
        for now in 0..2000 {
            causes.note(REGION, now as usize % 300, Cause::Reweighted(u64::from(now)), now);
        }
        let open = Slot::new(1, 2, Phase::Open, 0, 0);
        let report = causes.report(REGION, std::iter::repeat_n(open, 300));
        assert_eq!(report.iter().map(|row| row.open).sum::<usize>(), 300);
        assert!(report.len() <= CHANGES_MAX);
    }
}
