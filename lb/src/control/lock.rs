//! One daemon for each state directory.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context as _, anyhow};

use crate::sys::lock::{self, LockError};

/// Makes the state directory, if it is not there, and keeps it for this process until that ends.
///
/// # Errors
/// Another daemon has it, or it cannot be made.
pub(super) fn keep_state(directory: &Path) -> anyhow::Result<()> {
    let place = directory.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("state directory {place}"))?;
    match lock::directory(directory) {
        // The kernel gives it back when the process ends, however it does.
        Ok(lock) => std::mem::forget(lock),
        Err(LockError::Held(pid)) => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            return Err(anyhow!(
                "{place} belongs to another running lb{pid}: one daemon for each state directory"
            ));
        }
        Err(LockError::Io(error)) => return Err(error).with_context(|| format!("state directory {place}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture::TemporaryDirectory;

    #[test]
    fn a_second_daemon_is_told_of_the_first() {
        let state = TemporaryDirectory::new("state-lock");
        keep_state(&state).unwrap();
        let error = keep_state(&state).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }
}
