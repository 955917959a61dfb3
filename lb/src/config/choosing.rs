//! How a listener's pool chooses a backend, beside `pool.balance`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::Outlier;

/// Keys of `[pool.NAME]` that say more than `balance` does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choosing {
    /// What `balance = "maglev"` goes by.
    pub key: Key,
    /// How long a backend that came up gets less than its share; `None`: it gets all of it at once.
    pub slow_start: Option<Duration>,
    /// Exchanges and relays at once with each backend that has no limit of its own, over all workers.
    pub max_connections: Option<u32>,
    /// Who waits for a backend that has as much as it may.
    pub queue: Queue,
    /// `pool.breaker.retries`: requests at once that are sent to a backend because another one failed them, over all
    /// workers; `None`: as many as routes allow.
    pub retries_max: Option<u32>,
    /// Clients come back to their backend.
    pub sticky: Option<Sticky>,
    /// Who is taken out for a time by what exchanges meet.
    pub outlier: Option<Outlier>,
    /// All are used where less than this part of them is of use, in percent; `None`: never.
    pub panic_percent: Option<u32>,
}

/// `pool.sticky`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Name of the cookie.
    pub cookie: Arc<str>,
    /// `secret = "file:PATH"`; `None`: made of the one that keys the hashes.
    pub secret: Option<PathBuf>,
}

/// `pool.queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait, over all workers; 0: nobody.
    pub length: u32,
    /// How long each may wait.
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { length: 1000, timeout: Duration::from_secs(5) }
    }
}

/// `pool.key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The client's address.
    #[default]
    Address,
    /// The path, as it is routed; without the query.
    Path,
    /// The first field of this name, lower case.
    Header(Arc<str>),
    /// The first cookie of this name.
    Cookie(Arc<str>),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Keys what one pool hashes; nobody outside may know it. Printed redacted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolSecret(pub [u64; 2]);

impl std::fmt::Debug for PoolSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolSecret(redacted)")
    }
}
