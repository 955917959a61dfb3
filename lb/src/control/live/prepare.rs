//! What may fail or take long of a change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::getuid;

use super::{
    super::{
        access_log::Turn as LogTurn,
        addresses::{Addresses, Held, Moves},
        certificates::{self, Certificates, Watch},
        fixed,
        forwarding::Material,
        history::History,
        host,
        listeners::{self, Group},
        names::Names,
        plan::Plan,
        programs::Programs,
        secret,
        workers::{Worker, wait_until},
    },
    Live, programs_of,
    resize::Resize,
};
use crate::{
    admin::changes::{Author, Refusal},
    config::{BackendIds, Config, ListenerIds, LogTarget, Snapshot},
    model::{BackendId, Generation},
    worker::{AccessLogSetup, Command, Compiled},
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
    pub(super) certificates: Certificates,
    pub(super) watch: Watch,
    pub(super) addresses: Addresses,
    pub(super) moves: Moves,
    pub(super) copies: Vec<Group>,
    pub(super) material: Option<Material>,
    pub(super) programs: Option<Programs>,
    pub(super) resize: Option<Resize>,
    /// Groups of addresses that stay are to be given to the packet path anew.
    pub(super) is_regrouped: bool,
    pub(super) log: Option<LogTurn>,
    /// By worker: those that have none need a queue where there is to be a log.
    pub(super) queues: Vec<AccessLogSetup>,
    pub(super) warnings: Vec<String>,
}

impl Live {
    /// Everything that may fail or take long. Nothing that is made here can be reached by anybody yet.
    pub(super) fn prepare(&mut self, plan: Plan, by: &Author) -> Result<Prepared, Refusal> {
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
        let resize = self.resize(&effective)?;
        let workers = resize.as_ref().map_or(self.workers.len(), Resize::workers);
        let (addresses, moves) = self
            .addresses
            .prepare(wanted, workers)
            .map_err(|error| Refusal::Unappliable { at: error.key(), message: error.to_string() })?;
        warnings.extend(Self::narrow(&addresses, workers));
        let copies = listeners::copies(&moves.opened);
        let mut copies = copies.map_err(|error| refused("listener")(anyhow::Error::from(error)))?;
        copies.retain(|group| group.first == 0);
        let is_other = |held: &Held| resize.is_some() || self.is_steered_otherwise(&effective, held);
        let is_regrouped = self.path.is_some() && addresses.held().iter().any(is_other);
        if is_regrouped {
            copies.extend(self.whole_groups(&addresses, &moves.opened, is_other)?);
        }
        let material = effective.xdp.as_ref().map(|xdp| Material::read(&plan, xdp, &snapshot));
        let material = material.transpose().map_err(refused("xdp"))?;
        let programs = self.programs(&effective).map_err(refused("health.programs_dir"))?;
        let (log, queues) = self.log(&effective, by)?;
        // Before they are read: what changes meanwhile is read again.
        let watch = Watch::new(&effective, &plan.directory);
        let certificates =
            self.certificates.load(&effective, &plan.directory).map_err(certificates::refusal)?;
        let snapshot = Arc::new(snapshot);
        let compiled = self.compiled.after(snapshot.clone(), &certificates.parts);
        self.hear_workers()?;
        Ok(Prepared {
            plan,
            effective,
            names,
            ids,
            listener_ids,
            snapshot,
            compiled,
            certificates,
            watch,
            addresses,
            moves,
            copies,
            material,
            programs,
            resize,
            is_regrouped,
            log,
            queues,
            warnings,
        })
    }

    /// Whether `lb_steer` is to choose another way, or to take other packets, at an address that stays.
    fn is_steered_otherwise(&self, next: &Config, held: &Held) -> bool {
        let (now, next) = (&self.effective.listeners, &next.listeners);
        let pair = now.get(&held.wanted.name).zip(next.get(&held.wanted.name));
        pair.is_some_and(|(now, next)| (now.steer, now.syn_cookies) != (next.steer, next.syn_cookies))
    }

    /// What becomes of the access log, with the queues that it takes.
    fn log(&self, next: &Config, by: &Author) -> Result<(Option<LogTurn>, Vec<AccessLogSetup>), Refusal> {
        let (now, next) = (self.effective.access_log.as_ref(), next.access_log.as_ref());
        let refused = |message: String| Refusal::Unappliable { at: "log.file".to_owned(), message };
        let is_other = next.filter(|next| now.is_none_or(|now| now.target != next.target));
        // Whoever may write to the socket could else write to whatever we can.
        if let Some(LogTarget::File(path)) = is_other.map(|log| &log.target)
            && !may_name_files(by, getuid().as_raw())
        {
            let path = path.display();
            let message = format!(
                "{path}: root or the daemon's own user alone may name another file live: `lb upgrade` \
                                   takes what stands in the config file"
            );
            return Err(refused(message));
        }
        let turn = LogTurn::prepare(now, next).map_err(|error| refused(format!("{error:#}")))?;
        let wanting = if next.is_some() && !self.has_queues { self.workers.len() } else { 0 };
        let queues = (0..wanting).map(|_| self.log.queue()).collect::<anyhow::Result<_>>();
        Ok((turn, queues.map_err(|error| refused(format!("{error:#}")))?))
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

/// Whether somebody may say which files are written to: whoever could write there without us.
fn may_name_files(by: &Author, own: u32) -> bool {
    // A signal has no peer; root and our own user alone can send it.
    by.uid.is_none_or(|uid| uid == 0 || uid == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_change_is_not_who_may_write_anywhere() {
        let by = |uid| Author { by: "api".into(), uid, pid: None };
        for (uid, may) in [(None, true), (Some(0), true), (Some(977), true), (Some(1000), false)] {
            assert_eq!(may_name_files(&by(uid), 977), may, "{uid:?}");
        }
    }
}
