//! The workers of this process, as each of them sees the others: their gauges, read relaxed; what they share; and the
//! bells that wake them.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    keepalive::Shelf,
    limits::Permits,
    metrics::{BACKENDS_MAX, WorkerMetrics},
    model::{BackendId, WorkerId},
    sys::event,
};

/// One entry per worker, made before that one starts. It stays when the worker goes: what it has counted counts, and who
/// comes in its place goes on from there.
#[derive(Debug)]
pub struct Siblings {
    places: Box<[OnceLock<Sibling>]>,
    /// Places that are made; those behind them are not.
    known: AtomicUsize,
    /// Workers that take what is new.
    serving: AtomicUsize,
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
        Self::with_room(count, count, seed)
    }

    /// As [`Self::new`], with room for up to `most` workers in all.
    ///
    /// # Errors
    /// The same.
    pub fn with_room(count: usize, most: usize, seed: u64) -> io::Result<Arc<Self>> {
        let places = (0..most.max(count)).map(|_| OnceLock::new()).collect::<Box<[_]>>();
        // One that is not heard yet says as much as two.
        let alarm = flume::bounded(1);
        let [permits, retries] = [(); 2].map(|()| Permits::new(BACKENDS_MAX, places.len()));
        let shelf = Arc::new(Shelf::new(BACKENDS_MAX));
        let (known, serving) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let siblings = Self { places, known, serving, permits, retries, shelf, alarm, seed };
        siblings.make_room(count)?;
        siblings.set_serving(count);
        Ok(Arc::new(siblings))
    }

    /// Makes the places of the first `count` workers, where they are not there.
    ///
    /// # Errors
    /// Those of eventfd(2); or there is no room for so many.
    pub fn make_room(&self, count: usize) -> io::Result<()> {
        let places = self.places.get(..count).ok_or(io::ErrorKind::InvalidInput)?;
        for place in places.iter().filter(|place| place.get().is_none()) {
            let (metrics, bell) = (Arc::new(WorkerMetrics::new()), event::new()?);
            place.get_or_init(|| Sibling { metrics, bell });
        }
        self.known.fetch_max(count, Ordering::Release);
        Ok(())
    }

    /// How many workers there may be.
    pub fn most(&self) -> usize {
        self.places.len()
    }

    /// How many workers take what is new from now on.
    pub fn set_serving(&self, count: usize) {
        self.permits.set_workers(count);
        self.retries.set_workers(count);
        self.serving.store(count, Ordering::Relaxed);
    }

    /// Those that there are or were.
    fn known(&self) -> impl Iterator<Item = &Sibling> {
        let known = self.places.get(..self.known.load(Ordering::Acquire)).unwrap_or_default();
        known.iter().filter_map(OnceLock::get)
    }

    /// What each that there is or was has counted.
    pub fn counted(&self) -> Vec<Arc<WorkerMetrics>> {
        self.known().map(|sibling| sibling.metrics.clone()).collect()
    }

    /// What a worker counts; only that one writes there.
    ///
    /// # Panics
    /// There is no place for such a worker.
    pub fn metrics(&self, id: WorkerId) -> &Arc<WorkerMetrics> {
        &self.place(id).metrics
    }

    /// Control makes the place before the worker.
    fn place(&self, id: WorkerId) -> &Sibling {
        let place = self.places[id.index()].get();
        place.unwrap_or_else(|| unreachable!("the place of a worker is made before it starts"))
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

    /// How many workers take what is new.
    pub(super) fn len(&self) -> usize {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether there is or was more than one.
    pub(super) fn has_had_many(&self) -> bool {
        self.known.load(Ordering::Relaxed) > 1
    }

    /// A duplicate of a worker's bell.
    pub(super) fn bell(&self, id: WorkerId) -> io::Result<OwnedFd> {
        self.place(id).bell.try_clone()
    }

    /// Wakes a worker.
    pub(super) fn ring(&self, id: WorkerId) {
        if let Some(sibling) = self.places.get(id.index()).and_then(OnceLock::get) {
            event::ring(&sibling.bell);
        }
    }

    /// Exchanges and relays with a backend that go on, over all workers. The reader's own part is exact, that of the
    /// others as old as their cache line.
    pub(super) fn in_flight(&self, backend: BackendId) -> u64 {
        self.known().map(|sibling| sibling.metrics.backend(backend).in_flight.value()).sum()
    }

    /// The same, without the part of `id`.
    pub(super) fn in_flight_besides(&self, id: WorkerId, backend: BackendId) -> u64 {
        let others = self.known().enumerate().filter(|(at, _)| *at != id.index());
        others.map(|(_, sibling)| sibling.metrics.backend(backend).in_flight.value()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_outlives_its_worker_and_counts_on() {
        let siblings = Siblings::with_room(1, 3, 1).unwrap();
        assert_eq!((siblings.len(), siblings.most(), siblings.has_had_many()), (1, 3, false));
        siblings.make_room(2).unwrap();
        siblings.set_serving(2);
        let backend = BackendId(4);
        let second = siblings.metrics(WorkerId(1)).clone();
        second.backend(backend).in_flight.add(2);
        assert_eq!((siblings.len(), siblings.in_flight(backend)), (2, 2));
        siblings.set_serving(1);
        // It drains still.
        assert_eq!((siblings.len(), siblings.in_flight_besides(WorkerId(0), backend)), (1, 2));
        siblings.make_room(2).unwrap();
        assert!(Arc::ptr_eq(&second, siblings.metrics(WorkerId(1))) && siblings.has_had_many());
        assert_eq!(siblings.counted().len(), 2);
        assert!(siblings.make_room(4).is_err());
    }
}
