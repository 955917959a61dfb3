//! Files of certificates that change on disk: when they are to be read again.
//!
//! Looked at now and then, as a look sees whatever happened in between, on every file system. A pair is written one file
//! after the other, so it is read once nothing has changed for a whole look.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::super::live::Stamp;
use crate::config::{Config, Pool};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What was last seen of them.
pub(in crate::control) struct Watch {
    due: Instant,
    /// As they were read.
    read: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

impl Watch {
    /// They are read right after this.
    pub(in crate::control) fn new(config: &Config, directory: &Path) -> Self {
        let seen = stamps(config, directory);
        Self { due: Instant::now() + LOOK, read: settled(&seen), seen }
    }

    /// When to look.
    pub(in crate::control) const fn due(&self) -> Instant {
        self.due
    }

    #[cfg(test)]
    pub(super) fn make_due(&mut self) {
        self.due = Instant::now();
    }

    /// Looks, if it is time to. Whether they are to be read.
    pub(in crate::control) fn look(&mut self, config: &Config, directory: &Path) -> bool {
        let now = Instant::now();
        if now < self.due {
            return false;
        }
        self.due = now + LOOK;
        let before = std::mem::replace(&mut self.seen, stamps(config, directory));
        let is_due = self.seen == before && self.seen != self.read;
        if is_due {
            self.read = settled(&self.seen);
        }
        is_due
    }
}

/// Those that can be relied on: what was changed just before it was read may change again without a new stamp, and is
/// read once more.
fn settled(stamps: &Stamps) -> Stamps {
    let is_settled = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(Stamp::is_settled);
    stamps.iter().filter(|(_, stamp)| is_settled(stamp)).map(|(path, stamp)| (path.clone(), *stamp)).collect()
}

/// Of every file of TLS that a config refers to.
fn stamps(config: &Config, directory: &Path) -> Stamps {
    let entries = config.tls.values().flat_map(|tls| tls.files());
    let pools = config.pools.values().filter_map(|pool| pool.tls.as_ref()).flat_map(|tls| tls.files());
    let checks = config.pools.values().filter_map(Pool::check_ca);
    let files = entries.chain(pools).map(|(_, path)| path).chain(checks);
    files.map(|path| (path.to_owned(), Stamp::of(&directory.join(path)))).collect()
}
