//! Generations on disk, the audit log and what operators said of backends: how a change is kept, and which config a start
//! runs.
//!
//! Without a state directory of its own a daemon runs all the same; it then keeps nothing, and says so.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;

use super::{lock, plan::Plan, references};
use crate::{
    admin::{
        changes::{Author, Edit, EntryEdit, Etag, Override, OverrideView, Wish},
        generations::GenerationView,
    },
    config::{ChangedEntry, Config, Difference, Digest, Fingerprint},
    generations::{
        self, About, Audit, AuditEntry, BackendOverride, Bounds, Content, Listed, Opened, Origin, Outcome,
        Overrides, Pace, Prepared, Record, SourceFile, Store, StoreError,
    },
    model::Generation,
};

/// Everything that is kept in a state directory.
pub(super) struct History {
    store: Store,
    audit: Audit,
    pub(super) overrides: Overrides,
}

/// Paths of keys that the list of generations has.
const CHANGED_SHOWN: usize = 20;

/// The generation that is to come.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) number: Generation,
    /// Its predecessor.
    pub(super) before: Generation,
    /// Tells its config from others.
    pub(super) etag: Fingerprint,
}

/// What a start found.
pub(super) struct Found {
    pub(super) history: History,
    /// The newest generation that is whole.
    pub(super) current: Option<Record>,
    /// What is damaged, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl History {
    /// Opens what is kept in a state directory, made and locked by this.
    ///
    /// # Errors
    /// It cannot be made, or another daemon has it.
    pub(super) fn open(state_dir: &Path) -> anyhow::Result<Found> {
        lock::keep_state(state_dir)?;
        let Opened { store, current, damaged } = Store::open(state_dir, Bounds::default())?;
        let audit = Audit::open(state_dir)?;
        let (overrides, damage) = Overrides::open(state_dir).context("overrides")?;
        let older = current.as_ref().map_or_else(String::new, |record| {
            format!("; generation {} is used instead", record.about.number)
        });
        let mut warnings: Vec<String> = damaged.iter().map(|damage| format!("{damage}{older}")).collect();
        warnings.extend(damage.map(|damage| format!("{damage}: what operators said of backends is lost")));
        Ok(Found { history: Self { store, audit, overrides }, current, warnings })
    }

    /// The number of the generation that comes next.
    pub(super) fn next_number(&self) -> Generation {
        self.store.next_number()
    }

    /// The last generations, the newest first.
    pub(super) fn views(&self) -> Arc<[GenerationView]> {
        let current = self.store.current().map(|about| about.number);
        let view = |(number, about): Listed| match about {
            Ok(about) => GenerationView {
                generation: number,
                when: UNIX_EPOCH + Duration::from_nanos(about.when_ns),
                author: Author { by: about.author.by.into(), uid: about.author.uid, pid: about.author.pid },
                source: source(about.origin, about.file.as_ref()),
                is_current: Some(number) == current,
                etag: Etag(about.etag.into()),
                changed: about.changed,
                references: about.references,
            },
            Err(damage) => GenerationView {
                generation: number,
                when: UNIX_EPOCH,
                author: Author { by: "".into(), uid: None, pid: None },
                source: format!("damaged: {damage}"),
                is_current: false,
                etag: Etag("".into()),
                changed: Vec::new(),
                references: <_>::default(),
            },
        };
        self.store.list().into_iter().map(view).collect()
    }

    /// What operators said.
    pub(super) fn override_views(&self) -> Arc<[OverrideView]> {
        let view = |(pool, backend, said, _): (&Arc<str>, &Arc<str>, BackendOverride, bool)| OverrideView {
            pool: pool.clone(),
            backend: backend.clone(),
            drained: said.drained,
            weight: said.weight,
        };
        self.overrides.iter(|_, _| true).map(view).collect()
    }

    /// An earlier generation.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub(super) fn load(&self, number: Generation) -> Result<Record, StoreError> {
        self.store.load(number)
    }

    /// Whether what is kept as current is the config before this change: only then what differs says all.
    fn is_current(&self, generation: Generation) -> bool {
        self.store.current().is_some_and(|about| about.number == generation)
    }

    /// Writes down the config that is to come.
    ///
    /// # Errors
    /// The disk refuses; nothing of it stays.
    pub(super) fn prepare(
        &mut self,
        Next { number, before, etag }: Next,
        plan: &Plan,
        changed: &[ChangedEntry],
        by: &Author,
        origin: Origin,
    ) -> Result<Prepared, StoreError> {
        let about = About {
            number,
            when_ns: now_ns(),
            author: author(by),
            origin,
            file: plan.path.clone().zip(plan.digest).map(|(path, digest)| SourceFile { path, digest }),
            directory: plan.directory.clone(),
            etag: etag.to_string(),
            changed: changed.iter().take(CHANGED_SHOWN).map(ChangedEntry::path).collect(),
            references: references::digests(plan),
        };
        if self.is_current(before) {
            return self.store.prepare(about, &Content::Changed(changed));
        }
        self.store.prepare(about, &Content::Whole(&plan.config.to_json()))
    }

    /// Brings it into force.
    ///
    /// # Errors
    /// The disk refuses, and it is not in force.
    pub(super) fn commit(&mut self, prepared: Prepared) -> Result<(), StoreError> {
        let number = prepared.number();
        match self.store.commit(prepared) {
            // A restart will find it; only a crash of the host may not.
            Err(error) if self.is_current(number) => {
                tracing::error!(%error, "the generation is in force, but not yet safe on the disk");
                Ok(())
            }
            committed => committed,
        }
    }

    /// What can wait until the answer was given.
    pub(super) fn maintain(&mut self, pace: Pace, config: &Config) {
        if let Err(error) = self.store.maintain(pace, || config.to_json()) {
            tracing::warn!(%error, "generations are not tidied up");
        }
    }

    /// Writes down what was asked and what came of it.
    pub(super) fn note(&mut self, wish: &Wish, outcome: Outcome<'_>, differences: &[Difference]) {
        let (author, what) = (author(&wish.by), what(&wish.edit));
        let entry = AuditEntry { when_ns: now_ns(), author: &author, what: &what, outcome, differences };
        if let Err(error) = self.audit.append(&entry) {
            tracing::error!(%error, what, "the audit log does not say this");
        }
    }

    /// Lays what operators say over a config whose names are resolved.
    pub(super) fn put_overrides(&self, config: &mut Config) {
        for (pool, backend, said, _) in self.overrides.iter(|_, _| true) {
            let Some(pool) = config.pools.get_mut(pool) else { continue };
            for found in pool.backends.iter_mut().filter(|found| *found.to_string() == **backend) {
                // Whoever has no share takes nothing new.
                found.weight = if said.drained { 0 } else { said.weight.unwrap_or(found.weight) };
            }
        }
    }

    /// Keeps what an operator says of a backend.
    ///
    /// # Errors
    /// The disk refuses; what was said before still holds.
    pub(super) fn set(&mut self, pool: &str, backend: &str, change: Override) -> std::io::Result<()> {
        let before = self.overrides.of(pool, backend);
        let said = match change {
            Override::Drain => BackendOverride { drained: true, ..before },
            Override::Undrain => BackendOverride { drained: false, ..before },
            Override::Weight(weight) => BackendOverride { weight, ..before },
        };
        self.overrides.set(pool, backend, said)
    }
}

fn author(by: &Author) -> generations::Author {
    generations::Author { by: by.by.to_string(), uid: by.uid, pid: by.pid }
}

/// Where the config of an edit comes from; a file is only the daemon's own.
pub(super) fn origin(plan: &Plan, edit: &Edit) -> Origin {
    match edit {
        Edit::File { path, .. } if plan.path.as_ref() == Some(path) => Origin::File,
        Edit::Rollback(to) => Origin::Rollback(*to),
        Edit::File { .. }
        | Edit::Whole(_)
        | Edit::Merge(_)
        | Edit::Entry { .. }
        | Edit::Override { .. }
        | Edit::Upgrade(..) => Origin::Api,
    }
}

/// The same in words.
fn source(origin: Origin, file: Option<&SourceFile>) -> String {
    match (origin, file) {
        (Origin::File, Some(file)) => file.path.display().to_string(),
        (Origin::Rollback(to), _) => format!("rollback to {to}"),
        (Origin::Quickstart, _) => "quickstart".to_owned(),
        (Origin::Api | Origin::File, _) => "api".to_owned(),
    }
}

/// An edit in a few words.
fn what(edit: &Edit) -> String {
    match edit {
        Edit::Whole(_) => "put config".to_owned(),
        Edit::Merge(_) => "merge config".to_owned(),
        Edit::Entry { table, name, edit } => {
            let verb = match edit {
                EntryEdit::Put(_) => "put",
                EntryEdit::Merge(_) => "merge",
                EntryEdit::Remove => "remove",
            };
            format!("{verb} {table}.{name}")
        }
        Edit::File { path, .. } => format!("apply {}", path.display()),
        Edit::Rollback(to) => format!("roll back to {to}"),
        Edit::Upgrade(Some(program), _) => format!("upgrade to {}", program.display()),
        Edit::Upgrade(None, _) => "upgrade".to_owned(),
        Edit::Override { pool, address, change } => match change {
            Override::Drain => format!("drain {pool}/{address}"),
            Override::Undrain => format!("undrain {pool}/{address}"),
            Override::Weight(Some(weight)) => format!("weight {pool}/{address} {weight}"),
            Override::Weight(None) => format!("weight {pool}/{address} as configured"),
        },
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Whether a generation was made of this text of this file, or of a change after that.
pub(super) fn is_of(about: &About, path: &Path, digest: Digest) -> bool {
    about.file.as_ref().is_some_and(|file| file.path == path && file.digest == digest)
}
