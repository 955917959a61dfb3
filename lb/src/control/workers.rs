//! Starts the workers and sees them end.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use sd_notify::NotifyState;

use super::{
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
    worker::{
        AccessLogSetup, BoundListener, Command, CommandSender, Compiled, Handle, LentFlow, Setup, Siblings,
    },
};

/// How long a drain may last.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a worker may take to stop at once; then the process ends over it.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at the workers.
const LOOK: Duration = Duration::from_millis(100);

/// All workers.
#[derive(Debug)]
pub(super) struct Workers(Vec<Handle>);

impl Workers {
    /// Starts one on each of `cores`, with its sockets of every group.
    ///
    /// # Errors
    /// The host refuses io_uring or a thread; those that were started end with the process.
    pub(super) fn start(
        siblings: &Arc<Siblings>,
        cores: &[usize],
        compiled: &Arc<Compiled>,
        health: &Arc<HealthTable>,
        groups: Vec<Group>,
        logs: Vec<Option<AccessLogSetup>>,
    ) -> anyhow::Result<Self> {
        let admission = Admission::new();
        let mut handles = Vec::with_capacity(cores.len());
        let parts = by_worker(groups, cores.len()).into_iter().zip(logs);
        for ((&core, (listeners, access_log)), id) in cores.iter().zip(parts).zip(0..) {
            let setup = Setup {
                id: WorkerId(id),
                core,
                compiled: compiled.clone(),
                health: health.clone(),
                admission: admission.clone(),
                siblings: siblings.clone(),
                access_log,
                listeners,
            };
            handles.push(Handle::start(setup).with_context(|| format!("worker {id} on core {core}"))?);
        }
        Ok(Self(handles))
    }

    /// For who publishes to them.
    pub(super) fn publish_to(&self) -> Vec<Worker> {
        let worker = |handle: &Handle| Worker { commands: handle.sender(), metrics: handle.metrics.clone() };
        self.0.iter().map(worker).collect()
    }

    /// Has them listen at further sockets for datagrams, and go on with flows of another process there.
    pub(super) fn take_over(&self, groups: Vec<Group>, flows: Vec<Vec<LentFlow>>) {
        let opened = by_worker(groups, self.0.len());
        for ((handle, opened), flows) in self.0.iter().zip(opened).zip(flows) {
            handle.send(Command::TakeOver { opened, flows });
        }
    }

    /// What the admin API sees of them.
    pub(super) fn views(&self) -> Vec<WorkerView> {
        let view = |handle: &Handle| WorkerView {
            id: handle.id,
            core: handle.core,
            metrics: handle.metrics.clone(),
        };
        self.0.iter().map(view).collect()
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
        let mut watchdog = Watchdog::new(limit, self.0.len(), Instant::now());
        loop {
            let wish = wishes.recv_timeout(LOOK);
            let now = Instant::now();
            self.watch(&mut watchdog, now);
            let mut steps = vec![phase.handle_timeout(now)];
            if let Ok(wish) = wish {
                steps.push(phase.handle(wish, now, DRAIN_PATIENCE));
            }
            if phase == Phase::Serving
                && let Some(dead) = self.0.iter().find(|handle| handle.is_finished())
                && !may_end()
            {
                lost = Some(dead.id);
                tracing::error!(worker = %dead.id, "a worker ended; draining the others");
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
            if phase != Phase::Serving && self.0.iter().all(Handle::is_finished) {
                for handle in self.0 {
                    let id = handle.id;
                    if let Err(error) = handle.join() {
                        tracing::error!(worker = %id, %error, "a worker's ring failed under it");
                    }
                }
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

    /// Pings systemd, where it waits for that and every worker turns.
    fn watch(&self, watchdog: &mut Watchdog, now: Instant) {
        let turning = |handle: &Handle| !handle.is_finished();
        let metrics = self.0.iter().map(|handle| turning(handle).then_some(&*handle.metrics));
        let looked = watchdog.look(now, metrics);
        let named = |at: &usize| self.0.get(*at).map(|handle| (handle.id, handle.core));
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
                self.0.iter().for_each(|handle| handle.send(Command::Drain { deadline }));
            }
            Step::HandOver { deadline } => {
                let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
                tracing::info!(seconds, "another process has taken over; draining; a signal stops at once");
                self.0.iter().for_each(|handle| handle.send(Command::HandOver { deadline, flows: None }));
            }
            Step::Stop => {
                tracing::info!("stopping");
                self.0.iter().for_each(|handle| handle.send(Command::Stop));
            }
        }
    }
}

/// One worker.
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

/// From sockets by address to sockets by worker.
pub(super) fn by_worker(groups: Vec<Group>, workers: usize) -> Vec<Vec<BoundListener>> {
    let mut split: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(groups.len())).collect();
    for Group { id: group, listener, sockets, .. } in groups {
        for (theirs, socket) in split.iter_mut().zip(sockets) {
            theirs.push(BoundListener { group, listener, socket });
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
}
