//! One worker's idle upstream connections: last in, first out, by backend; and the [`Shelf`], where workers leave what they
//! do not need. Never touches a socket.

mod shelf;

use std::time::Instant;

use foldhash::HashMap;

pub use shelf::Shelf;

use crate::model::BackendId;

/// An idle connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// It.
    pub connection: T,
    /// When it is too old.
    pub until: Instant,
}

/// Those of one backend, the one parked last on top.
struct Stack<T> {
    kept: Vec<Kept<T>>,
    /// How many, from the bottom, nobody has needed since the last look at the surplus.
    spare: usize,
    /// As many as may be kept, as said when the last one was parked.
    most: usize,
}

impl<T> Default for Stack<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), spare: 0, most: 0 }
    }
}

/// What a worker has not needed: see [`Keepalive::take_surplus`].
#[derive(Debug, PartialEq, Eq)]
pub struct Surplus<T> {
    /// Whose it is.
    pub backend: BackendId,
    /// The connection, with its age.
    pub kept: Kept<T>,
    /// As many as may be kept for this backend.
    pub most: usize,
}

/// Idle connections of type `T`.
pub struct Keepalive<T> {
    by_backend: HashMap<BackendId, Stack<T>>,
    len: usize,
}

impl<T> Default for Keepalive<T> {
    fn default() -> Self {
        Self { by_backend: HashMap::default(), len: 0 }
    }
}

impl<T> Keepalive<T> {
    /// Connections kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps a connection until `until`, unless `most` are kept for this backend already: then it comes back.
    pub fn park(&mut self, backend: BackendId, connection: T, until: Instant, most: usize) -> Option<T> {
        let stack = self.by_backend.entry(backend).or_default();
        stack.most = most;
        if stack.kept.len() >= most {
            return Some(connection);
        }
        stack.kept.push(Kept { connection, until });
        self.len += 1;
        None
    }

    /// The connection parked last. Whether it still lives is for the caller to see.
    pub fn take(&mut self, backend: BackendId) -> Option<T> {
        let stack = self.by_backend.get_mut(&backend)?;
        let kept = stack.kept.pop()?;
        stack.spare = stack.spare.min(stack.kept.len());
        self.len -= 1;
        Some(kept.connection)
    }

    /// Takes out every connection whose time has come or that `is_dead`, for the caller to drop.
    pub fn sweep(&mut self, now: Instant, mut is_dead: impl FnMut(&mut T) -> bool) -> Vec<(BackendId, T)> {
        let mut out = Vec::new();
        for (backend, stack) in &mut self.by_backend {
            let (spare, mut at) = (stack.spare, 0);
            let gone = stack.kept.extract_if(.., |kept| {
                at += 1;
                let is_gone = kept.until <= now || is_dead(&mut kept.connection);
                stack.spare -= usize::from(is_gone && at <= spare);
                is_gone
            });
            out.extend(gone.map(|kept| (*backend, kept.connection)));
        }
        self.len -= out.len();
        self.by_backend.retain(|_, stack| !stack.kept.is_empty());
        out
    }

    /// Takes out what nobody has needed since the last call: as many as the fewest that were kept at any time between. At
    /// most `count` over all backends; of one, as many as there is `room` for, given the most that may be kept. The oldest
    /// come first.
    pub fn take_surplus(
        &mut self,
        count: usize,
        room: impl Fn(BackendId, usize) -> usize,
    ) -> Vec<Surplus<T>> {
        let mut out = Vec::new();
        for (&backend, stack) in &mut self.by_backend {
            let most = stack.most;
            let spare = stack.spare.min(count - out.len());
            let len = if spare == 0 { 0 } else { spare.min(room(backend, most)) };
            out.extend(stack.kept.drain(..len).map(|kept| Surplus { backend, kept, most }));
            stack.spare = stack.kept.len();
        }
        self.len -= out.len();
        // In one order, whatever that of the table is.
        out.sort_by_key(|surplus| surplus.backend);
        out
    }

    /// Takes out whatever is kept for backends that are `gone`, for the caller to drop.
    pub fn take_backends(&mut self, gone: impl Fn(BackendId) -> bool) -> Vec<(BackendId, T)> {
        let mut out = Vec::new();
        for (backend, stack) in self.by_backend.extract_if(|backend, _| gone(*backend)) {
            out.extend(stack.kept.into_iter().map(|kept| (backend, kept.connection)));
        }
        self.len -= out.len();
        out
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<(BackendId, T)> {
        self.len = 0;
        let by_backend = std::mem::take(&mut self.by_backend);
        by_backend
            .into_iter()
            .flat_map(|(backend, stack)| stack.kept.into_iter().map(move |kept| (backend, kept.connection)))
            .collect()
    }
}

impl<T> std::fmt::Debug for Keepalive<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keepalive({} kept)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);

    #[test]
    fn last_in_first_out_and_by_backend() {
        let until = Instant::now() + Duration::from_secs(1);
        let mut keepalive = Keepalive::default();
        for (backend, name) in [(A, "a1"), (A, "a2"), (B, "b1")] {
            assert_eq!(keepalive.park(backend, name, until, 2), None);
        }
        assert_eq!(keepalive.park(A, "a3", until, 2), Some("a3"));
        assert_eq!(keepalive.len(), 3);
        assert_eq!(keepalive.take(A), Some("a2"));
        assert_eq!(keepalive.take(A), Some("a1"));
        assert_eq!(keepalive.take(A), None);
        assert_eq!(keepalive.take(B), Some("b1"));
        assert!(keepalive.is_empty());
    }

    #[test]
    fn backends_that_left_leave_nothing_behind() {
        let until = Instant::now() + Duration::from_secs(1);
        let mut keepalive = Keepalive::default();
        for (backend, name) in [(A, "a1"), (B, "b1"), (A, "a2")] {
            keepalive.park(backend, name, until, 9);
        }
        assert_eq!(keepalive.take_backends(|id| id == A), [(A, "a1"), (A, "a2")]);
        assert_eq!((keepalive.len(), keepalive.take(A), keepalive.take(B)), (1, None, Some("b1")));
    }

    /// Whatever is parked and taken between two looks.
    #[test]
    fn the_surplus_is_what_nobody_needed_since_the_last_look() {
        let until = Instant::now() + Duration::from_secs(1);
        let mut keepalive = Keepalive::default();
        let look = |keepalive: &mut Keepalive<_>, count, room| {
            let surplus = keepalive.take_surplus(count, |_, most| {
                assert_eq!(most, 9);
                room
            });
            surplus.into_iter().map(|surplus| surplus.kept.connection).collect::<Vec<_>>()
        };
        for name in ["a1", "a2", "a3", "a4", "a5"] {
            keepalive.park(A, name, until, 9);
        }
        assert!(look(&mut keepalive, 9, 9).is_empty(), "they were all needed a moment ago");
        for _ in 0..3 {
            let (one, other) = (keepalive.take(A).unwrap(), keepalive.take(A).unwrap());
            keepalive.park(A, other, until, 9);
            keepalive.park(A, one, until, 9);
        }
        assert_eq!(look(&mut keepalive, 9, 9), ["a1", "a2", "a3"], "two at once were enough");
        keepalive.take(A);
        assert_eq!(look(&mut keepalive, 9, 9), ["a4"], "one that is in use is no surplus");
        assert!(keepalive.is_empty());

        for name in ["a1", "a2", "a3", "a4"] {
            keepalive.park(A, name, until, 9);
        }
        keepalive.park(B, "b1", until, 9);
        assert!(look(&mut keepalive, 9, 9).is_empty());
        keepalive.sweep(until - Duration::from_millis(1), |name| *name == "a1");
        assert_eq!(look(&mut keepalive, 9, 1).len(), 2, "one of each, as there is room");
        assert_eq!(look(&mut keepalive, 1, 9), ["a3"], "as many as asked for");
        assert_eq!((keepalive.len(), keepalive.take(A)), (1, Some("a4")));
    }

    #[test]
    fn what_is_swept_is_no_surplus() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        let mut keepalive = Keepalive::default();
        keepalive.park(A, "old", soon, 9);
        keepalive.park(A, "young", later, 9);
        assert!(keepalive.take_surplus(9, |_, _| 9).is_empty());
        let young = keepalive.take(A).unwrap();
        keepalive.park(A, young, later, 9);
        assert_eq!(keepalive.sweep(soon, |_| false), [(A, "old")]);
        assert!(keepalive.take_surplus(9, |_, _| 9).is_empty(), "the young one was needed");
    }

    #[test]
    fn a_sweep_takes_the_old_and_the_dead() {
        let now = Instant::now();
        let mut keepalive = Keepalive::default();
        keepalive.park(A, "old", now, 9);
        keepalive.park(A, "dead", now + Duration::from_secs(9), 9);
        keepalive.park(B, "good", now + Duration::from_secs(9), 9);
        let mut gone: Vec<_> =
            keepalive.sweep(now, |name| *name == "dead").into_iter().map(|(_, n)| n).collect();
        gone.sort_unstable();
        assert_eq!(gone, ["dead", "old"]);
        assert_eq!(keepalive.len(), 1);
        assert_eq!(keepalive.drain(), [(B, "good")]);
    }
}
