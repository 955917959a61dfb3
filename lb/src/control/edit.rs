//! What a wish makes of the config that runs: another config, not applied yet.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::plan::Plan;
use crate::{
    admin::changes::{Edit, EntryEdit, Refusal},
    config::{self, Digest, Loaded, Problems, Touched},
    generations::Record,
};

/// What problems of a config call the document of an API call.
const DOCUMENT: &str = "request";

/// The config that an edit of `now` makes. Overrides, rollbacks and upgrades are none.
///
/// # Errors
/// It is no config, or there is no such entry.
pub(super) fn edited(now: &Plan, edit: &Edit) -> Result<Plan, Refusal> {
    match edit {
        Edit::File { path, text } => of_file(now, path, text),
        Edit::Whole(whole) => read(now, whole),
        Edit::Merge(_) | Edit::Entry { .. } => {
            let beside = touched(edit).and_then(|touched| {
                let apply = |document: &mut Value| apply(document, edit).is_ok();
                config::read_edited(DOCUMENT, &now.config, &now.notes, &touched, apply)
            });
            if let Some(loaded) = beside {
                return Ok(plan(loaded, now.path.clone(), now.directory.clone(), now.digest));
            }
            let mut whole = now.config.to_json();
            apply(&mut whole, edit)?;
            read(now, &whole)
        }
        Edit::Rollback(_) | Edit::Override { .. } | Edit::Upgrade(..) => {
            Err(Refusal::NotReady("this is no edit of the config".to_owned()))
        }
    }
}

fn apply(document: &mut Value, edit: &Edit) -> Result<(), Refusal> {
    match edit {
        Edit::Merge(patch) => config::merge(document, patch),
        Edit::Entry { table, name, edit } => put(document, table, name, edit)?,
        Edit::Whole(_)
        | Edit::File { .. }
        | Edit::Rollback(_)
        | Edit::Override { .. }
        | Edit::Upgrade(..) => {}
    }
    Ok(())
}

/// What an edit names; `None`: that cannot be told.
fn touched(edit: &Edit) -> Option<Touched> {
    match edit {
        Edit::Merge(patch) => Touched::by_patch(patch),
        Edit::Entry { table, name, .. } => Some(Touched::entry(table, name)),
        Edit::Whole(_)
        | Edit::File { .. }
        | Edit::Rollback(_)
        | Edit::Override { .. }
        | Edit::Upgrade(..) => None,
    }
}

/// The config of a generation that is kept, with the references that it had.
///
/// # Errors
/// This version reads it as no config.
pub(super) fn kept(record: &Record) -> Result<Plan, Problems> {
    let name = format!("generation {}", record.about.number);
    let loaded = config::read_json(&name, &record.document)?;
    let (path, digest) = record.about.file.clone().map(|file| (file.path, file.digest)).unzip();
    Ok(plan(loaded, path, record.about.directory.clone(), digest))
}

fn put(whole: &mut Value, table: &str, name: &str, edit: &EntryEdit) -> Result<(), Refusal> {
    let at = format!("{table}.{name}");
    let missing = || Refusal::NotFound { at: at.clone(), message: format!("there is no {table} {name}") };
    let Some(entries) = whole.as_object_mut() else { return Err(missing()) };
    let entries = entries.entry(table).or_insert_with(|| Value::Object(<_>::default()));
    let Some(entries) = entries.as_object_mut() else { return Err(missing()) };
    match edit {
        EntryEdit::Put(value) => _ = entries.insert(name.to_owned(), value.clone()),
        EntryEdit::Merge(patch) => config::merge(entries.get_mut(name).ok_or_else(missing)?, patch),
        EntryEdit::Remove => _ = entries.remove(name).ok_or_else(missing)?,
    }
    Ok(())
}

/// The daemon's own file stays the one that it was started with, whatever else is applied, and references lie beneath its
/// directory: who may apply is not to have any file read that the daemon can.
fn of_file(now: &Plan, path: &Path, text: &str) -> Result<Plan, Refusal> {
    let loaded = config::parse(&path.display().to_string(), text).map_err(Refusal::Invalid)?;
    let (path, directory, digest) = match &now.path {
        Some(own) if own != path => (own.clone(), now.directory.clone(), now.digest),
        _ => {
            let directory = path.parent().map_or_else(PathBuf::new, Path::to_owned);
            (path.to_owned(), directory, Some(loaded.digest))
        }
    };
    Ok(plan(sharing(now, loaded), Some(path), directory, digest))
}

/// References of a document lie beneath the directory that those of the config before it do.
fn read(now: &Plan, document: &Value) -> Result<Plan, Refusal> {
    let loaded = config::read_json(DOCUMENT, document).map_err(Refusal::Invalid)?;
    Ok(plan(sharing(now, loaded), now.path.clone(), now.directory.clone(), now.digest))
}

fn sharing(now: &Plan, loaded: Loaded) -> Loaded {
    Loaded { config: loaded.config.sharing(&now.config), ..loaded }
}

fn plan(loaded: Loaded, path: Option<PathBuf>, directory: PathBuf, digest: Option<Digest>) -> Plan {
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    Plan { config: loaded.config, path, directory, digest, warnings, notes: loaded.notes }
}
