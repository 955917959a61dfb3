//! What is known of backends that exchanges have spoken against, here and by another process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{config::Snapshot, health::Standing, model::BackendId, upgrade::Ejections};

/// A backend that is out, or was not long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) pool: Arc<str>,
    pub(super) id: BackendId,
    pub(super) standing: Standing,
    /// Why it is out.
    pub(super) reason: String,
}

impl Known {
    /// What another process has told at `told`, of backends that are watched here.
    pub(super) fn of(snapshot: &Snapshot, told: Instant, ejections: &[Ejections]) -> Vec<Self> {
        let known = |of: &Ejections| {
            let pool = snapshot.pools.iter().find(|pool| *pool.name == *of.pool)?;
            let policy = pool.choosing.outlier.as_ref()?;
            let left = |ms| Duration::from_millis(ms).min(policy.ejection_max);
            let backend = pool.backends.iter().find(|known| *known.name == *of.backend)?;
            let standing = Standing {
                ejections: of.count,
                since: told.checked_sub(Duration::from_millis(of.since_ms)).unwrap_or(told),
                until: of.left_ms.map(|ms| told + left(ms)),
            };
            let reason = of.reason.clone().unwrap_or_default();
            Some(Self { pool: pool.name.clone(), id: backend.id, standing, reason })
        };
        ejections.iter().filter_map(known).collect()
    }

    /// As another process is told at `now`; `backend` is its name.
    pub(super) fn tell(self, backend: String, now: Instant) -> Ejections {
        // Rather a little longer than not as long.
        let millis = |time: Duration| time.as_micros().div_ceil(1000) as u64;
        Ejections {
            pool: self.pool.to_string(),
            backend,
            count: self.standing.ejections,
            since_ms: millis(now.saturating_duration_since(self.standing.since)),
            left_ms: self.standing.until.map(|until| millis(until.saturating_duration_since(now))),
            reason: self.is_out().then_some(self.reason),
        }
    }

    /// Whether it is out.
    pub(super) const fn is_out(&self) -> bool {
        self.standing.until.is_some()
    }
}
