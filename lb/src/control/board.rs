//! Who of each pool takes new work: checks and exchanges speak for and against, workers and the packet path are told.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{known::Known, target::Change};
use crate::{
    admin::CheckView,
    config::{BackendSnapshot, PoolSnapshot, Snapshot},
    health::{Cause, Ejection, HealthTable, PoolReport, Turn, Usable, Verdict},
    model::BackendId,
};

/// Says to the packet path that a backend takes new work, or does not. Never blocks.
pub(super) type Tell = Box<dyn Fn(BackendId, Verdict)>;

/// Every pool with checks, `outlier` or `panic`. The prober thread's own.
pub(super) struct Board {
    table: Arc<HealthTable>,
    tell: Tell,
    pools: RefCell<BTreeMap<Arc<str>, Pool>>,
}

struct Pool {
    name: Arc<str>,
    usable: Usable,
    members: Vec<Member>,
    report: Arc<PoolReport>,
}

struct Member {
    id: BackendId,
    name: Arc<str>,
    view: CheckView,
}

fn members(pool: &PoolSnapshot, views: &BTreeMap<BackendId, CheckView>) -> Vec<Member> {
    let view = |id| views.get(&id).cloned().unwrap_or_default();
    let member = |backend: &BackendSnapshot| Member {
        id: backend.id,
        name: backend.name.clone(),
        view: view(backend.id),
    };
    pool.backends.iter().map(member).collect()
}

impl Board {
    /// `down` are by their checks, as `table` has them; `views` has every backend that may change.
    pub(super) fn new(
        snapshot: &Snapshot,
        views: &BTreeMap<BackendId, CheckView>,
        reports: &BTreeMap<Arc<str>, Arc<PoolReport>>,
        table: Arc<HealthTable>,
        down: &BTreeSet<BackendId>,
        tell: Tell,
    ) -> Self {
        let pools = snapshot.pools.iter().filter_map(|pool| {
            let made = Self::begin(pool, views, reports.get(&pool.name)?, |id| !down.contains(&id));
            Some((pool.name.clone(), made))
        });
        let pools = RefCell::new(pools.collect());
        Self { table, tell, pools }
    }

    fn begin(
        pool: &PoolSnapshot,
        views: &BTreeMap<BackendId, CheckView>,
        report: &Arc<PoolReport>,
        is_up: impl Fn(BackendId) -> bool,
    ) -> Pool {
        let usable =
            Usable::new(pool.backends.iter().map(|backend| is_up(backend.id)), pool.choosing.panic_percent);
        let members = members(pool, views);
        let down = members.iter().filter(|member| !is_up(member.id));
        down.for_each(|member| member.view.report.begins_down());
        Pool { name: pool.name.clone(), usable, members, report: report.clone() }
    }

    /// Those that are out stay out; `table` has them so.
    pub(super) fn resume(&self, all: &[Known]) {
        let mut pools = self.pools.borrow_mut();
        for Known { pool, id, standing, reason } in all {
            let (Some(until), Some(pool)) = (standing.until, pools.get_mut(pool)) else { continue };
            let Some(at) = pool.members.iter().position(|member| member.id == *id) else { continue };
            pool.usable.set_ejected(at, true);
            let ejection = Ejection { since: standing.since, until, reason: reason.clone() };
            pool.members[at].view.report.ejected(Some(ejection));
            let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64();
            let backend = &pool.members[at].name;
            tracing::warn!(pool = %pool.name, %backend, reason, seconds, "backend is still ejected");
        }
        for pool in pools.values_mut() {
            self.settle(pool, Instant::now());
            // In a panic all are used, those too that nobody has taken out here.
            let used = pool.members.iter().enumerate().filter(|(at, _)| pool.usable.is_used(*at));
            used.for_each(|(_, member)| self.table.set(member.id, true));
        }
    }

    /// Why one is out, if it is.
    pub(super) fn ejection(&self, pool: &str, at: usize) -> Option<Ejection> {
        self.pools.borrow().get(pool)?.members.get(at)?.view.report.findings().ejected
    }

    /// Another config holds from now on. Those that stay are as they were; those that come are up. What nobody checks or
    /// watches any more is up, too.
    pub(super) fn take_over(&self, change: &Change) {
        let (snapshot, views) = (&change.snapshot, &change.checks);
        let mut pools = self.pools.borrow_mut();
        let gone: Vec<_> = pools
            .extract_if(.., |name, _| !change.reports.contains_key(name))
            .map(|(_, pool)| pool)
            .collect();
        let present: BTreeSet<_> =
            snapshot.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.id).collect();
        for member in gone.iter().flat_map(|pool| &pool.members).filter(|member| present.contains(&member.id))
        {
            member.view.report.ejected(None);
            self.table.set(member.id, true);
            (self.tell)(member.id, Verdict::Up);
        }
        for of in &snapshot.pools {
            let Some(report) = change.reports.get(&of.name) else { continue };
            let Some(pool) = pools.get_mut(&of.name) else {
                pools.insert(of.name.clone(), Self::begin(of, views, report, |_| true));
                continue;
            };
            let before = |backend: &BackendSnapshot| pool.members.iter().position(|at| at.id == backend.id);
            let places: Vec<_> = of.backends.iter().map(before).collect();
            pool.usable.take_over(&places);
            pool.usable.set_panic(of.choosing.panic_percent);
            pool.members = members(of, views);
            for (at, member) in pool.members.iter().enumerate() {
                // Without a check nothing speaks against it.
                if !change.targets.iter().any(|target| target.id == member.id) {
                    pool.usable.set_up(at, true);
                }
                if of.choosing.outlier.is_none() {
                    pool.usable.set_ejected(at, false);
                    member.view.report.ejected(None);
                }
            }
            self.settle(pool, Instant::now());
        }
    }

    /// What a check that begins anew goes on from.
    pub(super) fn verdict(&self, pool: &str, id: BackendId) -> Verdict {
        let pools = self.pools.borrow();
        let found = pools.get(pool).and_then(|pool| {
            let at = pool.members.iter().position(|member| member.id == id)?;
            Some(pool.usable.is_up(at))
        });
        if found.unwrap_or(true) { Verdict::Up } else { Verdict::Down }
    }

    /// Whether a backend is up by its check.
    pub(super) fn is_up(&self, pool: &str, at: usize) -> bool {
        self.pools.borrow().get(pool).is_some_and(|pool| pool.usable.is_up(at))
    }

    /// A check's verdict changed; its report says why.
    pub(super) fn judge(&self, pool: &str, id: BackendId, verdict: Verdict, reason: &str) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(pool) else { return };
        let Some(at) = pool.members.iter().position(|member| member.id == id) else { return };
        let (is_up, now) = (verdict == Verdict::Up, Instant::now());
        let view = &pool.members[at].view;
        view.metrics.changes.add(1);
        view.report.changed(now, is_up, reason);
        pool.usable.set_up(at, is_up);
        self.settle(pool, now);
        let (name, (left, _)) = (&pool.name, pool.usable.count());
        let backend = &pool.members[at].name;
        match verdict {
            Verdict::Up => {
                tracing::info!(
                    pool = %name, %backend, from = "down", to = "up", reason, usable = left, "backend is up"
                );
            }
            Verdict::Down if left == 0 => {
                tracing::error!(
                    pool = %name, %backend, from = "up", to = "down", reason, usable = left,
                    "backend is down: the pool has no backend left"
                );
            }
            Verdict::Down => {
                tracing::warn!(
                    pool = %name, %backend, from = "up", to = "down", reason, usable = left, "backend is down"
                );
            }
        }
    }

    /// A backend is taken out by what exchanges met.
    pub(super) fn eject(&self, pool: &str, at: usize, cause: Cause, ejection: Ejection) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(pool) else { return };
        let Some(member) = pool.members.get(at) else { return };
        let counters = &member.view.ejections;
        match cause {
            Cause::Run => counters.consecutive_errors.add(1),
            Cause::Ratio => counters.error_ratio.add(1),
            Cause::Latency => counters.latency.add(1),
        }
        pool.usable.set_ejected(at, true);
        let (now, seconds) = (ejection.since, (ejection.until - ejection.since).as_secs_f64());
        let reason = ejection.reason.clone();
        member.view.report.ejected(Some(ejection));
        self.settle(pool, now);
        let (backend, left) = (&pool.members[at].name, pool.usable.count().0);
        tracing::warn!(
            pool = %pool.name, %backend, from = "up", to = "ejected", reason, seconds, usable = left,
            "backend is ejected"
        );
    }

    /// Its time is over.
    pub(super) fn readmit(&self, pool: &str, at: usize, now: Instant) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(pool) else { return };
        let Some(member) = pool.members.get(at) else { return };
        pool.usable.set_ejected(at, false);
        member.view.report.ejected(None);
        self.settle(pool, now);
        let to = if pool.usable.is_up(at) { "up" } else { "down" };
        let (backend, left) = (&pool.members[at].name, pool.usable.count().0);
        tracing::info!(
            pool = %pool.name, %backend, from = "ejected", to, reason = "its time is over", usable = left,
            "backend is no longer ejected"
        );
    }

    /// It would have been one too many, or was the last.
    pub(super) fn spare(&self, pool: &str, at: usize) {
        if let Some(member) = self.pools.borrow().get(pool).and_then(|pool| pool.members.get(at)) {
            member.view.ejections.spared.add(1);
        }
    }

    /// Tells whoever has to know what follows.
    fn settle(&self, pool: &mut Pool, now: Instant) {
        let turns = pool.usable.turns();
        let is_panic = turns.contains(&Turn::Panic(true)) || pool.report.is_panic();
        for turn in turns {
            match turn {
                // Those who are bad need no slow start: they are used for want of others.
                Turn::Used(at) if is_panic && !pool.usable.is_good(at) => {
                    self.table.set(pool.members[at].id, true);
                    (self.tell)(pool.members[at].id, Verdict::Up);
                }
                Turn::Used(at) => {
                    self.table.rise(pool.members[at].id, now);
                    (self.tell)(pool.members[at].id, Verdict::Up);
                }
                Turn::Unused(at) => {
                    self.table.set(pool.members[at].id, false);
                    (self.tell)(pool.members[at].id, Verdict::Down);
                }
                Turn::Panic(begins) => {
                    pool.report.set_panic(begins);
                    let (usable, of) = pool.usable.count();
                    match begins {
                        true => {
                            tracing::error!(pool = %pool.name, usable, of, "panic: all backends are used")
                        }
                        false => tracing::warn!(pool = %pool.name, usable, of, "panic is over"),
                    }
                }
            }
        }
    }
}
