//! Gathers what the workers have counted of backends, a few times a second and when one of them raises an alarm, and
//! takes outliers out.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use glommio::timer::sleep;

use super::{board::Board, known::Known};
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

    /// Goes on from what is known of backends.
    pub(super) fn resume(&self, all: &[Known]) {
        let mut pools = self.pools.borrow_mut();
        for Known { pool, id, standing, .. } in all {
            let watched = pools.iter_mut().find(|watched| watched.pool == *pool);
            let Some(Watched { outliers, backends, .. }) = watched else { continue };
            if let Some(at) = backends.iter().position(|known| known == id) {
                outliers.resume(at, *standing);
            }
        }
    }

    /// All that there is to know of backends; `board` says why they are out.
    pub(super) fn known(&self, board: &Board) -> Vec<Known> {
        let mut all = Vec::new();
        for Watched { pool, outliers, backends, .. } in &*self.pools.borrow() {
            all.extend(backends.iter().enumerate().filter_map(|(at, &id)| {
                let standing = outliers.standing(at)?;
                let reason = board.ejection(pool, at).map(|ejection| ejection.reason).unwrap_or_default();
                Some(Known { pool: pool.clone(), id, standing, reason })
            }));
        }
        all
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
            match known {
                Some(mut watched) if Some(&watched.policy) == pool.choosing.outlier.as_ref() => {
                    watched.take_over(pool, workers);
                    pools.push(watched);
                }
                before => pools.extend(Watched::begin_anew(pool, workers, before.as_ref())),
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

    /// By another policy than `before`: whoever is out stays so, and what was counted so far speaks against nobody.
    fn begin_anew(
        pool: &PoolSnapshot,
        workers: &[Arc<WorkerMetrics>],
        before: Option<&Self>,
    ) -> Option<Self> {
        let mut begun = Self::begin(pool, workers.len())?;
        let all_new = vec![None; begun.backends.len()];
        let tally = |at: usize, worker: usize| tally(&workers[worker], begun.backends[at]);
        begun.outliers.take_over(&all_new, workers.len(), tally, Instant::now());
        for (at, id) in begun.backends.iter().enumerate() {
            let was = before.and_then(|before| {
                before.outliers.standing(before.backends.iter().position(|known| known == id)?)
            });
            was.into_iter().for_each(|standing| begun.outliers.resume(at, standing));
        }
        Some(begun)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, BackendIds},
        health::HealthTable,
        model::Generation,
        upgrade::Ejections,
    };

    fn snapshot(outlier: &str) -> Snapshot {
        let text = format!(
            r#"
            version = 1
            [listener.web]
            bind = ["127.0.0.1:80"]
            protocol = "http"
            pool = "a"
            [pool.a]
            backends = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
            {outlier}
            [pool.b]
            backends = ["127.0.0.1:1"]
            "#
        );
        let config = config::parse("lb.toml", &text).unwrap().config;
        Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()
    }

    fn ids(snapshot: &Snapshot) -> Vec<BackendId> {
        snapshot.pools.iter().find(|pool| &*pool.name == "a").map(backends).unwrap()
    }

    fn board(snapshot: &Snapshot) -> Board {
        let table = Arc::new(HealthTable::new(8));
        Board::new(snapshot, &[].into(), &[].into(), table, &[].into(), Box::new(|_, _| ()))
    }

    #[test]
    fn what_one_process_tells_another_one_knows() {
        let snapshot = snapshot("outlier = { ejection_max = \"60s\" }");
        let ids = ids(&snapshot);
        let now = Instant::now() + Duration::from_secs(1000);
        let tell = |pool: &str, backend: &str, left_ms| Ejections {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
            count: 3,
            since_ms: 2000,
            left_ms,
            reason: left_ms.map(|_| "outlier: 5 errors in a row".to_owned()),
        };
        let told = [
            tell("a", "127.0.0.1:1", Some(4000)),
            tell("a", "127.0.0.1:2", None),
            tell("a", "127.0.0.1:9", Some(4000)),
            tell("b", "127.0.0.1:1", Some(4000)),
            tell("c", "127.0.0.1:1", Some(4000)),
        ];
        let known = Known::of(&snapshot, now, &told);
        assert_eq!(known.iter().map(|known| known.id).collect::<Vec<_>>(), ids[..2], "who is watched here");
        assert_eq!((known[0].is_out(), known[1].is_out()), (true, false));
        let watches = Watches::new(&snapshot, Vec::new(), flume::bounded(1).1);
        watches.resume(&known);
        let mut again = watches.known(&board(&snapshot));
        assert_eq!(again[0].standing, known[0].standing);
        again[0].reason = known[0].reason.clone();
        let second = now + Duration::from_secs(1);
        let said: Vec<_> = again
            .into_iter()
            .map(|known| {
                let at = ids.iter().position(|id| *id == known.id).unwrap();
                known.tell(format!("127.0.0.1:{}", at + 1), second)
            })
            .collect();
        let later =
            |of: &Ejections| Ejections { since_ms: 3000, left_ms: of.left_ms.map(|_| 3000), ..of.clone() };
        assert_eq!(said, [later(&told[0]), later(&told[1])]);
        let long = Known::of(&snapshot, now, &[tell("a", "127.0.0.1:1", Some(u64::MAX))]);
        assert_eq!(long[0].standing.until, Some(now + Duration::from_secs(60)), "as long as the policy says");
    }

    #[test]
    fn another_policy_forgets_nobody_who_is_out_and_holds_nothing_old_against_others() {
        let first = snapshot("outlier = { consecutive_errors = 3 }");
        let (id, other) = (ids(&first)[0], ids(&first)[1]);
        let workers = vec![Arc::new(WorkerMetrics::new())];
        let err = |id: BackendId| {
            workers[0].backend(id).errors.add(3);
            workers[0].backend(id).error_run.add(3);
        };
        let watches = Watches::new(&first, workers.clone(), flume::bounded(1).1);
        let look = || {
            let mut pools = watches.pools.borrow_mut();
            let Watched { outliers, backends, .. } = &mut pools[0];
            let tally = |at: usize, worker: usize| tally(&workers[worker], backends[at]);
            outliers.handle(tally, |_| true, Instant::now()).len()
        };
        err(id);
        assert_eq!(look(), 1);
        let out = watches.known(&board(&first));
        assert!(out[0].is_out() && out[0].id == id && out.len() == 1);
        // Nobody looks before the policy changes; and then its numbers are the old ones.
        err(other);
        watches.take_over(&snapshot("outlier = { consecutive_errors = 2, ejection = \"9s\" }"), &workers);
        assert_eq!(watches.known(&board(&first)), out);
        assert_eq!(look(), 0);
        watches.take_over(&snapshot(""), &workers);
        assert_eq!(watches.known(&board(&first)), []);
        watches.take_over(&first, &workers);
        assert_eq!((look(), watches.known(&board(&first))), (0, vec![]));
    }
}
