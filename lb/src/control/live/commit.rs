//! The part of a change that others see.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        access_log::Turn as LogTurn,
        addresses::Moves,
        forwarding::{Material, Through},
        listeners,
        plane::{NewDoors, PathChange},
        prober,
        programs::Programs,
        target::Change,
        workers::{Worker, by_worker, wait_until},
    },
    Live,
    prepare::Prepared,
};
use crate::{
    admin::{
        View,
        changes::{Acknowledged, Refusal},
    },
    config::Snapshot,
    generations,
    model::BackendId,
    steering::ProbePorts,
    upgrade::store,
    worker::{AccessLogSetup, Change as WorkerChange, Command, Compiled},
};

/// How long workers may take to take over a snapshot; between turns that is a matter of microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what goes on with a backend that leaves may still take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);

impl Live {
    /// The first step may fail, and then undoes itself; the others cannot. Whoever sees one of them sees whole tables.
    pub(super) fn commit(
        &mut self,
        prepared: Prepared,
        record: Option<generations::Prepared>,
    ) -> Result<(Acknowledged, Vec<String>), Refusal> {
        let Prepared { plan, effective, names, ids, listener_ids, snapshot, compiled, addresses, .. } =
            prepared;
        let Prepared { mut moves, copies, material, programs, resize, is_regrouped, .. } = prepared;
        let Prepared { log, queues, certificates, watch, mut warnings, .. } = prepared;
        let effective = Arc::new(effective);
        let is_moved = is_regrouped || !moves.is_empty() || effective.listeners != self.effective.listeners;
        let mut acknowledged = Acknowledged::default();
        let mut ports = None;
        if let (Some(path), Some(_)) = (&self.path, &material) {
            let (config, snapshot) = (effective.clone(), snapshot.clone());
            let brought = path.change(PathChange { config, snapshot, material });
            let brought =
                brought.map_err(|message| Refusal::Unappliable { at: "xdp".to_owned(), message })?;
            acknowledged.maps = 1;
            warnings.extend(brought.warnings);
            let Through { backends, ports: opened } = brought.through;
            (self.through, ports) = (backends, opened);
        }
        if let (Some(history), Some(record)) = (&mut self.history, record)
            && let Err(error) = history.commit(record)
        {
            self.bring_back();
            return Err(Refusal::Unappliable { at: "state.dir".to_owned(), message: error.to_string() });
        }
        let held = addresses.held().to_vec();
        (self.plan, self.effective, self.names) = (plan, effective.clone(), names);
        (self.ids, self.listener_ids, self.addresses) = (ids, listener_ids, addresses);
        (self.certificates, self.watch) = (certificates, watch);
        self.tell_store(&moves);
        // Opened before anybody notes anything for it, closed after.
        let (closing, turning): (Vec<_>, Vec<_>) = log.into_iter().partition(LogTurn::closes);
        warnings.extend(turning.into_iter().filter_map(|turn| self.turn_log(turn)));
        self.has_queues |= !queues.is_empty();
        warnings.extend(moves.opened.iter().filter_map(|group| {
            // Those of an address that is new have listened from the beginning: there is nobody there to be taken away.
            let listening = if group.first > 0 && !group.is_udp { listeners::listen(group) } else { Ok(()) };
            Some(format!("{}: listen: {}", group.address, listening.err()?))
        }));
        let handing = resize.map(|resize| self.begin_resize(resize, &mut moves));
        acknowledged.workers = self.swap(snapshot, compiled, moves, queues);
        warnings.extend(handing.into_iter().flat_map(|handing| self.finish_resize(handing)));
        warnings.extend(closing.into_iter().filter_map(|turn| self.turn_log(turn)));
        let silent = self.workers.len() - acknowledged.workers;
        if silent > 0 {
            warnings.push(format!("{silent} workers have not taken it over within {PATIENCE:?}"));
        }
        if let Some(path) = self.path.as_ref().filter(|_| is_moved) {
            let (config, cores) = (effective.clone(), self.cores.clone());
            warnings.extend(path.listen(NewDoors { config, cores, held, opened: copies }));
        }
        self.tell_prober(ports, programs);
        if let Some(path) = self.path.as_ref().filter(|_| acknowledged.maps > 0) {
            path.settle(effective);
        }
        self.warnings.clone_from(&warnings);
        Ok((acknowledged, warnings))
    }

    /// What is to be said of it.
    fn turn_log(&self, turn: LogTurn) -> Option<String> {
        let is_slow = !self.log.turn(turn);
        is_slow.then(|| "the access log still waits for what it was written to".to_owned())
    }

    /// Before the workers are told: what they close has to be closed with it, and what they open is to outlive them.
    fn tell_store(&self, moves: &Moves) {
        for group in &moves.opened {
            let Some(held) = self.addresses.held().iter().find(|held| held.id == group.id) else { continue };
            store::keep(held.wanted.stored(&held.wanted.spelled_ranges()), group.first, &group.sockets);
        }
        for held in &moves.closed {
            store::forget(held.wanted.stored(&held.wanted.spelled_ranges()), 0..held.sockets);
        }
    }

    /// The maps alone have changed, or operators' words: they follow the config that holds. Whether they do.
    pub(super) fn bring_back(&self) -> bool {
        let (Some(path), Some(xdp)) = (&self.path, &self.effective.xdp) else { return false };
        let (config, snapshot) = (self.effective.clone(), self.snapshot.clone());
        let material = Material::read(&self.plan, xdp, &snapshot).map_err(|error| format!("{error:#}"));
        let brought = material.and_then(|material| {
            path.change(PathChange { config, snapshot, material: Some(material) }).map(drop)
        });
        if let Err(error) = &brought {
            tracing::error!(error, "the maps could not be brought back; the next change goes on from there");
        }
        brought.is_ok()
    }

    /// What names stand for has changed. That is no generation, as health is none: the config stays the one that it is.
    /// How many workers have taken it over.
    pub(super) fn publish_answers(&mut self) -> usize {
        let resolved = self.resolved(&self.effective, &self.names);
        let mut ids = self.ids.clone();
        let snapshot = match self.build(&resolved, self.snapshot.generation, &mut ids) {
            Ok(snapshot) => keyed_as(snapshot, &self.snapshot),
            Err(error) => {
                tracing::error!(?error, "new backends of names are not taken: those from before are kept");
                return 0;
            }
        };
        self.ids = ids;
        let snapshot = Arc::new(snapshot);
        let compiled = self.compiled.after(snapshot.clone(), &self.certificates.parts);
        let told = self.swap(snapshot, compiled, Moves::default(), Vec::new());
        self.tell_prober(None, None);
        told
    }

    /// What operators say of backends has changed. Of the same config it is the same snapshot, but for weights.
    pub(super) fn republish(&mut self) -> Acknowledged {
        let workers = self.publish_answers();
        Acknowledged { workers, maps: usize::from(self.bring_back()) }
    }

    /// Brings every worker to a snapshot; how many have taken it over.
    pub(super) fn swap(
        &mut self,
        snapshot: Arc<Snapshot>,
        compiled: Arc<Compiled>,
        moves: Moves,
        queues: Vec<AccessLogSetup>,
    ) -> usize {
        let (before, after) = (ids(&self.snapshot), ids(&snapshot));
        let now = Instant::now();
        // Who comes begins as one that has just come up: slowly, where the pool says so.
        after.difference(&before).for_each(|id| self.health.rise(*id, now));
        self.snapshot = snapshot;
        self.retired.push(std::mem::replace(&mut self.compiled, compiled));
        let told = self.tell_workers(moves, queues);
        // Only then: as long as a worker had the old snapshot alone, it might have had nobody else. From now on nothing
        // that is under way chooses them either.
        for id in before.difference(&after) {
            self.health.set(*id, false);
            self.left.insert(*id, now);
        }
        self.left.retain(|id, _| !after.contains(id));
        told
    }

    fn tell_workers(&self, moves: Moves, queues: Vec<AccessLogSetup>) -> usize {
        let leave_by = Instant::now() + LEAVE_PATIENCE;
        let closed: Vec<_> = moves.closed.iter().map(|held| held.id).collect();
        let opened = by_worker(moves.opened, self.workers.len());
        let expected: Vec<_> =
            self.workers.iter().map(|worker| worker.metrics.snapshots.value() + 1).collect();
        let (mut queues, mut cores) = (queues.into_iter(), self.cores.iter().copied());
        for (worker, opened) in self.workers.iter().zip(opened) {
            let (compiled, closed, moved) = (self.compiled.clone(), closed.clone(), moves.moved.clone());
            let (access_log, core) = (queues.next(), cores.next());
            let change = WorkerChange { compiled, opened, closed, moved, access_log, core, leave_by };
            worker.commands.send(Command::Change(Box::new(change)));
        }
        // Nobody waits for them.
        for worker in &self.leaving {
            let change = WorkerChange::of(self.compiled.clone(), leave_by);
            let change = WorkerChange { closed: closed.clone(), ..change };
            worker.commands.send(Command::Change(Box::new(change)));
        }
        let deadline = Instant::now() + PATIENCE;
        let heard = |(worker, expected): (&Worker, u64)| {
            wait_until(deadline, || worker.metrics.snapshots.value() >= expected)
        };
        self.workers.iter().zip(expected).filter(|(worker, expected)| heard((worker, *expected))).count()
    }

    pub(super) fn tell_prober(&mut self, ports: Option<ProbePorts>, programs: Option<Programs>) {
        let view = self.views.now();
        let checks = Arc::new(prober::views(&self.effective, &self.snapshot, &view.checks));
        let pools = Arc::new(prober::reports(&self.effective, &self.snapshot, &view.pools));
        let mut targets =
            prober::targets(&self.effective, &self.snapshot, &checks, |pool| self.certificates.check(pool));
        targets.iter_mut().for_each(|target| target.is_through = self.through.contains(&target.id));
        let (snapshot, reports) = (self.snapshot.clone(), pools.clone());
        let (checked, workers) = (checks.clone(), self.all.siblings().counted());
        self.prober.change(Change { targets, snapshot, workers, checks: checked, reports, ports, programs });
        self.views.replace(View { snapshot: self.snapshot.clone(), checks, pools, ..(*view).clone() });
    }
}

fn ids(snapshot: &Snapshot) -> BTreeSet<BackendId> {
    snapshot.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.id).collect()
}

/// With the keys that the pools had, and the numbers of the listeners: of the same config they are the same.
fn keyed_as(mut snapshot: Snapshot, before: &Snapshot) -> Snapshot {
    for (pool, before) in snapshot.pools.iter_mut().zip(&before.pools) {
        (pool.secret, pool.sticky_secret) = (before.secret, before.sticky_secret);
    }
    for (listener, before) in snapshot.listeners.iter_mut().zip(&before.listeners) {
        listener.id = before.id;
    }
    snapshot
}
