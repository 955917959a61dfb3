//! Streams that go on while everything around them changes.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::daemon::Daemon;

/// Changes that are made.
const CHANGES: usize = 20;

/// Changes the config again and again, the pool's own backend too, then has another process take over; `step` goes on with the
/// stream, and is called between all of that.
///
/// # Errors
/// A change is refused, or a step fails.
pub fn through_changes(
    daemon: &mut Daemon<'_>,
    (listener, pool, backend): (&str, &str, &str),
    mut step: impl FnMut() -> Result<()>,
) -> Result<()> {
    for at in 0..CHANGES {
        step()?;
        let changed = match at % 3 {
            0 => {
                let route = json!({ "listener": listener, "path": format!("/more{at}/*"), "pool": pool });
                daemon.admin().change("PUT", "/v1/config/route/more", Some(&route))?
            }
            1 => {
                let weighted = json!({ "backends": [{ "address": backend, "weight": at + 1 }] });
                daemon.admin().change("PATCH", &format!("/v1/config/pool/{pool}"), Some(&weighted))?
            }
            _ => {
                let limits = json!({ "limits": { "head_timeout": format!("{}s", 10 + at) } });
                daemon.admin().change("PATCH", "/v1/config", Some(&limits))?
            }
        };
        ensure!(changed["changed"] != json!([]), "{changed}");
        step()?;
    }
    daemon.upgrade(None)?;
    (0..CHANGES).try_for_each(|_| step())
}
