//! What operators said of single backends: drained, or of another weight.
//!
//! One small file, written whole each time. It is not of any generation: a backend that a config leaves out and brings
//! back is still drained, which is what whoever drained it would expect.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    disk::Disk,
    sealed::{self, Damage},
};

const FILE: &str = "overrides";
/// First word of the file.
const KIND: &str = "lb-overrides";
/// Most backends that operators may speak of: as many as a config may have, and some that are gone.
const OVERRIDES_MAX: usize = 8192;

/// What was said of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendOverride {
    /// It takes nothing new.
    pub drained: bool,
    /// Its weight; `None`: the config's.
    pub weight: Option<u16>,
}

/// Pool's name, and the backend's address as in the config.
type Key = (Arc<str>, Arc<str>);

/// All that was said, as it is on the disk.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    disk: Disk,
    said: BTreeMap<Key, BackendOverride>,
}

/// One entry of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    pool: Arc<str>,
    backend: Arc<str>,
    #[serde(flatten)]
    said: BackendOverride,
}

impl Overrides {
    /// What is kept in a state directory, made where there is none. A file of no use counts as none, and is told of; it
    /// stays until something is set.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<(Self, Option<Damage>)> {
        Self::open_on(Disk::default(), state_dir)
    }

    pub(super) fn open_on(disk: Disk, state_dir: &Path) -> io::Result<(Self, Option<Damage>)> {
        Disk::make_directory(state_dir)?;
        let path = state_dir.join(FILE);
        let read = match fs::read(&path) {
            Ok(bytes) => sealed::unseal::<Vec<Entry>>(KIND, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let (entries, damage) = match read {
            Ok(entries) => (entries, None),
            Err(what) => (Vec::new(), Some(Damage { path: path.clone(), what })),
        };
        let said = entries.into_iter().map(|Entry { pool, backend, said }| ((pool, backend), said)).collect();
        Ok((Self { path, disk, said }, damage))
    }

    /// What was said of a backend.
    pub fn of(&self, pool: &str, backend: &str) -> BackendOverride {
        // As many as operators touch by hand.
        let found = self.said.iter().find(|((of, address), _)| &**of == pool && &**address == backend);
        found.map(|(_, said)| *said).unwrap_or_default()
    }

    /// All of it, by pool and backend. `is_known` says whether a pool still has a backend; that comes with each.
    pub fn iter(
        &self,
        is_known: impl Fn(&str, &str) -> bool,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, BackendOverride, bool)> {
        self.said.iter().map(move |((pool, backend), said)| (pool, backend, *said, is_known(pool, backend)))
    }

    /// Keeps what is said of a backend from now on; where that is nothing, it is forgotten.
    ///
    /// # Errors
    /// The disk refuses, or there is no room for more: then what was said before still holds.
    pub fn set(&mut self, pool: &str, backend: &str, said: BackendOverride) -> io::Result<()> {
        let mut all = self.said.clone();
        let key = (Arc::from(pool), Arc::from(backend));
        match said == BackendOverride::default() {
            true => _ = all.remove(&key),
            false => _ = all.insert(key, said),
        }
        if all == self.said {
            return Ok(());
        }
        if all.len() > OVERRIDES_MAX {
            let message = format!("operators speak of {OVERRIDES_MAX} backends already");
            return Err(io::Error::other(message));
        }
        let entry = |((pool, backend), said): (&Key, &BackendOverride)| Entry {
            pool: pool.clone(),
            backend: backend.clone(),
            said: *said,
        };
        let entries: Vec<Entry> = all.iter().map(entry).collect();
        let bytes = sealed::seal(KIND, &entries)?;
        let temporary = self.path.with_extension("new");
        self.disk.write(&bytes, &temporary)?;
        self.disk.rename(&temporary, &self.path)?;
        self.said = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Fault, Faults, TemporaryDirectory},
        *,
    };

    const DRAINED: BackendOverride = BackendOverride { drained: true, weight: None };
    const HEAVY: BackendOverride = BackendOverride { drained: false, weight: Some(9) };

    fn all(overrides: &Overrides) -> Vec<(String, String, BackendOverride, bool)> {
        let known = |pool: &str, _: &str| pool == "api";
        let owned = |(pool, backend, said, is_known): (&Arc<str>, &Arc<str>, _, _)| {
            (pool.to_string(), backend.to_string(), said, is_known)
        };
        overrides.iter(known).map(owned).collect()
    }

    #[test]
    fn they_are_there_after_a_restart() {
        let state = TemporaryDirectory::new("overrides");
        let (mut overrides, damage) = Overrides::open(&state).unwrap();
        assert_eq!((damage, all(&overrides).len()), (None, 0));
        overrides.set("api", "10.0.0.1:80", DRAINED).unwrap();
        overrides.set("gone", "10.0.0.1:80", HEAVY).unwrap();
        overrides.set("api", "10.0.0.2:80", HEAVY).unwrap();
        overrides.set("api", "10.0.0.2:80", BackendOverride::default()).unwrap();
        let (overrides, damage) = Overrides::open(&state).unwrap();
        assert_eq!(damage, None);
        assert_eq!(overrides.of("api", "10.0.0.1:80"), DRAINED);
        assert_eq!(overrides.of("api", "10.0.0.2:80"), BackendOverride::default());
        assert_eq!(
            all(&overrides),
            [
                ("api".to_owned(), "10.0.0.1:80".to_owned(), DRAINED, true),
                ("gone".to_owned(), "10.0.0.1:80".to_owned(), HEAVY, false),
            ]
        );
    }

    #[test]
    fn a_torn_file_is_told_of_and_written_anew() {
        let state = TemporaryDirectory::new("overrides-torn");
        let (mut overrides, _) = Overrides::open(&state).unwrap();
        overrides.set("api", "10.0.0.1:80", DRAINED).unwrap();
        let path = state.join(FILE);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let (mut overrides, damage) = Overrides::open(&state).unwrap();
        assert!(damage.unwrap().to_string().contains("overrides: has "));
        overrides.set("api", "10.0.0.1:80", HEAVY).unwrap();
        assert_eq!(Overrides::open(&state).unwrap().1, None);
    }

    #[test]
    fn whatever_fails_leaves_the_old_or_the_new() {
        for fault in [Fault::Errno(28), Fault::Errno(5), Fault::Kill] {
            for at in 0.. {
                let state = TemporaryDirectory::new("overrides-faults");
                let (mut overrides, _) = Overrides::open(&state).unwrap();
                overrides.set("api", "a", DRAINED).unwrap();
                let faults = Faults::at(at, fault);
                let disk = Disk { faults: faults.clone() };
                let (mut overrides, _) = Overrides::open_on(disk, &state).unwrap();
                let done = overrides.set("api", "a", HEAVY);
                let (again, damage) = Overrides::open(&state).unwrap();
                assert_eq!(damage, None, "{fault:?} at {at}");
                let found = again.of("api", "a");
                assert!(
                    found == HEAVY || (done.is_err() && found == DRAINED),
                    "{fault:?} at {at}: {found:?}"
                );
                if !faults.came_to_pass() {
                    done.unwrap();
                    break;
                }
                assert!(done.is_err(), "{fault:?} at {at}");
            }
        }
    }
}
