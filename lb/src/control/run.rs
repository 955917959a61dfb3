//! The order in which everything comes up, and goes down.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use rustix::{
    fs::Mode,
    rand::{GetRandomFlags, getrandom},
};
use sd_notify::NotifyState;

use super::{
    access_log::AccessLog,
    host, listeners,
    opening::{self, Opened},
    paths::Paths,
    plan::Plan,
    plane::PlaneMail,
    prober::{self, Target},
    signals,
    workers::Workers,
};
use crate::{
    admin::{Doors, Server, View},
    config::{Config, Snapshot},
    health::HealthTable,
    metrics::{BACKENDS_MAX, LogMetrics},
    model::Generation,
    sys::affinity,
};

/// What the command line says of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The config; `None`: the quickstart.
    pub config: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// Instead of the config's `state.dir`.
    pub state_dir: Option<PathBuf>,
    /// Instead of the directory of the config's `admin.socket`.
    pub run_dir: Option<PathBuf>,
}

/// Runs until a signal ends it. XDP goes on forwarding afterwards.
///
/// # Errors
/// The config is invalid, the host refuses something that it needs, or a worker was lost.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // What we make is ours alone; the admin socket is then opened to its group.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let wishes = signals::listen().context("signal handlers")?;
    let mut plan = plan(options)?;
    let doors = Doors { socket: plan.config.admin.socket.clone(), http: plan.config.admin.http };
    // Asked before anything is touched: a second daemon must not get as far as the maps of the first.
    doors.check()?;
    let mut warnings = plan.warnings.clone();
    let open_files = host::raise_open_files();
    warnings.extend(host::clip_connections(&mut plan.config.limits, open_files));
    let allowed = affinity::allowed_cores().context("sched_getaffinity")?;
    let cores = host::place_workers(&plan.config.runtime.workers, &allowed).map_err(anyhow::Error::msg)?;

    let (log, logs) = AccessLog::start(plan.config.access_log.as_ref(), cores.len())?;
    let groups = listeners::bind(&plan.config, cores.len())?;
    let loaded = opening::load(&plan.config, &options.bpf_dir)?;
    let mut ids = loaded.backend_ids(&plan.config);
    let snapshot = Arc::new(Snapshot::build(&plan.config, Generation(1), &mut ids)?);
    let targets = prober::targets(&plan.config, &snapshot);
    let checked = targets.iter().map(|target| target.id).collect();
    let mut opened = loaded.forward(&plan, &snapshot, &checked)?;
    let health = Arc::new(HealthTable::new(BACKENDS_MAX));
    opened.down.iter().for_each(|id| health.set(*id, false));
    // Copies, since the originals go to the workers; they must be gone before a worker can close its listeners.
    let copies = listeners::copies(&groups).context("dup of listening sockets")?;
    let workers = Workers::start(&cores, &snapshot, &health, groups, logs)?;
    if let Some(path) = &mut opened.path {
        warnings.extend(path.steer(&plan.config, &snapshot, &cores, &copies));
        warnings.extend(path.give_ranges(&copies).context(opening::LOST_RANGES)?);
    }
    drop(copies);
    warnings.append(&mut opened.warnings);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let invitation = plan.invitation();
    let world =
        World { plan, snapshot, health, targets, opened, warnings, open_files, log: log.metrics.clone() };
    let (view, _server) = open_doors(world, &workers, doors)?;
    ready(&view, &workers);
    if let Some(invitation) = invitation {
        println!("{invitation}");
    }
    let on_drain = || {
        view.draining.store(true, Ordering::Relaxed);
        notify(&[NotifyState::Stopping]);
    };
    let served = workers.serve_until_end(&wishes, on_drain, || log.reopen());
    log.finish();
    served
}

fn plan(options: &Options) -> anyhow::Result<Plan> {
    let mut plan = match &options.config {
        Some(path) => Plan::of_file(path)?,
        None => Plan::quickstart(&Paths::of_this_user())?,
    };
    plan.override_directories(options.run_dir.as_deref(), options.state_dir.as_deref());
    Ok(plan)
}

/// What runs once workers do.
struct World {
    plan: Plan,
    snapshot: Arc<Snapshot>,
    health: Arc<HealthTable>,
    targets: Vec<Target>,
    opened: Opened,
    warnings: Vec<String>,
    open_files: u64,
    log: Arc<LogMetrics>,
}

/// Starts whatever watches and shows: the packet path's thread, the probers, the admin API.
fn open_doors(world: World, workers: &Workers, doors: Doors) -> anyhow::Result<(Arc<View>, Server)> {
    let World { plan, snapshot, health, mut targets, opened, warnings, open_files, log } = world;
    let ports = opened.through.map(|through| {
        targets.iter_mut().for_each(|target| target.is_through = through.backends.contains(&target.id));
        through.ports
    });
    let mail = opened.path.map(|path| PlaneMail::start(path, opened.down)).transpose();
    let mail = mail.context("the packet path's thread")?;
    let view = Arc::new(View {
        started: Instant::now(),
        config_path: plan.path,
        config_digest: plan.digest,
        workers: workers.views(),
        probes: targets.iter().map(|target| (target.id, target.metrics.clone())).collect(),
        warnings,
        open_files,
        packets: mail.as_ref().map(PlaneMail::source),
        config: Arc::<Config>::new(plan.config),
        snapshot,
        log,
        health: health.clone(),
        draining: AtomicBool::new(false),
    });
    if !targets.is_empty() {
        let tell = move |id, verdict| mail.iter().for_each(|mail| mail.tell(id, verdict));
        prober::start(targets, health, random()?, ports, tell)?;
    }
    let server = Server::start(view.clone(), doors)?;
    Ok((view, server))
}

fn ready(view: &View, workers: &Workers) {
    let bound: Vec<_> = view.snapshot.listeners.iter().flat_map(|listener| &listener.bind).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        generation = %view.snapshot.generation,
        workers = workers.views().len(),
        listeners = ?bound,
        vips = view.config.vips.len(),
        admin = %view.config.admin.socket.display(),
        "ready"
    );
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, where it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "sd_notify");
    }
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
    Ok(u64::from_ne_bytes(bytes))
}
