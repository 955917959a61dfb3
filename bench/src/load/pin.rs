//! Threads of ours on the cores of load and backend.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Binds this thread, and those it starts from now on, to `cores`.
///
/// # Errors
/// There is no such core for us.
pub(crate) fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("bind to cores {cores:?}"))
}
