//! What the admin API can see of the running daemon. Read-only: it holds no command channel.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::packets::PacketsSource;
use crate::{
    config::{Config, Snapshot},
    health::HealthTable,
    metrics::{LogMetrics, ProbeMetrics, WorkerMetrics},
    model::{BackendId, WorkerId},
};

/// Everything that can be shown.
#[derive(Debug)]
pub struct View {
    /// When the daemon began to serve.
    pub started: Instant,
    /// File the config came from; `None`: the quickstart.
    pub config_path: Option<PathBuf>,
    /// Digest of that file, hexadecimal.
    pub config_digest: Option<String>,
    /// The config.
    pub config: Arc<Config>,
    /// What workers run.
    pub snapshot: Arc<Snapshot>,
    /// Workers.
    pub workers: Vec<WorkerView>,
    /// Of the access log.
    pub log: Arc<LogMetrics>,
    /// Verdicts.
    pub health: Arc<HealthTable>,
    /// Checks, by backend; those without a check are absent.
    pub probes: Vec<(BackendId, Arc<ProbeMetrics>)>,
    /// What this host or config costs us, one sentence each.
    pub warnings: Vec<String>,
    /// Open files that this process may have, which clip `limits.connections`.
    pub open_files: u64,
    /// The packet path, where there is one.
    pub packets: Option<PacketsSource>,
    /// Raised once, when the drain begins.
    pub draining: AtomicBool,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Who it is.
    pub id: WorkerId,
    /// Its core.
    pub core: usize,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
}

impl View {
    /// Whether the daemon takes nothing new any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Every backend with its pool's name, in config order.
    pub fn backends(&self) -> impl Iterator<Item = (&str, &crate::config::BackendSnapshot)> {
        self.snapshot.pools.iter().flat_map(|pool| {
            let name: &str = &pool.name;
            pool.backends.iter().map(move |backend| (name, backend))
        })
    }

    /// `dns/10.0.1.53 (id 3)`, by the name it has in `pool`, if it is in that one; what left the config has no name.
    pub fn backend_name(&self, id: BackendId, pool: Option<&str>) -> String {
        let all = || self.backends().filter(|(_, backend)| backend.id == id);
        match all().find(|(of, _)| Some(*of) == pool).or_else(|| all().next()) {
            Some((pool, backend)) => format!("{pool}/{} (id {id})", backend.name),
            None => format!("a backend that left the config (id {id})"),
        }
    }

    /// The checks of one backend.
    pub fn probe(&self, id: BackendId) -> Option<&ProbeMetrics> {
        self.probes.iter().find(|(of, _)| *of == id).map(|(_, metrics)| &**metrics)
    }
}
