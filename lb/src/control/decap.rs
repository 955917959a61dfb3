//! `lb decap`: a backend without tunnel devices takes outer headers off in XDP.

use anyhow::{Context, anyhow};
use lb_abi::reason::Fate;
use sd_notify::NotifyState;

use super::{
    host,
    signals::{self, Wish},
};
use crate::steering::Decap;

/// Attaches `lb_decap` to `interface`, waits for SIGTERM or SIGINT, and takes it off again.
///
/// # Errors
/// A capability is missing, or the kernel refuses the program or the interface.
pub fn decap(interface: &str) -> anyhow::Result<()> {
    let (_, wishes) = signals::listen().context("signal handlers")?;
    let missing = host::missing_capabilities();
    if !missing.is_empty() {
        return Err(anyhow!("this process lacks {}, so lb_decap cannot be attached", missing.join(", ")));
    }
    let decap = Decap::attach(interface, None)?;
    let attached = decap.attached();
    tracing::info!(interface, mode = ?attached.mode, fallback = ?attached.fallback, "lb_decap attached");
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "sd_notify");
    }
    // A reload has nothing to load; whatever else comes is the end.
    while wishes.recv() == Ok(Wish::Reload) {}
    for (reason, count) in decap.reasons()? {
        if count > 0 {
            let fate = match reason.fate() {
                Fate::Pass => "pass",
                Fate::Drop => "drop",
                Fate::Answer => "answer",
                Fate::Forward => "forward",
            };
            tracing::info!(reason = reason.name(), fate, count, "packets");
        }
    }
    Ok(())
}
