//! One worker's idle upstream connections: last in, first out, by backend. Never touches a socket.

use std::time::Instant;

use foldhash::HashMap;

use crate::model::BackendId;

struct Kept<T> {
    connection: T,
    until: Instant,
}

/// Idle connections of type `T`.
pub struct Keepalive<T> {
    by_backend: HashMap<BackendId, Vec<Kept<T>>>,
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
        let kept = self.by_backend.entry(backend).or_default();
        if kept.len() >= most {
            return Some(connection);
        }
        kept.push(Kept { connection, until });
        self.len += 1;
        None
    }

    /// The connection parked last. Whether it still lives is for the caller to see.
    pub fn take(&mut self, backend: BackendId) -> Option<T> {
        let kept = self.by_backend.get_mut(&backend)?.pop()?;
        self.len -= 1;
        Some(kept.connection)
    }

    /// Takes out every connection whose time has come or that `is_dead`, for the caller to drop.
    pub fn sweep(&mut self, now: Instant, mut is_dead: impl FnMut(&T) -> bool) -> Vec<(BackendId, T)> {
        let mut out = Vec::new();
        for (backend, kept) in &mut self.by_backend {
            let gone = kept.extract_if(.., |kept| kept.until <= now || is_dead(&kept.connection));
            out.extend(gone.map(|kept| (*backend, kept.connection)));
        }
        self.len -= out.len();
        self.by_backend.retain(|_, kept| !kept.is_empty());
        out
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<(BackendId, T)> {
        self.len = 0;
        let by_backend = std::mem::take(&mut self.by_backend);
        by_backend
            .into_iter()
            .flat_map(|(backend, kept)| kept.into_iter().map(move |kept| (backend, kept.connection)))
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
