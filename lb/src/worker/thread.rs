//! The worker's thread: turns the ring, the timers and the tasks, until it is told to end.

use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use super::{
    accept,
    api::{BoundListener, Command, Setup},
    drive_datagrams,
    local::Local,
    mailbox::Mailbox,
};
use crate::{
    config::Protocol,
    metrics::WorkerMetrics,
    model::WorkerId,
    ring::{Op, Ring, executor},
    sys::affinity,
};

/// Steps of tasks between two looks at the ring.
const STEPS_PER_TURN: usize = 512;
/// How often kept connections are looked over, and those that are not needed are shared.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A running worker, as control holds it.
#[derive(Debug)]
pub struct Handle {
    /// Who it is.
    pub id: WorkerId,
    /// Its core.
    pub core: usize,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<io::Result<()>>,
}

impl Handle {
    /// Starts the thread; returns once its ring is up and its accepts are queued.
    ///
    /// # Errors
    /// The core is not ours, the host refuses io_uring, or it lacks a feature we need; the text says which.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let (id, core, metrics) = (setup.id, setup.core, setup.siblings.metrics(setup.id).clone());
        let mailbox = Arc::new(Mailbox::new(setup.siblings.bell(id)?));
        let (ready, started) = mpsc::sync_channel(1);
        let theirs = mailbox.clone();
        let thread =
            std::thread::Builder::new().name(format!("lb-worker-{id}")).spawn(move || {
                match prepare(setup, &theirs) {
                    Ok(local) => {
                        let _ = ready.send(Ok(()));
                        run(&local)
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                }
            })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { id, core, metrics, mailbox, thread })
    }

    /// Puts a command in the mailbox and wakes the worker. Never blocks.
    pub fn send(&self, command: Command) {
        self.mailbox.send(command);
    }

    /// For who sends commands of its own, and lives longer.
    pub fn sender(&self) -> CommandSender {
        CommandSender(self.mailbox.clone())
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread's end.
    ///
    /// # Errors
    /// The ring failed under it.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    }
}

/// As [`Handle::send`].
#[derive(Clone, Debug)]
pub struct CommandSender(Arc<Mailbox>);

impl CommandSender {
    /// Puts a command in the mailbox and wakes the worker. Never blocks.
    pub fn send(&self, command: Command) {
        self.0.send(command);
    }

    /// Whether the worker has ended.
    pub fn is_over(&self) -> bool {
        // The worker has one, and who waits for its end, and other senders may.
        Arc::strong_count(&self.0) == 1
    }
}

fn prepare(setup: Setup, mailbox: &Arc<Mailbox>) -> io::Result<Rc<Local>> {
    affinity::pin(setup.core)
        .map_err(|error| io::Error::new(error.kind(), format!("pinning to core {}: {error}", setup.core)))?;
    begin(setup, mailbox, Ring::new()?)
}

/// Queues the first of all that a worker does, on the calling thread.
pub(super) fn begin(mut setup: Setup, mailbox: &Arc<Mailbox>, ring: Ring) -> io::Result<Rc<Local>> {
    let now = ring.now();
    let local = Rc::new(Local::new(&mut setup, ring, now));
    let doorbell = Rc::new(mailbox.doorbell()?);
    executor::spawn(read_mailbox(local.clone(), mailbox.clone(), doorbell));
    setup.listeners.into_iter().for_each(|bound| listen(&local, bound));
    // One round of steps queues the accepts; the turn submits them.
    executor::run(STEPS_PER_TURN);
    local.ring.turn(None)?;
    Ok(local)
}

fn listen(local: &Rc<Local>, bound: BoundListener) {
    match local.plan().listener(bound.listener).map(|listener| listener.protocol) {
        Some(Protocol::Udp) => executor::spawn(drive_datagrams::drive(local.clone(), bound, Vec::new())),
        Some(Protocol::Http | Protocol::Tcp) | None => {
            executor::spawn(accept::drive(local.clone(), bound));
        }
    }
}

async fn read_mailbox(local: Rc<Local>, mailbox: Arc<Mailbox>, doorbell: Rc<std::os::fd::OwnedFd>) {
    loop {
        while let Some(command) = mailbox.take() {
            match command {
                Command::Look => {}
                Command::Change(mut change) => {
                    change.access_log.take().into_iter().for_each(|log| local.begin_log(log));
                    change
                        .core
                        .filter(|core| *core != local.core())
                        .into_iter()
                        .for_each(|core| local.move_to(core));
                    local.take_over(&change);
                    // Whoever is drained takes nothing new.
                    if !local.is_draining() {
                        change.opened.into_iter().for_each(|bound| listen(&local, bound));
                    }
                }
                Command::Drain { deadline } => local.begin_drain(deadline),
                // Whoever asked may have given up.
                Command::Lend(borrower) => _ = borrower.send(local.doors.lend()),
                Command::HandOver { deadline, flows } => {
                    local.begin_hand_over(deadline);
                    flows.iter().for_each(|heir| _ = heir.send(drive_datagrams::hand_over(&local)));
                }
                Command::Return { taken, access_log } => {
                    access_log.into_iter().for_each(|log| local.begin_log(log));
                    local.end_hand_over();
                    _ = taken.send(());
                }
                Command::GiveAway { places, flows } => {
                    local.give_away(&places);
                    _ = flows.send(drive_datagrams::hand_over_given(&local));
                }
                Command::TakeOver { opened, mut flows } => {
                    for bound in opened {
                        let at = (bound.group, bound.place);
                        let theirs = flows.extract_if(.., |flow| (flow.group, flow.place) == at).collect();
                        executor::spawn(drive_datagrams::drive(local.clone(), bound, theirs));
                    }
                }
                Command::Stop => local.begin_stop(),
            }
        }
        // A sibling rings, too, when it has freed what somebody here waits for.
        local.lines.wake();
        if Op::event(&local.ring, &doorbell).await.is_err() {
            return;
        }
    }
}

/// All that a worker does from then on, to its end.
pub(super) fn run(local: &Rc<Local>) -> io::Result<()> {
    let served = serve(local);
    local.drop_keepalive();
    local.leave_memory();
    local.timers.fire_all();
    served.and_then(|()| local.ring.shutdown())
}

fn serve(local: &Rc<Local>) -> io::Result<()> {
    let mut sweep_at = local.now() + SWEEP_EVERY;
    loop {
        let is_asked_again = local.handshakes.turn();
        let tasks_left = executor::run(STEPS_PER_TURN) || is_asked_again;
        local.access_log().into_iter().for_each(|log| log.flush());
        if local.is_finished() {
            return Ok(());
        }
        let now = local.now();
        let sleep = || local.timers.sleep_max(now).min(SWEEP_EVERY).min(local.patience_left());
        local.ring.turn((!tasks_left).then(sleep))?;
        local.set_now(local.ring.now());
        local.timers.advance(local.now());
        count(local);
        local.watch_memory();
        if local.now() >= sweep_at {
            sweep_at = local.now() + SWEEP_EVERY;
            local.sweep_keepalive();
            local.shelve(SWEEP_EVERY);
            local.empty_purse();
            local.cut_off_leaving();
        }
        if local.is_overdue() {
            local.timers.fire_all();
        }
    }
}

fn count(local: &Local) {
    let counts = local.ring.take_counts();
    let metrics = &local.metrics;
    metrics.turns.add(1);
    metrics.enters.add(counts.enters);
    metrics.completions.add(counts.completions);
    metrics.completions_stray.add(counts.stray);
}
