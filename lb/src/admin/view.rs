//! What the admin API can see of the running daemon, and where it asks for changes.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;

use super::{
    certificates::CertificateViews,
    changes::{Changes, Etag, OverrideView},
    generations::{GenerationSource, GenerationView},
    packets::PacketsSource,
};
use crate::{
    config::{Config, Snapshot},
    health::{HealthTable, PoolReport, Report},
    keepalive::Shelf,
    limits::Permits,
    metrics::{EjectionMetrics, LogMetrics, ProbeMetrics, WorkerMetrics},
    model::{BackendId, FoundBackend, WorkerId},
    names::Condition,
    upgrade::Predecessors,
};

/// The view as it is at a time: it is replaced as a whole.
#[derive(Clone, Debug)]
pub struct Views(Arc<ArcSwap<View>>);

impl Views {
    /// What is to be seen now.
    pub fn now(&self) -> Arc<View> {
        self.0.load_full()
    }

    /// Shows another one from now on.
    pub fn replace(&self, view: View) {
        self.0.store(Arc::new(view));
    }
}

impl From<Arc<View>> for Views {
    fn from(view: Arc<View>) -> Self {
        Self(Arc::new(ArcSwap::new(view)))
    }
}

/// Everything that can be shown.
#[derive(Clone, Debug)]
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
    /// How much goes on with backends that have a limit, and who waits for them.
    pub permits: Arc<Permits>,
    /// Kept connections to backends that any worker may take.
    pub shelf: Arc<Shelf<OwnedFd>>,
    /// Verdicts.
    pub health: Arc<HealthTable>,
    /// Checks and ejections, by backend; those whose state never changes are absent.
    pub checks: Arc<BTreeMap<BackendId, CheckView>>,
    /// Pools whose backends' states may change.
    pub pools: Arc<BTreeMap<Arc<str>, Arc<PoolReport>>>,
    /// What this host or config costs us, one sentence each.
    pub warnings: Vec<String>,
    /// Open files that this process may have, which clip `limits.connections`.
    pub open_files: u64,
    /// Why the kernel seals no TLS; `None`: it does.
    pub no_kernel_tls: Option<String>,
    /// The packet path, where there is one.
    pub packets: Option<PacketsSource>,
    /// Raised once, when the drain begins.
    pub draining: Arc<AtomicBool>,
    /// Certificates that are in use.
    pub certificates: Arc<CertificateViews>,
    /// Names of backends, in their order.
    pub names: Arc<[NameView]>,
    /// Where changes are asked for; `None`: not yet.
    pub changes: Option<Changes>,
    /// Of `config`.
    pub etag: Etag,
    /// Configs that ran, the newest first; none: nothing keeps them.
    pub generations: Arc<[GenerationView]>,
    /// Where configs of earlier generations are read.
    pub documents: Option<GenerationSource>,
    /// What operators said of backends.
    pub overrides: Arc<[OverrideView]>,
    /// Why what runs is not what should: the file was refused, say.
    pub degraded: Option<String>,
    /// How the config's file differs from what runs, where it does.
    pub drift: Option<String>,
    /// Processes that this one took over from.
    pub predecessors: Predecessors,
}

/// One name of backends.
#[derive(Clone, Debug)]
pub struct NameView {
    /// As in the config.
    pub name: String,
    /// Pools that have it.
    pub pools: Vec<Arc<str>>,
    /// How the last lookup ended.
    pub condition: Condition,
    /// The answer that holds.
    pub backends: Vec<FoundBackend>,
    /// When the last whole answer came.
    pub answered: Option<Instant>,
    /// When it is looked up next.
    pub due: Instant,
    /// Lookups by how they ended.
    pub lookups: Vec<(&'static str, u64)>,
}

/// Checks and ejections of one backend.
#[derive(Clone, Debug, Default)]
pub struct CheckView {
    /// The key of `pool.health` that says what is asked; `None`: nothing is.
    pub kind: Option<&'static str>,
    /// What they count.
    pub metrics: Arc<ProbeMetrics>,
    /// What they and exchanges found.
    pub report: Arc<Report>,
    /// How often it was taken out by what exchanges met.
    pub ejections: Arc<EjectionMetrics>,
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
    /// It takes nothing new, and may have ended: what it has counted counts.
    pub has_left: bool,
}

impl View {
    /// Whether the daemon takes nothing new any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What an operator said of a backend.
    pub fn override_of(&self, pool: &str, backend: &str) -> Option<&OverrideView> {
        self.overrides.iter().find(|said| &*said.pool == pool && &*said.backend == backend)
    }

    /// Whether all backends of a pool are used, whatever they are.
    pub fn is_panic(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(|report| report.is_panic())
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
}
