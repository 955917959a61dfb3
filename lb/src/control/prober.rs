//! Drives the health checks: one task per checked backend, on an executor that does nothing else.

use std::{cell::RefCell, collections::BTreeMap, io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use glommio::{GlommioError, LocalExecutorBuilder, Placement, net::TcpStream, timer::sleep};

use super::probe_socket;
use crate::{
    admin::server::IO_MEMORY,
    config::{Config, Snapshot},
    health::{Action, Check, Event, HealthTable, Policy, Verdict},
    metrics::ProbeMetrics,
    model::{BackendId, PoolId},
    steering::ProbePorts,
};

/// One backend to check.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Whose verdict.
    pub(super) id: BackendId,
    /// Its pool.
    pub(super) pool: PoolId,
    /// Pool's name, for logs.
    pub(super) pool_name: Arc<str>,
    /// Its name, for logs.
    pub(super) name: Arc<str>,
    /// Where to connect.
    pub(super) address: SocketAddr,
    /// How often, how long, how many.
    pub(super) policy: Policy,
    /// What the probes count.
    pub(super) metrics: Arc<ProbeMetrics>,
    /// Whether its probes go the way of a VIP's traffic.
    pub(super) is_through: bool,
}

/// Every backend of every pool with active checks, once.
pub(super) fn targets(config: &Config, snapshot: &Snapshot) -> Vec<Target> {
    let mut targets = Vec::new();
    for pool in &snapshot.pools {
        let Some(health) = config.pools.get(&pool.name).and_then(|config| config.health) else { continue };
        for backend in &pool.backends {
            let port = health.tcp_port.unwrap_or(backend.address.port());
            targets.push(Target {
                id: backend.id,
                pool: pool.id,
                pool_name: pool.name.clone(),
                name: backend.name.clone(),
                address: SocketAddr::new(backend.address.ip(), port),
                policy: Policy {
                    every: health.every,
                    timeout: health.timeout,
                    fall: health.fall,
                    rise: health.rise,
                },
                metrics: Arc::default(),
                is_through: false,
            });
        }
    }
    targets
}

/// Starts checking; what stands in `table` holds until an answer says otherwise. A verdict goes into `table`, for the
/// workers, and to `tell`, for the packet path, in one step. `tell` must not block. The thread ends with the process.
/// `ports` is for targets whose probes go the way of traffic.
///
/// # Errors
/// The host refuses glommio's executor.
pub(super) fn start(
    targets: Vec<Target>,
    table: Arc<HealthTable>,
    seed: u64,
    ports: Option<ProbePorts>,
    tell: impl Fn(BackendId, Verdict) + Send + 'static,
) -> io::Result<()> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name("lb-probers")
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let pools = Pools::new(&targets, &table);
            let world = Rc::new(World { table, tell: Box::new(tell), pools, ports: ports.map(RefCell::new) });
            let tasks: Vec<_> = targets
                .into_iter()
                .map(|target| glommio::spawn_local(drive_check(target, seed, world.clone())))
                .collect();
            for task in tasks {
                task.await;
            }
        })
        .map(drop)
        .map_err(|error| io::Error::other(format!("prober executor: {error}")))
}

struct World {
    table: Arc<HealthTable>,
    tell: Box<dyn Fn(BackendId, Verdict)>,
    pools: Pools,
    ports: Option<RefCell<ProbePorts>>,
}

async fn drive_check(target: Target, seed: u64, world: Rc<World>) {
    let initial = if world.table.is_up(target.id) { Verdict::Up } else { Verdict::Down };
    let mut check = Check::new(target.policy, initial, seed ^ u64::from(target.id.0), Instant::now());
    loop {
        sleep(check.poll_timeout().saturating_duration_since(Instant::now())).await;
        check.handle_timeout(Instant::now());
        while let Some(action) = check.poll() {
            match action {
                Action::Probe { deadline } => probe(&target, &world, &mut check, deadline).await,
                Action::Tell(verdict) => world.tell(&target, verdict),
                Action::Discounted => target.metrics.discounted.add(1),
            }
        }
    }
}

async fn probe(target: &Target, world: &World, check: &mut Check, deadline: Instant) {
    let patience = deadline.saturating_duration_since(Instant::now());
    if patience.is_zero() {
        return check.handle_timeout(Instant::now());
    }
    let outcome = match &world.ports {
        Some(ports) if target.is_through => {
            probe_socket::connect(target.address, target.id.0, ports, deadline).await
        }
        _ => TcpStream::connect_timeout(target.address, patience).await.map(drop).map_err(io_error),
    };
    match outcome {
        Ok(()) => {
            target.metrics.answered.add(1);
            check.handle(Event::Answered, Instant::now());
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            target.metrics.timed_out.add(1);
            // The ring's timeout may fire a little before our own clock agrees.
            check.handle_timeout(Instant::now().max(deadline));
        }
        Err(error) => {
            tracing::debug!(pool = %target.pool_name, backend = %target.name, %error, "probe failed");
            target.metrics.failed.add(1);
            check.handle(Event::Failed, Instant::now());
        }
    }
}

fn io_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl World {
    fn tell(&self, target: &Target, verdict: Verdict) {
        let (pool, backend) = (&target.pool_name, &target.name);
        self.table.set(target.id, verdict == Verdict::Up);
        (self.tell)(target.id, verdict);
        let left = self.pools.count(target.pool, verdict);
        match verdict {
            Verdict::Up => tracing::info!(%pool, %backend, up = left, "backend is up"),
            Verdict::Down if left == 0 => {
                tracing::error!(%pool, %backend, "backend is down: the pool has no backend left");
            }
            Verdict::Down => tracing::warn!(%pool, %backend, up = left, "backend is down"),
        }
    }
}

/// Backends that are up, by pool.
struct Pools(RefCell<BTreeMap<PoolId, usize>>);

impl Pools {
    fn new(targets: &[Target], table: &HealthTable) -> Self {
        let mut up = BTreeMap::new();
        for target in targets {
            *up.entry(target.pool).or_default() += usize::from(table.is_up(target.id));
        }
        Self(RefCell::new(up))
    }

    /// Takes in a verdict that changed; how many are up now.
    fn count(&self, pool: PoolId, verdict: Verdict) -> usize {
        let mut pools = self.0.borrow_mut();
        let up = pools.entry(pool).or_default();
        match verdict {
            Verdict::Up => *up += 1,
            Verdict::Down => *up = up.saturating_sub(1),
        }
        *up
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener},
        time::Duration,
    };

    use super::*;
    use crate::admin::fixture;

    #[test]
    fn a_target_for_each_checked_backend() {
        let view = fixture::view();
        let targets = targets(&view.config, &view.snapshot);
        let ids: Vec<_> = targets.iter().map(|target| target.id.0).collect();
        assert_eq!(ids, [1, 2], "pool dns has no check");
        assert_eq!(targets[1].address, "127.0.0.1:9002".parse().unwrap());
    }

    #[test]
    fn a_backend_that_goes_and_comes_back_is_told_of() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let every = Duration::from_millis(20);
        let target = Target {
            id: BackendId(1),
            pool: PoolId(0),
            pool_name: "p".into(),
            name: "b".into(),
            address,
            policy: Policy { every, timeout: every, fall: 2, rise: 2 },
            metrics: Arc::default(),
            is_through: false,
        };
        let (metrics, table) = (target.metrics.clone(), Arc::new(HealthTable::new(2)));
        let (sender, told) = flume::unbounded();
        let tell = move |id, verdict| sender.send((id, verdict)).unwrap();
        start(vec![target], table.clone(), 1, None, tell).unwrap();
        let patience = Duration::from_secs(10);
        while metrics.answered.value() < 2 {
            std::thread::sleep(every);
        }
        assert!(told.is_empty(), "up is where it began");
        drop(listener);
        assert_eq!(told.recv_timeout(patience), Ok((BackendId(1), Verdict::Down)));
        assert!(!table.is_up(BackendId(1)));
        assert!(metrics.failed.value() >= 2);
        let _again = TcpListener::bind(address).unwrap();
        assert_eq!(told.recv_timeout(patience), Ok((BackendId(1), Verdict::Up)));
        assert!(table.is_up(BackendId(1)));
    }

    /// A listener whose queue is full drops SYNs: as silent as an address that nobody has.
    #[test]
    fn silence_times_out_and_leaves_no_socket_behind() {
        use socket2::{Domain, Socket, Type};
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let patience = Duration::from_millis(100);
        let fill = || std::net::TcpStream::connect_timeout(&address, patience).ok();
        let _queued: Vec<_> = std::iter::from_fn(fill).take(64).collect();
        let every = Duration::from_millis(20);
        let target = Target {
            id: BackendId(1),
            pool: PoolId(0),
            pool_name: "p".into(),
            name: "b".into(),
            address,
            policy: Policy { every, timeout: every, fall: 2, rise: 1 },
            metrics: Arc::default(),
            is_through: false,
        };
        let metrics = target.metrics.clone();
        let (sender, told) = flume::unbounded();
        start(vec![target], Arc::new(HealthTable::new(2)), 1, None, move |_, verdict| {
            sender.send(verdict).unwrap()
        })
        .unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Verdict::Down));
        let deadline = Instant::now() + Duration::from_secs(20);
        while metrics.timed_out.value() < 20 {
            assert!(Instant::now() < deadline, "{} timed out", metrics.timed_out.value());
            std::thread::sleep(every);
        }
        // An abandoned socket would go on sending SYNs for two minutes.
        let remote = format!("{:08X}:{:04X} 02", u32::from_ne_bytes([127, 0, 0, 1]), address.port());
        let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let waiting = sockets.lines().filter(|line| line.contains(&remote)).count();
        assert!(waiting <= 2, "{waiting} sockets still try:\n{sockets}");
    }
}
