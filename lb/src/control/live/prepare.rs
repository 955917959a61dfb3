//! What may fail or take long of a change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        addresses::{Addresses, Moves},
        fixed,
        forwarding::Material,
        history::History,
        host,
        listeners::{self, Group},
        names::Names,
        plan::Plan,
        probe_tls::Trusts,
        programs::Programs,
        secret,
        workers::{Worker, wait_until},
    },
    Live, programs_of,
};
use crate::{
    admin::changes::Refusal,
    config::{BackendIds, Config, ListenerIds, Snapshot},
    model::{BackendId, Generation},
    worker::{Command, Compiled},
};

/// How long they may be silent before a change is begun.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a backend must have left until its id may be another one's: longer than an exchange looks for a backend.
const QUARANTINE: Duration = Duration::from_secs(3600);

/// A change that may be committed; dropped, nothing has happened.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    /// With what this host lets us have.
    pub(super) effective: Config,
    pub(super) names: Names,
    pub(super) ids: BackendIds,
    pub(super) listener_ids: ListenerIds,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) compiled: Arc<Compiled>,
    pub(super) addresses: Addresses,
    pub(super) moves: Moves,
    pub(super) copies: Vec<Group>,
    pub(super) material: Option<Material>,
    pub(super) programs: Option<Programs>,
    pub(super) trusts: Trusts,
    pub(super) warnings: Vec<String>,
}

impl Live {
    /// Everything that may fail or take long. Nothing that is made here can be reached by anybody yet.
    pub(super) fn prepare(&mut self, plan: Plan) -> Result<Prepared, Refusal> {
        fixed::check(&self.plan.config, &plan.config)?;
        let mut warnings = plan.warnings.clone();
        let mut effective = plan.config.clone();
        warnings.extend(host::clip_connections(&mut effective.limits, self.open_files));
        host::settle_memory(&mut effective.limits);
        let mut names = self.names.changed(&effective);
        names.look_up_first();
        let next = Generation(self.snapshot.generation.0 + 1);
        let generation = self.history.as_ref().map_or(next, History::next_number);
        let (mut ids, mut listener_ids) = (self.ids.clone(), self.listener_ids.clone());
        listener_ids.assign(&effective);
        let resolved = self.resolved(&effective, &names);
        let mut snapshot = self.build(&resolved, generation, &mut ids)?;
        snapshot.number_listeners(&listener_ids);
        let refused = |at: &str| {
            let at = at.to_owned();
            move |error: anyhow::Error| Refusal::Unappliable { at, message: format!("{error:#}") }
        };
        secret::give_keys(&mut snapshot, &plan).map_err(refused("xdp.secret"))?;
        let ranged = effective.listeners.iter().find(|(_, listener)| !listener.ranges.is_empty());
        if let (Some((name, _)), None) = (ranged, &self.path) {
            let message =
                "prefixes and port ranges want the packet path, which was not to be had when the daemon \
                           began"
                    .to_owned();
            return Err(Refusal::Unappliable { at: format!("listener.{name}.bind"), message });
        }
        let wanted = listeners::wanted(&effective, &listener_ids);
        let (addresses, moves) = self
            .addresses
            .prepare(wanted, self.workers.len())
            .map_err(|error| Refusal::Unappliable { at: error.key(), message: error.to_string() })?;
        let copies = listeners::copies(&moves.opened);
        let copies = copies.map_err(|error| refused("listener")(anyhow::Error::from(error)))?;
        let material = effective.xdp.as_ref().map(|xdp| Material::read(&plan, xdp, &snapshot));
        let material = material.transpose().map_err(refused("xdp"))?;
        let programs = self.programs(&effective).map_err(refused("health.programs_dir"))?;
        let trusts = Trusts::load(&effective, &plan.directory).map_err(refused("pool"))?;
        let snapshot = Arc::new(snapshot);
        let compiled = self.compiled.after(snapshot.clone());
        self.hear_workers()?;
        Ok(Prepared {
            plan,
            effective,
            names,
            ids,
            listener_ids,
            snapshot,
            compiled,
            addresses,
            moves,
            copies,
            material,
            programs,
            trusts,
            warnings,
        })
    }

    /// With what names stand for, and what operators say of backends.
    pub(super) fn resolved(&self, config: &Config, names: &Names) -> Config {
        let mut config = config.with_answers(&names.answers());
        if let Some(history) = &self.history {
            history.put_overrides(&mut config);
        }
        config
    }

    pub(super) fn build(
        &self,
        resolved: &Config,
        generation: Generation,
        ids: &mut BackendIds,
    ) -> Result<Snapshot, Refusal> {
        // Names and operators' words make no routes.
        let before = Some((&*self.effective, &*self.snapshot));
        let mut built = Snapshot::build_after(before, resolved, generation, ids);
        if built.is_err() {
            self.release(ids);
            built = Snapshot::build_after(before, resolved, generation, ids);
        }
        built.map_err(|error| Refusal::Unappliable { at: "pool".to_owned(), message: error.to_string() })
    }

    /// Where programs are, if they are others than before.
    fn programs(&self, next: &Config) -> anyhow::Result<Option<Programs>> {
        let now = &self.plan.config;
        let wanted = programs_of(next).filter(|_| programs_of(now) != programs_of(next));
        Ok(wanted.map(Programs::start).transpose()?)
    }

    /// A worker that does not turn would not take over anything.
    fn hear_workers(&self) -> Result<(), Refusal> {
        let before: Vec<_> = self.workers.iter().map(|worker| worker.metrics.turns.value()).collect();
        self.workers.iter().for_each(|worker| worker.commands.send(Command::Look));
        let deadline = Instant::now() + SILENCE;
        for ((worker, before), id) in self.workers.iter().zip(before).zip(0..) {
            if !wait_until(deadline, || worker.metrics.turns.value() > before) {
                let message = format!("worker {id} has not answered within {SILENCE:?}; nothing was changed");
                return Err(Refusal::NotReady(message));
            }
        }
        Ok(())
    }

    /// Lets the ids go that nothing names any more: their backends left long ago, and nothing goes on with them.
    fn release(&self, ids: &mut BackendIds) {
        let is_idle = |id: BackendId| {
            let is_idle = |worker: &Worker| {
                let metrics = worker.metrics.backend(id);
                metrics.in_flight.value() == 0 && metrics.idle.value() == 0
            };
            self.shelf.count(id) == 0 && self.workers.iter().all(is_idle)
        };
        let is_free = |id: BackendId, at: Instant| at.elapsed() >= QUARANTINE && is_idle(id);
        let free = self.left.iter().filter(|(id, at)| is_free(**id, **at)).map(|(id, _)| *id).collect();
        ids.release(&free);
    }
}
