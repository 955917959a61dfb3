//! Gathers what the workers have counted of backends, a few times a second and when one of them raises an alarm, and
//! takes outliers out.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use glommio::timer::sleep;

use super::board::Board;
use crate::{
    config::{Outlier, PoolSnapshot, Snapshot},
    health::{Change, Ejection, Outliers, Tally},
    metrics::WorkerMetrics,
    model::BackendId,
};

/// Between two looks: what is gathered is read from other cores' lines, so not more often than it helps.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Pools to watch, and who says that it is worth a look.
pub(super) struct Watches {
    pools: RefCell<Vec<Watched>>,
    workers: RefCell<Vec<Arc<WorkerMetrics>>>,
    alarms: flume::Receiver<()>,
}

struct Watched {
    pool: Arc<str>,
    policy: Outlier,
    outliers: Outliers,
    backends: Vec<BackendId>,
}

fn backends(pool: &PoolSnapshot) -> Vec<BackendId> {
    pool.backends.iter().map(|backend| backend.id).collect()
}

impl Watches {
    /// Every pool with `outlier`.
    pub(super) fn new(
        snapshot: &Snapshot,
        workers: Vec<Arc<WorkerMetrics>>,
        alarms: flume::Receiver<()>,
    ) -> Self {
        let pools = snapshot.pools.iter().filter_map(|pool| Watched::begin(pool, workers.len())).collect();
        Self { pools: RefCell::new(pools), workers: RefCell::new(workers), alarms }
    }

    /// Another config holds from now on. Backends that stay in a pool that is watched alike are as they were.
    pub(super) fn take_over(&self, snapshot: &Snapshot, workers: &[Arc<WorkerMetrics>]) {
        let mut before = self.pools.take();
        // Those that have gone stay: what they have counted was looked at.
        before.iter_mut().for_each(|watched| watched.outliers.widen(workers.len()));
        self.workers.replace(workers.to_vec());
        let mut pools = Vec::new();
        for pool in &snapshot.pools {
            let known = before.iter().position(|watched| watched.pool == pool.name);
            let known = known.map(|at| before.swap_remove(at));
            match known.filter(|watched| Some(&watched.policy) == pool.choosing.outlier.as_ref()) {
                Some(mut watched) => {
                    watched.take_over(pool, workers);
                    pools.push(watched);
                }
                None => pools.extend(Watched::begin(pool, workers.len())),
            }
        }
        self.pools.replace(pools);
    }

    /// Never ends: whom to watch may come later.
    pub(super) async fn drive(self: Rc<Self>, board: Rc<Board>) {
        loop {
            let alarm = async {
                if self.alarms.recv_async().await.is_err() {
                    std::future::pending().await
                }
            };
            futures_lite::future::or(alarm, async { _ = sleep(LOOK_EVERY).await }).await;
            for Watched { pool, outliers, backends, .. } in self.pools.borrow_mut().iter_mut() {
                look(pool, outliers, backends, &self.workers.borrow(), &board);
            }
        }
    }
}

impl Watched {
    fn begin(pool: &PoolSnapshot, workers: usize) -> Option<Self> {
        let policy = pool.choosing.outlier.clone()?;
        let outliers = Outliers::new(policy.clone(), pool.backends.len(), workers, Instant::now());
        Some(Self { pool: pool.name.clone(), policy, outliers, backends: backends(pool) })
    }

    fn take_over(&mut self, pool: &PoolSnapshot, workers: &[Arc<WorkerMetrics>]) {
        let before = std::mem::replace(&mut self.backends, backends(pool));
        if before == self.backends {
            return;
        }
        let place = |id: &BackendId| before.iter().position(|known| known == id);
        let places: Vec<_> = self.backends.iter().map(place).collect();
        let tally = |at: usize, worker: usize| tally(&workers[worker], self.backends[at]);
        self.outliers.take_over(&places, workers.len(), tally, Instant::now());
    }
}

fn look(
    pool: &str,
    outliers: &mut Outliers,
    backends: &[BackendId],
    workers: &[Arc<WorkerMetrics>],
    board: &Board,
) {
    let now = Instant::now();
    let tally = |at: usize, worker: usize| tally(&workers[worker], backends[at]);
    for change in outliers.handle(tally, |at| board.is_up(pool, at), now) {
        match change {
            Change::Eject { at, time, cause, reason } => {
                board.eject(pool, at, cause, Ejection { since: now, until: now + time, reason });
            }
            Change::Return { at } => board.readmit(pool, at, now),
            Change::Spare { at } => board.spare(pool, at),
        }
    }
}

fn tally(worker: &WorkerMetrics, backend: BackendId) -> Tally {
    let metrics = worker.backend(backend);
    Tally {
        answers: metrics.answers.value(),
        errors: metrics.errors.value(),
        run: metrics.error_run.value(),
        answer_us: metrics.answer_us.value(),
    }
}
