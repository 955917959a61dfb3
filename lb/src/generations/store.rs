//! The directory of generations.
//!
//! ```text
//! prepare: N.prepared written, synced                       dropped: removed
//! commit:  renamed N.whole or N.on-B, directory synced
//! ```
//!
//! A prepared record is of no use to anybody after a crash, so its directory need not be synced twice.
//!
//! A change of a large config is small, so its record says only what differs from the last whole one, never from
//! another such record: two files are all that any generation needs. [`Store::maintain`] writes whole ones anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    disk::Disk,
    record::{self, About, Body, BodyToWrite, Content, Entries, Head, Record},
    sealed::{self, Damage},
};
use crate::model::Generation;

/// Directory of the records in the state directory.
const DIRECTORY: &str = "generations";
/// First word of a record.
const KIND: &str = "lb-generation";

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Generations that are listed, the current one among them; a few more files may be needed for them.
    pub keep: usize,
    /// Most records that differ from the same whole one.
    pub span: usize,
    /// Largest record that says what differs, in bytes, before a whole one is written.
    pub changed_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keep: 32, span: 32, changed_bytes: 64 << 10 }
    }
}

/// Whether a change may come right now, which would wait for a large record to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One may; so bounds are kept less strictly.
    Busy,
    /// None has come for a while.
    Idle,
}

/// How many times its bounds a record may have and be siblings of while changes come.
const BUSY_PATIENCE: usize = 8;

/// Generations of one state directory. It has to be the only one there is.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    disk: Disk,
    bounds: Bounds,
    /// Committed records, and the whole one that each differs from; `None`: it is whole itself.
    files: BTreeMap<u64, Option<u64>>,
    /// What the listed ones are about, as far as that was read.
    abouts: BTreeMap<u64, About>,
    /// Greatest number that was ever seen.
    last: u64,
    current: Option<Current>,
}

/// The generation in force.
#[derive(Clone, Debug)]
struct Current {
    about: About,
    /// Its whole record, maybe itself,
    base: u64,
    /// and what differs from that.
    entries: Entries,
    /// Length of its record.
    bytes: usize,
}

/// What a start found.
#[derive(Debug)]
pub struct Opened {
    /// For what follows.
    pub store: Store,
    /// The newest generation that is whole; `None`: there is none.
    pub current: Option<Record>,
    /// Newer ones that are of no use, newest first; to be said loudly. And left-overs that could not be removed.
    pub damaged: Vec<Damage>,
}

/// One of [`Store::list`].
pub type Listed = (Generation, Result<About, Damage>);

/// Why a generation was not kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refuses.
    #[error("{}: cannot be {what}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A record is of no use.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// It was never there, or is gone.
    #[error("there is no generation {0}")]
    Unknown(Generation),
    /// What was asked makes no sense here (a bug).
    #[error("generation {0}: {1}")]
    Misused(Generation, &'static str),
}

/// A record that is on the disk and not in force. Dropped, it is removed.
#[derive(Debug)]
pub struct Prepared {
    disk: Disk,
    /// `None` once it is in force.
    path: Option<PathBuf>,
    next: Current,
    /// What was current when it was made.
    after: Option<Generation>,
}

impl Prepared {
    /// Its number.
    pub fn number(&self) -> Generation {
        self.next.about.number
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The next start removes what stays.
            _ = self.disk.remove(path);
        }
    }
}

impl Store {
    /// Opens the generations of a state directory, made where there is none; removes what a crash left.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(state_dir: &Path, bounds: Bounds) -> Result<Opened, StoreError> {
        Self::open_on(Disk::default(), state_dir, bounds)
    }

    pub(super) fn open_on(disk: Disk, state_dir: &Path, bounds: Bounds) -> Result<Opened, StoreError> {
        let directory = state_dir.join(DIRECTORY);
        let refused = |what| {
            let path = directory.clone();
            move |source| StoreError::Io { path, what, source }
        };
        Disk::make_directory(&directory).map_err(refused("made"))?;
        let mut store = Self {
            directory: directory.clone(),
            disk,
            bounds,
            files: BTreeMap::new(),
            abouts: BTreeMap::new(),
            last: 0,
            current: None,
        };
        let mut left_over = Vec::new();
        for entry in fs::read_dir(&directory).map_err(refused("read"))? {
            let entry = entry.map_err(refused("read"))?;
            let Some((number, kind)) = entry.file_name().to_str().and_then(kind) else { continue };
            store.last = store.last.max(number);
            let base = match kind {
                Kind::Unfinished => {
                    left_over.push(entry.path());
                    continue;
                }
                Kind::Whole => None,
                Kind::On(base) => Some(base),
            };
            // Both are there where it was just written whole.
            if let Some(other) = store.files.insert(number, base) {
                store.files.insert(number, None);
                left_over.extend(base.or(other).map(|base| store.path(number, Kind::On(base))));
            }
        }
        let mut damaged = Vec::new();
        for path in left_over {
            if let Err(error) = store.disk.remove(&path) {
                damaged.push(Damage { path, what: format!("is left over and cannot be removed: {error}") });
            }
        }
        let mut current = None;
        for number in store.files.keys().rev() {
            match store.read(*number) {
                Ok((record, found)) => {
                    current = Some((record, found));
                    break;
                }
                Err(damage) => damaged.push(damage),
            }
        }
        let (record, found) = current.unzip();
        store.current = found;
        let listed = store.list().into_iter();
        store.abouts = listed.filter_map(|(number, about)| Some((number.0, about.ok()?))).collect();
        Ok(Opened { store, current: record, damaged })
    }

    /// What is in force, as far as the disk knows.
    pub fn current(&self) -> Option<&About> {
        self.current.as_ref().map(|current| &current.about)
    }

    /// A number that no generation had before.
    pub fn next_number(&self) -> Generation {
        Generation(self.last + 1)
    }

    /// Writes a generation down, so that it can come into force by a rename alone. Its number has to be a new one.
    ///
    /// # Errors
    /// The disk refuses; then nothing of it stays.
    pub fn prepare(&mut self, about: About, content: &Content<'_>) -> Result<Prepared, StoreError> {
        let number = about.number;
        if number.0 <= self.last {
            return Err(StoreError::Misused(number, "numbers go up"));
        }
        let (base, entries) = match (content, &self.current) {
            (Content::Whole(_), _) => (number.0, Entries::new()),
            (Content::Changed(changed), Some(current)) => {
                (current.base, record::carried_on(&current.entries, changed))
            }
            (Content::Changed(_), None) => return Err(StoreError::Misused(number, "differs from nothing")),
        };
        let body = match content {
            Content::Whole(document) => whole(&about, document),
            Content::Changed(_) => BodyToWrite {
                about: &about,
                document: None,
                base: Some(Generation(base)),
                entries: record::to_write(&entries),
            },
        };
        let path = self.path(number.0, Kind::Unfinished);
        let bytes = self.write(&body, &path)?;
        self.last = number.0;
        let next = Current { about, base, entries, bytes };
        let after = self.current().map(|about| about.number);
        Ok(Prepared { disk: self.disk.clone(), path: Some(path), next, after })
    }

    /// Brings a prepared generation into force.
    ///
    /// # Errors
    /// The disk refuses. Where it was only the sync of the directory, it is in force all the same ([`Self::current`] says
    /// so), but a crash of the host may undo it.
    pub fn commit(&mut self, mut prepared: Prepared) -> Result<(), StoreError> {
        let number = prepared.number();
        if prepared.after != self.current().map(|about| about.number) {
            return Err(StoreError::Misused(number, "another one came into force since it was prepared"));
        }
        let Some(from) = prepared.path.clone() else { return Ok(()) };
        let base = Some(prepared.next.base).filter(|base| *base != number.0);
        let to = self.path(number.0, base.map_or(Kind::Whole, Kind::On));
        let renamed = self.disk.rename(&from, &to);
        if renamed.is_ok() || to.exists() {
            prepared.path = None;
            self.files.insert(number.0, base);
            self.abouts.insert(number.0, prepared.next.about.clone());
            self.current = Some(prepared.next.clone());
        }
        renamed.map_err(|source| StoreError::Io { path: to, what: "brought into force", source })
    }

    /// What can wait until a change was answered: the current generation is written whole where its record has grown or
    /// many differ from the same one, and the oldest ones go. `document` is its canonical document.
    ///
    /// # Errors
    /// The disk refuses; nothing is lost by that.
    pub fn maintain(&mut self, pace: Pace, document: impl FnOnce() -> Value) -> Result<(), StoreError> {
        self.write_whole(pace, document)?;
        self.prune()
    }

    fn write_whole(&mut self, pace: Pace, document: impl FnOnce() -> Value) -> Result<(), StoreError> {
        let Some(Current { about, base, bytes, .. }) = self.current.clone() else { return Ok(()) };
        let number = about.number.0;
        let siblings = self.files.values().filter(|other| **other == Some(base)).count();
        let patience = if pace == Pace::Busy { BUSY_PATIENCE } else { 1 };
        let is_small =
            bytes <= self.bounds.changed_bytes * patience && siblings < self.bounds.span * patience;
        if base == number || is_small {
            return Ok(());
        }
        let (from, to) = (self.path(number, Kind::Unfinished), self.path(number, Kind::Whole));
        let bytes = self.write(&whole(&about, &document()), &from)?;
        self.disk.rename(&from, &to).map_err(|source| StoreError::Io {
            path: to,
            what: "written whole",
            source,
        })?;
        self.files.insert(number, None);
        self.current = Some(Current { about, base: number, entries: Entries::new(), bytes });
        self.remove(&self.path(number, Kind::On(base)))
    }

    /// Removes what neither is listed nor needed by what is.
    fn prune(&mut self) -> Result<(), StoreError> {
        let current = self.current.as_ref().map(|current| current.about.number.0);
        let listed = self.files.keys().rev().take(self.bounds.keep.max(1)).copied().chain(current);
        let mut needed: BTreeSet<u64> = listed.collect();
        needed.extend(needed.clone().iter().filter_map(|number| self.files.get(number).copied().flatten()));
        let old: Vec<u64> = self.files.keys().filter(|number| !needed.contains(number)).copied().collect();
        for number in old {
            let Some(base) = self.files.get(&number) else { continue };
            self.remove(&self.path(number, base.map_or(Kind::Whole, Kind::On)))?;
            self.files.remove(&number);
            self.abouts.remove(&number);
        }
        Ok(())
    }

    /// The last generations, newest first; some may be damaged.
    pub fn list(&self) -> Vec<Listed> {
        let about = |number| -> Result<About, Damage> {
            if let Some(about) = self.abouts.get(number) {
                return Ok(about.clone());
            }
            let path = self.file(*number);
            let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
            let head = sealed::unseal::<Head>(KIND, &bytes);
            head.map(|head| head.about).map_err(|what| Damage { path, what })
        };
        let numbers = self.files.keys().rev().take(self.bounds.keep);
        numbers.map(|number| (Generation(*number), about(number))).collect()
    }

    /// A generation, whole.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn load(&self, number: Generation) -> Result<Record, StoreError> {
        match self.files.contains_key(&number.0) {
            true => Ok(self.read(number.0)?.0),
            false => Err(StoreError::Unknown(number)),
        }
    }

    fn read(&self, number: u64) -> Result<(Record, Current), Damage> {
        let path = self.file(number);
        let (body, bytes) = body(&path)?;
        let damage = |what: &str| Damage { path: path.clone(), what: what.to_owned() };
        if body.about.number.0 != number {
            return Err(damage(&format!("is of generation {}", body.about.number)));
        }
        let stated = self.files.get(&number).copied().flatten();
        if body.base.map(|base| base.0) != stated {
            return Err(damage("differs from another generation than its name says"));
        }
        let about = body.about.clone();
        let (document, entries) = match body.content() {
            Ok(document) => (document, Entries::new()),
            Err(entries) => {
                let base = stated.ok_or_else(|| damage("holds no config"))?;
                let whole = document_of_base(&self.path(base, Kind::Whole), number)?;
                (record::completed(whole, entries.clone()), entries)
            }
        };
        let current = Current { about: about.clone(), base: stated.unwrap_or(number), entries, bytes };
        Ok((Record { about, document }, current))
    }

    /// Writes a record that is not in force; its length. What could not be written is removed.
    fn write(&self, body: &BodyToWrite<'_>, path: &Path) -> Result<usize, StoreError> {
        let written = sealed::seal(KIND, body).and_then(|bytes| {
            self.disk.write(&bytes, path)?;
            Ok(bytes.len())
        });
        written.map_err(|source| {
            _ = self.disk.remove(path);
            StoreError::Io { path: path.to_owned(), what: "written", source }
        })
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let refused = |source| StoreError::Io { path: path.to_owned(), what: "removed", source };
        self.disk.remove(path).map_err(refused)
    }

    /// Of a committed one.
    fn file(&self, number: u64) -> PathBuf {
        let base = self.files.get(&number).copied().flatten();
        self.path(number, base.map_or(Kind::Whole, Kind::On))
    }

    fn path(&self, number: u64, kind: Kind) -> PathBuf {
        self.directory.join(match kind {
            Kind::Unfinished => format!("{number}.prepared"),
            Kind::Whole => format!("{number}.whole"),
            Kind::On(base) => format!("{number}.on-{base}"),
        })
    }
}

fn whole<'a>(about: &'a About, document: &'a Value) -> BodyToWrite<'a> {
    BodyToWrite { about, document: Some(document), base: None, entries: Vec::new() }
}

fn body(path: &Path) -> Result<(Body, usize), Damage> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let body = sealed::unseal(KIND, &bytes).map_err(|what| Damage { path: path.to_owned(), what })?;
    Ok((body, bytes.len()))
}

/// The document of a whole record that another needs.
fn document_of_base(path: &Path, wanted: u64) -> Result<Value, Damage> {
    let damage =
        |what| Damage { path: path.to_owned(), what: format!("{what}; generation {wanted} needs it") };
    let (body, _) = body(path).map_err(|found| damage(found.what))?;
    body.content().map_err(|_| damage("is not whole".to_owned()))
}

fn unreadable(path: &Path, error: &io::Error) -> Damage {
    Damage { path: path.to_owned(), what: format!("cannot be read: {error}") }
}

/// What a file of the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    On(u64),
    /// Prepared, or to be written whole.
    Unfinished,
}

/// `None`: not ours.
fn kind(name: &str) -> Option<(u64, Kind)> {
    let (digits, kind) = name.split_once('.')?;
    let number = digits.parse().ok().filter(|number: &u64| number.to_string() == digits)?;
    let kind = match kind {
        "whole" => Kind::Whole,
        "prepared" => Kind::Unfinished,
        kind => Kind::On(kind.strip_prefix("on-")?.parse().ok()?),
    };
    Some((number, kind))
}
