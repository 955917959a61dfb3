//! One run: a worker, whole, between scripts, on a clock of its own; and what must hold at its end.

use std::{
    cell::RefCell,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{backend::Backend, client::Client, ledger::Ledger, peer::Peer};
use crate::{
    config::{BackendIds, Snapshot, parse},
    health::HealthTable,
    limits::Admission,
    metrics::WorkerMetrics,
    model::{Generation, GroupId, ListenerId, WorkerId, reason::CloseReason},
    ring::{
        Group, Ring,
        simulated::{Conn, Dial, Flaw, Moods, Net, Rng, Simulated, World, listening},
    },
    worker::{
        BoundListener, Change, Command, Compiled, Setup, Siblings, TlsParts,
        local::Local,
        mailbox::Mailbox,
        mutant::{self, Mutant},
        thread,
    },
};

/// Longer than any run.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1 << 20);

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    Nothing,
    Kernel(Flaw),
    Worker(Mutant),
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) failure: Option<String>,
    pub(super) whole: u64,
    pub(super) attempts: u64,
    pub(super) conns: usize,
    /// Exchanges whose connection came from the shelf.
    pub(super) shelf_reuses: u64,
    pub(super) virtual_time: Duration,
    pub(super) digest: u64,
    pub(super) trace: Vec<String>,
    pub(super) reasons: Vec<(&'static str, u64)>,
}

/// All that a run may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(1200);
/// What a drain may take longer than it may: cancels that come late.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

/// What the seed made of everything but the scripts.
struct Shape {
    is_relay: bool,
    backends: usize,
    trouble: usize,
    /// Dials that fail, in thousandths.
    dials: usize,
    has_retry: bool,
    moods: Moods,
    /// A drain in the middle, and how long it may take.
    drain: Option<(Duration, Duration)>,
    publish: Option<Duration>,
}

impl Shape {
    fn draw(rng: &mut Rng) -> Self {
        let trouble = rng.pick(&[0, 0, 100, 300]);
        let some = |rng: &mut Rng, most: &[usize]| if trouble == 0 { 0 } else { rng.pick(most) };
        let moods = Moods {
            late: rng.pick(&[0, 50, 300]),
            short: rng.pick(&[0, 100, 500]),
            no_buffer: rng.pick(&[0, 0, 50, 500]),
            accept: some(rng, &[0, 100]),
            cancel: rng.pick(&[0, 300, 900]),
            breaks: some(rng, &[0, 30, 150]),
        };
        let dials = some(rng, &[0, 0, 100]);
        let drain = rng.one_in(4).then(|| {
            let at = Duration::from_millis(rng.below(8000) as u64);
            (at, Duration::from_millis(rng.pick(&[0, 100, 3000, 20_000])))
        });
        let publish = rng.one_in(4).then(|| Duration::from_millis(rng.below(5000) as u64));
        Self {
            is_relay: rng.one_in(4),
            backends: 1 + rng.below(3),
            trouble,
            dials,
            has_retry: rng.one_in(2),
            moods,
            drain,
            publish,
        }
    }

    fn snapshot(&self, generation: u64) -> Snapshot {
        let backends: Vec<_> = (0..self.backends).map(|at| backend_address(at).to_string()).collect();
        let listener = if self.is_relay { "protocol = \"tcp\"\npool = \"p\"" } else { "protocol = \"http\"" };
        let retry = if self.has_retry {
            "retry = { on = [\"connect\", \"reset\", \"503\"], budget = \"100%\" }"
        } else {
            ""
        };
        let route = format!("[route.r]\nlistener = \"l\"\npool = \"p\"\n{retry}\n");
        let text = format!(
            "version = 1\n[listener.l]\nbind = [\"127.0.0.1:80\"]\n{listener}\n{}[pool.p]\nbackends = {backends:?}\n",
            if self.is_relay { "" } else { &route }
        );
        let config = parse("sim", &text).unwrap_or_else(|problems| panic!("{problems}")).config;
        Snapshot::build(&config, Generation(generation), &mut BackendIds::new()).unwrap()
    }
}

fn backend_address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, at as u8 + 1], 80))
}

/// Everything but the worker, as its kernel calls it.
struct Outside {
    shape: Rc<Shape>,
    ledger: Rc<RefCell<Ledger>>,
    peers: Vec<Box<dyn Peer>>,
    rng: Rng,
    mailbox: Arc<Mailbox>,
    local: Rc<RefCell<Weak<Local>>>,
    begin: Instant,
    births: u64,
    /// When the worker was told to end, and when it must have ended.
    end: Rc<RefCell<End>>,
    is_published: bool,
}

#[derive(Default)]
struct End {
    last_words: Option<Duration>,
    must_by: Option<Duration>,
    trace: Vec<String>,
    digest: u64,
    open: Vec<Conn>,
    now: Duration,
    conns: usize,
    unaccepted: usize,
}

impl Outside {
    fn command(&mut self, net: &mut Net, command: Command) {
        net.note(|| {
            format!("{command:?}").split_once('{').map_or("command".to_owned(), |(name, _)| name.to_owned())
        });
        self.mailbox.send(command);
    }

    fn end(&mut self, net: &mut Net, patience: Duration) {
        if self.end.borrow().must_by.is_some() {
            return;
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.is_ending = true;
        let stops = self.rng.one_in(3);
        ledger.is_stopping = stops;
        drop(ledger);
        let until = net.now + if stops { Duration::ZERO } else { patience };
        // What has begun to late may end so.
        self.end.borrow_mut().must_by = Some(until + DRAIN_SLACK);
        let deadline = self.begin + until;
        self.command(net, if stops { Command::Stop } else { Command::Drain { deadline } });
    }

    fn command_when_due(&mut self, net: &mut Net) -> Option<Duration> {
        let mut next = None;
        if let Some(at) = self.shape.publish.filter(|_| !self.is_published) {
            if net.now >= at {
                self.is_published = true;
                let compiled = Compiled::new(Arc::new(self.shape.snapshot(2)), &TlsParts::default());
                let leave_by = self.begin + net.now + LEAVE_PATIENCE;
                self.command(net, Command::Change(Box::new(Change::of(compiled, leave_by))));
            } else {
                next = Some(at);
            }
        }
        if let Some((at, patience)) = self.shape.drain
            && self.end.borrow().must_by.is_none()
        {
            if net.now >= at {
                self.end(net, patience);
            } else {
                next = Some(next.map_or(at, |next: Duration| next.min(at)));
            }
        }
        next
    }
}

impl World for Outside {
    fn dial(&mut self, _: &mut Net, _: SocketAddr) -> Dial {
        let after = Duration::from_micros(self.rng.below(3000) as u64);
        if !self.rng.per_mille(self.shape.dials) {
            return Dial::Accepted(after);
        }
        self.ledger.borrow_mut().dials_failed += 1;
        match self.rng.below(4) {
            0 => Dial::Lost,
            1 => Dial::Refused(libc_errno::ETIMEDOUT, after),
            2 => Dial::Refused(libc_errno::EHOSTUNREACH, after),
            _ => Dial::Refused(libc_errno::ECONNREFUSED, after),
        }
    }

    fn connected(&mut self, _: &mut Net, _: SocketAddr, conn: Conn) {
        self.births += 1;
        let rng = self.rng.fork(1_000_000 + self.births);
        let backend = Backend::new(conn, rng, self.shape.trouble, self.shape.is_relay);
        self.peers.push(Box::new(backend));
    }

    fn act(&mut self, net: &mut Net) -> Option<Duration> {
        let mut next = self.command_when_due(net);
        let mut sooner = |at: Duration| next = Some(next.map_or(at, |next: Duration| next.min(at)));
        let ledger = &mut *self.ledger.borrow_mut();
        for peer in &mut self.peers {
            for _ in 0..4 {
                let is_due = peer.timer().is_some_and(|timer| timer <= net.now);
                if peer.is_done() || peer.wake() > net.now || !(peer.wants(net) || is_due) {
                    break;
                }
                peer.act(net, ledger);
            }
            if peer.is_done() {
                continue;
            }
            if peer.wants(net) {
                sooner(peer.wake().max(net.now));
            }
            peer.timer().into_iter().filter(|timer| *timer > net.now).for_each(&mut sooner);
        }
        self.peers.retain(|peer| !peer.is_done());
        next
    }

    fn check(&mut self, net: &mut Net) {
        let mut end = self.end.borrow_mut();
        end.now = net.now;
        end.digest = net.digest;
        end.open = net.open();
        end.unaccepted = net.backlog();
        end.conns = net.len();
        if let Some(trace) = &net.trace {
            end.trace.clone_from(trace);
        }
        let overdue = end.must_by.is_some_and(|by| net.now > by);
        drop(end);
        if let Some(local) = self.local.borrow().upgrade() {
            assert!(local.ring.lent(Group::Small) <= Group::Small.count(), "more buffers than there are");
        }
        let clients_left = self.peers.iter().any(|peer| peer.describe().starts_with("client"));
        let mut failure = self.ledger.borrow().failure().cloned();
        if failure.is_none() && net.now > PATIENCE {
            let who = self.peers.iter().map(|peer| peer.describe()).collect::<Vec<_>>().join("; ");
            failure = Some(format!("they wait for ever: {who}"));
        }
        if failure.is_none() && overdue {
            failure = Some(format!("at {:.3} s: the worker should have ended", net.now.as_secs_f64()));
        }
        if let Some(failure) = failure {
            panic!("{failure}");
        }
        if !clients_left {
            let rests = Duration::from_secs(self.rng.pick(&[0, 0, 2, 100]));
            let at = *self.end.borrow_mut().last_words.get_or_insert(net.now + rests);
            if net.now >= at {
                self.end(net, Duration::from_secs(5));
            }
        }
    }
}

/// Of connect(2), on Linux.
mod libc_errno {
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const ECONNREFUSED: i32 = 111;
    pub(super) const EHOSTUNREACH: i32 = 113;
}

/// Runs `seed` on a thread of its own: what a worker leaves behind on its thread is nobody else's.
pub(super) fn run(seed: u64, planted: Planted, is_traced: bool) -> Outcome {
    let end = std::thread::spawn(move || {
        if let Planted::Worker(mutant) = planted {
            mutant::plant(mutant);
        }
        whole(seed, planted, is_traced)
    });
    end.join().unwrap_or_else(|_| Outcome {
        failure: Some("the run itself failed".to_owned()),
        ..Outcome::default()
    })
}

fn whole(seed: u64, planted: Planted, is_traced: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let shape = Rc::new(Shape::draw(&mut rng));
    let mut ledger = Ledger::new(if shape.has_retry { 3 } else { 1 });
    let count = 1 + rng.below(16);
    let clients = (0..count).map(|number| {
        let rng = rng.fork(number as u64 + 77);
        let client = Client::new(number, rng, shape.trouble, shape.is_relay, &mut ledger);
        Box::new(client) as Box<dyn Peer>
    });
    let peers: Vec<_> = clients.collect();
    let ledger = Rc::new(RefCell::new(ledger));
    let (end, local) = (Rc::new(RefCell::new(End::default())), Rc::new(RefCell::new(Weak::new())));
    // Of two workers, one is there: it shares with itself.
    let siblings = Siblings::new(if seed.is_multiple_of(3) { 2 } else { 1 }, seed).unwrap();
    let mailbox = Arc::new(Mailbox::new(siblings.bell(WorkerId(0)).unwrap()));
    let outside = Outside {
        shape: shape.clone(),
        ledger: ledger.clone(),
        peers,
        rng: rng.fork(5),
        mailbox: mailbox.clone(),
        local: local.clone(),
        begin: Instant::now(),
        births: 0,
        end: end.clone(),
        is_published: false,
    };
    let flaw = if let Planted::Kernel(flaw) = planted { Some(flaw) } else { None };
    let begin = outside.begin;
    let kernel = Simulated::new(seed, begin, shape.moods, flaw, Box::new(outside), is_traced);
    let admission = Admission::new();
    let setup = Setup {
        id: WorkerId(0),
        core: 0,
        compiled: Compiled::new(Arc::new(shape.snapshot(1)), &TlsParts::default()),
        health: Arc::new(HealthTable::new(16)),
        admission: admission.clone(),
        siblings: siblings.clone(),
        access_log: None,
        kernel_suites: crate::tls::KernelSuites::default(),
        listeners: vec![BoundListener {
            group: GroupId(0),
            place: 0,
            listener: ListenerId(0),
            socket: listening(),
        }],
    };
    let ring = Ring::simulated(kernel);
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let worker = thread::begin(setup, &mailbox, ring.clone()).unwrap();
        *local.borrow_mut() = Rc::downgrade(&worker);
        thread::run(&worker).unwrap();
        assert_eq!(Rc::strong_count(&worker), 1, "a task is left");
        assert_eq!(worker.pipes.leased(), 0, "a pipe is still lent");
    }));
    let metrics = siblings.metrics(WorkerId(0));
    let failure = match ran {
        Err(panic) => Some(text(&*panic)),
        Ok(()) => left_behind(&ring, metrics, &admission, &ledger.borrow(), &end.borrow()),
    };
    if failure.is_some() {
        // What the worker left may not be dropped in order.
        std::mem::forget(ring);
    }
    let end = end.borrow();
    let ledger = ledger.borrow();
    Outcome {
        failure,
        whole: ledger.whole,
        attempts: ledger.attempts.values().map(|all| all.len() as u64).sum(),
        conns: end.conns,
        shelf_reuses: metrics.backends.iter().map(|backend| backend.shelf_reuses.value()).sum(),
        virtual_time: end.now,
        digest: end.digest,
        trace: end.trace.clone(),
        reasons: CloseReason::ALL
            .iter()
            .map(|reason| (reason.name(), metrics.reason(*reason).value()))
            .collect(),
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

/// What must not be there when the worker has ended.
fn left_behind(
    ring: &Ring,
    metrics: &WorkerMetrics,
    admission: &Admission,
    ledger: &Ledger,
    end: &End,
) -> Option<String> {
    let listener = metrics.listener(ListenerId(0));
    let reasons =
        |all: &dyn Fn(CloseReason) -> u64| CloseReason::ALL.iter().map(|reason| all(*reason)).sum::<u64>();
    let of_worker = reasons(&|reason| metrics.reason(reason).value());
    let of_listener = reasons(&|reason| listener.reasons.of(reason).value());
    let resources = metrics.reason(CloseReason::Resources).value();
    let told = |status: u16| {
        let of_status = |reason: &&CloseReason| reason.status() == status;
        CloseReason::ALL
            .iter()
            .filter(of_status)
            .map(|reason| listener.reasons.of(*reason).value())
            .sum::<u64>()
    };
    let untold = ledger.own.iter().find(|(status, count)| told(**status) < **count);
    let checks = [
        (ring.in_flight() > 0, "operations are in flight"),
        (ring.lent(Group::Small) + ring.lent(Group::Large) > 0, "buffers are lent"),
        (metrics.completions_stray.value() > 0, "a completion was nobody's"),
        (admission.open() > 0, "a connection has not given its place back"),
        (listener.open.value() > 0, "a connection counts as open"),
        (listener.tunnels.value() > 0, "a tunnel counts as open"),
        (
            metrics.backends.iter().any(|backend| backend.in_flight.value() > 0),
            "an exchange counts as going on",
        ),
        (metrics.backends.iter().any(|backend| backend.idle.value() > 0), "a connection counts as kept"),
        (end.open.len() > end.unaccepted, "a socket is open"),
        // What the accept loop itself lacks is no listener's failure.
        (of_worker < of_listener || of_worker > of_listener + resources, "reasons are counted apart"),
        (untold.is_some(), "a refusal has no reason"),
        (ledger.failure().is_some(), "a script has failed"),
    ];
    checks.iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| format!("at the end: {what}"))
}
