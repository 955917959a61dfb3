//! One process per directory: an flock(2) on the directory itself, so that it leaves no file and ends with its holder.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, major, minor, open},
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
pub struct Lock {
    directory: Arc<OwnedFd>,
    /// Another process has it, too: the one that this was inherited from.
    is_inherited: bool,
}

/// Locks of this process, for who is to inherit them.
static HELD: Mutex<Vec<Weak<OwnedFd>>> = Mutex::new(Vec::new());
/// Those that this process has inherited and not asked for yet.
static INHERITED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
/// All of them are another process's from now on.
static IS_GIVEN_AWAY: AtomicBool = AtomicBool::new(false);

impl Lock {
    fn new(directory: OwnedFd, is_inherited: bool) -> Self {
        let directory = Arc::new(directory);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.strong_count() > 0);
        held.push(Arc::downgrade(&directory));
        Self { directory, is_inherited }
    }
}

impl Drop for Lock {
    /// Said, as a close would not do: a child that is between its fork and its exec has the descriptor, too. Not where
    /// another process holds the same lock on purpose.
    fn drop(&mut self) {
        if !self.is_inherited && !IS_GIVEN_AWAY.load(Ordering::Relaxed) {
            // Of a descriptor that is locked; what else could be done?
            let _ = flock(&*self.directory, FlockOperation::Unlock);
        }
    }
}

/// Every lock of this process under another descriptor: as long as one of them is open, it is held.
///
/// # Errors
/// Those of dup(2).
pub fn held() -> io::Result<Vec<OwnedFd>> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.iter().filter_map(Weak::upgrade).map(|directory| directory.try_clone()).collect()
}

/// Locks that this process has from another one: [`directory`] finds them.
pub fn inherit(locks: Vec<OwnedFd>) {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner).extend(locks);
}

/// Lets those go that nobody has asked for; they stay the other process's.
pub fn forget_inherited() {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Leaves every lock to the process that has [`held`] of this one; nothing unlocks them here any more.
pub fn give_away() {
    IS_GIVEN_AWAY.store(true, Ordering::Relaxed);
}

fn inherited(directory: &OwnedFd) -> Option<OwnedFd> {
    let place = |fd: &OwnedFd| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let wanted = place(directory)?;
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = inherited.iter().position(|fd| place(fd) == Some(wanted))?;
    Some(inherited.swap_remove(at))
}

/// Locks a directory. Never waits.
///
/// # Errors
/// Somebody else holds it, or it cannot be opened.
pub fn directory(path: &Path) -> Result<Lock, LockError> {
    let io = |errno: Errno| LockError::Io(errno.into());
    let directory =
        open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    if let Some(locked) = inherited(&directory) {
        return Ok(Lock::new(locked, true));
    }
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock::new(directory, false)),
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
        let inherited = first.directory.try_clone().unwrap();
        drop(first);
        let free = directory(&path).is_ok();
        drop(inherited);
        fs::remove_dir(&path).unwrap();
        assert!(matches!(again, Err(LockError::Held(Some(pid))) if pid == std::process::id()), "{again:?}");
        assert!(free);
        assert!(matches!(directory(&path), Err(LockError::Io(_))));
    }
    #[test]
    fn an_inherited_lock_is_found_by_its_directory_and_outlives_who_fails_with_it() {
        let path = std::env::temp_dir().join(format!("lb-lock-inherited-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let old = directory(&path).unwrap();
        inherit(vec![old.directory.try_clone().unwrap()]);
        let new = directory(&path);
        let again = directory(&path);
        drop(new.unwrap());
        let after_failure = directory(&path);
        drop(old);
        let free = directory(&path).is_ok();
        fs::remove_dir(&path).unwrap();
        assert!(matches!(again, Err(LockError::Held(_))), "once");
        assert!(matches!(after_failure, Err(LockError::Held(_))), "the old one still has it");
        assert!(free);
    }
}
