//! A signal to end: what runs is taken down in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

/// Set by SIGINT and SIGTERM: what runs is taken down in order.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes note of a signal to end.
pub(crate) fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// # Errors
/// Somebody asked us to end.
pub(crate) fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
