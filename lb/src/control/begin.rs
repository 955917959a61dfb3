//! What a start makes, in an order in which nobody is answered by half a daemon: sockets, tables, workers, then whatever
//! watches, shows and changes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::Context as _;
use lb_abi::bounds::WORKERS_MAX;

use super::{
    access_log::AccessLog,
    addresses::{Addresses, Held},
    board::Board,
    certificates::{Certificates, Watch, said},
    forwarding::LOST_RANGES,
    ground::Ground,
    inherited::Inherited,
    known::Known,
    listeners::{self, Group},
    live::{Asked, Live, ROTATION, SeenFile, programs_of},
    names::Names,
    opening::{self, Opened},
    outliers::Watches,
    plan::Overridden,
    plane::{Doors as NewGroups, PlaneMail},
    prober::{self, Prober},
    programs::Programs,
    random::random,
    secret,
    staples::Staples,
    start::Start,
    succession::Succession,
    target::Target,
    workers::Workers,
};
use crate::{
    admin::{
        CheckView, Doors, OpenDoors, Server, View, Views, changes::Changes, generations::GenerationSource,
    },
    config::{BackendIds, Fingerprint, ListenerIds, Snapshot},
    health::{HealthTable, Verdict},
    metrics::{BACKENDS_MAX, LogMetrics},
    model::BackendId,
    upgrade::{
        Inheritance, Predecessors,
        store::{self, Store},
    },
    worker::{AccessLogSetup, Compiled, Siblings},
};

/// The data planes, at work.
pub(super) struct Begun {
    ground: Ground,
    addresses: Addresses,
    listener_ids: ListenerIds,
    ids: BackendIds,
    names: Names,
    snapshot: Arc<Snapshot>,
    compiled: Arc<Compiled>,
    certificates: Certificates,
    watch: Watch,
    health: Arc<HealthTable>,
    checks: BTreeMap<BackendId, CheckView>,
    targets: Vec<Target>,
    opened: Opened,
    /// Backends that are down by their checks, as others saw them.
    down: BTreeSet<BackendId>,
    /// Backends that another process had taken out.
    known: Vec<Known>,
    kept: Kept,
    /// Sockets for datagrams: two processes that read there would tear flows apart.
    withheld: Vec<Group>,
    siblings: Arc<Siblings>,
    workers: Workers,
}

/// Whatever watches, shows and changes them.
pub(super) struct Watched {
    /// As it was at first.
    pub(super) view: Arc<View>,
    pub(super) changes: Changes,
    pub(super) server: Server,
    /// To be kept once this is the process that systemd listens to.
    pub(super) kept: Kept,
    /// To be listened at once nobody else does.
    pub(super) withheld: Vec<Group>,
}

/// Copies of listening sockets, for systemd's store.
pub(super) struct Kept {
    held: Vec<Held>,
    groups: Vec<Group>,
    /// Workers that another process had.
    before: usize,
}

impl Kept {
    /// All addresses.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Has systemd keep them.
    pub(super) fn keep(self) {
        for group in &self.groups {
            let Some(held) = self.held.iter().find(|held| held.id == group.id) else { continue };
            let ranges = held.wanted.spelled_ranges();
            store::keep(held.wanted.stored(&ranges), group.first, &group.sockets);
            store::forget(held.wanted.stored(&ranges), group.sockets.len()..self.before);
        }
    }
}

/// What watching needs beside that.
pub(super) struct Watching {
    pub(super) overridden: Overridden,
    pub(super) log: Arc<AccessLog>,
    pub(super) doors: Doors,
    /// The same, open.
    pub(super) open: OpenDoors,
    /// When the doors may be served at.
    pub(super) may_go: flume::Receiver<()>,
    pub(super) succession: Succession,
}

impl Begun {
    /// Binds, loads, resolves, fills, attaches and starts.
    ///
    /// # Errors
    /// What the config needs and cannot be had.
    pub(super) fn begin(
        start: &Start,
        ground: Ground,
        bpf_dir: &Path,
        logs: Vec<Option<AccessLogSetup>>,
        inheritance: &mut Inheritance,
    ) -> anyhow::Result<Self> {
        let Ground { effective, cores, .. } = &ground;
        let mut listener_ids = ListenerIds::default();
        listener_ids.assign(effective);
        let wanted = listeners::wanted(effective, &listener_ids);
        let before = inheritance.groups.iter().map(|group| group.sockets.len()).max().unwrap_or(0);
        let spelled: Vec<_> = wanted.iter().map(|wanted| wanted.spelled_ranges()).collect();
        let stored = wanted.iter().zip(&spelled).map(|(wanted, ranges)| wanted.stored(ranges));
        Store::of_this_start().inherit(stored, WORKERS_MAX as usize, inheritance);
        let (addresses, mut moves) = Addresses::default().prepare_with(wanted, cores.len(), inheritance)?;
        let loaded = opening::load(effective, bpf_dir)?;
        let mut ids = loaded.backend_ids(effective);
        // Listeners are bound: who comes meanwhile waits in their queues.
        let mut names = Names::of(effective, random()?);
        names.look_up_first();
        let mut resolved = effective.with_answers(&names.answers());
        start.history.iter().for_each(|history| history.put_overrides(&mut resolved));
        let mut snapshot = Snapshot::build(&resolved, start.generation, &mut ids)?;
        snapshot.number_listeners(&listener_ids);
        secret::give_keys(&mut snapshot, &start.plan)?;
        let watch = Watch::new(&resolved, &start.plan.directory);
        let certificates = Certificates::none(inheritance.ticket_keys.take())?;
        let certificates = certificates.load(&resolved, &start.plan.directory);
        let certificates = certificates.map_err(|misfits| anyhow::anyhow!("{}", said(&misfits)))?;
        let snapshot = Arc::new(snapshot);
        let checks = prober::views(&resolved, &snapshot, &BTreeMap::new());
        let targets = prober::targets(&resolved, &snapshot, &checks, |pool| certificates.check(pool));
        let inherited = Inherited::of(&snapshot, &targets, inheritance);
        let mut opened = loaded.forward(&start.plan, &snapshot, &inherited.passing())?;
        let health = Arc::new(HealthTable::new(BACKENDS_MAX));
        let (down, known) = inherited.settle(&snapshot, &inheritance.down, &opened.down, &checks, &health);
        // Copies, since the originals go to the workers; they must be gone before a worker can close its listeners.
        let copies = listeners::copies(&moves.opened).context("dup of listening sockets")?;
        let groups = listeners::copies_of_all(&moves.opened).context("dup of listening sockets")?;
        let kept = Kept { held: addresses.held().to_vec(), groups, before };
        let withheld =
            moves.opened.extract_if(.., |group| group.is_udp && inheritance.is_handed_over).collect();
        let siblings = Siblings::with_room(cores.len(), ground.workers_max, random()?).context("eventfd")?;
        let compiled = Compiled::new(snapshot.clone(), &certificates.parts);
        let workers = Workers::start(&siblings, &ground, &compiled, &health, moves.opened, logs)?;
        if let Some(path) = &mut opened.path {
            let held = addresses.held();
            let lost = path.listen(&NewGroups { config: effective, cores, held, opened: &copies });
            opened.warnings.extend(lost);
            opened.warnings.extend(path.give_ranges(held).context(LOST_RANGES)?);
        }
        Ok(Self {
            ground,
            addresses,
            listener_ids,
            ids,
            names,
            snapshot,
            compiled,
            certificates,
            watch,
            health,
            checks,
            targets,
            opened,
            down,
            known,
            kept,
            withheld,
            siblings,
            workers,
        })
    }

    /// Starts the packet path's thread, the probers, the admin API and the thread of changes.
    ///
    /// # Errors
    /// The host refuses a thread, or a write to the state directory.
    pub(super) fn watch(mut self, start: Start, watching: Watching) -> anyhow::Result<(Workers, Watched)> {
        let Watching { overridden, log, doors, open, may_go, succession } = watching;
        let path = self.opened.path.take().map(|path| PlaneMail::start(path, self.opened.down.clone()));
        let path = path.transpose().context("the packet path's thread")?;
        path.iter().for_each(|path| self.down.iter().for_each(|id| path.tell(*id, Verdict::Down)));
        let (changes, letters) = Changes::channel();
        let (reader, reads) = flume::unbounded();
        let documents = GenerationSource::new(move |number, reply| _ = reader.send((number, reply)));
        let mut view = self.view(&start, path.as_ref(), log.metrics.clone(), changes.clone(), documents);
        view.predecessors = succession.predecessors.clone();
        let view = Arc::new(view);
        view.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let prober = self.probe(&view, path.clone())?;
        let views = Views::from(view.clone());
        let server = Server::start_at(views.clone(), doors, open, may_go)?;
        let Start { plan, mut history, record, is_edited, degraded, .. } = start;
        if let (Some(history), Some(record)) = (&mut history, record) {
            history.commit(record).context("the generation that begins")?;
        }
        let has_queues = self.ground.effective.access_log.is_some();
        let live = Live {
            fingerprint: Fingerprint::of(&plan.config),
            plan,
            effective: Arc::new(self.ground.effective),
            ids: self.ids,
            listener_ids: self.listener_ids,
            addresses: self.addresses,
            snapshot: self.snapshot,
            compiled: self.compiled,
            certificates: self.certificates,
            watch: self.watch,
            said: BTreeSet::new(),
            staples: Staples::default(),
            rotate_at: Instant::now() + ROTATION,
            retired: Vec::new(),
            workers: self.workers.publish_to(),
            all: self.workers.clone(),
            leaving: Vec::new(),
            log,
            has_queues,
            shelf: self.siblings.shelf().clone(),
            cores: self.ground.cores,
            health: self.health,
            prober,
            through: self.opened.through.backends,
            path,
            names: self.names,
            views,
            left: BTreeMap::new(),
            open_files: self.ground.open_files,
            overridden,
            history,
            warnings: view.warnings.clone(),
            is_edited,
            degraded,
            doors: server.handle(),
            succession,
            file: SeenFile::default(),
        };
        thread::Builder::new()
            .name("lb-control".into())
            .spawn(move || live.drive(&Asked { letters, reads }))
            .context("the thread of changes")?;
        Ok((self.workers, Watched { view, changes, server, kept: self.kept, withheld: self.withheld }))
    }

    fn view(
        &self,
        start: &Start,
        path: Option<&PlaneMail>,
        log: Arc<LogMetrics>,
        changes: Changes,
        documents: GenerationSource,
    ) -> View {
        let Ground { effective, open_files, warnings, .. } = &self.ground;
        View {
            started: Instant::now(),
            config_path: start.plan.path.clone(),
            config_digest: start.plan.digest.map(|digest| digest.to_string()),
            workers: self.workers.views(),
            checks: Arc::new(self.checks.clone()),
            pools: Arc::new(prober::reports(effective, &self.snapshot, &BTreeMap::new())),
            warnings: warnings.iter().chain(&self.opened.warnings).cloned().collect(),
            open_files: *open_files,
            no_kernel_tls: self.ground.kernel_tls.as_ref().err().cloned(),
            packets: path.map(PlaneMail::source),
            config: Arc::new(start.plan.config.clone()),
            snapshot: self.snapshot.clone(),
            log,
            permits: self.siblings.permits().clone(),
            shelf: self.siblings.shelf().clone(),
            health: self.health.clone(),
            draining: Arc::default(),
            names: self.names.show(),
            certificates: self.certificates.views(&Staples::default()),
            changes: Some(changes),
            etag: Fingerprint::of(&start.plan.config).into(),
            generations: Arc::default(),
            documents: Some(documents),
            overrides: Arc::default(),
            degraded: start.degraded.clone(),
            drift: None,
            predecessors: Predecessors::default(),
        }
    }

    fn probe(&mut self, view: &View, path: Option<PlaneMail>) -> anyhow::Result<Prober> {
        let Opened { through, .. } = &mut self.opened;
        let mut targets = std::mem::take(&mut self.targets);
        for target in &mut targets {
            target.is_through = through.backends.contains(&target.id);
            if self.down.contains(&target.id) {
                target.initial = Verdict::Down;
            }
        }
        let programs = programs_of(&self.ground.effective).map(Programs::start).transpose();
        let programs = programs.context("[health] programs_dir")?;
        let tell = move |id, verdict| path.iter().for_each(|mail: &PlaneMail| mail.tell(id, verdict));
        let metrics = view.workers.iter().map(|worker| worker.metrics.clone()).collect();
        let watches = Watches::new(&self.snapshot, metrics, self.siblings.alarms().clone());
        let known = std::mem::take(&mut self.known);
        watches.resume(&known);
        let (snapshot, health, down) = (self.snapshot.clone(), self.health.clone(), self.down.clone());
        let (checks, pools) = (view.checks.clone(), view.pools.clone());
        let board = move || {
            let board = Board::new(&snapshot, &checks, &pools, health, &down, Box::new(tell));
            board.resume(&known);
            board
        };
        Ok(prober::start(targets, watches, random()?, through.ports.take(), programs, board)?)
    }
}
