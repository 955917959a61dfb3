//! One process per directory: an flock(2) on the directory itself, so that it leaves no file and ends with its holder.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, major, minor, open},
    io::Errno,
};

/// Why a directory cannot be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it; its pid where the kernel tells.
    Held(Option<u32>),
    /// The directory cannot be opened or locked.
    Io(io::Error),
}

/// A directory that is ours until this is dropped, by the end of the process at the latest.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Drop for Lock {
    /// Said, as a close would not do: a child that is between its fork and its exec has the descriptor, too.
    fn drop(&mut self) {
        // Of a descriptor that is locked; what else could be done?
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks a directory. Never waits.
///
/// # Errors
/// Somebody else holds it, or it cannot be opened.
pub fn directory(path: &Path) -> Result<Lock, LockError> {
    let io = |errno: Errno| LockError::Io(errno.into());
    let directory =
        open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(directory)),
        Err(Errno::WOULDBLOCK) => Err(LockError::Held(holder(&directory.into()))),
        Err(errno) => Err(io(errno)),
    }
}

/// Who holds the lock of a file, by `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 708 08:01:793 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&&*place);
        // 0 or -1: a process of another pid namespace.
        is_it.then(|| words.get(4)?.parse().ok().filter(|pid| *pid != 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let path = std::env::temp_dir().join(format!("lb-lock-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let first = directory(&path).unwrap();
        let again = directory(&path);
        // As a child has it that did not come to its exec yet.
        let inherited = first.0.try_clone().unwrap();
        drop(first);
        let free = directory(&path).is_ok();
        drop(inherited);
        fs::remove_dir(&path).unwrap();
        assert!(matches!(again, Err(LockError::Held(Some(pid))) if pid == std::process::id()), "{again:?}");
        assert!(free);
        assert!(matches!(directory(&path), Err(LockError::Io(_))));
    }
}
