//! Memory, and the limit on open files.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::family;

/// Resident memory of a process tree, in bytes: pages that several processes share count once in all (PSS).
///
/// # Errors
/// None of its processes can be read.
pub(crate) fn memory_bytes(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for process in family(pid) {
        // One that has ended meanwhile has no memory.
        if let Ok(rollup) = fs::read_to_string(format!("/proc/{process}/smaps_rollup")) {
            sum += pss_bytes(&rollup).context("no Pss in smaps_rollup")?;
        }
    }
    ensure!(sum > 0, "no memory of process {pid}");
    Ok(sum)
}

fn pss_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Takes the hard limit on open files as the soft one; what we start inherits it.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit on open files")
}

/// How many files a process may have open.
pub(crate) fn open_files_max() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_in_kibibytes() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  5000 kB\nPss:  1234 kB\nPss_Anon: 1 kB\n";
        assert_eq!(pss_bytes(rollup), Some(1234 * 1024));
        assert_eq!(pss_bytes("Rss: 1 kB\n"), None);
    }

    #[test]
    fn we_have_memory() {
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);
    }
}
