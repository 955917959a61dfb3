//! Starts the workers and sees them end.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    listeners::Group,
    signals::{Phase, Step, Wish},
};
use crate::{
    admin::WorkerView,
    config::Snapshot,
    health::HealthTable,
    limits::Admission,
    metrics::WorkerMetrics,
    model::{ListenerId, WorkerId},
    worker::{AccessLogSetup, BoundListener, Command, Handle, Setup},
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
        cores: &[usize],
        snapshot: &Arc<Snapshot>,
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
                snapshot: snapshot.clone(),
                health: health.clone(),
                admission: admission.clone(),
                metrics: Arc::new(WorkerMetrics::new()),
                access_log,
                listeners: listeners
                    .into_iter()
                    .map(|(listener, socket)| BoundListener { listener, socket })
                    .collect(),
            };
            handles.push(Handle::start(setup).with_context(|| format!("worker {id} on core {core}"))?);
        }
        Ok(Self(handles))
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

    /// Serves until the operator wants an end and has it. `on_drain` is called once, when the drain begins;
    /// `on_reopen` when the access log was renamed.
    ///
    /// # Errors
    /// A worker ended though nobody wanted it to.
    pub(super) fn serve_until_end(
        self,
        wishes: &flume::Receiver<Wish>,
        on_drain: impl FnOnce(),
        on_reopen: impl Fn(),
    ) -> anyhow::Result<()> {
        let mut phase = Phase::Serving;
        let (mut on_drain, mut stop_by) = (Some(on_drain), None);
        let mut lost = None;
        loop {
            let wish = wishes.recv_timeout(LOOK);
            let now = Instant::now();
            let mut steps = vec![phase.handle_timeout(now)];
            if let Ok(wish) = wish {
                steps.push(phase.handle(wish, now, DRAIN_PATIENCE));
            }
            if phase == Phase::Serving
                && let Some(dead) = self.0.iter().find(|handle| handle.is_finished())
            {
                lost = Some(dead.id);
                tracing::error!(worker = %dead.id, "a worker ended; draining the others");
                steps.push(phase.handle(Wish::End, now, DRAIN_PATIENCE));
            }
            for step in steps.into_iter().flatten() {
                if step == Step::ReopenLog {
                    on_reopen();
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

    fn take(&self, step: Step, on_drain: Option<impl FnOnce()>) {
        match step {
            Step::ReopenLog => {}
            Step::RefuseReload => {
                tracing::warn!("SIGHUP: reload is not supported yet; the config stays as it is");
            }
            Step::Drain { deadline } => {
                tracing::info!(seconds = DRAIN_PATIENCE.as_secs(), "draining; a second signal stops at once");
                on_drain.into_iter().for_each(|on_drain| on_drain());
                self.0.iter().for_each(|handle| handle.send(Command::Drain { deadline }));
            }
            Step::Stop => {
                tracing::info!("stopping");
                self.0.iter().for_each(|handle| handle.send(Command::Stop));
            }
        }
    }
}

/// From sockets by address to sockets by worker.
fn by_worker(groups: Vec<Group>, workers: usize) -> Vec<Vec<(ListenerId, OwnedFd)>> {
    let mut split: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(groups.len())).collect();
    for group in groups {
        for (sockets, socket) in split.iter_mut().zip(group.sockets) {
            sockets.push((group.listener, socket));
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_nth_socket_of_each_group_goes_to_worker_n() {
        let group = |listener| Group {
            listener: ListenerId(listener),
            address: "127.0.0.1:1".parse().unwrap(),
            sockets: (0..2).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect(),
            ranges: Vec::new(),
        };
        let groups = vec![group(0), group(1), group(1)];
        let expected: Vec<Vec<i32>> = (0..2)
            .map(|worker| groups.iter().map(|group| group.sockets[worker].as_raw_fd()).collect())
            .collect();
        let split = by_worker(groups, 2);
        for (sockets, fds) in split.iter().zip(expected) {
            assert_eq!(sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect::<Vec<_>>(), fds);
            let listeners: Vec<_> = sockets.iter().map(|(listener, _)| listener.0).collect();
            assert_eq!(listeners, [0, 1, 1]);
        }
    }
}
