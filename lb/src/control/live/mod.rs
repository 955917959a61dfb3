//! What runs, and its one owner: every change of the config, of what names stand for and of what operators say of single
//! backends is made here, one after the other, whole or not at all.
//!
//! ```text
//!  wish --> edit --> prepare (may fail: nothing has changed) --> maps (undo themselves) --> workers --> the rest --> answer
//! ```

mod certificates;
mod commit;
mod prepare;
mod resize;
mod show;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::prepare::Prepared;
pub(super) use self::{
    certificates::ROTATION,
    show::{SeenFile, Stamp},
};
use super::{
    access_log::AccessLog,
    addresses::Addresses,
    certificates::{Certificates, Watch},
    edit,
    history::{History, Next, origin},
    names::Names,
    plan::{Overridden, Plan},
    plane::PlaneMail,
    prober::Prober,
    references,
    staples::{self, Staples},
    succession::Succession,
    workers::{Worker, Workers},
};
use crate::{
    admin::{
        ServerHandle, Views,
        certificates::now_seconds,
        changes::{Acknowledged, Applied, Edit, Etag, Letter, Override, Refusal, Wish},
        generations::ConfigReply,
    },
    config::{
        self, BackendIds, ChangedEntry, CheckKind, Config, Difference, Fingerprint, ListenerIds, Snapshot,
    },
    generations::{self, Origin, Outcome, Pace, StoreError},
    health::HealthTable,
    keepalive::Shelf,
    model::{BackendId, Generation},
    worker::Compiled,
};

/// Between two looks at the config's file.
const FILE_LOOK: Duration = Duration::from_secs(5);

/// After so long without a change what a change would wait for is done.
const QUIET: Duration = Duration::from_millis(200);

/// Everything that a change touches.
pub(super) struct Live {
    /// As it was written.
    pub(super) plan: Plan,
    /// With what this host lets us have.
    pub(super) effective: Arc<Config>,
    pub(super) ids: BackendIds,
    pub(super) listener_ids: ListenerIds,
    pub(super) addresses: Addresses,
    pub(super) snapshot: Arc<Snapshot>,
    /// Of `snapshot`.
    pub(super) compiled: Arc<Compiled>,
    /// What of it is TLS.
    pub(super) certificates: Certificates,
    /// Files of those.
    pub(super) watch: Watch,
    /// What was said of certificates that are about to expire.
    pub(super) said: BTreeSet<String>,
    /// What authorities say of them.
    pub(super) staples: Staples,
    /// When tickets are sealed with another key.
    pub(super) rotate_at: Instant,
    /// Those before it, as long as a worker has one: nobody who serves is to free them.
    pub(super) retired: Vec<Arc<Compiled>>,
    pub(super) workers: Vec<Worker>,
    /// The same as who waits for their end has them.
    pub(super) all: Workers,
    /// Those that take nothing new any more.
    pub(super) leaving: Vec<Worker>,
    pub(super) log: Arc<AccessLog>,
    /// Whether the workers have queues to it.
    pub(super) has_queues: bool,
    pub(super) shelf: Arc<Shelf<OwnedFd>>,
    pub(super) cores: Vec<usize>,
    pub(super) health: Arc<HealthTable>,
    pub(super) prober: Prober,
    /// Backends whose checks go the way of traffic.
    pub(super) through: BTreeSet<BackendId>,
    /// The packet path, where there is one.
    pub(super) path: Option<PlaneMail>,
    pub(super) names: Names,
    pub(super) views: Views,
    /// Backends that have left, and when.
    pub(super) left: BTreeMap<BackendId, Instant>,
    pub(super) open_files: u64,
    pub(super) overridden: Overridden,
    /// `None`: nothing is kept.
    pub(super) history: Option<History>,
    /// Of `plan`.
    pub(super) fingerprint: Fingerprint,
    pub(super) warnings: Vec<String>,
    /// What runs is not what the file alone says.
    pub(super) is_edited: bool,
    /// Why what runs is not what should.
    pub(super) degraded: Option<String>,
    /// Of the admin API.
    pub(super) doors: ServerHandle,
    pub(super) succession: Succession,
    /// The config's file as it was last read.
    pub(super) file: SeenFile,
}

enum Event {
    Letter(Result<Letter, flume::RecvError>),
    Lookup(Result<super::names::Ended, flume::RecvError>),
    Read(Result<(Generation, ConfigReply), flume::RecvError>),
    Fetched(Result<staples::Ended, flume::RecvError>),
}

/// What is asked of whoever drives.
pub(super) struct Asked {
    pub(super) letters: flume::Receiver<Letter>,
    /// For configs of earlier generations.
    pub(super) reads: flume::Receiver<(Generation, ConfigReply)>,
}

impl Live {
    /// Makes what is wished until nobody is left to wish.
    pub(super) fn drive(mut self, asked: &Asked) {
        self.show();
        let (mut look_at, mut is_tidy) = (Instant::now() + FILE_LOOK, true);
        loop {
            self.look_at_file(&mut look_at);
            self.look_at_certificates();
            self.look_at_staples();
            self.names.begin(Instant::now());
            let (ended, fetched) = (self.names.ended(), self.staples.ended());
            let next = flume::Selector::new()
                .recv(&asked.letters, Event::Letter)
                .recv(&asked.reads, Event::Read)
                .recv(&ended, Event::Lookup)
                .recv(&fetched, Event::Fetched)
                .wait_timeout(self.patience(is_tidy));
            match next {
                Ok(Event::Letter(Ok((wish, answer)))) => {
                    let made = self.make(&wish);
                    let successor =
                        made.as_ref().ok().and_then(|applied| Some(applied.upgraded.as_ref()?.pid));
                    // Whoever asked may have given up.
                    _ = answer.send(made);
                    if let Some(successor) = successor.filter(|_| !wish.is_dry) {
                        return refer_to(successor, asked);
                    }
                    self.maintain(Pace::Busy);
                    is_tidy = false;
                }
                Ok(Event::Letter(Err(_)) | Event::Read(Err(_))) => return,
                Ok(Event::Read(Ok((number, reply)))) => _ = reply.send(self.read(number)),
                Ok(Event::Lookup(first)) => {
                    let mut is_changed = false;
                    for ended in first.into_iter().chain(ended.try_iter()) {
                        is_changed |= self.names.end(ended);
                    }
                    if is_changed {
                        self.publish_answers();
                    }
                    self.show_names();
                }
                Ok(Event::Fetched(first)) => self.take_staples(first.into_iter().chain(fetched.try_iter())),
                Err(_) if !is_tidy => {
                    self.maintain(Pace::Idle);
                    is_tidy = true;
                }
                Err(_) => {}
            }
            self.retired.retain(|compiled| Arc::strong_count(compiled) > 1);
            self.leaving.retain(|worker| !worker.commands.is_over());
        }
    }

    /// Until something else is to be done.
    fn patience(&self, is_tidy: bool) -> Duration {
        let wait = self.names.wait().min(self.staples.wait(now_seconds()));
        let wait = wait.min(self.watch.due().saturating_duration_since(Instant::now()));
        if is_tidy { wait } else { wait.min(QUIET) }
    }

    /// What can wait until a change was answered.
    fn maintain(&mut self, pace: Pace) {
        if let Some(history) = &mut self.history {
            history.maintain(pace, &self.plan.config);
        }
    }

    /// Makes a change, and writes it down however it ends.
    fn make(&mut self, wish: &Wish) -> Result<Applied, Refusal> {
        let begun = Instant::now();
        let mut changed = Vec::new();
        let meant = self.meant(wish);
        let made = match &meant {
            Err(refusal) => Err(refusal.clone()),
            Ok(wish) => match &wish.edit {
                Edit::Override { pool, address, change } => self.put_override(wish, pool, address, *change),
                Edit::Upgrade(program, _) => self.upgrade(wish, program.as_deref()),
                _ => self.change(wish, &mut changed),
            },
        };
        let wish = meant.as_deref().unwrap_or(wish);
        let made = made.map(|applied| Applied { took_ms: begun.elapsed().as_secs_f64() * 1e3, ..applied });
        if let Some(history) = self.history.as_mut().filter(|_| !wish.is_dry) {
            let differences = Difference::of(changed.clone());
            match &made {
                Ok(_) if matches!(wish.edit, Edit::Override { .. } | Edit::Upgrade(..)) => {
                    history.note(wish, Outcome::Applied(None), &[]);
                }
                Ok(applied) => history.note(wish, Outcome::Applied(Some(applied.generation)), &differences),
                Err(refusal) => history.note(wish, Outcome::Refused(&refusal.to_string()), &differences),
            }
        }
        made
    }

    fn change(&mut self, wish: &Wish, changed: &mut Vec<ChangedEntry>) -> Result<Applied, Refusal> {
        let current = Etag::from(self.fingerprint);
        if wish.if_match.as_ref().is_some_and(|wanted| !wanted.contains(&current)) {
            return Err(Refusal::Lost { current });
        }
        let mut plan = match &wish.edit {
            Edit::Rollback(to) => self.kept(*to)?,
            edit => edit::edited(&self.plan, edit)?,
        };
        plan.override_directories(&self.overridden);
        *changed = config::changed(&self.plan.config, &plan.config);
        let fingerprint = self.fingerprint.after(changed);
        let prepared = self.prepare(plan, &wish.by)?;
        let mut applied = Applied {
            generation: self.snapshot.generation,
            took_ms: 0.0,
            acknowledged: Acknowledged::default(),
            changed: Difference::of(changed.clone()).into_iter().map(|difference| difference.key).collect(),
            warnings: prepared.warnings.clone(),
            dry_run: wish.is_dry,
            upgraded: None,
            etag: Etag::from(fingerprint),
        };
        if !wish.is_dry {
            let record = self.record(wish, &prepared, changed, fingerprint)?;
            (applied.acknowledged, applied.warnings) = self.commit(prepared, record)?;
            applied.generation = self.snapshot.generation;
            self.fingerprint = fingerprint;
            self.is_edited = origin(&self.plan, &wish.edit) != Origin::File;
            self.degraded = None;
            self.show();
        }
        Ok(applied)
    }

    /// The config of an earlier generation.
    fn kept(&self, number: Generation) -> Result<Plan, Refusal> {
        let missing = |message| Refusal::NotFound { at: format!("generation {number}"), message };
        let Some(history) = &self.history else {
            return Err(missing("this daemon keeps no generations".to_owned()));
        };
        let record = history.load(number).map_err(|error| missing(error.to_string()))?;
        let mut plan = edit::kept(&record).map_err(Refusal::Invalid)?;
        plan.warnings.extend(references::changed(&record.about, &plan));
        Ok(Plan { config: plan.config.sharing(&self.plan.config), ..plan })
    }

    fn read(&self, number: Generation) -> Result<Option<Value>, String> {
        match self.history.as_ref().map(|history| history.load(number)) {
            Some(Ok(record)) => Ok(Some(record.document)),
            None | Some(Err(StoreError::Unknown(_))) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
        }
    }

    /// Writes down what is about to be; `None`: nothing is kept.
    fn record(
        &mut self,
        wish: &Wish,
        prepared: &Prepared,
        changed: &[ChangedEntry],
        etag: Fingerprint,
    ) -> Result<Option<generations::Prepared>, Refusal> {
        let (number, before) = (prepared.snapshot.generation, self.snapshot.generation);
        let next = Next { number, before, etag };
        let Some(history) = &mut self.history else { return Ok(None) };
        let record =
            history.prepare(next, &prepared.plan, changed, &wish.by, origin(&prepared.plan, &wish.edit));
        let refused = |error: StoreError| Refusal::Unappliable {
            at: "state.dir".to_owned(),
            message: error.to_string(),
        };
        record.map(Some).map_err(refused)
    }

    /// What an operator says of a backend. No generation: the config stays as it is.
    fn put_override(
        &mut self,
        wish: &Wish,
        pool: &str,
        address: &str,
        change: Override,
    ) -> Result<Applied, Refusal> {
        let at = format!("{pool}/{address}");
        let known = self.snapshot.pools.iter().find(|known| *known.name == *pool);
        let known = known.and_then(|pool| pool.backends.iter().find(|backend| *backend.name == *address));
        if known.is_none() {
            return Err(Refusal::NotFound { at, message: "the config has no such backend".to_owned() });
        }
        let Some(history) = &mut self.history else {
            let message = "this daemon keeps no state, so this would be forgotten".to_owned();
            return Err(Refusal::Unappliable { at: "state.dir".to_owned(), message });
        };
        let refused = |error: std::io::Error| Refusal::Unappliable {
            at: "state.dir".to_owned(),
            message: format!("overrides: {error}"),
        };
        let mut acknowledged = Acknowledged::default();
        if !wish.is_dry {
            history.set(pool, address, change).map_err(refused)?;
            acknowledged = self.republish();
            self.show();
        }
        Ok(Applied {
            generation: self.snapshot.generation,
            took_ms: 0.0,
            acknowledged,
            changed: vec![at],
            warnings: Vec::new(),
            dry_run: wish.is_dry,
            upgraded: None,
            etag: Etag::from(self.fingerprint),
        })
    }
}

/// What is left of a process that another one has taken over from.
fn refer_to(successor: u32, asked: &Asked) {
    let message = format!("process {successor} has taken over from this one: ask again");
    loop {
        let next =
            flume::Selector::new().recv(&asked.letters, Event::Letter).recv(&asked.reads, Event::Read).wait();
        match next {
            Event::Letter(Ok((_, answer))) => _ = answer.send(Err(Refusal::NotReady(message.clone()))),
            Event::Read(Ok((_, reply))) => _ = reply.send(Err(message.clone())),
            Event::Letter(Err(_)) | Event::Read(Err(_)) | Event::Lookup(_) | Event::Fetched(_) => return,
        }
    }
}

/// The directory of programs, where any check runs one.
pub(super) fn programs_of(config: &Config) -> Option<&Path> {
    let kinds = || config.pools.values().filter_map(|pool| Some(&pool.health.as_ref()?.kind));
    let has_programs = kinds().any(|kind| matches!(kind, CheckKind::Exec(_)));
    config.programs_dir.as_deref().filter(|_| has_programs)
}
