//! Base tables in the state directory: a restart builds the next one from the last, so that few slots move.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
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
pub(super) fn keep(state_dir: &Path, pool: &str, table: &Table) -> io::Result<()> {
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
    fn no_pool_name_leaves_the_directory() {
        assert_eq!(path(Path::new("/s"), "../a/b"), Path::new("/s/tables/%2e%2e%2fa%2fb.table"));
        assert_ne!(path(Path::new("/s"), "a%2f"), path(Path::new("/s"), "a/"));
    }
}
