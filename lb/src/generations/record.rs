//! What is kept of one generation.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{ChangedEntry, Digest, put_entry},
    model::Generation,
};

/// What is known of a generation beside its config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its number.
    pub number: Generation,
    /// When it was asked for, in nanoseconds since 1970.
    pub when_ns: u64,
    /// Who asked.
    pub author: Author,
    /// What was asked.
    pub origin: Origin,
    /// The file that was applied last, this time or before; a start compares its digest.
    pub file: Option<SourceFile>,
    /// What its file references lie beneath.
    pub directory: PathBuf,
    /// Tells its config from others.
    pub etag: String,
    /// Paths of keys that differ from the generation before, the first of them.
    pub changed: Vec<String>,
    /// Digests of referenced files, by reference, where they were taken. Their content is never kept.
    pub references: BTreeMap<String, Digest>,
}

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// What it came by, such as `api`, `apply`, `signal`, `start`.
    pub by: String,
    /// Who was at the other end of the unix socket, where there was one.
    pub uid: Option<u32>,
    /// The same.
    pub pid: Option<u32>,
}

/// Where a config came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// [`About::file`].
    File,
    /// A document, or a part of one.
    Api,
    /// An earlier generation.
    Rollback(Generation),
    /// No config was given.
    Quickstart,
}

/// A config file that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Where it stood.
    pub path: PathBuf,
    /// Of its text.
    pub digest: Digest,
}

/// A generation as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What is known of it.
    pub about: About,
    /// Its canonical document.
    pub document: Value,
}

/// The config of a generation that begins.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// All of it: the canonical document.
    Whole(&'a Value),
    /// What differs from the generation that is current in the store.
    Changed(&'a [ChangedEntry]),
}

/// Entries that differ from a whole record, each as it is now: `None` where it is gone.
pub(super) type Entries = BTreeMap<Key, Option<Value>>;

/// Table, and the name of `[table.NAME]`.
type Key = (Arc<str>, Option<Arc<str>>);

/// A record's file, as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    pub(super) about: About,
    /// Of a record that is whole.
    document: Option<Value>,
    /// Of another: the whole one that it differs from,
    pub(super) base: Option<Generation>,
    /// and how.
    #[serde(default)]
    entries: Vec<Entry>,
}

/// The same, as it is written.
#[derive(Debug, Serialize)]
pub(super) struct BodyToWrite<'a> {
    pub(super) about: &'a About,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) document: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Generation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<EntryToWrite<'a>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    table: Arc<str>,
    name: Option<Arc<str>>,
    value: Option<Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct EntryToWrite<'a> {
    table: &'a str,
    name: Option<&'a str>,
    value: Option<&'a Value>,
}

/// A file's head without its config, which is passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) about: About,
}

impl Body {
    /// The document of a whole record, or what differs from it.
    pub(super) fn content(self) -> Result<Value, Entries> {
        let entries = self.entries.into_iter().map(|Entry { table, name, value }| ((table, name), value));
        self.document.ok_or_else(|| entries.collect())
    }
}

pub(super) fn to_write<'e>(entries: &'e Entries) -> Vec<EntryToWrite<'e>> {
    let write = |((table, name), value): (&'e Key, &'e Option<Value>)| EntryToWrite {
        table,
        name: name.as_deref(),
        value: value.as_ref(),
    };
    entries.iter().map(write).collect()
}

/// A whole record's document with what differs put into it.
pub(super) fn completed(mut document: Value, entries: Entries) -> Value {
    for ((table, name), value) in entries {
        put_entry(&mut document, &table, name.as_deref(), value);
    }
    document
}

/// The entries that differ after one more change.
pub(super) fn carried_on(entries: &Entries, changed: &[ChangedEntry]) -> Entries {
    let mut entries = entries.clone();
    entries.extend(
        changed.iter().map(|entry| ((Arc::from(entry.table), entry.name.clone()), entry.after.clone())),
    );
    entries
}
