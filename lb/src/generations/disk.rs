//! What is done to files, step by step; tests can let each of them fail, or be the last.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// One thing that is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncDirectory,
    Remove,
}

/// The disk; in tests one that fails where it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: super::tests::Faults,
}

impl Disk {
    /// Makes a directory that is ours alone, or makes it so.
    pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
        let was_there = directory.is_dir();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        if fs::metadata(directory)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        }
        match directory.parent() {
            Some(parent) if !was_there && !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => Ok(()),
        }
    }

    /// Writes a file that nobody reads yet, and syncs it.
    pub(super) fn write(&self, bytes: &[u8], path: &Path) -> io::Result<()> {
        self.step(Step::Create)?;
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        if let Err(error) = self.step(Step::Write) {
            // What a full disk or a crash leaves.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        file.write_all(bytes)?;
        self.step(Step::Sync)?;
        file.sync_all()
    }

    /// Gives a file another name, for good: its directory is synced.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename)?;
        fs::rename(from, to)?;
        self.step(Step::SyncDirectory)?;
        File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    fn step(&self, _: Step) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, step: Step) -> io::Result<()> {
        self.faults.step(step)
    }
}

/// One that others let us pass through and not read is theirs to sync.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    }
}
