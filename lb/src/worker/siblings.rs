//! The workers of this process, as each of them sees the others: their gauges, read relaxed; what they share; and the
//! bells that wake them.

use std::{io, os::fd::OwnedFd, sync::Arc};

use crate::{
    keepalive::Shelf,
    limits::Permits,
    metrics::{BACKENDS_MAX, WorkerMetrics},
    model::{BackendId, WorkerId},
    sys::event,
};

/// One entry per worker, made before the first of them starts.
#[derive(Debug)]
pub struct Siblings {
    workers: Box<[Sibling]>,
    permits: Arc<Permits>,
    retries: Arc<Permits>,
    shelf: Arc<Shelf<OwnedFd>>,
    alarm: (flume::Sender<()>, flume::Receiver<()>),
    seed: u64,
}

#[derive(Debug)]
struct Sibling {
    metrics: Arc<WorkerMetrics>,
    bell: OwnedFd,
}

impl Siblings {
    /// For that many workers; `seed` is for what they draw.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub fn new(count: usize, seed: u64) -> io::Result<Arc<Self>> {
        let sibling = |_| Ok(Sibling { metrics: Arc::new(WorkerMetrics::new()), bell: event::new()? });
        let workers = (0..count).map(sibling).collect::<io::Result<_>>()?;
        // One that is not heard yet says as much as two.
        let alarm = flume::bounded(1);
        let [permits, retries] = [(); 2].map(|()| Permits::new(BACKENDS_MAX, count));
        let shelf = Arc::new(Shelf::new(BACKENDS_MAX));
        Ok(Arc::new(Self { workers, permits, retries, shelf, alarm, seed }))
    }

    /// What a worker counts; only that one writes there.
    ///
    /// # Panics
    /// There is no such worker.
    pub fn metrics(&self, id: WorkerId) -> &Arc<WorkerMetrics> {
        &self.workers[id.index()].metrics
    }

    /// How much goes on with backends that have a limit.
    pub const fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// How much of it is there a second time, with backends that have a limit of that.
    pub const fn retries(&self) -> &Arc<Permits> {
        &self.retries
    }

    /// Kept connections that their workers have to spare.
    pub const fn shelf(&self) -> &Arc<Shelf<OwnedFd>> {
        &self.shelf
    }

    /// Told when a backend of a pool with `outlier` has erred too often in a row for one of the workers.
    pub const fn alarms(&self) -> &flume::Receiver<()> {
        &self.alarm.1
    }

    /// Has control look at once; never blocks.
    #[cold]
    pub(super) fn alarm(&self) {
        _ = self.alarm.0.try_send(());
    }

    /// A seed of a worker's own: draws that agree would send all of them to the same backend.
    pub(super) const fn seed(&self, id: WorkerId) -> u64 {
        self.seed.wrapping_add(id.0 as u64)
    }

    /// How many workers there are.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// A duplicate of a worker's bell.
    pub(super) fn bell(&self, id: WorkerId) -> io::Result<OwnedFd> {
        self.workers[id.index()].bell.try_clone()
    }

    /// Wakes a worker.
    pub(super) fn ring(&self, id: WorkerId) {
        if let Some(sibling) = self.workers.get(id.index()) {
            event::ring(&sibling.bell);
        }
    }

    /// Exchanges and relays with a backend that go on, over all workers. The reader's own part is exact, that of the
    /// others as old as their cache line.
    pub(super) fn in_flight(&self, backend: BackendId) -> u64 {
        self.workers.iter().map(|sibling| sibling.metrics.backend(backend).in_flight.value()).sum()
    }

    /// The same, without the part of `id`.
    pub(super) fn in_flight_besides(&self, id: WorkerId, backend: BackendId) -> u64 {
        let others = self.workers.iter().enumerate().filter(|(at, _)| *at != id.index());
        others.map(|(_, sibling)| sibling.metrics.backend(backend).in_flight.value()).sum()
    }
}
