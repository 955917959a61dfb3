//! What was seen of backends before this process, by the ids of this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{known::Known, target::Target};
use crate::{
    admin::CheckView,
    config::Snapshot,
    health::HealthTable,
    model::BackendId,
    upgrade::{Down, Inheritance},
};

/// Whom something speaks against, and who will say when that is over.
pub(super) struct Inherited {
    checked: BTreeSet<BackendId>,
    /// Whom exchanges with another process spoke against.
    known: Vec<Known>,
    /// Those of them that are out.
    out: BTreeSet<BackendId>,
}

impl Inherited {
    /// `targets` are all that are checked here.
    pub(super) fn of(snapshot: &Snapshot, targets: &[Target], inheritance: &Inheritance) -> Self {
        let told = inheritance.told.unwrap_or_else(Instant::now);
        let known = Known::of(snapshot, told, &inheritance.ejections);
        let out = known.iter().filter(|known| known.is_out()).map(|known| known.id).collect();
        Self { checked: targets.iter().map(|target| target.id).collect(), known, out }
    }

    /// Of whom something will say when they are back.
    pub(super) fn passing(&self) -> BTreeSet<BackendId> {
        self.checked.union(&self.out).copied().collect()
    }

    /// Who is down by its check, and whom exchanges spoke against; none of those who are out takes anything by `health`
    /// from now on. The maps have `in_maps` down, for whatever reason.
    pub(super) fn settle(
        self,
        snapshot: &Snapshot,
        down: &[Down],
        in_maps: &BTreeSet<BackendId>,
        checks: &BTreeMap<BackendId, CheckView>,
        health: &HealthTable,
    ) -> (BTreeSet<BackendId>, Vec<Known>) {
        let mut down = self.down(snapshot, down, checks);
        down.extend(in_maps.difference(&self.out));
        down.union(&self.out).for_each(|id| health.set(*id, false));
        (down, self.known)
    }

    /// Those that another process saw down, of those that are checked here.
    fn down(
        &self,
        snapshot: &Snapshot,
        down: &[Down],
        checks: &BTreeMap<BackendId, CheckView>,
    ) -> BTreeSet<BackendId> {
        let mut found = BTreeSet::new();
        for Down { pool, backend, reason, seconds } in down {
            let pool = snapshot.pools.iter().find(|known| *known.name == **pool);
            let known = pool.and_then(|pool| pool.backends.iter().find(|known| *known.name == **backend));
            let id = known.map(|backend| backend.id).filter(|id| self.checked.contains(id));
            let Some(id) = id else { continue };
            if let (Some(reason), Some(check)) = (reason, checks.get(&id)) {
                let now = Instant::now();
                let since = now.checked_sub(Duration::from_secs(*seconds)).unwrap_or(now);
                check.report.changed(since, false, reason);
            }
            found.insert(id);
        }
        found
    }
}
