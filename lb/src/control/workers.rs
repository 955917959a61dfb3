//! Starts the workers and sees them end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use sd_notify::NotifyState;

use super::{
    ground::Ground,
    listeners::Group,
    signals::{Phase, Step, Wish},
    systemd::notify,
    watchdog::Watchdog,
};
use crate::{
    admin::WorkerView,
    health::HealthTable,
    limits::Admission,
    metrics::WorkerMetrics,
    model::WorkerId,
    sys::heap,
    tls::KernelSuites,
    worker::{
        AccessLogSetup, BoundListener, Command, CommandSender, Compiled, Handle, LentFlow, Setup, Siblings,
    },
};

/// How long a drain may last.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a worker may take to stop at once; then the process ends over it.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long one that drains may take to say that it stays.
const RETURN_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at the workers.
const LOOK: Duration = Duration::from_millis(100);

/// All workers, shared by who waits for their end and who changes how many there are.
#[derive(Clone, Debug)]
pub(super) struct Workers {
    roster: Arc<Mutex<Roster>>,
    siblings: Arc<Siblings>,
    health: Arc<HealthTable>,
    admission: Arc<Admission>,
    kernel_suites: KernelSuites,
}

#[derive(Debug, Default)]
struct Roster {
    serving: Vec<Handle>,
    /// They take nothing new, and end by themselves.
    leaving: Vec<Leaver>,
}

#[derive(Debug)]
struct Leaver {
    handle: Handle,
    deadline: Instant,
}

impl Roster {
    fn all(&self) -> impl Iterator<Item = &Handle> {
        self.serving.iter().chain(self.leaving.iter().map(|leaver| &leaver.handle))
    }
}

/// Workers that are to serve, and listen at nothing yet. Dropped, those that are new end, and those that were about to
/// leave do so.
#[derive(Debug)]
pub(super) struct Recruits {
    /// With when they were to have left, where they were about to.
    handles: Vec<(Handle, Option<Instant>)>,
    roster: Arc<Mutex<Roster>>,
}

impl Recruits {
    /// For who publishes to them.
    pub(super) fn publish_to(&self) -> Vec<Worker> {
        self.handles.iter().map(|(handle, _)| worker(handle)).collect()
    }
}

impl Drop for Recruits {
    fn drop(&mut self) {
        for (handle, leaves_by) in self.handles.drain(..) {
            match leaves_by {
                Some(deadline) => {
                    handle.send(Command::HandOver { deadline, flows: None });
                    lock(&self.roster).leaving.push(Leaver { handle, deadline });
                }
                None => {
                    handle.send(Command::Stop);
                    join(handle);
                }
            }
        }
    }
}

fn lock(roster: &Mutex<Roster>) -> MutexGuard<'_, Roster> {
    roster.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has one that is about to leave stay. False: it has left.
fn call_back(handle: &Handle, access_log: Option<AccessLogSetup>) -> anyhow::Result<bool> {
    let (taken, heard) = flume::bounded(1);
    handle.send(Command::Return { taken, access_log });
    let is_heard = || heard.try_recv().is_ok();
    let mut stays = false;
    let has_said = wait_until(Instant::now() + RETURN_PATIENCE, || {
        stays = is_heard();
        stays || handle.is_finished()
    });
    anyhow::ensure!(has_said, "it drains, and has not answered within {RETURN_PATIENCE:?}");
    // It may have said so and ended for another reason; whoever waits for its end sees that.
    Ok(stays || is_heard())
}

fn worker(handle: &Handle) -> Worker {
    Worker { commands: handle.sender(), metrics: handle.metrics.clone() }
}

fn join(handle: Handle) {
    let id = handle.id;
    if let Err(error) = handle.join() {
        tracing::error!(worker = %id, %error, "a worker's ring failed under it");
    }
}

impl Workers {
    /// Starts one on each core that there is ground for, with its sockets of every group.
    ///
    /// # Errors
    /// The host refuses io_uring or a thread; those that were started end with the process.
    pub(super) fn start(
        siblings: &Arc<Siblings>,
        ground: &Ground,
        compiled: &Arc<Compiled>,
        health: &Arc<HealthTable>,
        groups: Vec<Group>,
        logs: Vec<Option<AccessLogSetup>>,
    ) -> anyhow::Result<Self> {
        let (siblings, health) = (siblings.clone(), health.clone());
        let (cores, kernel_suites) = (&ground.cores, ground.kernel_tls.as_ref().copied().unwrap_or_default());
        let admission = Admission::new();
        let workers = Self { roster: Arc::default(), siblings, health, admission, kernel_suites };
        let parts = by_worker(groups, cores.len()).into_iter().zip(logs);
        for ((&core, (listeners, log)), id) in cores.iter().zip(parts).zip(0..) {
            let handle = workers.start_one(WorkerId(id), core, compiled, listeners, log)?;
            workers.roster().serving.push(handle);
        }
        Ok(workers)
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        lock(&self.roster)
    }

    fn start_one(
        &self,
        id: WorkerId,
        core: usize,
        compiled: &Arc<Compiled>,
        listeners: Vec<BoundListener>,
        access_log: Option<AccessLogSetup>,
    ) -> anyhow::Result<Handle> {
        let setup = Setup {
            id,
            core,
            compiled: compiled.clone(),
            health: self.health.clone(),
            admission: self.admission.clone(),
            siblings: self.siblings.clone(),
            access_log,
            kernel_suites: self.kernel_suites,
            listeners,
        };
        Handle::start(setup).with_context(|| format!("worker {id} on core {core}"))
    }

    /// What they share.
    pub(super) const fn siblings(&self) -> &Arc<Siblings> {
        &self.siblings
    }

    /// Starts further ones, for those of `cores` that have none, or has those stay that are about to leave.
    ///
    /// # Errors
    /// The host refuses io_uring or a thread, or one that drains does not answer.
    pub(super) fn recruit(
        &self,
        cores: &[usize],
        compiled: &Arc<Compiled>,
        mut log: impl FnMut() -> anyhow::Result<Option<AccessLogSetup>>,
    ) -> anyhow::Result<Recruits> {
        let count = self.roster().serving.len();
        let mut recruits = Recruits { handles: Vec::new(), roster: self.roster.clone() };
        self.siblings.make_room(cores.len().max(count)).context("places of workers")?;
        for (&core, id) in cores.iter().zip(0..).skip(count) {
            let id = WorkerId(id);
            let leaver = self.roster().leaving.extract_if(.., |leaver| leaver.handle.id == id).next();
            if let Some(Leaver { handle, deadline }) = leaver {
                match call_back(&handle, log()?) {
                    Ok(true) => {
                        recruits.handles.push((handle, Some(deadline)));
                        continue;
                    }
                    Ok(false) => join(handle),
                    Err(error) => {
                        self.roster().leaving.push(Leaver { handle, deadline });
                        return Err(error.context(format!("worker {id}")));
                    }
                }
            }
            recruits.handles.push((self.start_one(id, core, compiled, Vec::new(), log()?)?, None));
        }
        Ok(recruits)
    }

    /// They serve from now on.
    pub(super) fn enlist(&self, mut recruits: Recruits) {
        let handles: Vec<_> = recruits.handles.drain(..).map(|(handle, _)| handle).collect();
        self.roster().serving.extend(handles);
    }

    /// Those beyond `count` may end from now on, and will have by `deadline`; they are told elsewhere.
    pub(super) fn dismiss(&self, count: usize, deadline: Instant) {
        let mut roster = self.roster();
        let stay = roster.serving.len().min(count);
        let gone = roster.serving.split_off(stay);
        roster.leaving.extend(gone.into_iter().map(|handle| Leaver { handle, deadline }));
    }

    /// They are on these cores from now on.
    pub(super) fn set_cores(&self, cores: &[usize]) {
        self.roster().serving.iter_mut().zip(cores).for_each(|(handle, core)| handle.core = *core);
    }

    /// For who publishes to them.
    pub(super) fn publish_to(&self) -> Vec<Worker> {
        self.roster().serving.iter().map(worker).collect()
    }

    /// Has them listen at further sockets for datagrams, and go on with flows of another process there.
    pub(super) fn take_over(&self, groups: Vec<Group>, flows: Vec<Vec<LentFlow>>) {
        let roster = self.roster();
        let opened = by_worker(groups, roster.serving.len());
        for ((handle, opened), flows) in roster.serving.iter().zip(opened).zip(flows) {
            handle.send(Command::TakeOver { opened, flows });
        }
    }

    /// What the admin API sees of them.
    pub(super) fn views(&self) -> Vec<WorkerView> {
        let view = |handle: &Handle| WorkerView {
            id: handle.id,
            core: handle.core,
            metrics: handle.metrics.clone(),
            has_left: false,
        };
        self.roster().serving.iter().map(view).collect()
    }

    /// Serves until the operator wants an end and has it. A worker may end before that where `may_end` says so.
    /// `on_drain` is called once, when the drain begins; `on_wish` with what is wished that is not the workers' business.
    ///
    /// # Errors
    /// A worker ended though nobody wanted it to.
    pub(super) fn serve_until_end(
        self,
        wishes: &flume::Receiver<Wish>,
        may_end: impl Fn() -> bool,
        on_drain: impl FnOnce(),
        on_wish: impl Fn(Wish),
    ) -> anyhow::Result<()> {
        let mut phase = Phase::Serving;
        let (mut on_drain, mut stop_by) = (Some(on_drain), None);
        let mut lost = None;
        let limit = sd_notify::watchdog_enabled();
        let mut watchdog = Watchdog::new(limit, Instant::now());
        let mut turns = 0;
        loop {
            let wish = wishes.recv_timeout(LOOK);
            let now = Instant::now();
            self.watch(&mut watchdog, now);
            self.see_off();
            self.weigh(&mut turns);
            let mut steps = vec![phase.handle_timeout(now)];
            if let Ok(wish) = wish {
                steps.push(phase.handle(wish, now, DRAIN_PATIENCE));
            }
            if phase == Phase::Serving
                && let Some(dead) = self.dead()
                && !may_end()
            {
                lost = Some(dead);
                tracing::error!(worker = %dead, "a worker ended; draining the others");
                steps.push(phase.handle(Wish::End, now, DRAIN_PATIENCE));
            }
            for step in steps.into_iter().flatten() {
                match step {
                    Step::ReopenLog => on_wish(Wish::ReopenLog),
                    Step::Reload => on_wish(Wish::Reload),
                    Step::HandOver { .. } => on_wish(Wish::HandOver(Duration::ZERO)),
                    Step::Drain { .. } | Step::Stop => {}
                }
                self.take(step, on_drain.take_if(|_| matches!(step, Step::Drain { .. })));
                stop_by = stop_by.or((step == Step::Stop).then_some(now + STOP_PATIENCE));
            }
            if phase != Phase::Serving && self.roster().all().all(Handle::is_finished) {
                let Roster { serving, leaving } = std::mem::take(&mut *self.roster());
                serving.into_iter().chain(leaving.into_iter().map(|leaver| leaver.handle)).for_each(join);
                break;
            }
            if stop_by.is_some_and(|by| now >= by) {
                tracing::warn!("workers did not stop in time; ending over them");
                break;
            }
        }
        match lost {
            Some(id) => Err(anyhow::anyhow!("worker {id} ended though nobody wanted it to")),
            None => Ok(()),
        }
    }

    /// One that should serve, and has ended.
    fn dead(&self) -> Option<WorkerId> {
        self.roster().serving.iter().find(|handle| handle.is_finished()).map(|handle| handle.id)
    }

    /// Measures the heap, where any worker has turned since: that takes a millisecond where the config is large, which is
    /// not to be a worker's.
    fn weigh(&self, turns: &mut u64) {
        let turned = self.roster().all().map(|handle| handle.metrics.turns.value()).sum();
        if std::mem::replace(turns, turned) != turned {
            self.admission.memory().set_heap(heap::in_use().unwrap_or(0));
        }
    }

    /// Those that have left and ended.
    fn see_off(&self) {
        let has_ended = |leaver: &mut Leaver| leaver.handle.is_finished();
        let ended: Vec<_> = self.roster().leaving.extract_if(.., has_ended).collect();
        for Leaver { handle, .. } in ended {
            tracing::info!(worker = %handle.id, "a worker that has left has ended");
            join(handle);
        }
    }

    /// Pings systemd, where it waits for that and every worker turns.
    fn watch(&self, watchdog: &mut Watchdog, now: Instant) {
        let roster = self.roster();
        let turning = |handle: &Handle| !handle.is_finished();
        let metrics = roster.serving.iter().map(|handle| turning(handle).then_some(&*handle.metrics));
        let looked = watchdog.look(now, metrics);
        let named = |at: &usize| roster.serving.get(*at).map(|handle| (handle.id, handle.core));
        for (worker, core) in looked.stuck.iter().filter_map(named) {
            tracing::error!(%worker, core, "a worker is stuck: the watchdog is not told that all is well");
        }
        for (worker, core) in looked.back.iter().filter_map(named) {
            tracing::warn!(%worker, core, "a worker that was stuck turns again");
        }
        if looked.pings {
            notify(&[NotifyState::Watchdog]);
        }
    }

    fn take(&self, step: Step, on_drain: Option<impl FnOnce()>) {
        match step {
            Step::ReopenLog | Step::Reload => {}
            Step::Drain { deadline } => {
                tracing::info!(seconds = DRAIN_PATIENCE.as_secs(), "draining; a second signal stops at once");
                on_drain.into_iter().for_each(|on_drain| on_drain());
                self.tell(|| Command::Drain { deadline });
            }
            Step::HandOver { deadline } => {
                let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
                tracing::info!(seconds, "another process has taken over; draining; a signal stops at once");
                self.tell(|| Command::HandOver { deadline, flows: None });
            }
            Step::Stop => {
                tracing::info!("stopping");
                self.tell(|| Command::Stop);
            }
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        self.roster().all().for_each(|handle| handle.send(command()));
    }
}

/// One worker.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) commands: CommandSender,
    pub(super) metrics: Arc<WorkerMetrics>,
}

/// Between two looks whether they have. Short: it is a part of every change.
const HEARING: Duration = Duration::from_micros(100);

/// Whether it is so by then.
pub(super) fn wait_until(deadline: Instant, mut is_so: impl FnMut() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(HEARING);
    }
}

/// Whose a socket is, of so many workers.
pub(super) const fn owner(place: usize, workers: usize) -> usize {
    place % workers
}

/// From sockets by address to sockets by worker.
pub(super) fn by_worker(groups: Vec<Group>, workers: usize) -> Vec<Vec<BoundListener>> {
    let mut split: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(groups.len())).collect();
    for Group { id: group, listener, first, sockets, .. } in groups {
        for (place, socket) in (first..).zip(sockets) {
            split[owner(place, workers)].push(BoundListener { group, place, listener, socket });
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::model::{GroupId, ListenerId};

    #[test]
    fn the_nth_socket_of_each_group_goes_to_worker_n() {
        let group = |listener: u16| Group {
            id: GroupId(listener.into()),
            listener: ListenerId(listener),
            address: "127.0.0.1:1".parse().unwrap(),
            is_udp: false,
            first: 0,
            sockets: (0..2).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect(),
            ranges: Vec::new(),
        };
        let groups = vec![group(0), group(1), group(1)];
        let expected: Vec<Vec<i32>> = (0..2)
            .map(|worker| groups.iter().map(|group| group.sockets[worker].as_raw_fd()).collect())
            .collect();
        let split = by_worker(groups, 2);
        for (sockets, fds) in split.iter().zip(expected) {
            assert_eq!(sockets.iter().map(|bound| bound.socket.as_raw_fd()).collect::<Vec<_>>(), fds);
            let listeners: Vec<_> = sockets.iter().map(|bound| bound.listener.0).collect();
            assert_eq!(listeners, [0, 1, 1]);
        }
    }

    #[test]
    fn where_workers_have_gone_others_have_more_than_one() {
        let sockets = || std::fs::File::open("/dev/null").unwrap().into();
        let group = Group {
            id: GroupId(7),
            listener: ListenerId(0),
            address: "127.0.0.1:1".parse().unwrap(),
            is_udp: false,
            first: 1,
            sockets: (0..4).map(|_| sockets()).collect(),
            ranges: Vec::new(),
        };
        let places = by_worker(vec![group], 3)
            .iter()
            .map(|theirs| theirs.iter().map(|bound| bound.place).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        assert_eq!(places, [vec![3], vec![1, 4], vec![2]]);
    }
}
