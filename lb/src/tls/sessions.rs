//! Sessions that are kept here, each good for one resumption: for entries that take early data.
//!
//! What comes early may have been recorded and be said again by anybody. A ticket that is a session's only name, and is gone
//! with its first use, lets none of it in twice (RFC 8446, 8.1): so there is one store for all workers, and none for other
//! boxes or the next process. It is bounded, the oldest go first.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::server::StoresServerSessions;

use super::wipe::Wiped;

/// Most sessions of one entry, used ones among the newest counted.
const SESSIONS_MAX: usize = 32 << 10;
/// Most that they may take together.
const SESSIONS_BYTES_MAX: usize = 16 << 20;
/// Most that one of them may take; most of that is a client's chain of certificates.
const SESSION_BYTES_MAX: usize = 16 << 10;
/// How long one is kept, as tickets are.
const LIFETIME: Duration = Duration::from_hours(12);

/// Sessions of one entry; workers share it, and meet here once for each handshake.
pub struct Sessions {
    /// What was asked of whoever has one.
    context: Vec<u8>,
    kept: Mutex<Kept>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(redacted)")
    }
}

#[derive(Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, (Instant, Wiped)>,
    /// Oldest first. Those that were used stand there, too, until it is their turn.
    order: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, id: &[u8]) -> Option<(Instant, Wiped)> {
        let found = self.sessions.remove(id)?;
        self.bytes -= found.1.bytes().len();
        Some(found)
    }

    fn put(&mut self, id: Vec<u8>, value: Vec<u8>, now: Instant) {
        match self.remove(&id) {
            Some(_) => {}
            None => self.order.push_back(id.clone()),
        }
        self.bytes += value.len();
        self.sessions.insert(id, (now, value.into()));
        while self.order.len() > SESSIONS_MAX || self.bytes > SESSIONS_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(&oldest);
        }
    }
}

impl Sessions {
    /// None yet. `context`: whose they are, and what was asked of whoever has one.
    pub fn new(context: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { context, kept: Mutex::default() })
    }

    /// Those of an entry that was made before, where the same is asked of its clients.
    pub fn or_former(former: Option<&Arc<Self>>, context: Vec<u8>) -> Arc<Self> {
        former.filter(|former| former.context == context).cloned().unwrap_or_else(|| Self::new(context))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn still_good((since, value): &(Instant, Wiped), now: Instant) -> Option<Vec<u8>> {
    (now.saturating_duration_since(*since) < LIFETIME).then(|| value.bytes().to_vec())
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let fits = value.len() <= SESSION_BYTES_MAX;
        if fits {
            self.kept().put(id, value, Instant::now());
        }
        fits
    }

    /// Of TLS 1.2, which has no early data.
    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        still_good(self.kept().sessions.get(id)?, Instant::now())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        still_good(&self.kept().remove(id)?, Instant::now())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_there_once() {
        let sessions = Sessions::new(Vec::new());
        assert!(sessions.put(vec![1], vec![7; 100]));
        assert_eq!(sessions.get(&[1]), Some(vec![7; 100]));
        assert_eq!(sessions.take(&[1]), Some(vec![7; 100]));
        assert_eq!((sessions.take(&[1]), sessions.get(&[1])), (None, None));
        assert_eq!(sessions.kept().bytes, 0);
        assert!(!sessions.put(vec![2], vec![7; SESSION_BYTES_MAX + 1]));
        assert_eq!(sessions.take(&[2]), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let sessions = Sessions::new(Vec::new());
        let id = |at: usize| at.to_le_bytes().to_vec();
        for at in 0..SESSIONS_MAX + 10 {
            sessions.put(id(at), vec![1]);
        }
        assert_eq!((sessions.get(&id(9)), sessions.get(&id(10))), (None, Some(vec![1])));
        for at in 0..2 * SESSIONS_BYTES_MAX / SESSION_BYTES_MAX {
            sessions.put(id(at), vec![2; SESSION_BYTES_MAX]);
            assert!(sessions.kept().bytes <= SESSIONS_BYTES_MAX);
        }
        assert!(sessions.kept().order.len() <= SESSIONS_MAX);
    }

    #[test]
    fn a_session_gets_old() {
        let now = Instant::now();
        let kept = (now, Wiped::from(vec![1]));
        assert_eq!(still_good(&kept, now + LIFETIME - Duration::from_secs(1)), Some(vec![1]));
        assert_eq!(still_good(&kept, now + LIFETIME), None);
    }

    #[test]
    fn other_terms_are_other_sessions() {
        let former = Sessions::new(vec![1]);
        assert!(Arc::ptr_eq(&former, &Sessions::or_former(Some(&former), vec![1])));
        assert!(!Arc::ptr_eq(&former, &Sessions::or_former(Some(&former), vec![2])));
    }
}
