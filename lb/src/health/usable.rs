//! Who of a pool takes new work, by all that speaks for and against each.
//!
//! One is of use that is up by its check and not ejected. Where less than the panic threshold is of use, all are used: a
//! pool of which nearly everybody is bad is more likely judged wrongly, or is drowned by what the few cannot carry.

/// One pool, by place.
#[derive(Debug)]
pub struct Usable {
    members: Vec<Member>,
    panic_percent: Option<u32>,
    is_panic: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    is_up: bool,
    is_ejected: bool,
    is_used: bool,
}

impl Member {
    const fn is_good(self) -> bool {
        self.is_up && !self.is_ejected
    }
}

/// What changed for those who send work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This one takes new work from now on.
    Used(usize),
    /// This one does not.
    Unused(usize),
    /// From here on all are used, whatever they are; or no longer.
    Panic(bool),
}

impl Usable {
    /// Nobody is ejected; `is_up` is by place.
    pub fn new(is_up: impl IntoIterator<Item = bool>, panic_percent: Option<u32>) -> Self {
        let member = |is_up| Member { is_up, is_ejected: false, is_used: is_up };
        Self { members: is_up.into_iter().map(member).collect(), panic_percent, is_panic: false }
    }

    /// Other members: for each place where it was before; `None` is one who has just come up. Those who stay are as they
    /// were.
    pub fn take_over(&mut self, places: &[Option<usize>]) {
        let new = Member { is_up: true, is_ejected: false, is_used: true };
        let member = |at: &Option<usize>| at.and_then(|at| self.members.get(at)).copied().unwrap_or(new);
        self.members = places.iter().map(member).collect();
    }

    /// All are used from now on where less than this share is of use; `None`: never.
    pub const fn set_panic(&mut self, panic_percent: Option<u32>) {
        self.panic_percent = panic_percent;
    }

    /// The verdict of a check.
    pub fn set_up(&mut self, at: usize, is_up: bool) {
        if let Some(member) = self.members.get_mut(at) {
            member.is_up = is_up;
        }
    }

    /// What exchanges say.
    pub fn set_ejected(&mut self, at: usize, is_ejected: bool) {
        if let Some(member) = self.members.get_mut(at) {
            member.is_ejected = is_ejected;
        }
    }

    /// By its check.
    pub fn is_up(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|member| member.is_up)
    }

    /// Up and not ejected.
    pub fn is_good(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|member| member.is_good())
    }

    /// Whether it takes new work, as was said last.
    pub fn is_used(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|member| member.is_used)
    }

    /// Up and not ejected, of how many.
    pub fn count(&self) -> (usize, usize) {
        (self.members.iter().filter(|member| member.is_good()).count(), self.members.len())
    }

    /// What follows from the changes since the last time.
    pub fn turns(&mut self) -> Vec<Turn> {
        let (good, all) = self.count();
        let is_panic = self.panic_percent.is_some_and(|percent| good * 100 < all * percent as usize);
        let mut turns = Vec::new();
        if is_panic != self.is_panic {
            self.is_panic = is_panic;
            turns.push(Turn::Panic(is_panic));
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            let is_used = is_panic || member.is_good();
            if is_used != member.is_used {
                member.is_used = is_used;
                turns.push(if is_used { Turn::Used(at) } else { Turn::Unused(at) });
            }
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::{Turn::*, *};

    #[test]
    fn of_use_is_who_is_up_and_not_ejected() {
        let mut usable = Usable::new([true, false, true], None);
        assert_eq!((usable.turns(), usable.count()), (vec![], (2, 3)));
        usable.set_ejected(0, true);
        usable.set_up(1, true);
        assert_eq!(usable.turns(), [Unused(0), Used(1)]);
        usable.set_up(0, false);
        assert_eq!(usable.turns(), []);
        usable.set_ejected(0, false);
        assert_eq!(usable.turns(), [], "it is down still");
        usable.set_up(0, true);
        assert_eq!(usable.turns(), [Used(0)]);
        for at in 0..3 {
            usable.set_up(at, false);
        }
        assert_eq!(usable.turns(), [Unused(0), Unused(1), Unused(2)], "without a threshold nobody is left");
    }

    #[test]
    fn who_stays_is_as_before() {
        let mut usable = Usable::new([true, false, true], None);
        usable.set_ejected(2, true);
        assert_eq!(usable.turns(), [Unused(2)]);
        usable.take_over(&[Some(2), None, Some(1)]);
        assert_eq!((usable.turns(), usable.count()), (vec![], (1, 3)));
        usable.set_ejected(0, false);
        usable.set_up(2, true);
        assert_eq!(usable.turns(), [Used(0), Used(2)]);
    }

    #[test]
    fn below_the_threshold_all_are_used() {
        let mut usable = Usable::new([true; 4], Some(50));
        usable.set_up(0, false);
        usable.set_ejected(1, true);
        assert_eq!(usable.turns(), [Unused(0), Unused(1)], "half is not less than half");
        usable.set_up(2, false);
        assert_eq!(usable.turns(), [Panic(true), Used(0), Used(1)]);
        usable.set_up(3, false);
        assert_eq!(usable.turns(), []);
        usable.set_up(3, true);
        usable.set_up(0, true);
        assert_eq!(usable.turns(), [Panic(false), Unused(1), Unused(2)]);
    }
}
