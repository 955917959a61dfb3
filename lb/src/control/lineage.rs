//! Base tables in the state directory: a restart builds the next one from the last, so that few slots move.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::balance::maglev::Table;

/// Directory of the tables in the state directory.
const DIRECTORY: &str = "tables";

/// The table of a pool, if one was kept. One that cannot be read is as good as none, and said.
pub(super) fn load(state_dir: &Path, pool: &str) -> Option<Table> {
    let path = path(state_dir, pool);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return complain(&path, &error),
    };
    Table::from_bytes(&bytes).map_or_else(|error| complain(&path, &error), Some)
}

fn complain(path: &Path, error: &dyn std::fmt::Display) -> Option<Table> {
    let path = path.display();
    tracing::warn!(%path, %error, "the kept table is of no use; more flows than necessary may move");
    None
}

/// Keeps the table of a pool: written aside, synced, renamed. It holds the table's key, so it is ours alone.
///
/// # Errors
/// The file system refuses.
fn keep(state_dir: &Path, pool: &str, table: &Table) -> io::Result<()> {
    let path = path(state_dir, pool);
    let directory = state_dir.join(DIRECTORY);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&table.to_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    fs::File::open(&directory)?.sync_all()
}

/// Tables as they were kept last, by pool.
pub(super) type KeptTables = BTreeMap<Arc<str>, Table>;

/// Keeps the tables in the state directory that are others than were `kept`: each has to be safe on the disk, and what
/// comes next waits for that. What cannot be kept, one sentence each.
pub(super) fn keep_changed(
    tables: &BTreeMap<Arc<str>, Table>,
    state_dir: &Path,
    kept: &mut KeptTables,
) -> Vec<String> {
    kept.retain(|pool, _| tables.contains_key(pool));
    let mut lost = Vec::new();
    for (pool, table) in tables {
        if kept.get(pool) == Some(table) {
            continue;
        }
        match keep(state_dir, pool, table) {
            Ok(()) => _ = kept.insert(pool.clone(), table.clone()),
            Err(error) => lost.push(format!(
                "the table of pool {pool} cannot be kept in {}: {error}; a restart may move more flows than \
                 necessary",
                state_dir.display()
            )),
        }
    }
    lost
}

/// Pool names may hold what file names may not.
fn path(state_dir: &Path, pool: &str) -> PathBuf {
    let mut name = String::new();
    for byte in pool.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    state_dir.join(DIRECTORY).join(name + ".table")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::fixture::TemporaryDirectory, balance::maglev::Member, model::BackendId};

    #[test]
    fn a_kept_table_comes_back() {
        let state = TemporaryDirectory::new("lineage");
        assert!(load(&state, "dns").is_none());
        let members = [1, 2, 3].map(|id| Member { id: BackendId(id), identity: u64::from(id), weight: 1 });
        let table = Table::build(251, [1, 2], &members, None);
        keep(&state, "dns", &table).unwrap();
        assert_eq!(load(&state, "dns").unwrap().digest(), table.digest());
        fs::write(path(&state, "dns"), b"half").unwrap();
        assert!(load(&state, "dns").is_none());
    }

    #[test]
    fn a_table_is_written_where_it_is_another_one() {
        let state = TemporaryDirectory::new("lineage-changed");
        let table = |weight| {
            let members = [(1, weight), (2, 1)].map(|(id, weight)| {
                let identity = u64::from(id);
                Member { id: BackendId(id), identity, weight }
            });
            Table::build(251, [1, 2], &members, None)
        };
        let mut tables = BTreeMap::from([("a".into(), table(1)), ("b".into(), table(1))]);
        let mut kept = KeptTables::new();
        assert_eq!(keep_changed(&tables, &state, &mut kept), [""; 0]);
        let has = |pool| load(&state, pool).map(|table| table.digest());
        assert_eq!((has("a"), has("b")), (Some(table(1).digest()), Some(table(1).digest())));
        // Gone behind our back: what is written again is told from what is not.
        ["a", "b"].iter().for_each(|pool| fs::remove_file(path(&state, pool)).unwrap());
        tables.insert("b".into(), table(2));
        assert_eq!(keep_changed(&tables, &state, &mut kept), [""; 0]);
        assert_eq!((has("a"), has("b")), (None, Some(table(2).digest())));
        // What could not be kept is tried again.
        tables.insert("a".into(), table(3));
        let nowhere = Path::new("/proc/none");
        assert!(keep_changed(&tables, nowhere, &mut kept)[0].contains("table of pool a cannot be kept"));
        assert_eq!(keep_changed(&tables, &state, &mut kept), [""; 0]);
        assert_eq!(has("a"), Some(table(3).digest()));
    }

    #[test]
    fn no_pool_name_leaves_the_directory() {
        assert_eq!(path(Path::new("/s"), "../a/b"), Path::new("/s/tables/%2e%2e%2fa%2fb.table"));
        assert_ne!(path(Path::new("/s"), "a%2f"), path(Path::new("/s"), "a/"));
    }
}
