//! Idle upstream connections that their workers did not need lately, for whichever worker needs one; one for all of them.
//!
//! A worker looks here before it dials, and where nothing stands reads one number. So nobody asks a sibling for what it has,
//! which it would have to be woken for, and no request waits for another worker's turn: what there is to spare lies ready. The
//! price is that a connection is to be had only some time after its last use. Never touches a socket.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::Kept;
use crate::model::BackendId;

/// Connections of type `T`, last in, first out, by backend.
pub struct Shelf<T> {
    /// How many there are of a backend, for who does not want to lock; changed by those who have locked.
    counts: Box<[AtomicU32]>,
    stacks: Mutex<Stacks<T>>,
}

struct Stacks<T> {
    by_backend: BTreeMap<BackendId, Vec<Kept<T>>>,
    len: usize,
    /// When somebody last looked them over.
    swept: Option<Instant>,
    /// How often some were taken out for good.
    removals: u64,
}

impl<T> Shelf<T> {
    /// For ids below `len`.
    pub fn new(len: usize) -> Self {
        let stacks = Stacks { by_backend: BTreeMap::new(), len: 0, swept: None, removals: 0 };
        Self { counts: (0..len).map(|_| AtomicU32::default()).collect(), stacks: Mutex::new(stacks) }
    }

    /// How many of a backend there are, by and large.
    pub fn count(&self, backend: BackendId) -> usize {
        self.counts.get(backend.index()).map_or(0, |count| count.load(Ordering::Relaxed) as usize)
    }

    /// Puts a connection there, unless there are `most` of its backend or `most_in_all`: then it comes back.
    pub fn put(&self, backend: BackendId, kept: Kept<T>, most: usize, most_in_all: usize) -> Option<T> {
        let mut stacks = self.lock();
        if backend.index() >= self.counts.len() || stacks.len >= most_in_all {
            return Some(kept.connection);
        }
        let stack = stacks.by_backend.entry(backend).or_default();
        if stack.len() >= most {
            return Some(kept.connection);
        }
        stack.push(kept);
        self.tell(backend, stack.len());
        stacks.len += 1;
        None
    }

    /// The connection put there last. Its age, and whether it still lives, is for the caller to see.
    pub fn take(&self, backend: BackendId) -> Option<Kept<T>> {
        if self.count(backend) == 0 {
            return None;
        }
        let mut stacks = self.lock();
        let stack = stacks.by_backend.get_mut(&backend)?;
        let kept = stack.pop()?;
        self.tell(backend, stack.len());
        stacks.len -= 1;
        Some(kept)
    }

    /// Takes out every connection whose time has come or that is dead by `are_dead`, which says so of each of several, for
    /// the caller to drop. Nothing, where somebody has done so less than `every` ago.
    pub fn sweep(
        &self,
        now: Instant,
        every: Duration,
        mut are_dead: impl FnMut(&[Kept<T>]) -> Vec<bool>,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for backend in self.begin_sweep(now, every) {
            // Whoever wants one meanwhile finds none and dials: better than to wait.
            let (stack, removals) = self.remove(backend);
            let dead = are_dead(&stack);
            let (mut left, mut dead) = (Vec::with_capacity(stack.len()), dead.into_iter());
            for kept in stack {
                if dead.next().unwrap_or(false) || kept.until <= now {
                    out.push(kept.connection);
                } else {
                    left.push(kept);
                }
            }
            out.extend(self.put_below(backend, left, removals));
        }
        out
    }

    /// The backends to look at.
    fn begin_sweep(&self, now: Instant, every: Duration) -> Vec<BackendId> {
        let mut stacks = self.lock();
        if stacks.swept.is_some_and(|swept| now.saturating_duration_since(swept) < every) {
            return Vec::new();
        }
        stacks.swept = Some(now);
        stacks.by_backend.keys().copied().collect()
    }

    /// What there is of a backend, and how many removals there were until now.
    fn remove(&self, backend: BackendId) -> (Vec<Kept<T>>, u64) {
        let mut stacks = self.lock();
        let stack = stacks.by_backend.remove(&backend).unwrap_or_default();
        self.tell(backend, 0);
        stacks.len -= stack.len();
        (stack, stacks.removals)
    }

    /// Puts back what was removed, below what has come since. It comes back where somebody has taken out some for good
    /// meanwhile, and may have meant these.
    fn put_below(&self, backend: BackendId, mut kept: Vec<Kept<T>>, removals: u64) -> Vec<T> {
        if kept.is_empty() {
            return Vec::new();
        }
        let mut stacks = self.lock();
        if stacks.removals != removals {
            return kept.into_iter().map(|kept| kept.connection).collect();
        }
        stacks.len += kept.len();
        let stack = stacks.by_backend.entry(backend).or_default();
        kept.append(stack);
        *stack = kept;
        self.tell(backend, stack.len());
        Vec::new()
    }

    /// Takes out whatever is of backends that are `gone`, for the caller to drop.
    pub fn take_backends(&self, gone: impl Fn(BackendId) -> bool) -> Vec<T> {
        let mut stacks = self.lock();
        let mut out = Vec::new();
        for (backend, stack) in stacks.by_backend.extract_if(.., |backend, _| gone(*backend)) {
            self.tell(backend, 0);
            out.extend(stack.into_iter().map(|kept| kept.connection));
        }
        stacks.len -= out.len();
        stacks.removals += 1;
        out
    }

    /// Takes out everything.
    pub fn drain(&self) -> Vec<T> {
        self.take_backends(|_| true)
    }

    fn lock(&self) -> MutexGuard<'_, Stacks<T>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever calls it has locked.
    fn tell(&self, backend: BackendId, len: usize) {
        if let Some(count) = self.counts.get(backend.index()) {
            count.store(len as u32, Ordering::Relaxed);
        }
    }
}

impl<T> std::fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({} kept)", self.lock().len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const EVERY: Duration = Duration::from_secs(1);

    fn put(shelf: &Shelf<&'static str>, backend: BackendId, connection: &'static str, until: Instant) {
        assert_eq!(shelf.put(backend, Kept { connection, until }, 9, 99), None);
    }

    fn take(shelf: &Shelf<&'static str>, backend: BackendId) -> Option<&'static str> {
        shelf.take(backend).map(|kept| kept.connection)
    }

    #[test]
    fn last_in_first_out_by_backend_and_within_both_bounds() {
        let until = Instant::now() + EVERY;
        let shelf = Shelf::new(3);
        let put = |backend, connection, most, all| shelf.put(backend, Kept { connection, until }, most, all);
        assert_eq!((put(A, "a1", 2, 3), put(A, "a2", 2, 3)), (None, None));
        assert_eq!(put(A, "a3", 2, 3), Some("a3"), "no more of one backend");
        assert_eq!((put(B, "b1", 2, 3), put(B, "b2", 2, 3)), (None, Some("b2")), "no more in all");
        assert_eq!(put(BackendId(3), "c1", 2, 9), Some("c1"), "an id that it has no room for");
        assert_eq!((shelf.count(A), shelf.count(B), shelf.count(BackendId(3))), (2, 1, 0));
        assert_eq!((take(&shelf, A), take(&shelf, A), take(&shelf, A)), (Some("a2"), Some("a1"), None));
        assert_eq!((put(B, "b2", 2, 2), take(&shelf, B)), (None, Some("b2")));
        assert_eq!((shelf.count(A), shelf.count(B)), (0, 1));
    }

    #[test]
    fn a_sweep_takes_the_old_and_the_dead_once_in_a_while() {
        let now = Instant::now();
        let later = now + 9 * EVERY;
        let shelf = Shelf::new(3);
        put(&shelf, A, "old", now);
        put(&shelf, A, "good", later);
        put(&shelf, A, "dead", later);
        put(&shelf, B, "too", later);
        let sweep = |at| {
            shelf.sweep(at, EVERY, |stack| {
                if stack.len() == 3 {
                    assert_eq!(shelf.count(A), 0, "nothing is locked, and nothing to be had");
                    put(&shelf, B, "new", later);
                }
                stack.iter().map(|kept| kept.connection == "dead").collect()
            })
        };
        assert_eq!(sweep(now), ["old", "dead"]);
        assert_eq!((shelf.count(A), shelf.count(B)), (1, 2));
        assert!(shelf.sweep(now, EVERY, |_| panic!("a sibling did so a moment ago")).is_empty());
        assert_eq!(shelf.sweep(now + EVERY, EVERY, |stack| vec![true; stack.len()]).len(), 3);
        assert_eq!((shelf.count(A), shelf.count(B), take(&shelf, B)), (0, 0, None));
    }

    #[test]
    fn what_comes_during_a_sweep_is_younger() {
        let later = Instant::now() + EVERY;
        let shelf = Shelf::new(3);
        put(&shelf, A, "old", later);
        shelf.sweep(Instant::now(), EVERY, |_| {
            put(&shelf, A, "new", later);
            vec![false]
        });
        assert_eq!((take(&shelf, A), take(&shelf, A)), (Some("new"), Some("old")));
    }

    #[test]
    fn backends_that_left_leave_nothing_behind() {
        let later = Instant::now() + EVERY;
        let shelf = Shelf::new(3);
        for (backend, name) in [(A, "a1"), (B, "b1"), (A, "a2")] {
            put(&shelf, backend, name, later);
        }
        assert_eq!(shelf.take_backends(|id| id == A), ["a1", "a2"]);
        assert_eq!((shelf.count(A), shelf.count(B), take(&shelf, A)), (0, 1, None));
        // One that is looked at meanwhile is none of them either.
        let gone = shelf.sweep(Instant::now(), EVERY, |_| {
            assert!(shelf.take_backends(|id| id == B).is_empty());
            vec![false]
        });
        assert_eq!((gone, shelf.count(B)), (vec!["b1"], 0));
        put(&shelf, B, "b2", later);
        assert_eq!(shelf.drain(), ["b2"]);
        assert_eq!(format!("{shelf:?}"), "Shelf(0 kept)");
    }

    #[test]
    fn nobody_gets_what_another_has_and_nothing_is_lost() {
        const EACH: usize = 20_000;
        let until = Instant::now() + 99 * EVERY;
        let shelf = Shelf::new(3);
        let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let shelf = &shelf;
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        for at in 0..EACH {
                            let kept = Kept { connection: thread * EACH + at, until };
                            assert_eq!(shelf.put(A, kept, usize::MAX, usize::MAX), None);
                            if at % 3 > 0 {
                                mine.extend(shelf.take(A).map(|kept| kept.connection));
                            }
                            if at % 1000 == 0 {
                                let every = Duration::ZERO;
                                shelf.sweep(until - EVERY, every, |stack| vec![false; stack.len()]);
                            }
                        }
                        mine
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<_> = taken.into_iter().flatten().chain(shelf.drain()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..3 * EACH).collect::<Vec<_>>());
    }
}
