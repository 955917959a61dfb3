//! What leads a request or a connection to its backend whatever the load is: a cookie of ours, or the pool's key.

use std::{net::IpAddr, sync::Arc, time::Instant};

use crate::{
    balance::{ByKey, Found, Standing, Sticky, WHOLE, derive, hash, ramp},
    config::{BackendSnapshot, Balance, Key, PoolSnapshot},
    health::HealthTable,
    l7::{self, cookie, http1::RequestHead},
};

/// What a pool with `balance = "maglev"` goes by.
pub(super) struct KeyPlan {
    key: Key,
    secret: [u64; 2],
}

impl KeyPlan {
    pub(super) fn new(pool: &PoolSnapshot) -> Self {
        Self { key: pool.choosing.key.clone(), secret: derive(secret(pool), "key") }
    }

    pub(super) fn of_client(&self, client: IpAddr) -> u64 {
        match client.to_canonical() {
            IpAddr::V4(v4) => hash(self.secret, &v4.octets()),
            IpAddr::V6(v6) => hash(self.secret, &v6.octets()),
        }
    }

    /// `None` for a request without the key, which goes by its client.
    pub(super) fn of_request(&self, head: &RequestHead, buf: &[u8], is_trusted: bool) -> Option<u64> {
        l7::key::of(&self.key, head, buf, is_trusted).map(|bytes| hash(self.secret, bytes))
    }
}

/// The table of a pool with `balance = "maglev"`.
pub(super) fn by_key(pool: &PoolSnapshot) -> ByKey {
    ByKey::new(secret(pool), pool.backends.iter().map(|backend| (&*backend.name, backend.weight)))
}

fn secret(pool: &PoolSnapshot) -> [u64; 2] {
    derive(pool.secret.0, "balance")
}

/// What is compiled of `pool.sticky`.
pub(super) struct StickyPlan {
    pub(super) cookie: Arc<str>,
    pub(super) tokens: Sticky,
}

impl StickyPlan {
    pub(super) fn new(pool: &PoolSnapshot) -> Option<Self> {
        let cookie = pool.choosing.sticky.as_ref()?.cookie.clone();
        let names = pool.backends.iter().map(|backend| &*backend.name);
        Some(Self { cookie, tokens: Sticky::new(pool.sticky_secret.0, names) })
    }

    /// The backend that the first of a request's cookies which is one of ours leads to. `refused` is called for each that
    /// is none.
    pub(super) fn home(&self, head: &RequestHead, buf: &[u8], refused: impl Fn()) -> Option<usize> {
        let mut values = cookie::values(head, buf, self.cookie.as_bytes());
        values.find_map(|token| match self.tokens.find(token) {
            Found::Place(at) => Some(at),
            Found::Gone => None,
            Found::Forged => {
                refused();
                None
            }
        })
    }
}

/// What is due to a backend by its weight, its health and the time since it came up.
#[inline]
pub(super) fn share(
    pool: &PoolSnapshot,
    backend: &BackendSnapshot,
    health: &HealthTable,
    now: Instant,
) -> u32 {
    match pool.choosing.slow_start {
        None if health.is_up(backend.id) => u32::from(backend.weight) * WHOLE,
        None => 0,
        Some(whole_after) => {
            health.up_for(backend.id, now).map_or(0, |up_for| ramp(backend.weight, up_for, whole_after))
        }
    }
}

/// Answer of [`lead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// `cookie lb`, `header:x-user`, `address`.
    pub by: String,
    /// Place of the backend; `None` where the client's address would say and is not known, or nobody is up.
    pub backend: Option<usize>,
}

/// Where a pool sends a request, if nothing but the request decides that: as workers do, without counting. Limits, which
/// may send it elsewhere, are not looked at.
pub fn lead(
    pool: &PoolSnapshot,
    health: &HealthTable,
    client: Option<IpAddr>,
    (head, buf): (&RequestHead, &[u8]),
    is_trusted: bool,
    now: Instant,
) -> Option<Lead> {
    if let Some(sticky) = StickyPlan::new(pool)
        && let Some(at) = sticky.home(head, buf, || {}).filter(|at| health.is_up(pool.backends[*at].id))
    {
        return Some(Lead { by: format!("cookie {}", sticky.cookie), backend: Some(at) });
    }
    if pool.balance != Balance::Maglev {
        return None;
    }
    let plan = KeyPlan::new(pool);
    let (by, hash) = match plan.of_request(head, buf, is_trusted) {
        Some(hash) => (plan.key.to_string(), Some(hash)),
        None => (Key::Address.to_string(), client.map(|client| plan.of_client(client))),
    };
    let among = |backups| by_key(pool).next(&Up { pool, health, now, backups }, hash?);
    Some(Lead { by, backend: among(false).or_else(|| among(true)) })
}

/// The primaries of a pool, or its backups, by health alone.
struct Up<'a> {
    pool: &'a PoolSnapshot,
    health: &'a HealthTable,
    now: Instant,
    backups: bool,
}

impl Standing for Up<'_> {
    fn len(&self) -> usize {
        self.pool.backends.len()
    }

    fn share(&self, at: usize) -> u32 {
        let backend = &self.pool.backends[at];
        if backend.backup == self.backups { share(self.pool, backend, self.health, self.now) } else { 0 }
    }

    fn load(&self, _: usize) -> u64 {
        0
    }
}
