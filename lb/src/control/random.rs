//! Seeds.

use anyhow::Context as _;
use rustix::rand::{GetRandomFlags, getrandom};

/// From the kernel.
///
/// # Errors
/// Those of getrandom(2).
pub(super) fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
    Ok(u64::from_ne_bytes(bytes))
}
