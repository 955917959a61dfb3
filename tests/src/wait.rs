//! Waiting for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Longest wait for something that normally takes milliseconds. Generous: test machines are shared, and guests are
/// interpreted.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value.
///
/// # Errors
/// It gave none within `limit`; the error names `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("no {what} within {limit:?}");
        }
        thread::sleep(PAUSE);
    }
}

/// Tries until `attempt` succeeds.
///
/// # Errors
/// The last error, once `limit` has passed.
pub fn until_ok<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("no {what} within {limit:?}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
