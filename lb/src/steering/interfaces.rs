//! Which number each interface has in the counters of dropped packets.
//!
//! Numbers lie in the maps and outlive the daemon, so that the counters of an interface go on where they stood. One
//! that nobody needs any more is given out again, its counters zeroed.

use std::collections::{BTreeMap, BTreeSet};

use lb_abi::{
    interface::{InterfaceEntry, NUMBERS_MAX, OTHERS, PLACES, counter, place},
    reason::{Fate, Reason},
};

use super::error::Result;

/// The two maps, so that numbering can be tested without a kernel.
pub(super) trait Counters {
    fn entry(&self, place: u32) -> Result<InterfaceEntry>;
    fn put_entry(&mut self, place: u32, entry: InterfaceEntry) -> Result<()>;
    /// Summed over the cores.
    fn drops(&self, counter: u32) -> Result<u64>;
    fn zero_drops(&mut self, counter: u32) -> Result<()>;
}

/// The interfaces that this process attached to.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// Index by name.
    indexes: BTreeMap<String, u32>,
}

impl Interfaces {
    /// Gives an interface a number, or leaves it the one it has. Where there is none left for it, or its place is
    /// another's, it counts among the others.
    pub(super) fn number(&mut self, maps: &mut impl Counters, name: &str, index: u32) -> Result<()> {
        self.indexes.insert(name.to_owned(), index);
        let there = maps.entry(place(index))?;
        let is_ours = |index: u32| self.indexes.values().any(|ours| *ours == index);
        if there.index == index || (there.index != 0 && is_ours(there.index)) {
            return Ok(());
        }
        let mut entries: Vec<(u32, InterfaceEntry)> = Vec::new();
        for at in (0..PLACES).filter(|at| *at != place(index)) {
            let entry = maps.entry(at)?;
            if entry.index != 0 {
                entries.push((at, entry));
            }
        }
        let mut number = free_number(&entries);
        if number.is_none() {
            // Some are of an earlier run, or of interfaces that went: nobody reads them any more.
            let (kept, stale): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|(_, entry)| is_ours(entry.index));
            stale.iter().try_for_each(|(at, _)| maps.put_entry(*at, InterfaceEntry::default()))?;
            number = free_number(&kept);
        }
        let Some(number) = number else { return Ok(()) };
        for reason in Reason::ALL {
            maps.zero_drops(counter(number, reason as u32))?;
        }
        maps.put_entry(place(index), InterfaceEntry { index, number })
    }

    /// Packets dropped, by interface and reason, in the order of [`Reason::ALL`]; only reasons for which packets are
    /// dropped. The last name is none: every interface without a number.
    pub(super) fn drops(&self, maps: &impl Counters) -> Result<Vec<InterfaceDrops>> {
        let mut numbers: Vec<(Option<String>, u32)> = Vec::new();
        for (name, index) in &self.indexes {
            let entry = maps.entry(place(*index))?;
            if entry.index == *index {
                numbers.push((Some(name.clone()), entry.number));
            }
        }
        numbers.push((None, OTHERS));
        let read = |(interface, number)| {
            let reasons = Reason::ALL.into_iter().filter(|reason| reason.fate() == Fate::Drop);
            let counts = reasons.map(|reason| Ok((reason, maps.drops(counter(number, reason as u32))?)));
            Ok(InterfaceDrops { interface, counts: counts.collect::<Result<_>>()? })
        };
        numbers.into_iter().map(read).collect()
    }
}

fn free_number(entries: &[(u32, InterfaceEntry)]) -> Option<u32> {
    let taken: BTreeSet<u32> = entries.iter().map(|(_, entry)| entry.number).chain([OTHERS]).collect();
    (0..NUMBERS_MAX).find(|number| !taken.contains(number))
}

/// What was dropped of what came in by one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceDrops {
    /// Its name; none: those without counters of their own.
    pub interface: Option<String>,
    /// By reason.
    pub counts: Vec<(Reason, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        entries: Vec<InterfaceEntry>,
        drops: BTreeMap<u32, u64>,
    }

    impl Fake {
        fn new() -> Self {
            Self { entries: vec![InterfaceEntry::default(); PLACES as usize], drops: BTreeMap::new() }
        }

        /// As the program does.
        fn drop(&mut self, index: u32, reason: Reason) {
            let entry = self.entries[place(index) as usize];
            let number = if entry.index == index { entry.number } else { OTHERS };
            *self.drops.entry(counter(number, reason as u32)).or_default() += 1;
        }
    }

    impl Counters for Fake {
        fn entry(&self, place: u32) -> Result<InterfaceEntry> {
            Ok(self.entries[place as usize])
        }

        fn put_entry(&mut self, place: u32, entry: InterfaceEntry) -> Result<()> {
            self.entries[place as usize] = entry;
            Ok(())
        }

        fn drops(&self, counter: u32) -> Result<u64> {
            Ok(self.drops.get(&counter).copied().unwrap_or(0))
        }

        fn zero_drops(&mut self, counter: u32) -> Result<()> {
            self.drops.remove(&counter);
            Ok(())
        }
    }

    fn mtu(interfaces: &Interfaces, maps: &Fake) -> Vec<(Option<String>, u64)> {
        let drops = interfaces.drops(maps).unwrap();
        let of = |drops: InterfaceDrops| {
            let count = drops.counts.iter().find(|(reason, _)| *reason == Reason::Mtu);
            (drops.interface, count.map_or(0, |(_, count)| *count))
        };
        drops.into_iter().map(of).collect()
    }

    fn named(name: &str, count: u64) -> (Option<String>, u64) {
        (Some(name.to_owned()), count)
    }

    #[test]
    fn each_interface_counts_for_itself_and_goes_on_after_a_restart() {
        let mut maps = Fake::new();
        let mut interfaces = Interfaces::default();
        for (name, index) in [("eth0", 2), ("eth1", 70_000)] {
            interfaces.number(&mut maps, name, index).unwrap();
        }
        [2, 70_000, 70_000, 5].into_iter().for_each(|index| maps.drop(index, Reason::Mtu));
        let counted = vec![named("eth0", 1), named("eth1", 2), (None, 1)];
        assert_eq!(mtu(&interfaces, &maps), counted);
        // Another one goes first: it takes nobody's number.
        let mut again = Interfaces::default();
        for (name, index) in [("eth2", 9), ("eth0", 2), ("eth1", 70_000)] {
            again.number(&mut maps, name, index).unwrap();
        }
        assert_eq!(mtu(&again, &maps), [named("eth0", 1), named("eth1", 2), named("eth2", 0), (None, 1)]);
    }

    #[test]
    fn two_of_one_place_do_not_count_for_each_other() {
        let mut maps = Fake::new();
        let mut interfaces = Interfaces::default();
        interfaces.number(&mut maps, "eth0", 7).unwrap();
        interfaces.number(&mut maps, "eth1", 7 + PLACES).unwrap();
        maps.drop(7, Reason::Mtu);
        maps.drop(7 + PLACES, Reason::Mtu);
        assert_eq!(mtu(&interfaces, &maps), [named("eth0", 1), (None, 1)]);
    }

    #[test]
    fn an_interface_that_comes_back_under_another_index_begins_anew() {
        let mut maps = Fake::new();
        let mut interfaces = Interfaces::default();
        for index in 1..=200 {
            interfaces.number(&mut maps, "eth0", index).unwrap();
            maps.drop(index, Reason::Mtu);
            assert_eq!(mtu(&interfaces, &maps), [named("eth0", 1), (None, 0)], "{index}");
        }
        // One that another run left, in the place of the next.
        maps.entries[5] = InterfaceEntry { index: 5 + PLACES, number: 9 };
        interfaces.number(&mut maps, "eth1", 5).unwrap();
        maps.drop(5, Reason::Mtu);
        assert_eq!(mtu(&interfaces, &maps)[1], named("eth1", 1));
    }

    #[test]
    fn more_than_there_are_numbers_count_together() {
        let mut maps = Fake::new();
        let mut interfaces = Interfaces::default();
        for index in 1..=NUMBERS_MAX + 1 {
            interfaces.number(&mut maps, &format!("eth{index:03}"), index).unwrap();
            maps.drop(index, Reason::Mtu);
        }
        let counted = mtu(&interfaces, &maps);
        assert_eq!(counted.len(), NUMBERS_MAX as usize, "the others are the last");
        assert!(counted[..counted.len() - 1].iter().all(|(name, count)| name.is_some() && *count == 1));
        assert_eq!(counted.last(), Some(&(None, 2)));
    }
}
