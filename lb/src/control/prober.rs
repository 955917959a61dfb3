//! Drives the health checks: one task per checked backend, on an executor that does nothing else.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement, timer::sleep};

use super::{
    board::Board,
    known::Known,
    outliers::Watches,
    probe_miss::Miss,
    probe_socket::Through,
    probe_talk::{self, Secure, Way},
    programs::Programs,
    target::{Change, Reports, Target},
};
use crate::{
    admin::{CheckView, server::IO_MEMORY},
    config::{CheckKind, Config, PoolSnapshot, Snapshot},
    health::{Action, Check, Event, Policy, Script, Verdict},
    metrics::ProbeEnd,
    model::{BackendAddress, BackendId},
    steering::ProbePorts,
    tls::Upstream,
};

/// What is to be known of every backend whose state may change.
/// `before`: who was there already.
pub(super) fn views(
    config: &Config,
    snapshot: &Snapshot,
    before: &BTreeMap<BackendId, CheckView>,
) -> BTreeMap<BackendId, CheckView> {
    let mut views = BTreeMap::new();
    for pool in snapshot.pools.iter().filter(|pool| may_change(config, pool)) {
        let health = config.pools.get(&pool.name).and_then(|config| config.health.as_ref());
        let kind = health.map(|health| health.kind.name());
        let view =
            |id| before.get(&id).cloned().unwrap_or_else(|| CheckView { kind, ..CheckView::default() });
        views.extend(pool.backends.iter().map(|backend| (backend.id, view(backend.id))));
    }
    views
}

/// The same of every such pool.
pub(super) fn reports(config: &Config, snapshot: &Snapshot, before: &Reports) -> Reports {
    let pools = snapshot.pools.iter().filter(|pool| may_change(config, pool));
    let report = |name| before.get(name).cloned().unwrap_or_default();
    pools.map(|pool| (pool.name.clone(), report(&pool.name))).collect()
}

fn may_change(config: &Config, pool: &PoolSnapshot) -> bool {
    pool.choosing.outlier.is_some()
        || config.pools.get(&pool.name).is_some_and(|config| config.health.is_some())
}

/// Every backend of every pool with active checks, once. `secure`: how the checks of a pool speak TLS.
pub(super) fn targets(
    config: &Config,
    snapshot: &Snapshot,
    views: &BTreeMap<BackendId, CheckView>,
    secure: impl Fn(&str) -> Option<Arc<Upstream>>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for pool in &snapshot.pools {
        let Some(health) = config.pools.get(&pool.name).and_then(|config| config.health.as_ref()) else {
            continue;
        };
        for backend in &pool.backends {
            let Some(view) = views.get(&backend.id) else { continue };
            let address = match (&backend.address, health.port) {
                (BackendAddress::Ip(own), Some(port)) => SocketAddr::new(own.ip(), port).into(),
                (own, _) => own.clone(),
            };
            targets.push(Target {
                id: backend.id,
                pool_name: pool.name.clone(),
                health: health.clone(),
                name: backend.name.clone(),
                script: Script::new(&health.kind, &address),
                authority: health.kind.host().map_or_else(|| address.to_string().into(), Arc::from),
                secure: secure(&pool.name).map(|upstream| {
                    let name = server_name(&health.kind, &address);
                    Secure { upstream, name }
                }),
                address,
                program: match &health.kind {
                    CheckKind::Exec(program) => Some(program.clone()),
                    _ => None,
                },
                policy: Policy {
                    every: health.every,
                    recheck: health.recheck.unwrap_or(health.every),
                    jitter: health.jitter,
                    timeout: health.timeout,
                    fall: health.fall,
                    rise: health.rise,
                },
                metrics: view.metrics.clone(),
                report: view.report.clone(),
                initial: Verdict::Up,
                is_through: false,
            });
        }
    }
    targets
}

/// Whom a certificate must be for: a name, or an address.
fn server_name(kind: &CheckKind, address: &BackendAddress) -> Arc<str> {
    if let Some(sni) = kind.tls().and_then(|tls| tls.sni.clone()) {
        return sni;
    }
    let host = kind.host().map(|host| match (host.strip_prefix('['), host.rsplit_once(':')) {
        (Some(literal), _) => literal.split(']').next().unwrap_or(literal),
        (None, Some((name, _port))) => name,
        (None, None) => host,
    });
    match (host, address) {
        (Some(host), _) => host.into(),
        (None, BackendAddress::Ip(address)) => address.ip().to_string().into(),
        (None, BackendAddress::Unix(address)) => address.to_string().into(),
    }
}

impl Target {
    /// Whether a check of the one may go on as one of the other.
    fn is_alike(&self, other: &Self) -> bool {
        self.address == other.address
            && self.health == other.health
            && self.secure == other.secure
            && self.pool_name == other.pool_name
            && self.is_through == other.is_through
            && Arc::ptr_eq(&self.report, &other.report)
    }
}

enum Mail {
    Change(Box<Change>),
    Tell(flume::Sender<Vec<Known>>),
}

/// For changes of who is there, and for who asks.
pub(super) struct Prober(flume::Sender<Mail>);

impl Prober {
    /// Those that were there before go on as they were.
    pub(super) fn change(&self, change: Change) {
        // The thread ends only by a panic, which ends the process.
        _ = self.0.send(Mail::Change(Box::new(change)));
    }

    /// Whom exchanges have spoken against; `None`: not said within `patience`.
    pub(super) fn known(&self, patience: Duration) -> Option<Vec<Known>> {
        let (sender, known) = flume::bounded(1);
        self.0.send(Mail::Tell(sender)).ok()?;
        known.recv_timeout(patience).ok()
    }
}

/// Starts checking and watching. `ports` is for targets whose probes go the way of traffic, `programs` for those that are
/// asked by one. The thread ends with the process.
///
/// # Errors
/// The host refuses glommio's executor.
pub(super) fn start(
    targets: Vec<Target>,
    watches: Watches,
    seed: u64,
    ports: Option<ProbePorts>,
    programs: Option<Programs>,
    board: impl FnOnce() -> Board + Send + 'static,
) -> io::Result<Prober> {
    let (sender, mail) = flume::unbounded::<Mail>();
    LocalExecutorBuilder::new(Placement::Unbound)
        .name("lb-probers")
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let (board, watches) = (Rc::new(board()), Rc::new(watches));
            let world = Rc::new(World {
                board: board.clone(),
                ports: RefCell::new(ports.map(RefCell::new).map(Rc::new)),
                programs: RefCell::new(programs),
            });
            let begin = |target: Target| {
                let check = glommio::spawn_local(drive_check(target.clone(), seed, world.clone()));
                (target.id, (target, check))
            };
            let mut checks: BTreeMap<_, _> = targets.into_iter().map(begin).collect();
            let _watching = glommio::spawn_local(watches.clone().drive(board.clone()));
            while let Ok(mail) = mail.recv_async().await {
                let mut change = match mail {
                    Mail::Change(change) => change,
                    // Whoever asked may have given up.
                    Mail::Tell(asker) => {
                        _ = asker.send(watches.known(&board));
                        continue;
                    }
                };
                if let Some(ports) = change.ports.take() {
                    world.ports.replace(Some(Rc::new(RefCell::new(ports))));
                }
                if let Some(programs) = change.programs.take() {
                    world.programs.replace(Some(programs));
                }
                board.take_over(&change);
                watches.take_over(&change.snapshot, &change.workers);
                let ids: BTreeSet<_> = change.targets.iter().map(|target| target.id).collect();
                // Dropped, a check ends where it waits.
                checks.retain(|id, _| ids.contains(id));
                for mut target in change.targets {
                    if checks.get(&target.id).is_some_and(|(known, _)| known.is_alike(&target)) {
                        continue;
                    }
                    target.initial = board.verdict(&target.pool_name, target.id);
                    checks.extend([begin(target)]);
                }
            }
            // Nobody will change them any more.
            std::future::pending::<()>().await;
        })
        .map(|_| Prober(sender))
        .map_err(|error| io::Error::other(format!("prober executor: {error}")))
}

struct World {
    board: Rc<Board>,
    ports: RefCell<Option<Rc<RefCell<ProbePorts>>>>,
    programs: RefCell<Option<Programs>>,
}

async fn drive_check(target: Target, seed: u64, world: Rc<World>) {
    let mut check = Check::new(target.policy, target.initial, seed ^ u64::from(target.id.0), Instant::now());
    loop {
        sleep(check.poll_timeout().saturating_duration_since(Instant::now())).await;
        check.handle_timeout(Instant::now());
        if let Some(Action::Probe { deadline }) = check.poll() {
            let probed = probe(&target, &world, &mut check, deadline).await;
            world.conclude(&target, probed, check.poll());
        }
    }
}

/// What came of a probe.
struct Probed {
    end: ProbeEnd,
    took: Duration,
    /// `check http /healthz: 503, 2 of 3`.
    finding: String,
}

async fn probe(target: &Target, world: &World, check: &mut Check, deadline: Instant) -> Probed {
    let (began, before) = (Instant::now(), (check.verdict(), check.run().1));
    let (end, what) = match world.ask(target, deadline).await.err() {
        None => (ProbeEnd::Answered, "passed".to_owned()),
        Some(Miss::Silent { is_connected: true }) if target.script.may_be_silent() => {
            (ProbeEnd::Quiet, "not refused".to_owned())
        }
        Some(Miss::Silent { is_connected }) => {
            let what = if is_connected { "answer" } else { "connection" };
            (ProbeEnd::TimedOut, format!("no {what} within {:?}", target.policy.timeout))
        }
        Some(Miss::Fault(fault)) => (fault.end, fault.text),
        Some(Miss::Local(what)) => (ProbeEnd::Local, what),
    };
    let now = Instant::now();
    match end {
        ProbeEnd::Answered => check.handle(Event::Answered, now),
        ProbeEnd::Quiet => check.handle(Event::Quiet, now),
        ProbeEnd::Local => check.handle(Event::NotAsked, now),
        // The ring's timeout may fire a little before our own clock agrees.
        ProbeEnd::TimedOut => check.handle_timeout(now.max(deadline)),
        _ => check.handle(Event::Failed, now),
    }
    let finding = target.finding(&what, before, check);
    Probed { end, took: now.saturating_duration_since(began), finding }
}

impl World {
    /// Counts, writes down and tells what came of a probe; `action` is what its check makes of it.
    fn conclude(&self, target: &Target, probed: Probed, action: Option<Action>) {
        let Probed { end, took, finding } = probed;
        let end = match action {
            Some(Action::Discounted) if end != ProbeEnd::Local => ProbeEnd::Discounted,
            _ => end,
        };
        target.metrics.of(end).add(1);
        let (pool, backend) = (&target.pool_name, &target.name);
        match end {
            ProbeEnd::Answered | ProbeEnd::Quiet => target.report.passed(took),
            ProbeEnd::Discounted => {}
            // Somebody has to see to that, and hears of it once.
            ProbeEnd::Local if target.report.findings().failed.is_none_or(|(_, known)| known != finding) => {
                tracing::warn!(%pool, %backend, reason = finding, "this host cannot probe");
                target.report.failed(took, Instant::now(), &finding);
            }
            _ => {
                tracing::debug!(%pool, %backend, reason = finding, "probe failed");
                target.report.failed(took, Instant::now(), &finding);
            }
        }
        if let Some(Action::Tell(verdict)) = action {
            self.board.judge(&target.pool_name, target.id, verdict, &finding);
        }
    }

    async fn ask(&self, target: &Target, deadline: Instant) -> Result<(), Miss> {
        let programs = self.programs.borrow().clone();
        if let (Some(program), Some(programs)) = (&target.program, programs) {
            return programs.run(program, target.environment(), deadline).await;
        }
        let ports = self.ports.borrow().clone().filter(|_| target.is_through);
        let through = ports.as_deref().map(|ports| Through { number: target.id.0, ports });
        let Target { address, authority, secure, .. } = target;
        let way = Way { address, authority, secure: secure.as_ref(), through };
        probe_talk::ask(&target.script, way, deadline).await
    }
}

impl Target {
    /// What a program is told.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let (address, port) = match &self.address {
            BackendAddress::Ip(address) => (address.ip().to_string(), address.port().to_string()),
            BackendAddress::Unix(address) => (address.to_string(), String::new()),
        };
        vec![
            ("LB_ADDRESS", address),
            ("LB_PORT", port),
            ("LB_BACKEND", self.name.to_string()),
            ("LB_POOL", self.pool_name.to_string()),
        ]
    }

    /// `check http /healthz: 503, 2 of 3`, where the outcome speaks against the verdict, which was `before` with so many
    /// that would change it.
    fn finding(&self, what: &str, before: (Verdict, u32), check: &Check) -> String {
        let label = self.script.label();
        let (count, needed) = match (check.verdict() == before.0, check.run()) {
            (true, run) => run,
            (false, _) => (before.1, before.1),
        };
        match count {
            0 => format!("{label}: {what}"),
            count => format!("{label}: {what}, {count} of {needed}"),
        }
    }
}

#[cfg(test)]
mod tests;
