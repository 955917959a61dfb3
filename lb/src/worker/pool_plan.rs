//! How one worker chooses among the backends of one pool: the pool's policy, and what it looks at.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    lead::{KeyPlan, StickyPlan, by_key, share},
    line::{Line, Lines},
    siblings::Siblings,
};
use crate::{
    balance::{
        Ask, Balancer, Draw, Generator, PeakEwma, Standing, Tried, TwoChoices, WHOLE, round_robin::RoundRobin,
    },
    config::{Balance, PoolSnapshot},
    health::HealthTable,
    l7::http1::RequestHead,
    limits::Purse,
    model::WorkerId,
};

/// Least time between two looks at the siblings' gauges of a whole pool.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// What such a look may cost of a worker: a gauge that another core has just written costs some 50 ns, so this keeps
/// it to a twentieth.
const LOOK_EVERY_PER_GAUGE: Duration = Duration::from_micros(1);

/// What a choice sees of the worker that makes it.
pub(super) struct Sight<'a> {
    pub(super) id: WorkerId,
    pub(super) now: Instant,
    pub(super) health: &'a HealthTable,
    pub(super) siblings: &'a Siblings,
    pub(super) generator: &'a RefCell<Generator>,
    pub(super) purse: &'a Purse,
}

/// What is compiled of a pool.
pub(super) struct PoolPlan {
    balancer: RefCell<Balancer>,
    key: Option<Box<KeyPlan>>,
    loads: Option<Box<Loads>>,
    has_backups: bool,
    line: Option<Rc<Line>>,
    sticky: Option<Box<StickyPlan>>,
    /// So many errors in a row are worth an alarm; `None`: nobody looks.
    alarm_at: Option<u64>,
}

impl PoolPlan {
    pub(super) fn new(pool: &PoolSnapshot, worker: WorkerId, lines: &Lines) -> Self {
        let weights = || pool.backends.iter().map(|backend| backend.weight);
        let backups = || pool.backends.iter().filter(|backend| backend.backup).count();
        let is_limited = pool.backends.iter().any(|backend| backend.max_connections.is_some());
        let balancer = match pool.balance {
            Balance::RoundRobin => {
                let robin = RoundRobin::new(pool.backends.len());
                Balancer::RoundRobin(robin.skip(worker.index(), &AllUp(pool)))
            }
            Balance::LeastConnections => Balancer::LeastConnections,
            Balance::P2c => Balancer::TwoChoices(TwoChoices::new(weights())),
            Balance::PeakEwma => Balancer::PeakEwma(PeakEwma::new(weights())),
            Balance::Random => Balancer::Random(Draw::new(weights())),
            Balance::Maglev => Balancer::ByKey(by_key(pool)),
        };
        Self {
            balancer: RefCell::new(balancer),
            key: (pool.balance == Balance::Maglev).then(|| Box::new(KeyPlan::new(pool))),
            loads: (pool.balance == Balance::LeastConnections)
                .then(|| Box::new(Loads::new(pool.backends.len()))),
            has_backups: backups() > 0,
            line: is_limited.then(|| lines.of(&pool.name)),
            sticky: StickyPlan::new(pool).map(Box::new),
            alarm_at: pool.choosing.outlier.as_ref().map(|outlier| outlier.consecutive_errors.into()),
        }
    }

    /// Hash of what a connection is chosen by; 0 where nothing is.
    pub(super) fn key_of_client(&self, client: IpAddr) -> u64 {
        self.key.as_ref().map_or(0, |key| key.of_client(client))
    }

    /// Hash of what a request is chosen by; 0 where nothing is.
    pub(super) fn key_of_request(
        &self,
        client: IpAddr,
        head: &RequestHead,
        buf: &[u8],
        is_trusted: bool,
    ) -> u64 {
        let of =
            |key: &KeyPlan| key.of_request(head, buf, is_trusted).unwrap_or_else(|| key.of_client(client));
        self.key.as_deref().map_or(0, of)
    }

    /// Where to wait while every backend has as much as it may; `None`: there is no limit.
    pub(super) const fn line(&self) -> Option<&Rc<Line>> {
        self.line.as_ref()
    }

    /// How clients come back to their backend.
    pub(super) fn sticky(&self) -> Option<&StickyPlan> {
        self.sticky.as_deref()
    }

    /// Whether [`Self::next`] would find one.
    pub(super) fn is_any_free(&self, sight: &Sight<'_>, pool: &PoolSnapshot, tried: &Tried) -> bool {
        let is_any = |tier, heeds_limits| {
            let standing = Now { sight, pool, plan: self, tried, tier, heeds_limits };
            (0..standing.len()).any(|at| standing.share(at) > 0)
        };
        is_any(Tier::Primary, true)
            || (self.has_backups && !is_any(Tier::Primary, false) && is_any(Tier::Backup, true))
    }

    /// The place of the backend to go to, of those that are up, have a permit left and are not in `tried`; a backup only
    /// where no other one is up and untried.
    ///
    /// # Errors
    /// Whether there would be one if it had a permit left.
    pub(super) fn next(
        &self,
        sight: &Sight<'_>,
        pool: &PoolSnapshot,
        tried: &Tried,
        key: u64,
    ) -> Result<usize, Nobody> {
        if let Some(loads) = &self.loads {
            loads.look(sight, pool);
        }
        let mut balancer = self.balancer.borrow_mut();
        let mut generator = sight.generator.borrow_mut();
        let backups = self.has_backups.then_some(Tier::Backup);
        for tier in [Some(Tier::Primary), backups].into_iter().flatten() {
            let standing = Now { sight, pool, plan: self, tried, tier, heeds_limits: true };
            let ask = Ask { key, now: sight.now, generator: &mut generator };
            if let Some(at) = balancer.next(&standing, ask) {
                return Ok(at);
            }
            let without_limits = Now { heeds_limits: false, ..standing };
            if self.line.is_some() && (0..standing.len()).any(|at| without_limits.share(at) > 0) {
                return Err(Nobody::IsFree);
            }
        }
        Err(Nobody::IsUp)
    }

    /// Where control looks at what exchanges meet: how many errors in a row are worth an alarm.
    #[inline]
    pub(super) const fn alarm_at(&self) -> Option<u64> {
        self.alarm_at
    }

    /// A backend has answered, `took` after it was asked.
    pub(super) fn answered(&self, at: usize, took: Duration, now: Instant) {
        self.balancer.borrow_mut().answered(at, took, now);
    }

    /// A backend has failed, `took` after it was asked.
    pub(super) fn failed(&self, at: usize, took: Duration, now: Instant) {
        self.balancer.borrow_mut().failed(at, took, now);
    }
}

/// What the siblings have going on with each backend of a pool, as it was a moment ago. For the policy that looks at
/// all backends; those that look at two read the gauges themselves.
struct Loads {
    of_siblings: Box<[Cell<u64>]>,
    seen: Cell<Option<Instant>>,
}

impl Loads {
    fn new(backends: usize) -> Self {
        Self { of_siblings: (0..backends).map(|_| Cell::new(0)).collect(), seen: Cell::new(None) }
    }

    fn look(&self, sight: &Sight<'_>, pool: &PoolSnapshot) {
        let gauges = (self.of_siblings.len() * (sight.siblings.len() - 1)) as u32;
        let pause = (gauges * LOOK_EVERY_PER_GAUGE).max(LOOK_EVERY);
        let is_fresh = |seen| sight.now.saturating_duration_since(seen) < pause;
        if gauges == 0 || self.seen.get().is_some_and(is_fresh) {
            return;
        }
        self.seen.set(Some(sight.now));
        for (load, backend) in self.of_siblings.iter().zip(&pool.backends) {
            load.set(sight.siblings.in_flight_besides(sight.id, backend.id));
        }
    }
}

/// Why there is no backend to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// None is up that was not tried.
    IsUp,
    /// Some are, and have as much as they may.
    IsFree,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Primary,
    Backup,
}

/// The backends of a pool as they stand now.
#[derive(Clone, Copy)]
struct Now<'a> {
    sight: &'a Sight<'a>,
    pool: &'a PoolSnapshot,
    plan: &'a PoolPlan,
    tried: &'a Tried,
    tier: Tier,
    heeds_limits: bool,
}

impl Standing for Now<'_> {
    fn len(&self) -> usize {
        self.pool.backends.len()
    }

    #[inline]
    fn share(&self, at: usize) -> u32 {
        let backend = &self.pool.backends[at];
        if backend.backup != (self.tier == Tier::Backup) || self.tried.contains(at) {
            return 0;
        }
        if let (Some(limit), true) = (backend.max_connections, self.heeds_limits)
            && !self.sight.purse.has(backend.id, limit)
        {
            return 0;
        }
        share(self.pool, backend, self.sight.health, self.sight.now)
    }

    #[inline]
    fn load(&self, at: usize) -> u64 {
        let (sight, id) = (self.sight, self.pool.backends[at].id);
        match &self.plan.loads {
            Some(loads) => {
                loads.of_siblings[at].get() + sight.siblings.metrics(sight.id).backend(id).in_flight.value()
            }
            None => sight.siblings.in_flight(id),
        }
    }
}

/// The backends of a pool with nothing against them.
struct AllUp<'a>(&'a PoolSnapshot);

impl Standing for AllUp<'_> {
    fn len(&self) -> usize {
        self.0.backends.len()
    }

    fn share(&self, at: usize) -> u32 {
        let backend = &self.0.backends[at];
        if backend.backup { 0 } else { u32::from(backend.weight) * WHOLE }
    }

    fn load(&self, _: usize) -> u64 {
        0
    }
}
